package gpu

import (
	"context"
	"errors"
	"math"
	"testing"

	"sluice/net"
	"sluice/pipeline"
)

// A profile covers every layer and pass, and its parts add up.
func TestMeasure(t *testing.T) {
	s := trainStage(t, "net: alexnet_small\nepochs: 1\ndevice: cpu", nil)
	e := env(8)
	e.Frame = pipeline.Frame{W: 64, H: 64, CanvasW: 64, CanvasH: 64}
	if _, err := s.Plan(e); err != nil {
		t.Fatal(err)
	}
	profiles, err := Measure(t.Context(), s, e, 3)
	if err != nil {
		t.Fatal(err)
	}
	if len(profiles) != 1 {
		t.Fatalf("%d profiles, want 1", len(profiles))
	}
	p := profiles[0]
	if !p.Train || p.Batch != 8 || p.Steps != 3 || p.Step <= 0 || p.Load <= 0 || p.GFLOPS <= 0 {
		t.Errorf("the profile is %+v", p)
	}
	if want := 8e3 / p.Step; math.Abs(p.ImagesPerSecond-want) > 1e-6*want {
		t.Errorf("%g images/s, and %g ms for 8", p.ImagesPerSecond, p.Step)
	}
	if len(p.Layers) != len(s.plan.Layers) {
		t.Fatalf("%d layers, want %d", len(p.Layers), len(s.plan.Layers))
	}
	share := 0.0
	for i, l := range p.Layers {
		share += l.Share
		trained := len(s.plan.Layers[i].Plan.Params) > 0
		if l.Name != s.plan.Layers[i].Name || l.Forward <= 0 || l.Backward <= 0 || (l.Update > 0) != trained || (l.GFLOPS > 0) != trained {
			t.Errorf("layer %d is %+v", i, l)
		}
	}
	if math.Abs(share-1) > 1e-9 {
		t.Errorf("the shares add up to %g", share)
	}

	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	if _, err := Measure(ctx, s, e, 3); !errors.Is(err, enough) {
		t.Errorf("cancelled: %v", err)
	}
	if HasNetwork(plainStage{}) {
		t.Error("a stage without a network has one")
	}
	if _, err := Measure(t.Context(), plainStage{}, e, 1); err == nil {
		t.Error("a stage without a network was measured")
	}
}

type plainStage struct{ pipeline.BatchStage }

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		of   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{5, 1}, 3}, {[]float64{9, 1, 2}, 2}} {
		if got := median(c.of); got != c.want {
			t.Errorf("the median of %v is %g", c.of, got)
		}
	}
}

// The batch that is measured on fits networks with and without a loss.
func TestRandomBatch(t *testing.T) {
	plan, err := net.Preset("alexnet_small").Plan(7, 64, 64, 3)
	if err != nil {
		t.Fatal(err)
	}
	b := randomBatch(plan)
	for i, l := range b.Labels {
		if l != int32(i%3) {
			t.Errorf("label %d is %d", i, l)
		}
	}
	part, err := plan.Until("conv1")
	if err != nil {
		t.Fatal(err)
	}
	if b := randomBatch(part); len(b.Labels) != 7 || len(b.Pixels) != 7*64*64*3 {
		t.Errorf("%d labels and %d bytes", len(b.Labels), len(b.Pixels))
	}
}
