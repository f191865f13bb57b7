package main

import (
	"image"
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

func TestLayers(t *testing.T) {
	nettest.TestLayer(t, double{})
	nettest.TestLayer(t, net.Pointwise(swish{}.at, swish{}.slope))
}
