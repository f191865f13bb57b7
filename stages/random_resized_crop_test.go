package stages

import (
	"errors"
	"image"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sluice/augment"
	"sluice/pipeline"
)

func resizedCropOptions(size int) RandomResizedCropOptions {
	return RandomResizedCropOptions{Size: size, Scale: [2]float64{0.08, 1}, Ratio: [2]float64{3. / 4, 4. / 3}}
}

func randomResizedCrop(t testing.TB, o RandomResizedCropOptions) *RandomResizedCrop {
	return must[*RandomResizedCrop](t)(NewRandomResizedCrop(o))
}

// Areas, shapes and places are spread as torchvision's: areas evenly, shapes evenly by their logarithm, places
// from border to border. In a picture this wide hardly a draw is refused.
func TestRandomResizedCropDraws(t *testing.T) {
	const n, w, h = 4000, 1200, 1000
	o := resizedCropOptions(224)
	o.Scale = [2]float64{0.2, 0.5}
	c := randomResizedCrop(t, o)
	var area, shape, x, y float64
	for i := range n {
		p := c.part(sampleOf(nil, "crop", i).Rand(), w, h)
		if p.Empty() || !p.In(image.Rect(0, 0, w, h)) {
			t.Fatalf("%v is not inside", p)
		}
		a, r := float64(p.Dx()*p.Dy())/(w*h), float64(p.Dx())/float64(p.Dy())
		if a < 0.199 || a > 0.501 || r < 0.745 || r > 1.34 {
			t.Fatalf("%v has an area of %.3f and a shape of %.3f", p, a, r)
		}
		area, shape = area+a/n, shape+math.Log(r)/n
		x += float64(p.Min.X) / float64(w-p.Dx()) / n
		y += float64(p.Min.Y) / float64(h-p.Dy()) / n
	}
	for what, c := range map[string][2]float64{"area": {area, 0.35}, "logarithm of the shape": {shape, 0}, "x": {x, 0.5}, "y": {y, 0.5}} {
		if math.Abs(c[0]-c[1]) > 0.02 {
			t.Errorf("the mean %s is %.4f, want %.3f", what, c[0], c[1])
		}
	}
}

// Where ten draws do not fit, the middle is kept, as much of it as has a shape that is allowed.
func TestRandomResizedCropFallsBack(t *testing.T) {
	whole := resizedCropOptions(8)
	whole.Scale = [2]float64{1, 1}
	wide := whole
	wide.Ratio = [2]float64{5, 6}
	for _, c := range []struct {
		o    RandomResizedCropOptions
		w, h int
		want image.Rectangle
	}{
		{whole, 1000, 90, image.Rect(440, 0, 560, 90)},
		{whole, 90, 1000, image.Rect(0, 440, 90, 560)},
		{whole, 1, 1000, image.Rect(0, 499, 1, 500)},
		{wide, 1, 1, image.Rect(0, 0, 1, 1)},
	} {
		for i := range 20 {
			if got := randomResizedCrop(t, c.o).part(sampleOf(nil, "crop", i).Rand(), c.w, c.h); got != c.want {
				t.Errorf("of %d x %d: %v, want %v", c.w, c.h, got, c.want)
			}
		}
	}
}

// What is rendered is the part, scaled as a picture of its own, whatever came before; and the same sample
// gives the same pixels.
func TestRandomResizedCropPixels(t *testing.T) {
	c := randomResizedCrop(t, resizedCropOptions(64))
	seen := map[image.Rectangle]bool{}
	for i := range 24 {
		src := photo(200+7*i, 260-5*i, uint64(i))
		before := [][]pipeline.SampleStage{nil, {flip(t, 1)}, {resizeShorter(t, 90)}, {centerCrop(t, 100), randomCrop(t, 80)}}[i%4]
		s, twin := sampleOf(src, "crop", i), sampleOf(src, "crop", i)
		process(t, s, before...)
		process(t, twin, before...)
		process(t, s, c)
		got := pixels(t, s)

		p := pixels(t, twin)
		part := partOf(t, c, i, before, p)
		seen[part] = true
		cut := augment.NewRGB(part.Dx(), part.Dy())
		for y := range cut.H {
			copy(cut.Row(y), p.Row(part.Min.Y + y)[3*part.Min.X:])
		}
		want := sampleOf(cut, "crop", i)
		process(t, want, resizeTo(t, 64, 64))
		if w := pixels(t, want); got.W != 64 || got.H != 64 || !slices.Equal(got.Pix, w.Pix) {
			t.Fatalf("picture %d: other pixels than those of %v, scaled", i, part)
		}
	}
	if len(seen) < 20 {
		t.Errorf("only %d parts of 24 differ", len(seen))
	}
}

