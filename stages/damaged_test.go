package stages

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"sluice/pipeline"
)

// files is a source of bytes in memory.
type files [][]byte

func (f files) Len() int { return len(f) }

func (f files) Read(_ context.Context, i int, s *pipeline.Sample) error {
	s.Name, s.Label = fmt.Sprintf("%d.jpg", i), 0
	s.Bytes = append(s.Bytes[:0], f[i]...)
	return nil
}

// collected is a sink that keeps what it is sent.
type collected struct {
	rows   []pipeline.BadSample
	images int
}

func (c *collected) Write(_ context.Context, b *pipeline.Batch) error {
	if b.Kind == pipeline.Samples {
		c.images += int(b.Record.NumRows())
		return nil
	}
	rows, err := pipeline.QuarantineOf(b.Record)
	c.rows = append(c.rows, rows...)
	return err
}

func (c *collected) Close() error { return nil }

// decodeLine runs the files through decode and a crop. It gives what the user is told.
func decodeLine(t *testing.T, f files, o DecodeOptions, sink *collected) (told []string, err error) {
	t.Helper()
	o.Orientation, o.MaxPixels, o.MaxBytes = true, 1<<20, 1<<20
	var mu sync.Mutex
	line := &pipeline.Line{
		Source: f, SourceName: "files",
		Steps: []pipeline.Step{
			{Label: "decode", Stage: must[*Decode](t)(NewDecode(o))},
			{Label: "center_crop", Stage: must[*CenterCrop](t)(NewCenterCrop(CropOptions{Size: 40}))},
		},
		Frame: pipeline.Frame{W: 40, H: 40}, BatchSize: 4, Epochs: 2, Workers: 3,
		Sinks: []pipeline.NamedSink{{Name: "collected", Sink: sink}},
		Env: &pipeline.Env{Warn: func(text string) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, text)
		}},
	}
	err = line.Run(t.Context())
	return told, err
}

// A damaged file is an error of decode, with its name and place, though it is found later than decode is called. Kept, it
// is told of once, counted in every epoch, and a row for the quarantine sink each time.
func TestDamagedFiles(t *testing.T) {
	whole := jpegOf(t, photo(64, 64, 1), 90)
	cut := whole[:len(whole)*2/3]
	f := files{whole, whole, cut, whole, whole}

	var sink collected
	_, err := decodeLine(t, f, DecodeOptions{}, &sink)
	bad, ok := errors.AsType[*pipeline.Error](err)
	if !ok || bad.Stage != "decode" || bad.Name != "2.jpg" || !strings.Contains(bad.Error(), "damaged JPEG: the file ends at byte") {
		t.Errorf("got %v", err)
	}

	sink = collected{}
	told, err := decodeLine(t, f, DecodeOptions{Damaged: "keep"}, &sink)
	if err != nil || sink.images != 10 {
		t.Fatalf("%d images, %v", sink.images, err)
	}
	if len(told) != 3 || !strings.HasPrefix(told[0], "decode: 2.jpg (epoch 1, sample 2): damaged JPEG: the file ends at byte") ||
		!strings.Contains(told[0], "MCUs are missing; it is used all the same") ||
		told[1] != "epoch 1: 1 image was used though there is something wrong with it" || !strings.HasPrefix(told[2], "epoch 2: 1 image was") {
		t.Errorf("told: %q", told)
	}
	if len(sink.rows) != 2 || sink.rows[0].Epoch != 0 || sink.rows[1].Epoch != 1 {
		t.Fatalf("rows %+v", sink.rows)
	}
	for _, r := range sink.rows {
		if r.Name != "2.jpg" || r.Index != 2 || r.Pos != 2 || r.Stage != "decode" || !strings.HasPrefix(r.Reason, "used all the same: damaged JPEG: ") || len(r.SHA256) != 64 {
			t.Errorf("row %+v", r)
		}
	}
}

// Of many damaged files the first are named; all are counted.
func TestManyDamagedFiles(t *testing.T) {
	whole := jpegOf(t, photo(64, 64, 1), 90)
	f := slices.Repeat(files{whole[:len(whole)/2]}, 30)
	var sink collected
	told, err := decodeLine(t, f, DecodeOptions{Damaged: "keep"}, &sink)
	if err != nil {
		t.Fatal(err)
	}
	if len(told) != 20+1+2 || !strings.HasPrefix(told[19], "decode: 19.jpg") || !strings.HasPrefix(told[20], "more than 20 images") ||
		!strings.HasPrefix(told[21], "epoch 1: 30 images") || !strings.HasPrefix(told[22], "epoch 2: 30 images") {
		t.Errorf("told: %q", told)
	}
	if len(sink.rows) != 60 {
		t.Errorf("%d rows", len(sink.rows))
	}
}

// What was decoded before the damage has its pixels, and what is missing is gray.
func TestDamagedKeepsWhatThereIs(t *testing.T) {
	src := photo(64, 64, 2)
	whole := jpegOf(t, src, 90)
	d := must[*Decode](t)(NewDecode(DecodeOptions{Damaged: "keep", MaxPixels: 1 << 20, MaxBytes: 1 << 20}))
	s := pipeline.NewSample(1, "decode", pipeline.Key{})
	s.Bytes = whole
	process(t, s, d)
	want := bytes.Clone(pixels(t, s).Pix)
	if w := s.Warnings(); len(w) != 0 {
		t.Errorf("a whole file: %q", w)
	}
	s = pipeline.NewSample(1, "decode", pipeline.Key{})
	s.Bytes = whole[:len(whole)*2/3]
	process(t, s, d)
	got := pixels(t, s)
	if w := s.Warnings(); len(w) != 1 || !strings.HasPrefix(w[0], "damaged JPEG: the file ends at byte") {
		t.Errorf("cut: %q", w)
	}
	if top := 16 * 64 * 3; !bytes.Equal(got.Pix[:top], want[:top]) {
		t.Error("the first rows differ")
	}
	if p := got.Row(63)[3*63:]; p[0] != 128 || p[1] != 128 || p[2] != 128 {
		t.Errorf("the last pixel is %v, want gray", p)
	}
}
