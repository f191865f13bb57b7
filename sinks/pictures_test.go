package sinks

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/net"
	"sluice/pipeline"
)

func newPictures(t *testing.T, dir string, every int) *PicturesSink {
	t.Helper()
	p, err := NewPictures(PicturesOptions{Every: every})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Prepare(t.Context(), &pipeline.Env{RunDir: dir, Name: "test", StepsPerEpoch: 50}); err != nil {
		t.Fatal(err)
	}
	return p
}

// learning are the metrics of a run that goes well, noisy as they are.
func learning(steps int) (rows []pipeline.Metric) {
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range steps {
		left := math.Exp(-float64(i) / float64(steps) * 4)
		rows = append(rows, pipeline.Metric{
			Event: "step", Epoch: i / 50, Step: i + 1,
			Loss: 2.3*left + 0.3*rng.Float64(),
			Top1: min(max(1-0.9*left+0.1*rng.NormFloat64(), 0), 1),
		})
		if (i+1)%50 == 0 {
			rows = append(rows, pipeline.Metric{Event: "validation", Epoch: i / 50, Step: i + 1, Loss: 2.3*left + 0.1, Top1: 1 - 0.9*left})
		}
	}
	last := rows[len(rows)-1]
	last.Event = "done"
	return append(rows, last)
}

func decodePNG(t *testing.T, path string) image.Image {
	t.Helper()
	img, err := png.Decode(bytes.NewReader([]byte(read(t, path))))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// count is how many pixels of img have the colour.
func count(img image.Image, c color.Color) (n int) {
	want := color.RGBAModel.Convert(c)
	for y := range img.Bounds().Dy() {
		for x := range img.Bounds().Dx() {
			if color.RGBAModel.Convert(img.At(x, y)) == want {
				n++
			}
		}
	}
	return n
}

func TestCurvesAreDrawn(t *testing.T) {
	dir := t.TempDir()
	p := newPictures(t, dir, 0)
	write(t, p, pipeline.Metrics, learning(400)...)
	wantOnly(t, dir)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	wantOnly(t, dir, "curves.png")
	img := decodePNG(t, filepath.Join(dir, "curves.png"))
	if img.Bounds().Size() != image.Pt(1200, 500) {
		t.Errorf("curves.png is %v", img.Bounds().Size())
	}
	for name, c := range map[string]color.Color{"training": trainColor, "training as it was": trainFaint, "validation": validationColor} {
		if n := count(img, c); n < 300 {
			t.Errorf("%s has only %d pixels", name, n)
		}
	}
}

func TestCurvesAreDrawnAsTheRunGoes(t *testing.T) {
	dir := t.TempDir()
	p := newPictures(t, dir, 20)
	rows := learning(45)
	write(t, p, pipeline.Metrics, rows[:19]...)
	wantOnly(t, dir)
	write(t, p, pipeline.Metrics, rows[19])
	wantOnly(t, dir, "curves.png")
	first := read(t, filepath.Join(dir, "curves.png"))
	write(t, p, pipeline.Metrics, rows[20:44]...)
	if read(t, filepath.Join(dir, "curves.png")) == first {
		t.Error("the picture was not drawn anew")
	}
	if p.drawn != 40 {
		t.Errorf("last drawn at step %d", p.drawn)
	}
}

// A run cut short, or one that diverges, has a picture of what there is.
func TestCurvesOfOddRuns(t *testing.T) {
	nan := pipeline.Metric{Event: "step", Step: 3, Loss: math.NaN()}
	inf := pipeline.Metric{Event: "validation", Step: 3, Loss: math.Inf(1)}
	one := pipeline.Metric{Event: "step", Step: 1, Loss: 2.3, Top1: 0.1}
	zero := pipeline.Metric{Event: "step"}
	for name, rows := range map[string][]pipeline.Metric{
		"one step":        {one},
		"zeros":           {zero, zero},
		"diverged":        {one, nan, inf},
		"nothing finite":  {nan, nan, inf},
		"validation only": {{Event: "validation", Step: 50, Loss: 1, Top1: 0.5}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			p := newPictures(t, dir, 0)
			p.stepsPerEpoch = 0
			write(t, p, pipeline.Metrics, rows...)
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			decodePNG(t, filepath.Join(dir, "curves.png"))
		})
	}
	if got := legend("training", &series{rows: 5, lost: 2}); !strings.Contains(got, "2 of 5") {
		t.Errorf("the legend of a diverged curve is %q", got)
	}
}