// partOf is the part that c keeps of sample i, of which the stages before have made p.
func partOf(t *testing.T, c *RandomResizedCrop, i int, before []pipeline.SampleStage, p *augment.RGB) image.Rectangle {
	t.Helper()
	s := sampleOf(augment.NewRGB(300, 300), "crop", i)
	for _, stage := range before { // the numbers that they have drawn
		if r, ok := stage.(pipeline.RandomStage); ok && r.Random() {
			process(t, s, stage)
		}
	}
	return c.part(s.Rand(), p.W, p.H)
}

func TestRandomResizedCropOptions(t *testing.T) {
	with := func(edit func(o *RandomResizedCropOptions)) error {
		o := resizedCropOptions(224)
		edit(&o)
		_, err := NewRandomResizedCrop(o)
		return err
	}
	nan := math.NaN()
	for want, err := range map[string]error{
		"size must be 1 to":           with(func(o *RandomResizedCropOptions) { o.Size = 0 }),
		"is [0, 1]":                   with(func(o *RandomResizedCropOptions) { o.Scale[0] = 0 }),
		"is [0.08, 1.5]":              with(func(o *RandomResizedCropOptions) { o.Scale[1] = 1.5 }),
		"is [0.8, 0.5]":               with(func(o *RandomResizedCropOptions) { o.Scale = [2]float64{0.8, 0.5} }),
		"scale must be [least, most]": with(func(o *RandomResizedCropOptions) { o.Scale[1] = nan }),
		"ratio must be [least, most]": with(func(o *RandomResizedCropOptions) { o.Ratio[0] = nan }),
		"is [2, 1]":                   with(func(o *RandomResizedCropOptions) { o.Ratio = [2]float64{2, 1} }),
		"filter must be bilinear":     with(func(o *RandomResizedCropOptions) { o.Filter = "nearest" }),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
	c := randomResizedCrop(t, resizedCropOptions(224))
	if err := c.Process(t.Context(), sampleOf(nil, "x", 0)); !errors.Is(err, pipeline.ErrNoImage) {
		t.Errorf("without a picture: %v", err)
	}
	if f, err := c.Frame(pipeline.Frame{W: 300, H: 256, CanvasW: 256, CanvasH: 256}); err != nil || f != (pipeline.Frame{W: 224, H: 224}) {
		t.Errorf("its frame is %+v, %v", f, err)
	}
}

// Without chance it is what PyTorch validates with, which the YAML of the weights says.
func TestRandomResizedCropSubstitute(t *testing.T) {
	stands := randomResizedCrop(t, resizedCropOptions(224)).Substitute()
	want := []pipeline.Stand{
		{Name: "resize", Options: ResizeOptions{Shorter: 256, Filter: "bilinear"}},
		{Name: "center_crop", Options: CropOptions{224}},
	}
	if !reflect.DeepEqual(stands, want) {
		t.Errorf("%+v, want %+v", stands, want)
	}
}

func TestRandomResizedCropAllocatesNothing(t *testing.T) {
	c := randomResizedCrop(t, resizedCropOptions(64))
	src := photo(200, 150, 1)
	s := sampleOf(src, "crop", 3)
	once := func() {
		s.SetImage(src)
		process(t, s, c)
		pixels(t, s)
	}
	once()
	if n := testing.AllocsPerRun(50, once); n > 0 {
		t.Errorf("%.1f allocations an image", n)
	}
}
