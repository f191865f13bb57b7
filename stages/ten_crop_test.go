package stages

import (
	"context"
	"fmt"
	"image"
	"slices"
	"strings"
	"testing"

	"sluice/augment"
	"sluice/pipeline"
)

// rows keeps all rows of a line's batches.
type rows struct {
	images  []pipeline.Images
	cursors []pipeline.Cursor
}

func (r *rows) Process(_ context.Context, b *pipeline.Batch, _ pipeline.Emit) error {
	m, err := pipeline.ImagesOf(b.Record)
	m.Pixels, m.Origin = slices.Clone(m.Pixels), slices.Clone(m.Origin)
	m.View, m.Index, m.Label = slices.Clone(m.View), slices.Clone(m.Index), slices.Clone(m.Label)
	r.images, r.cursors = append(r.images, m), append(r.cursors, b.Cursor)
	return err
}

// photos is a source of pictures of several sizes; every seventh is too small to be
// cropped.
type photos struct{ n int }

func (p photos) Len() int { return p.n }
func (p photos) Read(_ context.Context, i int, s *pipeline.Sample) error {
	s.Name, s.Label = fmt.Sprintf("photo %d", i), int32(i%3)
	w, h := 60+i%5, 50+i%7
	if i%7 == 3 {
		h = 20
	}
	s.SetImage(photo(w, h, uint64(i)))
	return nil
}

func tenCrop(t testing.TB, n int) *TenCrop {
	return must[*TenCrop](t)(NewTenCrop(CropOptions{Size: n}))
}

func tenCropLine(t *testing.T, workers, batch int, out *rows) *pipeline.Line {
	crop := tenCrop(t, 24)
	frame, err := crop.Frame(pipeline.Frame{W: 32, H: 32, CanvasW: 32, CanvasH: 32})
	if err != nil {
		t.Fatal(err)
	}
	return &pipeline.Line{
		Seed: 1, Source: photos{40}, SourceName: "photos", Frame: frame, BatchSize: batch, Epochs: 1, Workers: workers,
		Steps:   []pipeline.Step{{Label: "center_crop", Stage: centerCrop(t, 32)}, {Label: "ten_crop", Stage: crop}},
		OnError: pipeline.Policy{Skip: true},
		Stages:  []pipeline.NamedStage{{Name: "rows", Stage: out}},
	}
}

// Every image has ten rows that follow each other in one batch, in the order of the
// paper's crops, at any number of workers, and one that fails leaves none.
func TestTenCropInALine(t *testing.T) {
	for _, workers := range []int{1, 4} {
		out := &rows{}
		if err := tenCropLine(t, workers, 40, out).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		var want []int64
		for i := range int64(40) {
			if i%7 != 3 {
				want = append(want, i)
			}
		}
		at := 0
		for b, m := range out.images {
			if m.N%10 != 0 || m.N != 40 && b != len(out.images)-1 {
				t.Fatalf("batch %d has %d rows", b, m.N)
			}
			for i := range m.N {
				if m.Index[i] != want[at+i/10] || m.View[i] != int32(i%10) || m.Flip[i] != (i%10 >= 5) || m.Label[i] != int32(m.Index[i]%3) ||
					m.Name[i] != fmt.Sprintf("photo %d", m.Index[i]) {
					t.Fatalf("batch %d, row %d: image %d %q, view %d, flip %v", b, i, m.Index[i], m.Name[i], m.View[i], m.Flip[i])
				}
				origin := image.Pt(int(m.Origin[2*i]), int(m.Origin[2*i+1]))
				if at := []image.Point{{0, 0}, {8, 0}, {0, 8}, {8, 8}, {4, 4}}[i%5]; origin != at {
					t.Fatalf("view %d is at %v, want %v", i%10, origin, at)
				}
				// The pixels, by cropping the whole picture by hand.
				s := sampleOf(nil, "x", int(m.Index[i]))
				if err := (photos{40}).Read(t.Context(), int(m.Index[i]), s); err != nil {
					t.Fatal(err)
				}
				process(t, s, centerCrop(t, 32))
				v := s.View().Crop(origin.X, origin.Y, 24, 24)
				if m.Flip[i] {
					v = v.Mirror()
				}
				s.SetView(v)
				if !slices.Equal(m.Pixels[i*24*24*3:][:24*24*3], pixels(t, s).Pix) {
					t.Fatalf("image %d: other pixels in view %d", m.Index[i], i%10)
				}
			}
			at += m.N / 10
		}
		if at != len(want) {
			t.Errorf("%d images, want %d", at, len(want))
		}
		if last := out.cursors[len(out.cursors)-1]; last.Pos != 40 || last.Failed != 6 {
			t.Errorf("the cursor ends at %+v", last)
		}
	}
}