func TestNoPictureOfNothing(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{curvesFile, kernelsFile} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("of an earlier run"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := newPictures(t, dir, 0).Close(); err != nil {
		t.Fatal(err)
	}
	wantOnly(t, dir)
	unprepared, err := NewPictures(PicturesOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := unprepared.Close(); err != nil {
		t.Error(err)
	}
}

// A long run keeps as much memory as a short one, and the same curve.
func TestSeriesIsBounded(t *testing.T) {
	const rows = 1_000_000
	var s series
	for i := range rows {
		s.add(pipeline.Metric{Step: i, Loss: float64(i), Top1: 1})
	}
	points := s.all()
	if len(points) > seriesPoints || cap(s.points) > 2*seriesPoints || len(points) < seriesPoints/2 {
		t.Fatalf("%d points, room for %d", len(points), cap(s.points))
	}
	for i, p := range points {
		if math.Abs(p.loss-p.step) > 1e-6*rows || p.top1 != 1 {
			t.Fatalf("point %d is %+v: not the mean of its rows", i, p)
		}
		if i > 0 && p.step <= points[i-1].step {
			t.Fatalf("point %d goes back", i)
		}
	}
	if last := points[len(points)-1].step; last < rows*0.999 {
		t.Errorf("the curve ends at %.0f of %d", last, rows)
	}
}

func TestSmoothedKeepsALine(t *testing.T) {
	line := make([]seriesPoint, 500)
	for i := range line {
		line[i] = seriesPoint{float64(i), 3 - float64(i)/500, 0.5}
	}
	for i, p := range smoothed(line) {
		if math.Abs(p.loss-(3-p.step/500)) > 1e-9 || math.Abs(p.step-float64(i)) > 5 {
			t.Fatalf("point %d became %+v", i, p)
		}
	}
	noisy := make([]seriesPoint, 500)
	for i := range noisy {
		noisy[i].loss = float64(i % 2)
	}
	if got := smoothed(noisy)[250].loss; math.Abs(got-0.5) > 0.1 {
		t.Errorf("noise of 0 and 1 is smoothed to %g", got)
	}
}

// gabors are kernels such as a first layer learns.
func gabors(n, channels, side int) *net.NamedTensor {
	rng := rand.New(rand.NewPCG(3, 4))
	t := &net.NamedTensor{Name: "conv1.weight", Role: "weight", Dims: []int{n, channels, side, side}}
	for k := range n {
		sin, cos := math.Sincos(float64(k) * 0.7)
		for range channels {
			tone := rng.Float64()*2 - 1
			for y := range side {
				for x := range side {
					u, v := float64(2*x-side)/float64(side), float64(2*y-side)/float64(side)
					wave := math.Cos(6*(cos*u+sin*v)+float64(k)) * math.Exp(-2*(u*u+v*v))
					t.Data = append(t.Data, float32(0.01*float64(k+1)*tone*wave))
				}
			}
		}
	}
	return t
}

func TestKernelsAreTiled(t *testing.T) {
	kernel := make([]float32, 3*2*2)
	kernel[0] = 2  // red of the top left
	kernel[7] = -1 // green of the bottom right
	tensor := &net.NamedTensor{Name: "conv1.weight", Dims: []int{2, 3, 2, 2}, Data: append(kernel, make([]float32, 12)...)}
	for _, bgr := range []bool{false, true} {
		img, err := drawKernels(tensor, bgr)
		if err != nil {
			t.Fatal(err)
		}
		if want := image.Pt(2*(tileSide+tileGap)+tileGap, tileSide+2*tileGap); img.Bounds().Size() != want {
			t.Fatalf("the picture is %v, want %v", img.Bounds().Size(), want)
		}
		gray := color.NRGBA{128, 128, 128, 255}
		topLeft := color.NRGBA{255, 128, 128, 255}
		if bgr {
			topLeft = color.NRGBA{128, 128, 255, 255}
		}
		for _, c := range []struct {
			x, y int
			want color.NRGBA
		}{
			{0, 0, color.NRGBA{255, 255, 255, 255}}, // gap
			{tileGap, tileGap, topLeft},
			{tileGap + tileSide/2 - 1, tileGap + tileSide/2 - 1, topLeft},
			{tileGap + tileSide - 1, tileGap, gray},
			{tileGap + tileSide - 1, tileGap + tileSide - 1, color.NRGBA{128, 64, 128, 255}},
			{2*tileGap + tileSide, tileGap, gray}, // all zeros
		} {
			if got := img.At(c.x, c.y); got != c.want {
				t.Errorf("bgr %v: pixel (%d,%d) is %v, want %v", bgr, c.x, c.y, got, c.want)
			}
		}
	}
}

func TestKernelsOfOtherChannelsAreGray(t *testing.T) {
	for _, channels := range []int{1, 2, 48} {
		img, err := drawKernels(gabors(5, channels, 5), false)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[color.NRGBA]bool{}
		for y := range img.Bounds().Dy() {
			for x := range img.Bounds().Dx() {
				c := img.At(x, y).(color.NRGBA)
				seen[c] = true
				if c.A != 0 && (c.R != c.G || c.G != c.B) {
					t.Fatalf("%d channels: pixel (%d,%d) is %v", channels, x, y, c)
				}
			}
		}
		if len(seen) < 10 {
			t.Errorf("%d channels: only %d shades", channels, len(seen))
		}
	}
}

func TestKernelsThatAreNotFinite(t *testing.T) {
	tensor := gabors(4, 3, 3)
	tensor.Data[0], tensor.Data[1], tensor.Data[2] = float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))
	if _, err := drawKernels(tensor, false); err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]int{{4, 3, 3}, {4, 3, 3, 4}, {0, 3, 3, 3}, nil} {
		tensor.Dims = bad
		if _, err := drawKernels(tensor, false); err == nil {
			t.Errorf("shape %v gives no error", bad)
		}
	}
}

