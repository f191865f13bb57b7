package sinks

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"testing"

	"github.com/apache/arrow/go/v17/arrow/array"

	"sluice/pipeline"
)

// confused are the outcomes of n classes: 8 images each, of which one is taken for
// the next class.
func confused(n int) (rows []pipeline.Outcome) {
	name := func(c int) string { return fmt.Sprintf("class %d of the waste on a table", c) }
	for c := range n {
		next := (c + 1) % n
		rows = append(rows,
			pipeline.Outcome{Label: int32(c), Class: name(c), Predicted: int32(c), PredictedClass: name(c), Images: 7, Top5: 7},
			pipeline.Outcome{Label: int32(c), Class: name(c), Predicted: int32(next), PredictedClass: name(next), Images: 1})
	}
	return rows
}

func TestEvaluationIsWritten(t *testing.T) {
	dir := t.TempDir()
	s := &EvaluationSink{}
	if err := os.WriteFile(filepath.Join(dir, classesFile), []byte("of an earlier run"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.Prepare(t.Context(), &pipeline.Env{RunDir: dir}); err != nil {
		t.Fatal(err)
	}
	wantOnly(t, dir)
	outcomes := append(confused(3), pipeline.Outcome{Label: 3, Class: "empty", Predicted: 3, PredictedClass: "empty"})
	rec := pipeline.OutcomesRecord(outcomes...)
	defer rec.Release()
	if !s.Accepts(pipeline.Evaluation) || s.Accepts(pipeline.Metrics) {
		t.Error("it accepts other kinds than evaluations")
	}
	if err := s.Write(t.Context(), &pipeline.Batch{Kind: pipeline.Evaluation, Record: rec}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wantOnly(t, dir, classesFile, confusionFile)
	classes := readParquetPart(t, filepath.Join(dir, classesFile))[0]
	for i, want := range []struct {
		images     int64
		top1, top5 float64
	}{{8, 0.875, 0.875}, {8, 0.875, 0.875}, {8, 0.875, 0.875}, {0, 0, 0}} {
		images, top1, top5 := classes.Column(2).(*array.Int64).Value(i), classes.Column(3).(*array.Float64).Value(i), classes.Column(4).(*array.Float64).Value(i)
		if images != want.images || top1 != want.top1 || top5 != want.top5 {
			t.Errorf("class %d: %d images, %g and %g, want %+v", i, images, top1, top5, want)
		}
	}
	rows := 0
	for _, r := range readParquetPart(t, filepath.Join(dir, confusionFile)) {
		got, err := pipeline.OutcomesOf(r)
		if err != nil {
			t.Fatal(err)
		}
		for i, o := range got {
			if o != outcomes[rows+i] {
				t.Errorf("row %d is %+v, want %+v", rows+i, o, outcomes[rows+i])
			}
		}
		rows += len(got)
	}
	if rows != len(outcomes) {
		t.Errorf("%d rows, want %d", rows, len(outcomes))
	}
	bad := pipeline.MetricsRecord()
	defer bad.Release()
	if err := s.Write(t.Context(), &pipeline.Batch{Kind: pipeline.Evaluation, Record: bad}); err == nil {
		t.Error("a record of metrics is taken for an evaluation")
	}
}

// The diagonal of a matrix is dark and the rest is light, however many classes.
func TestConfusionIsDrawn(t *testing.T) {
	for _, n := range []int{1, 3, 60} {
		var out bytes.Buffer
		if err := DrawConfusion(&out, "test", confused(n)); err != nil {
			t.Fatal(err)
		}
		img, err := png.Decode(&out)
		if err != nil {
			t.Fatal(err)
		}
		if img.Bounds().Size() != image.Pt(1000, 1000) {
			t.Fatalf("%v", img.Bounds())
		}
		if n > 30 {
			continue // a cell is a few pixels, and mixed with its neighbours
		}
		part := 7. / 8
		if n == 1 {
			part = 1. / 8 // its outcomes lie in one cell, the last one counts
		}
		dark := count(img, shadeOf(part))
		if white := count(img, color.White); dark < 5000 || white < 100_000 {
			t.Errorf("%d classes: %d dark pixels, %d white", n, dark, white)
		}
	}
	if err := DrawConfusion(&bytes.Buffer{}, "test", nil); err == nil {
		t.Error("a matrix of nothing is drawn")
	}
}

func TestPredictionsAreDrawn(t *testing.T) {
	red := image.NewRGBA(image.Rect(0, 0, 64, 32))
	for i := range red.Pix {
		red.Pix[i] = []uint8{200, 0, 0, 255}[i%4]
	}
	one := Prediction{Name: "a/very/long/path/to/an/image/of/something.jpg", Image: red, Classes: []string{"paper", "glass"}, Scores: []float64{0.75, 0.25}}
	for n, want := range map[int]image.Point{1: {232, 302}, 5: {880, 588}} {
		var out bytes.Buffer
		of := make([]Prediction, n)
		for i := range of {
			of[i] = one
		}
		if err := DrawPredictions(&out, of); err != nil {
			t.Fatal(err)
		}
		img, err := png.Decode(&out)
		if err != nil {
			t.Fatal(err)
		}
		if img.Bounds().Size() != want {
			t.Errorf("%d images: %v, want %v", n, img.Bounds().Size(), want)
		}
		if got := count(img, color.RGBA{200, 0, 0, 255}); got < n*190*90 || got > n*201*101 {
			t.Errorf("%d images have %d pixels of their colour", n, got)
		}
		if got := count(img, trainFaint); got < n*(100+40)*10 {
			t.Errorf("%d images have bars of %d pixels", n, got)
		}
	}
	if err := DrawPredictions(&bytes.Buffer{}, nil); err == nil {
		t.Error("a picture of nothing is drawn")
	}
}
