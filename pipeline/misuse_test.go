package pipeline

import (
	"context"
	"errors"
	"image"
	"strings"
	"testing"
)

// A stage that does to a picture what it must not is named in the error, with the
// sample: it writes past it, or makes it another one.
func TestStageThatOverstepsItsPicture(t *testing.T) {
	for name, c := range map[string]struct {
		misuse SampleFunc
		want   string
	}{
		"past the end": {func(_ context.Context, s *Sample) error {
			rgb, err := s.Pixels()
			if err == nil {
				rgb.Pix = rgb.Pix[:len(rgb.Pix)+1]
			}
			return err
		}, "panic: runtime error: slice bounds out of range"},
		"an append": {func(_ context.Context, s *Sample) error {
			rgb, err := s.Pixels()
			if err == nil {
				rgb.Pix = append(rgb.Pix, 0)
			}
			return err
		}, "has replaced the picture of 4x4"},
		"another size": {func(_ context.Context, s *Sample) error {
			rgb, err := s.Pixels()
			if err == nil {
				rgb.W++
			}
			return err
		}, "has replaced the picture of 4x4"},
	} {
		source := &gray{}
		l := &Line{Source: source, SourceName: "gray", Frame: Frame{W: 4, H: 4}, BatchSize: 2, Epochs: 1, Workers: 1, Steps: []Step{
			{"large", SampleFunc(func(_ context.Context, s *Sample) error { _, err := s.Pixels(); return err })},
			{"crop", SampleFunc(func(_ context.Context, s *Sample) error { s.SetView(s.View().Crop(0, 0, 4, 4)); return nil })},
			{"again", SampleFunc(func(_ context.Context, s *Sample) error { _, err := s.Pixels(); return err })},
			{"greedy", c.misuse},
			{"innocent", SampleFunc(func(_ context.Context, s *Sample) error { _, err := s.Pixels(); return err })},
		}}
		err := l.Run(t.Context())
		failed, ok := errors.AsType[*Error](err)
		if !ok || failed.Stage != "greedy" || failed.Name != "one" || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want stage greedy, image one, %q", name, err, c.want)
		}
	}
}

// gray is a source of two gray pictures.
type gray struct{}

func (*gray) Len() int { return 2 }
func (*gray) Read(_ context.Context, _ int, s *Sample) error {
	s.Name = "one"
	s.SetImage(image.NewGray(image.Rect(0, 0, 16, 16)))
	return nil
}
