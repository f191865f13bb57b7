package net_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sluice/net"
)

// A checkpoint reads as it was written, and one that differs in any bit is
// found out, unless the difference means nothing.
func TestCheckpointChecksum(t *testing.T) {
	meta := map[string]string{"step": "3", "state": `{"a":1}`}
	tensors := []net.NamedTensor{
		{Name: "a", Role: net.RoleWeight, Dims: []int{2, 1}, Data: []float32{1, -2}},
		{Name: "a", Role: net.RoleMomentum, Dims: []int{2, 1}, Data: []float32{0.5, 0}},
	}
	var file bytes.Buffer
	if err := net.WriteCheckpoint(&file, tensors, meta); err != nil {
		t.Fatal(err)
	}
	whole := file.Bytes()
	got, gotMeta, err := net.ReadCheckpoint(bytes.NewReader(whole))
	if err != nil || !sameTensors(got, tensors) || !maps.Equal(gotMeta, meta) {
		t.Fatalf("read %d tensors, %v (%v)", len(got), gotMeta, err)
	}
	found := 0
	for i := range whole {
		for bit := range 8 {
			damaged := bytes.Clone(whole)
			damaged[i] ^= 1 << bit
			got, gotMeta, err := net.ReadCheckpoint(bytes.NewReader(damaged))
			switch {
			case errors.Is(err, net.ErrDamaged):
				found++
			case err != nil:
				t.Fatalf("byte %d, bit %d: error is %v", i, bit, err)
			case !sameTensors(got, tensors) || !maps.Equal(gotMeta, meta):
				t.Fatalf("byte %d, bit %d: the damage went unseen", i, bit)
			}
		}
		if _, _, err := net.ReadCheckpoint(bytes.NewReader(whole[:i])); !errors.Is(err, net.ErrDamaged) {
			t.Fatalf("cut to %d bytes: error is %v", i, err)
		}
	}
	if found < 7*len(whole) {
		t.Errorf("only %d of %d flipped bits were found", found, 8*len(whole))
	}

	var plain bytes.Buffer
	if err := net.WriteSafetensors(&plain, someTensors(), meta); err != nil {
		t.Fatal(err)
	}
	if _, _, err := net.ReadCheckpoint(&plain); !errors.Is(err, net.ErrDamaged) {
		t.Errorf("weights without a checksum: error is %v", err)
	}
	if err := net.WriteCheckpoint(&plain, nil, map[string]string{"sha256": "mine"}); err == nil {
		t.Error("a checksum in the metadata was written over")
	}
}

func TestCheckpoints(t *testing.T) {
	dir := filepath.Join(t.TempDir(), net.CheckpointDir)
	if files, err := net.Checkpoints(dir); err != nil || len(files) > 0 {
		t.Errorf("no folder: %v, %v", files, err)
	}
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"step-9.safetensors", "step-100.safetensors", "step-20.safetensors", "step-007.safetensors",
		"step-.safetensors", ".step-30.safetensors123", "step-40.safetensors.damaged", "step-99999999999999999999.safetensors"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	files, err := net.Checkpoints(dir)
	if err != nil || len(files) != 3 || files[0].Step != 100 || files[1].Step != 20 || files[2].Step != 9 {
		t.Errorf("%v, %v", files, err)
	}
	if _, _, err := files[0].Read(); !errors.Is(err, net.ErrDamaged) {
		t.Errorf("error is %v", err)
	}
}

// Records of a snapshot are its own memory, and it is not overwritten while one
// of them is held.
func TestSnapshotWaits(t *testing.T) {
	_, n, in := build(t, small(), 6, 12, 4)
	want := step(t, n, in, 0)
	s, err := n.NewSnapshot(true)
	if err != nil {
		t.Fatal(err)
	}
	taken, err := s.Take(t.Context())
	if err != nil || !sameTensors(taken, want) {
		t.Fatalf("took %d tensors (%v)", len(taken), err)
	}
	weights, all := s.Weights(map[string]string{"a": "b"}), s.Record(nil)
	if tensors, meta, err := net.TensorsOf(weights); err != nil || !sameTensors(tensors, want[:len(want)/2]) || meta["a"] != "b" {
		t.Errorf("weights: %d tensors, %v (%v)", len(tensors), meta, err)
	}
	next := step(t, n, in, 1)
	if sameTensors(want, next) {
		t.Fatal("a step has changed nothing")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	weights.Release()
	if _, err := s.Take(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Take did not wait: %v", err)
	}
	if tensors, _, err := net.TensorsOf(all); err != nil || !sameTensors(tensors, want) {
		t.Errorf("a held record has changed (%v)", err)
	}
	time.AfterFunc(20*time.Millisecond, all.Release)
	if taken, err := s.Take(t.Context()); err != nil || !sameTensors(taken, next) {
		t.Errorf("took %d tensors (%v)", len(taken), err)
	}
	for range 3 { // nobody waits in between
		s.Record(nil).Release()
		if _, err := s.Take(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