func TestPicturesWhereNothingCanBeWritten(t *testing.T) {
	dir := t.TempDir()
	p, err := NewPictures(PicturesOptions{})
	if err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing")
	if err := p.Prepare(t.Context(), &pipeline.Env{RunDir: missing}); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("a missing folder gives %v", err)
	}
	// It goes away while the run is on: both pictures are tried, both are named.
	gone := filepath.Join(dir, "gone")
	if err := os.Mkdir(gone, 0o755); err != nil {
		t.Fatal(err)
	}
	p = newPictures(t, gone, 0)
	write(t, p, pipeline.Metrics, learning(10)...)
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	rec := net.TensorsRecord([]net.NamedTensor{*gabors(4, 3, 3)}, nil)
	defer rec.Release()
	matrix := pipeline.OutcomesRecord(confused(3)...)
	defer matrix.Release()
	for name, write := range map[string]func() error{
		kernelsFile:   func() error { return p.Write(t.Context(), &pipeline.Batch{Kind: pipeline.Weights, Record: rec}) },
		matrixPicture: func() error { return p.Write(t.Context(), &pipeline.Batch{Kind: pipeline.Evaluation, Record: matrix}) },
		curvesFile:    p.Close,
	} {
		if err := write(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("the error is %v, want one that names %s", err, name)
		}
	}
}

func TestPicturesRefuse(t *testing.T) {
	if _, err := NewPictures(PicturesOptions{Every: -1}); err == nil || !strings.HasPrefix(err.Error(), "every") {
		t.Errorf("every -1 gives %v", err)
	}
	p := newPictures(t, t.TempDir(), 0)
	for k, want := range map[pipeline.Kind]bool{
		pipeline.Metrics: true, pipeline.Weights: true,
		pipeline.Samples: false, pipeline.Features: false, pipeline.Quarantine: false,
	} {
		if p.Accepts(k) != want {
			t.Errorf("Accepts(%s) is %v", k, !want)
		}
	}
}

// A run that is resumed near its end may draw nothing more: what it has drawn stays,
// and only a run that begins afresh removes it.
func TestPicturesStayOnResume(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{kernelsFile, matrixPicture} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	p, err := NewPictures(PicturesOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Prepare(t.Context(), &pipeline.Env{RunDir: dir, Resume: true}); err != nil {
		t.Fatal(err)
	}
	wantOnly(t, dir, matrixPicture, kernelsFile)
	newPictures(t, dir, 0)
	wantOnly(t, dir)
}

// The first convolution's weights are found among all tensors, and those of every
// batch of weights, and of every checkpoint, are drawn.
func TestKernelsOfWeights(t *testing.T) {
	dir := t.TempDir()
	p := newPictures(t, dir, 0)
	dense := net.NamedTensor{Name: "fc.weight", Role: "weight", Dims: []int{2, 2}, Data: []float32{1, 2, 3, 4}}
	momentum := *gabors(3, 3, 5)
	momentum.Role = "momentum"
	second := *gabors(7, 8, 3)
	second.Name = "conv2.weight"
	for n, kind := range map[int]pipeline.Kind{4: pipeline.Weights, 6: pipeline.Checkpoint} {
		rec := net.TensorsRecord([]net.NamedTensor{dense, momentum, *gabors(n, 3, 5), second}, map[string]string{"input": `{"channels":"bgr"}`})
		if err := p.Write(t.Context(), &pipeline.Batch{Kind: kind, Record: rec}); err != nil {
			t.Fatal(err)
		}
		rec.Release()
		wantOnly(t, dir, "kernels.png")
		want, err := drawKernels(gabors(n, 3, 5), true)
		if err != nil {
			t.Fatal(err)
		}
		var data bytes.Buffer
		if err := png.Encode(&data, want); err != nil {
			t.Fatal(err)
		}
		if read(t, filepath.Join(dir, "kernels.png")) != data.String() {
			t.Errorf("kernels.png is not the first convolution of the %s", kind)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}

// A network without a convolution has no kernels to show.
func TestNoKernelsWithoutConvolution(t *testing.T) {
	dir := t.TempDir()
	p := newPictures(t, dir, 0)
	rec := net.TensorsRecord([]net.NamedTensor{{Name: "fc.weight", Role: "weight", Dims: []int{1, 2}, Data: []float32{1, 2}}}, nil)
	defer rec.Release()
	if err := p.Write(t.Context(), &pipeline.Batch{Kind: pipeline.Weights, Record: rec}); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	wantOnly(t, dir)
	other := pipeline.MetricsRecord(pipeline.Metric{})
	defer other.Release()
	if err := p.Write(t.Context(), &pipeline.Batch{Kind: pipeline.Weights, Record: other}); err == nil {
		t.Error("a record that holds no tensors is taken for weights")
	}
}
