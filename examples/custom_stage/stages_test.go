package main

import (
	"image"
	"math"
	"math/rand/v2"
	"testing"

	"sluice/net"
	"sluice/net/nettest"
	"sluice/pipeline"
	"sluice/pipeline/pipelinetest"
)

func TestGray(t *testing.T) {
	noise := func(s *pipeline.Sample) {
		img := image.NewRGBA(image.Rect(0, 0, 16, 16))
		for i := range img.Pix {
			img.Pix[i] = byte(i * (s.Index + 3))
		}
		s.SetImage(img)
	}
	pipelinetest.TestSampleStage(t, gray{Amount: 0.5}, noise)

	s := pipeline.NewSample(1, "gray", pipeline.Key{Index: 7})
	noise(s)
	if err := (gray{Amount: 1}).Process(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	rgb, err := s.Pixels()
	if err != nil {
		t.Fatal(err)
	}
	for p := rgb.Pix; len(p) >= 3; p = p[3:] {
		if max(p[0], p[1], p[2])-min(p[0], p[1], p[2]) > 1 {
			t.Fatalf("a pixel is %v, and has a colour", p[:3])
		}
	}
}

func TestStripes(t *testing.T) { pipelinetest.TestSource(t, stripes{Samples: 10, Size: 16}) }

func TestBrightness(t *testing.T) {
	pipelinetest.TestBatchStage(t, func() pipeline.BatchStage { return brightness{Least: 5} })
}

func TestBest(t *testing.T) {
	pipelinetest.TestSink(t, func() pipeline.Sink { return &best{} })
}

// The gradient of a layer is what its output changes by.
func TestLayers(t *testing.T) {
	for _, layer := range []net.Layer{swish{}, double{}} {
		shape := net.Shape{N: 2, C: 3, H: 4, W: 5}
		if _, err := layer.Plan([]net.Shape{shape}); err != nil {
			t.Fatal(err)
		}
		e := nettest.NewReference()
		spec := net.Spec{Shape: shape, To: -1}
		ts, err := e.Alloc([]net.Spec{spec, spec, spec, spec})
		if err != nil {
			t.Fatal(err)
		}
		f := &net.Frame{X: ts[:1], DX: ts[1:2], Y: ts[2], DY: ts[3], Train: true}
		rng := rand.New(rand.NewPCG(1, 2))
		x, ones, dx := make([]float32, shape.Len()), make([]float32, shape.Len()), make([]float32, shape.Len())
		for i := range x {
			x[i], ones[i] = rng.Float32()*8-4, 1
		}
		output := func(by float32) []float32 {
			moved, y := make([]float32, len(x)), make([]float32, len(x))
			for i := range x {
				moved[i] = x[i] + by
			}
			e.Upload(f.X[0], moved)
			layer.Forward(e, f)
			e.Download(y, f.Y)
			return y
		}
		const step = 1. / 64
		up, down := output(step), output(-step)
		output(0)
		e.Upload(f.DY, ones)
		layer.Backward(e, f)
		e.Download(dx, f.DX[0])
		if err := e.Sync(); err != nil {
			t.Fatal(err)
		}
		for i := range dx {
			if want := float64(up[i]-down[i]) / (2 * step); math.Abs(float64(dx[i])-want) > 1e-3 {
				t.Fatalf("%T: the gradient of %g is %g, and its output changes by %g", layer, x[i], dx[i], want)
			}
		}
	}
}
