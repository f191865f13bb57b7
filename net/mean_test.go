package net_test

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"sluice/net"
	"sluice/net/nettest"
)

func TestMeanForms(t *testing.T) {
	for text, want := range map[string]net.Mean{
		"120":              {RGB: net.Triple{120, 120, 120}},
		"[1, 2, 3]":        {RGB: net.Triple{1, 2, 3}},
		"imagenet":         {RGB: net.Triple{123.68, 116.78, 103.94}},
		"auto":             {From: "auto"},
		"auto_channels":    {From: "auto_channels"},
		"s/my.safetensors": {From: "s/my.safetensors"},
	} {
		for _, form := range []string{"net: {alexnet: {mean: " + text + "}}", "net: {input: {mean: " + text + "}, layers: [dense, softmax]}"} {
			h, err := decode(t, form)
			if err != nil {
				t.Errorf("%s: %v", form, err)
				continue
			}
			if got := h.Net.Mean(); got != want {
				t.Errorf("%s is %+v, want %+v", form, got, want)
			}
			out, err := yaml.Marshal(h)
			if err != nil {
				t.Fatal(err)
			}
			again, err := decode(t, string(out))
			if err != nil || again.Net.Mean() != want {
				t.Errorf("%s comes back as %+v, %v", form, again.Net.Mean(), err)
			}
		}
	}
	for _, text := range []string{"mean.png", "[1, 2]", "{a: 1}", "mean"} {
		if _, err := decode(t, "net: {alexnet: {mean: "+text+"}}"); err == nil || !strings.Contains(err.Error(), "mean") {
			t.Errorf("mean: %s gives %v", text, err)
		}
	}
}

// meanNet is a small network that is told its mean.
func meanNet(t *testing.T, from string, train bool) *net.Network {
	t.Helper()
	g := net.Graph{
		Input:  net.InputOptions{Mean: net.Mean{From: from}, Scale: net.Triple{1, 1, 1}, Channels: "rgb"},
		Layers: []net.Node{{Layer: conv(2, 3, nil)}, {Layer: net.NewDense(0)}, {Layer: net.SoftmaxLayer{}}},
	}
	plan, err := g.Def().Plan(2, 6, 6, 3)
	if err != nil {
		t.Fatal(err)
	}
	n, err := net.New(t.Context(), nettest.NewReference(), plan, 1, train)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestMeanTravels: weights carry the mean that a network was told, and whoever loads
// them computes with it.
func TestMeanTravels(t *testing.T) {
	whole := &net.MeanImage{H: 8, W: 9, Pixels: make([]float32, 8*9*3)}
	for i := range whole.Pixels {
		whole.Pixels[i] = float32(i % 200)
	}
	batch := batchOf(2, 6, 6, 3, 4)
	batch.Origin, batch.Flip = []int32{1, 2, 3, 0}, []bool{false, true}
	for _, mean := range []*net.MeanImage{whole, {H: 1, W: 1, Pixels: []float32{10, 20, 30}}} {
		n := meanNet(t, "auto", true)
		if _, err := n.NewInput(); err == nil || !strings.Contains(err.Error(), "auto") {
			t.Errorf("an input without its mean: %v", err)
		}
		if err := n.Plan().SetMean(mean); err != nil {
			t.Fatal(err)
		}
		probabilities := func(n *net.Network) []float32 {
			t.Helper()
			in, err := n.NewInput()
			if err != nil {
				t.Fatal(err)
			}
			if err := in.Load(batch); err != nil {
				t.Fatal(err)
			}
			if err := n.Forward(t.Context(), in, 0, false); err != nil {
				t.Fatal(err)
			}
			return n.Probabilities(nil, 2)
		}
		want := probabilities(n)

		snapshot, err := n.NewSnapshot(true)
		if err != nil {
			t.Fatal(err)
		}
		all, err := snapshot.Take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		record := snapshot.Weights(nil)
		tensors, _, err := net.TensorsOf(record)
		if err != nil {
			t.Fatal(err)
		}
		weights := slices.Clone(tensors)
		last := weights[len(weights)-1]
		if last.Name != net.InputMeanName || !slices.Equal(last.Dims, []int{mean.H, mean.W, 3}) || !slices.Equal(last.Data, mean.Pixels) {
			t.Errorf("the last of the weights is %s %v, want the mean image", last.Name, last.Dims)
		}
		if len(all) != len(weights)+4 {
			t.Errorf("%d tensors of which %d are weights, and 4 of momentum", len(all), len(weights))
		}
		if err := n.Load(all); err != nil {
			t.Errorf("a checkpoint of itself: %v", err)
		}
		var file bytes.Buffer
		if err := net.WriteSafetensors(&file, weights, nil); err != nil {
			t.Fatal(err)
		}
		record.Release()
		content := slices.Clone(file.Bytes())
		read, _, err := net.ReadSafetensors(&file)
		if err != nil {
			t.Fatal(err)
		}

		name := filepath.Join(t.TempDir(), "w.safetensors")
		if err := os.WriteFile(name, content, 0o644); err != nil {
			t.Fatal(err)
		}
		if m, err := net.ReadMean(name); err != nil || m.H != mean.H || m.W != mean.W || !slices.Equal(m.Pixels, mean.Pixels) {
			t.Errorf("the mean of a file of weights is %+v, %v", m, err)
		}

		other := meanNet(t, "auto", false)
		if err := other.Load(read); err != nil {
			t.Fatal(err)
		}
		if got := probabilities(other); !slices.Equal(got, want) {
			t.Errorf("loaded, it computes %v, want %v", got, want)
		}
		if err := other.Plan().CheckWeights(read[:len(read)-1]); err == nil || !strings.Contains(err.Error(), net.InputMeanName) {
			t.Errorf("weights without the mean: %v", err)
		}
		if err := meanNet(t, "", false).Load(read); err == nil || !strings.Contains(err.Error(), net.InputMeanName) {
			t.Errorf("a mean that the network has no use for: %v", err)
		}
	}
	small := net.NamedTensor{Name: net.InputMeanName, Dims: []int{5, 8, 3}, Data: make([]float32, 120)}
	if err := meanNet(t, "auto", false).Plan().LoadMean([]net.NamedTensor{small}); err == nil || !strings.Contains(err.Error(), "smaller") {
		t.Errorf("a mean image smaller than the images: %v", err)
	}
}

func TestReadMeanMistakes(t *testing.T) {
	for says, tensor := range map[string]net.NamedTensor{
		"neither":        {Name: "other", Dims: []int{1}, Data: []float32{1}},
		"height x width": {Name: net.MeanName, Dims: []int{1, 3, 2}, Data: make([]float32, 6)},
		"NaN":            {Name: net.ChannelMeanName, Dims: []int{3}, Data: []float32{1, float32(math.NaN()), 2}},
	} {
		var b bytes.Buffer
		if err := net.WriteSafetensors(&b, []net.NamedTensor{tensor}, nil); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "m.safetensors")
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := net.ReadMean(file); err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), file) {
			t.Errorf("the error does not name the file and %q: %v", says, err)
		}
	}
	if _, err := net.ReadMean(filepath.Join(t.TempDir(), "none.safetensors")); err == nil {
		t.Error("a file that is not there was read")
	}
}
