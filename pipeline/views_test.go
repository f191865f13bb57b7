package pipeline

import (
	"context"
	"image"
	"strings"
	"testing"

	"sluice/augment"
)

// specViews makes as many pictures as its side is long.
type specViews struct{ size int }

func (v specViews) Frame(in Frame) (Frame, error) {
	return Frame{W: v.size, H: v.size, Views: v.size}, nil
}

func (v specViews) Process(_ context.Context, s *Sample) error {
	views := make([]augment.View, v.size)
	for i := range views {
		views[i] = s.View().Crop(i, 0, v.size, v.size)
	}
	s.SetViews(views...)
	return nil
}

func init() {
	RegisterSampleStage("spec_views", "test views", sideOptions{}, func(o sideOptions) (SampleStage, error) { return specViews{o.Size}, nil })
}

func TestSpecOfViews(t *testing.T) {
	const head = "name: views\nsource: {spec_source: {count: 7}}\n"
	for _, c := range []struct{ yaml, want string }{
		{"samples: [{spec_views: {size: 3}}, {spec_crop: {size: 2}}]", "spec.yaml:3:36: spec_crop: it comes after a stage that makes 3 pictures of an image, which must be the last of the samples"},
		{"samples: [{spec_views: {size: 3}}]", "spec.yaml:1:1: a batch of 128 does not hold 3 pictures of each image; make it a multiple of 3, as 126 or 129"},
		{"samples: [{spec_views: {size: 3}}]\nbatch: {size: 2}", "spec.yaml:4:15: a batch of 2 does not hold 3 pictures of each image; make it a multiple of 3, as 3 or 6"},
		{"samples: [{spec_crop: {size: 3}}]\nbatch: {size: 4}\nvalidate: {source: spec_source, samples: [{spec_views: {size: 3}}], batch: {size: 4}}",
			"spec.yaml:5:83: a batch of 4 does not hold 3 pictures of each image; make it a multiple of 3, as 3 or 6"},
	} {
		_, err := Parse("spec.yaml", []byte(head+c.yaml), nil)
		if err == nil || err.Error() != c.want {
			t.Errorf("%s:\n got %v\nwant %s", c.yaml, err, c.want)
		}
	}
	s, err := Parse("spec.yaml", []byte(head+"samples: [{spec_views: {size: 3}}]\nbatch: {size: 6}\nbatches: [{spec_train: {learn: false, epochs: 1}}]\nvalidate: {source: spec_source, samples: [{spec_views: {size: 3}}], batch: {size: 3}}"),
		[]string{"run.dir=" + t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if s.env.StepsPerEpoch != 4 { // 21 rows
		t.Errorf("%d steps, want 4", s.env.StepsPerEpoch)
	}
	r, err := s.Check()
	if err != nil {
		t.Fatal(err)
	}
	if text := r.String(); !strings.Contains(text, "6 pictures, 3 of each image, of 3x3, in the source's order") {
		t.Errorf("check says\n%s", text)
	}
	l, err := s.Line("")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A validation takes the most that fits the training's batch.
	s, err = Parse("spec.yaml", []byte(head+"samples: [{spec_crop: {size: 3}}]\nbatch: {size: 7}\nvalidate: {source: spec_source, samples: [{spec_views: {size: 3}}]}"), nil)
	if err != nil || s.env.ValidationBatch != 6 {
		t.Errorf("validation batches of %d (%v), want 6", s.env.ValidationBatch, err)
	}
}

// A worker that is warm allocates nothing for a sample of several views either.
func TestViewsAllocateNothing(t *testing.T) {
	l := cropLine(8, 8, 100)
	l.Steps = []Step{{"views", specViews3{}}}
	l.Frame.Views = 3
	w := &worker{feed: &feed{line: l, labels: []uint64{1, 2}}}
	sample := func() {
		w.sample.reset(Key{Index: 5})
		if w.work(t.Context()); w.err != nil {
			t.Fatal(w.err)
		}
	}
	sample()
	if n := testing.AllocsPerRun(200, sample); n != 0 {
		t.Errorf("%v allocations a sample, want 0", n)
	}
}

type specViews3 struct{}

func (specViews3) Process(_ context.Context, s *Sample) error {
	v := s.View()
	s.SetViews(v.Crop(0, 0, 8, 8), v.Crop(3, 2, 8, 8), v.Crop(9, 9, 8, 8).Mirror())
	return nil
}

func TestSampleOfViews(t *testing.T) {
	s := NewSample(1, "x", Key{})
	s.SetViews(augment.NewView(4, 4, 1)) // no image: nothing
	if _, err := s.render(); err != ErrNoImage {
		t.Errorf("without an image: %v", err)
	}
	s.SetImage(picture(12, 10, 1))
	all := s.View()
	s.SetViews(all.Crop(1, 2, 8, 8), all.Crop(4, 0, 8, 8).Mirror())
	got, err := s.render()
	if err != nil || len(got) != 2 {
		t.Fatalf("%d pictures (%v)", len(got), err)
	}
	if got[1].origin != (image.Point{}) || !got[1].flip || got[0].flip {
		t.Errorf("geometry %+v", got)
	}
	s.SetView(all)
	if _, err := s.render(); err != ErrViews {
		t.Errorf("another geometry after views gives %v", err)
	}
	s.SetImage(picture(12, 10, 2)) // a new picture is one
	if got, err := s.render(); err != nil || len(got) != 1 {
		t.Errorf("%d pictures (%v)", len(got), err)
	}
}
