package sinks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"sluice/net"
	"sluice/pipeline"
)

// brittleDisk is the real disk until its n-th operation, which fails with err.
// After a crash nothing works any more, as if the machine had stopped there.
type brittleDisk struct {
	realDisk
	mu    sync.Mutex
	n     int // operations until the one that fails; 0: none does
	err   error
	short bool // a write that fails has written half
	crash bool
	calls []string
}

var errCrash = errors.New("the machine has stopped")

// fails counts an operation.
func (d *brittleDisk) fails(what string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = append(d.calls, what)
	switch k := len(d.calls); {
	case d.n == 0 || k < d.n:
		return nil
	case k == d.n:
		return d.err
	case d.crash:
		return errCrash
	}
	return nil
}

func (d *brittleDisk) CreateTemp(dir, pattern string) (diskFile, error) {
	if err := d.fails("create"); err != nil {
		return nil, err
	}
	f, err := d.realDisk.CreateTemp(dir, pattern)
	if err != nil {
		return nil, err
	}
	return &brittleFile{f, d}, nil
}

func (d *brittleDisk) Rename(from, to string) error {
	if err := d.fails("rename"); err != nil {
		return err
	}
	return d.realDisk.Rename(from, to)
}

func (d *brittleDisk) Remove(path string) error {
	if err := d.fails("remove"); err != nil {
		return err
	}
	return d.realDisk.Remove(path)
}

func (d *brittleDisk) SyncDir(dir string) error {
	if err := d.fails("sync folder"); err != nil {
		return err
	}
	return d.realDisk.SyncDir(dir)
}

type brittleFile struct {
	diskFile
	disk *brittleDisk
}

func (f *brittleFile) Write(b []byte) (int, error) {
	if err := f.disk.fails("write"); err != nil {
		n := 0
		if f.disk.short {
			n, _ = f.diskFile.Write(b[:len(b)/2])
		}
		return n, err
	}
	return f.diskFile.Write(b)
}

func (f *brittleFile) Sync() error {
	if err := f.disk.fails("sync"); err != nil {
		return err
	}
	return f.diskFile.Sync()
}

func (f *brittleFile) Close() error {
	failed := f.disk.fails("close")
	return errors.Join(failed, f.diskFile.Close())
}

// checkpointTensors are those after a step.
func checkpointTensors(step int) []net.NamedTensor {
	data := make([]float32, 1000)
	for i := range data {
		data[i] = float32(step*1000 + i)
	}
	return []net.NamedTensor{
		{Name: "fc.weight", Role: net.RoleWeight, Dims: []int{10, 100}, Data: data},
		{Name: "fc.weight", Role: net.RoleMomentum, Dims: []int{10, 100}, Data: data},
	}
}

