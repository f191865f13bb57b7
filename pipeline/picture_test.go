package pipeline

import (
	"context"
	"errors"
	"image"
	"strings"
	"testing"
)

var errPanic = errors.New("panic instead")

// late is a Picture that notes what it was asked for.
type late struct {
	img     image.Image
	err     error
	reports image.Rectangle // Bounds, those of img if empty
	regions []image.Rectangle
}

func (l *late) Bounds() image.Rectangle {
	if !l.reports.Empty() {
		return l.reports
	}
	return l.img.Bounds()
}

func (l *late) Decode(s *Sample, region image.Rectangle) (image.Image, error) {
	l.regions = append(l.regions, region)
	s.Warn("it was decoded")
	if l.err == errPanic {
		panic("what a picture")
	}
	return l.img, l.err
}

// A picture that is decoded later is asked once, for the part that its view needs, and gives the pixels of one that
// is there.
func TestPictureIsDecodedWhereItIsNeeded(t *testing.T) {
	img := picture(60, 40, 1)
	want := NewSample(1, "decode", Key{})
	want.SetImage(img)
	p := &late{img: img}
	s := NewSample(1, "decode", Key{})
	s.SetPicture(p)
	for _, s := range []*Sample{want, s} {
		if !s.HasImage() {
			t.Fatal("it has no image")
		}
		s.SetView(s.View().Scale(30, 20).Crop(20, 10, 5, 4))
	}
	if len(p.regions) > 0 {
		t.Fatal("it was decoded before anybody looked")
	}
	view := s.View()
	a, err := want.Pixels()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		b, err := s.Pixels()
		if err != nil {
			t.Fatal(err)
		}
		if string(a.Pix) != string(b.Pix) {
			t.Fatal("the pixels differ")
		}
	}
	if len(p.regions) != 1 || p.regions[0] != view.Source() || p.regions[0].Dx() >= 60 {
		t.Errorf("asked for %v, want %v once", p.regions, view.Source())
	}
	if w := s.Warnings(); len(w) != 1 || w[0] != "it was decoded" {
		t.Errorf("warnings %q", w)
	}
}

func TestImageDecodesAll(t *testing.T) {
	p := &late{img: picture(20, 10, 1)}
	s := NewSample(1, "decode", Key{})
	s.SetPicture(p)
	s.SetView(s.View().Crop(3, 3, 4, 4))
	for range 2 {
		if s.Image() != p.img {
			t.Error("another image")
		}
	}
	if len(p.regions) != 1 || p.regions[0] != image.Rect(0, 0, 20, 10) {
		t.Errorf("asked for %v", p.regions)
	}
	if rgb, err := s.Pixels(); err != nil || rgb.W != 4 {
		t.Errorf("the view is lost: %v", err)
	}
}

// Several views need what any of them needs.
func TestPictureOfSeveralViews(t *testing.T) {
	p := &late{img: picture(40, 40, 1)}
	s := NewSample(1, "decode", Key{})
	s.SetPicture(p)
	v := s.View()
	s.SetViews(v.Crop(2, 3, 5, 5), v.Crop(30, 20, 5, 5))
	if _, err := s.render(); err != nil {
		t.Fatal(err)
	}
	if len(p.regions) != 1 || p.regions[0] != image.Rect(2, 3, 35, 25) {
		t.Errorf("asked for %v", p.regions)
	}
}

// A picture that cannot be decoded is no image, but not for want of a stage, and stays so.
func TestPictureThatFails(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		p    *late
		want string
	}{
		{&late{img: picture(8, 8, 1), err: broken}, "broken"},
		{&late{img: picture(8, 8, 1), reports: image.Rect(0, 0, 9, 8)}, "another size"},
	} {
		s := NewSample(1, "decode", Key{})
		s.SetPicture(c.p)
		if s.Image() != nil || !s.HasImage() {
			t.Error("it has an image, or never had one")
		}
		for range 2 {
			if _, err := s.Pixels(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		}
		if len(c.p.regions) != 1 {
			t.Errorf("decoded %d times", len(c.p.regions))
		}
		s.SetImage(picture(4, 4, 1)) // a stage that makes another picture of it
		if _, err := s.Pixels(); err != nil {
			t.Error(err)
		}
	}
}

// lateSource gives pictures that fail, or tell of something, when a later stage looks at them.
type lateSource struct{}

func (lateSource) Len() int { return 4 }

func (lateSource) Read(_ context.Context, _ int, s *Sample) error {
	s.Name = "late"
	return nil
}

// Whoever asks for the pixels, the error and the warning are those of the stage that promised them.
func TestPictureBlamesItsStage(t *testing.T) {
	for name, look := range map[string]func(s *Sample) error{
		"the engine": func(*Sample) error { return nil },
		"a stage":    func(s *Sample) error { _, err := s.Pixels(); return err },
	} {
		run := func(failure error) (told []string, err error) {
			l := &Line{
				Source: lateSource{}, SourceName: "files", Frame: Frame{W: 8, H: 8}, BatchSize: 2, Epochs: 1, Workers: 1,
				Steps: []Step{
					{"promise", SampleFunc(func(_ context.Context, s *Sample) error {
						s.SetPicture(&late{img: picture(8, 8, 1), err: failure})
						return nil
					})},
					{"look", SampleFunc(func(_ context.Context, s *Sample) error { return look(s) })},
				},
				Stages: []NamedStage{{"drop", drop{}}},
				Env:    &Env{Warn: func(text string) { told = append(told, text) }},
			}
			err = l.Run(t.Context())
			return told, err
		}
		for _, failure := range []error{errors.New("broken"), errPanic} {
			_, err := run(failure)
			if bad, ok := errors.AsType[*Error](err); !ok || bad.Stage != "promise" {
				t.Errorf("%s, %v: %v", name, failure, err)
			}
		}
		told, err := run(nil)
		if err != nil || len(told) != 5 || !strings.HasPrefix(told[0], "promise: late (epoch 1, sample 0): it was decoded") {
			t.Errorf("%s: told %q, %v", name, told, err)
		}
	}
}
