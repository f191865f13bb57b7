package pipelinetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"sluice/augment"
	"sluice/pipeline"
)

func fill(s *pipeline.Sample) {
	p := &augment.RGB{Pix: make([]byte, 16*16*3), Stride: 48, W: 16, H: 16}
	for i := range p.Pix {
		p.Pix[i] = byte(i * (s.Index + 3))
	}
	s.SetImage(p)
}

// recorder is a testing.TB that notes what fails.
type recorder struct {
	testing.TB
	said []string
}

func (r *recorder) Helper()                      {}
func (r *recorder) Errorf(f string, args ...any) { r.said = append(r.said, fmt.Sprintf(f, args...)) }

func TestTestSampleStage(t *testing.T) {
	var calls atomic.Int64
	for name, c := range map[string]struct {
		stage pipeline.SampleFunc
		want  string // in what is said, empty for nothing
	}{
		"a crop by Rand": {func(_ context.Context, s *pipeline.Sample) error {
			s.SetView(s.View().Crop(s.Rand().IntN(9), s.Rand().IntN(9), 8, 8))
			return nil
		}, ""},
		"one that fails": {func(_ context.Context, s *pipeline.Sample) error {
			if s.Rand().IntN(3) == 0 {
				return errors.New("no good")
			}
			return nil
		}, ""},
		"a counter": {func(_ context.Context, s *pipeline.Sample) error {
			s.SetView(s.View().Crop(int(calls.Add(1)%9), 0, 8, 8))
			return nil
		}, "draw from s.Rand only"},
		"a counter of pixels": {func(_ context.Context, s *pipeline.Sample) error {
			rgb, err := s.Pixels()
			rgb.Pix[0] += byte(calls.Add(1))
			return err
		}, "draw from s.Rand only"},
		"a panic now and then": {func(_ context.Context, s *pipeline.Sample) error {
			if calls.Add(1)%7 == 0 {
				panic("oops")
			}
			return nil
		}, "panics with oops"},
	} {
		r := &recorder{TB: t}
		TestSampleStage(r, c.stage, fill)
		said := strings.Join(r.said, "\n")
		if c.want == "" && said != "" || !strings.Contains(said, c.want) {
			t.Errorf("%s: %q, want %q", name, said, c.want)
		}
	}
}

// What only shows beside others: the second of two that are inside at once.
func TestSharedStateShows(t *testing.T) {
	var inside, calls atomic.Int32
	second := make(chan struct{})
	shared := pipeline.SampleFunc(func(_ context.Context, s *pipeline.Sample) error {
		if inside.Add(1) > 1 {
			s.Label = 77
		}
		switch calls.Add(1) { // the first of them comes alone, to find what heeds its context
		case 1 + 2*64 + 1: // those before came one by one
			<-second
		case 1 + 2*64 + 2:
			close(second)
		}
		inside.Add(-1)
		return nil
	})
	r := &recorder{TB: t}
	TestSampleStage(r, shared, fill)
	if said := strings.Join(r.said, "\n"); !strings.Contains(said, "serves all goroutines") {
		t.Errorf("it says %q", said)
	}
}