func openCheckpoints(t *testing.T, dir string, o CheckpointsOptions, resumeAt int) *CheckpointsSink {
	t.Helper()
	s, err := NewCheckpoints(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Prepare(t.Context(), &pipeline.Env{RunDir: dir, Resume: resumeAt > 0, StartStep: resumeAt}); err != nil {
		t.Fatal(err)
	}
	return s
}

func writeCheckpoint(s *CheckpointsSink, step int, top1 string) error {
	meta := map[string]string{"state": fmt.Sprint(step)}
	if top1 != "" {
		meta["validation_top1"] = top1
	}
	rec := net.TensorsRecord(checkpointTensors(step), meta)
	defer rec.Release()
	return s.Write(context.Background(), &pipeline.Batch{Kind: pipeline.Checkpoint, Step: step, Record: rec})
}

// newestWhole is what a resumed run would go on from: 0 if from nothing.
func newestWhole(t *testing.T, dir string) int {
	t.Helper()
	files, err := net.Checkpoints(filepath.Join(dir, net.CheckpointDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		tensors, meta, err := f.Read()
		if err == nil && meta["state"] == fmt.Sprint(f.Step) && tensors[0].Data[0] == float32(1000*f.Step) {
			return f.Step
		}
		if !errors.Is(err, net.ErrDamaged) {
			t.Errorf("%s: %v, state %q", f.Path, err, meta["state"])
		}
	}
	return 0
}

func steps(t *testing.T, dir string) (list []int) {
	t.Helper()
	files, err := net.Checkpoints(filepath.Join(dir, net.CheckpointDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		list = append(list, f.Step)
	}
	return list
}

// Whatever operation of writing the third checkpoint fails, in whatever way, the
// second is there and whole (or the third is), the failure is told, and a resumed
// run goes on writing and leaves nothing behind.
func TestCheckpointsSurviveTheDisk(t *testing.T) {
	prepare := func(t *testing.T, d *brittleDisk) (string, *CheckpointsSink) {
		dir := t.TempDir()
		s := openCheckpoints(t, dir, CheckpointsOptions{Keep: 1}, 0)
		for step := 1; step <= 2; step++ {
			if err := errors.Join(writeCheckpoint(s, step, ""), s.wait(t.Context())); err != nil {
				t.Fatal(err)
			}
		}
		s.disk = d
		return dir, s
	}
	whole := &brittleDisk{}
	dir, s := prepare(t, whole)
	if err := errors.Join(writeCheckpoint(s, 3, ""), s.Close()); err != nil {
		t.Fatal(err)
	}
	if newestWhole(t, dir) != 3 || !slices.Equal(steps(t, dir), []int{3}) {
		t.Fatalf("without a failure the checkpoints are %v", steps(t, dir))
	}
	for _, phase := range []string{"create", "write", "sync", "close", "rename", "sync folder", "remove"} {
		if !slices.Contains(whole.calls, phase) {
			t.Fatalf("writing did not %s: %v", phase, whole.calls)
		}
	}
	for n := 1; n <= len(whole.calls); n++ {
		for how, failing := range map[string]*brittleDisk{
			"ENOSPC": {err: syscall.ENOSPC}, "EIO": {err: syscall.EIO}, "short write": {err: io.ErrShortWrite, short: true},
			"crash": {err: errCrash, crash: true}, "crash in a write": {err: errCrash, crash: true, short: true},
		} {
			name := fmt.Sprintf("%s in operation %d (%s)", how, n, whole.calls[n-1])
			failing.n = n
			dir, s := prepare(t, failing)
			err := errors.Join(writeCheckpoint(s, 3, ""), s.Close())
			if !errors.Is(err, failing.err) || !strings.Contains(err.Error(), "step-") {
				t.Errorf("%s: error is %v", name, err)
			}
			at := newestWhole(t, dir)
			if at != 2 && at != 3 {
				t.Fatalf("%s: the newest whole checkpoint is %d", name, at)
			}
			again := openCheckpoints(t, dir, CheckpointsOptions{Keep: 1}, at)
			if err := errors.Join(writeCheckpoint(again, 4, ""), again.Close()); err != nil {
				t.Errorf("%s, resumed: %v", name, err)
			}
			if newestWhole(t, dir) != 4 {
				t.Errorf("%s, resumed: the newest whole checkpoint is %d", name, newestWhole(t, dir))
			}
			wantOnly(t, filepath.Join(dir, net.CheckpointDir), "step-4.safetensors")
		}
	}
}

// A file that was damaged later is put aside, so that it never counts as one of
// those to keep.
func TestDamagedCheckpointIsPutAside(t *testing.T) {
	dir := t.TempDir()
	s := openCheckpoints(t, dir, CheckpointsOptions{Keep: 2}, 0)
	if err := errors.Join(writeCheckpoint(s, 10, ""), writeCheckpoint(s, 20, ""), s.Close()); err != nil {
		t.Fatal(err)
	}
	last := filepath.Join(dir, net.CheckpointDir, net.CheckpointName(20))
	if err := os.Truncate(last, 5000); err != nil {
		t.Fatal(err)
	}
	if at := newestWhole(t, dir); at != 10 {
		t.Fatalf("the newest whole one is %d", at)
	}
	s = openCheckpoints(t, dir, CheckpointsOptions{Keep: 1}, 10)
	if err := errors.Join(writeCheckpoint(s, 15, ""), s.Close()); err != nil {
		t.Fatal(err)
	}
	wantOnly(t, filepath.Join(dir, net.CheckpointDir), "step-15.safetensors", "step-20.safetensors.damaged")
}

func TestCheckpointsKeep(t *testing.T) {
	dir := t.TempDir()
	s := openCheckpoints(t, dir, CheckpointsOptions{Keep: 2, KeepBest: true}, 0)
	for step, top1 := range []string{"", "0.5", "0.9", "", "0.7", "0.9"} {
		if err := writeCheckpoint(s, step, top1); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := steps(t, dir); !slices.Equal(got, []int{5, 4, 2}) {
		t.Errorf("kept %v", got)
	}
	// Resumed, the best is still known.
	s = openCheckpoints(t, dir, CheckpointsOptions{Keep: 1, KeepBest: true}, 5)
	if err := errors.Join(writeCheckpoint(s, 6, "0.8"), writeCheckpoint(s, 6, "0.85"), s.Close()); err != nil {
		t.Fatal(err)
	}
	if got := steps(t, dir); !slices.Equal(got, []int{6, 2}) {
		t.Errorf("kept %v", got)
	}
}

func TestCheckpointsOfAnotherRun(t *testing.T) {
	dir := t.TempDir()
	s := openCheckpoints(t, dir, CheckpointsOptions{Keep: 1}, 0)
	if err := errors.Join(writeCheckpoint(s, 1, ""), s.Close()); err != nil {
		t.Fatal(err)
	}
	s, err := NewCheckpoints(CheckpointsOptions{Keep: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Prepare(t.Context(), &pipeline.Env{RunDir: dir}); err == nil || !strings.Contains(err.Error(), "another run") {
		t.Errorf("error is %v", err)
	}
	if got := steps(t, dir); !slices.Equal(got, []int{1}) {
		t.Errorf("the other run has %v", got)
	}
	for _, o := range []CheckpointsOptions{{}, {Keep: 1, EverySteps: -1}, {Keep: 1, EveryMinutes: -1}, {Keep: 1, EveryEpochs: -1}} {
		if _, err := NewCheckpoints(o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}

// Resumed at the end of an epoch or within it, a run's rows end where they did.
func TestMetricsAndQuarantineGoOn(t *testing.T) {
	dir := t.TempDir()
	m := prepared(t, dir)
	for _, row := range []pipeline.Metric{
		{Event: "step", Step: 2}, {Event: "step", Step: 4}, {Event: "validation", Step: 4},
		{Event: "step", Epoch: 1, Step: 6}, {Event: "step", Epoch: 1, Step: 8}, {Event: "validation", Epoch: 1, Step: 8}, {Event: "done", Epoch: 1, Step: 8},
	} {
		write(t, m, pipeline.Metrics, row)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	bad := func(stage string, epoch int32, pos int64) pipeline.BadSample {
		return pipeline.BadSample{Name: fmt.Sprint(stage, epoch, pos), Epoch: epoch, Pos: pos, Index: 99 - pos, Stage: stage}
	}
	q := newQuarantine(t, dir)
	if err := writeBad(t, q, bad("decode", 0, 3), bad("decode", 0, 9), bad("validate: decode", 0, 5), bad("decode", 1, 2), bad("decode", 1, 6)); err != nil {
		t.Fatal(err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		start   pipeline.Cursor
		step    int
		metrics int
		rows    []pipeline.BadSample // without those of the validation
	}{
		{pipeline.Cursor{Epoch: 2}, 8, 6, []pipeline.BadSample{bad("decode", 0, 3), bad("decode", 0, 9), bad("decode", 1, 2), bad("decode", 1, 6)}},
		{pipeline.Cursor{Epoch: 1, Pos: 6}, 8, 4, []pipeline.BadSample{bad("decode", 0, 3), bad("decode", 0, 9), bad("decode", 1, 2)}},
		{pipeline.Cursor{Epoch: 1}, 4, 3, []pipeline.BadSample{bad("decode", 0, 3), bad("decode", 0, 9)}},
		{pipeline.Cursor{Epoch: 0, Pos: 9}, 4, 1, []pipeline.BadSample{bad("decode", 0, 3)}},
	} {
		env := &pipeline.Env{RunDir: dir, Resume: true, Start: c.start, StartStep: c.step}
		m, err := NewMetrics(MetricsOptions{File: "metrics.jsonl", Parquet: "metrics.parquet"})
		if err != nil {
			t.Fatal(err)
		}
		q, err := NewQuarantine(QuarantineOptions{File: "quarantine.parquet"})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(m.Prepare(t.Context(), env), q.Prepare(t.Context(), env)); err != nil {
			t.Fatal(err)
		}
		// The validation tells of its bad sample once more.
		if err := writeBad(t, q, bad("validate: decode", 0, 5)); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(m.Close(), q.Close()); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(read(t, filepath.Join(dir, "metrics.jsonl")), "\n"); got != c.metrics || len(parquetRows(t, filepath.Join(dir, "metrics.parquet"))) != got {
			t.Errorf("from %+v: %d metrics, want %d", c.start, got, c.metrics)
		}
		rows := readBad(t, filepath.Join(dir, "quarantine.parquet"))
		validation := 0
		rows = slices.DeleteFunc(rows, func(r pipeline.BadSample) bool {
			is := strings.HasPrefix(r.Stage, "validate")
			if is {
				validation++
			}
			return is
		})
		if !slices.Equal(rows, c.rows) || validation != 1 {
			t.Errorf("from %+v: %d rows of validation and %+v\nwant %+v", c.start, validation, rows, c.rows)
		}
	}
	// A killed run leaves a line cut short, and a journal in the place of the table.
	if err := os.WriteFile(filepath.Join(dir, "metrics.jsonl"), []byte(`{"event":"step","step":2}`+"\n"+`{"event":"st`), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "quarantine.jsonl"), []byte(`{"name":"a","epoch":0,"pos":1,"stage":"decode"}`+"\n"+`{"name":"b"`), 0o666); err != nil {
		t.Fatal(err)
	}
	env := &pipeline.Env{RunDir: dir, Resume: true, Start: pipeline.Cursor{Epoch: 0, Pos: 9}, StartStep: 4}
	q, err := NewQuarantine(QuarantineOptions{File: "quarantine.parquet"})
	if err != nil {
		t.Fatal(err)
	}
	m, err = NewMetrics(MetricsOptions{File: "metrics.jsonl"})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.Prepare(t.Context(), env), q.Prepare(t.Context(), env), m.Close(), q.Close()); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(dir, "metrics.jsonl")); got != `{"event":"step","step":2}`+"\n" {
		t.Errorf("metrics are %q", got)
	}
	if rows := readBad(t, filepath.Join(dir, "quarantine.parquet")); len(rows) != 1 || rows[0].Name != "a" {
		t.Errorf("quarantine is %+v", rows)
	}
}