// Views of an image that was resized are bit for bit windows of the resized one.
func TestTenCropAfterResize(t *testing.T) {
	s, whole := sampleOf(photo(90, 60, 1), "x", 0), sampleOf(photo(90, 60, 1), "x", 0)
	process(t, whole, resizeShorter(t, 40))
	all := pixels(t, whole)
	process(t, s, resizeShorter(t, 40), tenCrop(t, 32))
	if all.W != 60 || all.H != 40 {
		t.Fatalf("%d x %d", all.W, all.H)
	}
	if s.Image().Bounds().Size() != image.Pt(60, 40) {
		t.Errorf("the picture that the crops are taken from is %v", s.Image().Bounds())
	}
	if !slices.Equal(s.Image().(*augment.RGB).Pix, all.Pix) {
		t.Error("it has other pixels than the resized picture")
	}
}

func TestTenCropIsLast(t *testing.T) {
	s := sampleOf(photo(40, 40, 1), "x", 0)
	process(t, s, tenCrop(t, 32))
	if _, err := s.Pixels(); err != pipeline.ErrViews {
		t.Errorf("Pixels gives %v", err)
	}
	for name, after := range map[string]pipeline.SampleStage{"flip": flip(t, 1), "center_crop": centerCrop(t, 24), "ten_crop": tenCrop(t, 24)} {
		out := &rows{}
		l := tenCropLine(t, 2, 40, out)
		l.Steps = append(l.Steps, pipeline.Step{Label: name, Stage: after})
		l.OnError = pipeline.Policy{}
		if err := l.Run(t.Context()); err == nil || !strings.Contains(err.Error(), pipeline.ErrViews.Error()) {
			t.Errorf("%s after it gives %v", name, err)
		}
	}
	out := &rows{}
	l := tenCropLine(t, 2, 45, out)
	if err := l.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "multiple of 10") {
		t.Errorf("batches of 45 give %v", err)
	}
	l = tenCropLine(t, 2, 40, out)
	l.Steps, l.OnError = l.Steps[:1], pipeline.Policy{}
	if err := l.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "the image has become 1 pictures after the last stage, and in a batch there are 10 of each") {
		t.Errorf("a line without it gives %v", err)
	}
}

func TestTenCropFrame(t *testing.T) {
	crop := tenCrop(t, 24)
	for _, c := range []struct{ in, want pipeline.Frame }{
		{pipeline.Frame{W: 32, H: 32, CanvasW: 32, CanvasH: 32}, pipeline.Frame{W: 24, H: 24, CanvasW: 32, CanvasH: 32, Views: 10}},
		{pipeline.Frame{W: 40, H: 32}, pipeline.Frame{W: 24, H: 24, CanvasW: 40, CanvasH: 32, Views: 10}},
		{pipeline.Frame{Shorter: 32}, pipeline.Frame{W: 24, H: 24, Views: 10}},
	} {
		if got, err := crop.Frame(c.in); err != nil || got != c.want {
			t.Errorf("of %+v: %+v (%v), want %+v", c.in, got, err, c.want)
		}
	}
	if _, err := crop.Frame(pipeline.Frame{W: 20, H: 30}); err == nil {
		t.Error("24 of 20 x 30 is no error")
	}
	if err := crop.Process(t.Context(), sampleOf(nil, "x", 0)); err != pipeline.ErrNoImage {
		t.Errorf("without a picture: %v", err)
	}
	if _, err := NewTenCrop(CropOptions{}); err == nil {
		t.Error("a size of 0 is taken")
	}
}
