package stages

import (
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"math"
	"slices"
	"strings"
	"testing"

	"sluice/augment"
	"sluice/pipeline"
)

// sampleOf is a sample with a picture, in the hands of a stage.
func sampleOf(img image.Image, stage string, index int) *pipeline.Sample {
	s := pipeline.NewSample(42, stage, pipeline.Key{Index: index})
	if img != nil {
		s.SetImage(img)
	}
	return s
}

func process(t testing.TB, s *pipeline.Sample, line ...pipeline.SampleStage) {
	t.Helper()
	for _, stage := range line {
		if err := stage.Process(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
}

func pixels(t testing.TB, s *pipeline.Sample) *augment.RGB {
	t.Helper()
	p, err := s.Pixels()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// eager renders after every stage, so that each works on the pixels of the one before.
func eager(t testing.TB, s *pipeline.Sample, line ...pipeline.SampleStage) *augment.RGB {
	t.Helper()
	for _, stage := range line {
		process(t, s, stage)
		if s.Image() != nil {
			pixels(t, s)
		}
	}
	return pixels(t, s)
}

func resizeShorter(t testing.TB, n int) *Resize {
	return must[*Resize](t)(NewResize(ResizeOptions{Shorter: n}))
}

func resizeTo(t testing.TB, w, h int) *Resize {
	return must[*Resize](t)(NewResize(ResizeOptions{Size: []int{w, h}}))
}

func centerCrop(t testing.TB, n int) *CenterCrop {
	return must[*CenterCrop](t)(NewCenterCrop(CropOptions{Size: n}))
}

func randomCrop(t testing.TB, n int) *RandomCrop {
	return must[*RandomCrop](t)(NewRandomCrop(CropOptions{Size: n}))
}

func flip(t testing.TB, p float64) *Flip { return must[*Flip](t)(NewFlip(FlipOptions{Probability: p})) }

// The whole line, lazy and eager, gives the same bits: for planes, for RGB, and turned by EXIF.
func TestLazyEqualsEager(t *testing.T) {
	decode := newDecode(t)
	for i := range 12 {
		w, h := 300+17*i, 420-13*i
		src := photo(w, h, uint64(i))
		data := withSegments(jpegOf(t, src, 90), app1(exifOf(binary.BigEndian, 3, uint32(1+i%8))))
		if i%4 == 3 {
			data = pngOf(t, src)
		}
		start := func() *pipeline.Sample {
			s := sampleOf(nil, "crop", i)
			s.Bytes = data
			process(t, s, decode)
			return s
		}
		// The eager twin scales the planes, as the lazy line does, and then works on pixels.
		line := []pipeline.SampleStage{centerCrop(t, 256), randomCrop(t, 224), flip(t, 0.5), randomCrop(t, 200)}
		lazy, twin := start(), start()
		process(t, lazy, resizeShorter(t, 256))
		process(t, lazy, line...)
		process(t, twin, resizeShorter(t, 256))
		pixels(t, twin)
		got, want := pixels(t, lazy), eager(t, twin, line...)
		if got.W != 200 || got.H != 200 || !slices.Equal(got.Pix, want.Pix) {
			t.Fatalf("picture %d: the lazy line gives other pixels than the eager one", i)
		}
	}
}

// A stage that asks for the window alone computes the window alone: the resize of a huge canvas costs what
// its crop costs.
func TestOnlyTheWindowIsComputed(t *testing.T) {
	s := sampleOf(photo(200, 100, 1), "crop", 0)
	spent := measure(func() {
		process(t, s, resizeTo(t, 60000, 60000), centerCrop(t, 64))
		if p := pixels(t, s); p.W != 64 || p.H != 64 {
			t.Errorf("%d x %d pixels", p.W, p.H)
		}
	})
	if spent.bytes > 1<<20 || spent.seconds > 1 {
		t.Errorf("a crop of 64 x 64 took %.2f s and %d KB", spent.seconds, spent.bytes>>10)
	}
	if s := sampleOf(photo(200, 100, 1), "crop", 0); resizeTo(t, 60000, 60000).Process(t.Context(), s) == nil {
		if _, err := s.Pixels(); err == nil || !strings.Contains(err.Error(), "too many") {
			t.Errorf("all of it is an error, got %v", err)
		}
	}
}

func TestResizeSizes(t *testing.T) {
	for _, c := range []struct {
		w, h, shorter, toW, toH int
	}{{500, 375, 256, 341, 256}, {375, 500, 256, 256, 341}, {256, 300, 256, 256, 300}, {100, 40, 20, 50, 20}, {7, 3, 10, 23, 10}} {
		s := sampleOf(photo(c.w, c.h, 1), "resize", 0)
		process(t, s, resizeShorter(t, c.shorter))
		if p := pixels(t, s); p.W != c.toW || p.H != c.toH {
			t.Errorf("%d x %d to shorter %d: %d x %d, want %d x %d", c.w, c.h, c.shorter, p.W, p.H, c.toW, c.toH)
		}
	}
	s := sampleOf(photo(50, 40, 1), "resize", 0)
	process(t, s, resizeTo(t, 30, 20))
	if p := pixels(t, s); p.W != 30 || p.H != 20 {
		t.Errorf("squashed to %d x %d", p.W, p.H)
	}
	// The same size keeps every pixel, and the View.
	src := photo(30, 20, 2)
	s = sampleOf(src, "resize", 0)
	process(t, s, flip(t, 1), resizeTo(t, 30, 20), flip(t, 1))
	if s.Image() != image.Image(src) || !slices.Equal(pixels(t, s).Pix, src.Pix) {
		t.Error("a resize to the size there is must change nothing")
	}
}

// A second resize works on the pixels of the first.
// Each filter gives pixels of its own, and a crop of them is the crop of the whole.
func TestResizeFilters(t *testing.T) {
	src := photo(90, 60, 3)
	seen := map[string]string{}
	for _, filter := range []string{"", "bilinear", "bicubic", "lanczos"} {
		r := must[*Resize](t)(NewResize(ResizeOptions{Shorter: 40, Filter: filter}))
		s := pipeline.NewSample(1, "resize", pipeline.Key{})
		s.SetImage(src)
		process(t, s, r)
		whole := string(pixels(t, s).Pix)
		s.SetImage(src)
		process(t, s, r, must[*CenterCrop](t)(NewCenterCrop(CropOptions{Size: 20})))
		for y := range 20 {
			if from := ((y+10)*60 + 20) * 3; string(pixels(t, s).Row(y)) != whole[from:][:60] {
				t.Fatalf("%q: row %d of the crop is not that of the whole", filter, y)
			}
		}
		if other, ok := seen[whole]; ok && filter != "bilinear" {
			t.Errorf("%q gives the pixels of %q", filter, other)
		}
		seen[whole] = filter
	}
	if len(seen) != 3 {
		t.Errorf("%d different pictures, want 3", len(seen))
	}
}

func TestResizeTwice(t *testing.T) {
	src := photo(120, 90, 3)
	s := sampleOf(src, "resize", 0)
	process(t, s, resizeShorter(t, 40), centerCrop(t, 36), resizeTo(t, 20, 24))
	want := eager(t, sampleOf(src, "resize", 0), resizeShorter(t, 40), centerCrop(t, 36), resizeTo(t, 20, 24))
	if got := pixels(t, s); got.W != 20 || got.H != 24 || !slices.Equal(got.Pix, want.Pix) {
		t.Error("two resizes differ from their eager twin")
	}
}

func TestCenterCropTakesTheMiddle(t *testing.T) {
	src := photo(31, 20, 4)
	s := sampleOf(src, "crop", 0)
	process(t, s, centerCrop(t, 10))
	p := pixels(t, s)
	for y := range 10 {
		// (31-10)/2 = 10.5 goes to the even side, 10.
		if !slices.Equal(p.Row(y), src.Row(y + 5)[30:60]) {
			t.Fatalf("row %d is not that of the middle", y)
		}
	}
}

// Every place is about as likely, and the same sample gets the same crop in every run.
func TestRandomCropPlaces(t *testing.T) {
	crop, src := randomCrop(t, 8), augment.NewRGB(11, 10)
	count := map[image.Point]int{}
	const n = 12000
	for i := range n {
		s := sampleOf(src, "random_crop", i)
		process(t, s, crop)
		at := s.View().Window.Min
		count[at]++
		again := sampleOf(src, "random_crop", i)
		process(t, again, crop)
		if again.View() != s.View() {
			t.Fatal("the same sample has two crops")
		}
	}
	if len(count) != 4*3 {
		t.Fatalf("%d places, want 12", len(count))
	}
	for at, c := range count {
		if c < n/12*85/100 || c > n/12*115/100 {
			t.Errorf("%v: %d of %d", at, c, n)
		}
	}
	s := sampleOf(augment.NewRGB(8, 8), "random_crop", 0)
	process(t, s, crop) // exactly fits
	if s.View().Bounds() != image.Pt(8, 8) {
		t.Error("a crop of the whole picture")
	}
}

func TestFlipProbability(t *testing.T) {
	src := photo(9, 4, 5)
	for _, p := range []float64{0, 0.25, 0.5, 1} {
		flips := 0
		const n = 4000
		for i := range n {
			s := sampleOf(src, "flip", i)
			process(t, s, flip(t, p))
			if s.View().Flip {
				flips++
			}
		}
		if got := float64(flips) / n; math.Abs(got-p) > 0.03 || (p == 0 || p == 1) && got != p {
			t.Errorf("probability %g: flipped %g", p, got)
		}
	}
	s := sampleOf(src, "flip", 0)
	process(t, s, flip(t, 1))
	mirrored := pixels(t, s)
	if !slices.Equal(mirrored.Row(1)[:3], src.Row(1)[24:]) {
		t.Error("not mirrored left to right")
	}
}

// Components that come from elsewhere than ImageNet are given before the run.
func TestPCAJitterOfStatistics(t *testing.T) {
	options := PCAJitterOptions{Sigma: 0.1, Scale: "eigenvalue", PCA: "imagenet"}
	known := must[*PCAJitter](t)(NewPCAJitter(options))
	if from := known.Statistics(); from != "" {
		t.Errorf("ImageNet's components want statistics from %q", from)
	}
	for _, from := range []string{"auto", "mine.safetensors"} {
		options.PCA = from
		given := must[*PCAJitter](t)(NewPCAJitter(options))
		if given.Statistics() != from {
			t.Errorf("pca: %s wants statistics from %q", from, given.Statistics())
		}
		a, b := sampleOf(photo(8, 8, 6), "pca_jitter", 3), sampleOf(photo(8, 8, 6), "pca_jitter", 3)
		if err := given.Process(t.Context(), a); err == nil || !strings.Contains(err.Error(), from) {
			t.Errorf("components that were not given: %v", err)
		}
		for _, bad := range []augment.PCA{{Values: [3]float64{math.NaN()}}, {Vectors: [3][3]float64{{2}}}} {
			if given.SetStatistics(&pipeline.Statistics{PCA: bad}) == nil {
				t.Errorf("the components %v were taken", bad)
			}
		}
		if err := given.SetStatistics(&pipeline.Statistics{PCA: augment.ImageNet()}); err != nil {
			t.Fatal(err)
		}
		a = sampleOf(photo(8, 8, 6), "pca_jitter", 3)
		process(t, a, given)
		process(t, b, known)
		if a.Shift != b.Shift {
			t.Errorf("the same components shift by %v and %v", a.Shift, b.Shift)
		}
	}
}

func TestPCAJitter(t *testing.T) {
	net := augment.ImageNet()
	options := PCAJitterOptions{Sigma: 0.1, Scale: "eigenvalue", PCA: "imagenet"}
	jitter := must[*PCAJitter](t)(NewPCAJitter(options))
	src := photo(8, 8, 6)
	var sum, square [3]float64
	const n = 4000
	for i := range n {
		s := sampleOf(src, "pca_jitter", i)
		process(t, s, jitter)
		for c, v := range s.Shift {
			sum[c] += float64(v)
			square[c] += float64(v * v)
		}
		if i == 0 {
			if !slices.Equal(pixels(t, s).Pix, src.Pix) {
				t.Error("the pixels must stay as they are")
			}
			// A second jitter adds to the first.
			first := s.Shift
			process(t, s, must[*PCAJitter](t)(NewPCAJitter(PCAJitterOptions{Scale: "sqrt", PCA: "imagenet"})))
			if s.Shift != first {
				t.Errorf("sigma 0 shifts by %v", s.Shift)
			}
			process(t, s, jitter)
			if s.Shift == first {
				t.Error("a second jitter does nothing")
			}
		}
	}
	for c := range 3 {
		want := 0.0
		for i := range 3 {
			want += math.Pow(25.5*net.Values[i]*net.Vectors[c][i], 2)
		}
		if mean, sigma := sum[c]/n, math.Sqrt(square[c]/n); math.Abs(mean) > 0.2 || math.Abs(sigma/math.Sqrt(want)-1) > 0.05 {
			t.Errorf("channel %d: mean %.2f and sigma %.2f levels, want 0 and %.2f", c, mean, sigma, math.Sqrt(want))
		}
	}
	options.Scale = "sqrt"
	s, r := sampleOf(src, "pca_jitter", 1), sampleOf(src, "pca_jitter", 1)
	process(t, s, jitter)
	process(t, r, must[*PCAJitter](t)(NewPCAJitter(options)))
	if math.Abs(float64(r.Shift[0])) <= math.Abs(float64(s.Shift[0])) {
		t.Errorf("by square roots the shift is greater: %v, %v", s.Shift, r.Shift)
	}
}

func TestStagesNeedAPicture(t *testing.T) {
	for _, stage := range []pipeline.SampleStage{resizeShorter(t, 8), centerCrop(t, 8), randomCrop(t, 8), flip(t, 1)} {
		if err := stage.Process(t.Context(), sampleOf(nil, "x", 0)); !errors.Is(err, pipeline.ErrNoImage) {
			t.Errorf("%T: %v", stage, err)
		}
	}
}

func TestCropLargerThanTheImage(t *testing.T) {
	for _, stage := range []pipeline.SampleStage{centerCrop(t, 224), randomCrop(t, 224)} {
		err := stage.Process(t.Context(), sampleOf(augment.NewRGB(300, 200), "x", 0))
		if err == nil || !strings.Contains(err.Error(), "224 x 224") || !strings.Contains(err.Error(), "300 x 200") {
			t.Errorf("%T: %v", stage, err)
		}
	}
}

// What is known of sizes before a run.
func TestFrames(t *testing.T) {
	frame := func(w, h, canvasW, canvasH int) pipeline.Frame {
		return pipeline.Frame{W: w, H: h, CanvasW: canvasW, CanvasH: canvasH}
	}
	unknown := pipeline.Frame{}
	for i, c := range []struct {
		stage    pipeline.Framer
		in, want pipeline.Frame
	}{
		{newDecode(t), frame(5, 5, 5, 5), unknown},
		{resizeShorter(t, 256), unknown, pipeline.Frame{Shorter: 256}},
		{resizeShorter(t, 256), frame(500, 375, 0, 0), frame(341, 256, 0, 0)},
		{resizeShorter(t, 256), frame(256, 256, 256, 256), frame(256, 256, 256, 256)},
		{resizeTo(t, 227, 200), unknown, frame(227, 200, 0, 0)},
		{resizeTo(t, 227, 227), frame(256, 256, 256, 256), frame(227, 227, 0, 0)},
		{centerCrop(t, 256), unknown, frame(256, 256, 256, 256)},
		{centerCrop(t, 256), pipeline.Frame{Shorter: 256}, frame(256, 256, 256, 256)},
		{randomCrop(t, 224), frame(256, 256, 256, 256), frame(224, 224, 256, 256)},
		{randomCrop(t, 224), frame(300, 400, 0, 0), frame(224, 224, 224, 224)},
	} {
		if got, err := c.stage.Frame(c.in); err != nil || got != c.want {
			t.Errorf("%d: %+v gives %+v, %v, want %+v", i, c.in, got, err, c.want)
		}
	}
	for _, f := range []pipeline.Framer{centerCrop(t, 224), randomCrop(t, 224)} {
		if _, err := f.Frame(frame(300, 200, 0, 0)); err == nil || !strings.Contains(err.Error(), "300 x 200") {
			t.Errorf("%T: a crop larger than the image: %v", f, err)
		}
		if _, err := f.Frame(pipeline.Frame{Shorter: 223}); err == nil || !strings.Contains(err.Error(), "shorter side of the images here, 223") {
			t.Errorf("%T: a crop larger than every image's shorter side: %v", f, err)
		}
	}
}

func TestStageOptions(t *testing.T) {
	refuse := func(_ any, err error) error { return err }
	nan := math.NaN()
	for want, err := range map[string]error{
		"say what to resize to":     refuse(NewResize(ResizeOptions{})),
		"both given":                refuse(NewResize(ResizeOptions{Shorter: 5, Size: []int{5, 5}})),
		"must be [width, height]":   refuse(NewResize(ResizeOptions{Size: []int{5}})),
		"size must be 1 to":         refuse(NewResize(ResizeOptions{Size: []int{5, 0}})),
		"shorter must be 1 to":      refuse(NewResize(ResizeOptions{Shorter: -1})),
		"filter must be bilinear":   refuse(NewResize(ResizeOptions{Shorter: 5, Filter: "nearest"})),
		"must be 1 to 65536 pixels": refuse(NewCenterCrop(CropOptions{Size: 1 << 20})),
		"is 0":                      refuse(NewRandomCrop(CropOptions{})),
		"is 1.5":                    refuse(NewFlip(FlipOptions{Probability: 1.5})),
		"is NaN":                    refuse(NewFlip(FlipOptions{Probability: nan})),
		"sigma must be 0 or more":   refuse(NewPCAJitter(PCAJitterOptions{Sigma: -1, Scale: "sqrt"})),
		"eigenvalue or sqrt":        refuse(NewPCAJitter(PCAJitterOptions{Scale: "cube"})),
		"imagenet, auto or a":       refuse(NewPCAJitter(PCAJitterOptions{Scale: "sqrt", PCA: "mine.json"})),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

// The registry knows the stages by the names of the YAML.
func TestCatalogue(t *testing.T) {
	for _, name := range []string{"decode", "resize", "center_crop", "random_crop", "flip", "pca_jitter"} {
		if e, ok := pipeline.SampleStages.Lookup(name); !ok || e.Doc == "" {
			t.Errorf("sample stage %s is not registered", name)
		}
	}
	for _, name := range []string{"image_folder", "shapes"} {
		if _, ok := pipeline.Sources.Lookup(name); !ok {
			t.Errorf("source %s is not registered", name)
		}
	}
}

// The line of the paper takes any photo to a crop of 224 x 224, and changes no byte when run again.
func TestCrop224(t *testing.T) {
	var first []byte
	for i := range 4 {
		s := sampleOf(nil, "line", 7)
		s.Bytes = jpegOf(t, photo(320, 240, 9), 85)
		process(t, s, crop224(t)...)
		p := pixels(t, s)
		if p.W != 224 || p.H != 224 {
			t.Fatalf("%d x %d pixels", p.W, p.H)
		}
		got := append(slices.Clone(p.Pix), fmt.Sprint(s.Shift)...)
		if i == 0 {
			first = got
		} else if !slices.Equal(first, got) {
			t.Fatal("the same sample gives other pixels")
		}
	}
}
