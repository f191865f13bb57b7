package stages

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"image"
	"image/draw"
	"image/jpeg"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"sluice/pipeline"
)

func newShapes(t testing.TB, o ShapesOptions) *Shapes {
	t.Helper()
	if o.Classes == 0 {
		o.Classes = len(shapeClasses)
	}
	if o.Split == "" {
		o.Split = "train"
	}
	s, err := NewShapes(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// readShape reads image i into a sample of its own.
func readShape(t testing.TB, s *Shapes, i int) *pipeline.Sample {
	t.Helper()
	var sample pipeline.Sample
	if err := s.Read(t.Context(), i, &sample); err != nil {
		t.Error(err)
	}
	return &sample
}

// eachShape calls f with every image, from as many goroutines as there are cores.
func eachShape(t testing.TB, s *Shapes, f func(i int, sample *pipeline.Sample)) {
	t.Helper()
	var wg sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		wg.Go(func() {
			for i := w; i < s.Len(); i += workers {
				f(i, readShape(t, s, i))
			}
		})
	}
	wg.Wait()
}

func TestShapesAreTheSameInAnyOrder(t *testing.T) {
	const n = 60
	first := newShapes(t, ShapesOptions{Samples: n, Seed: 7, MaxBytes: 1 << 20})
	var names, data [n]string
	var labels [n]int32
	for i := range n {
		s := readShape(t, first, i)
		names[i], data[i], labels[i] = s.Name, string(s.Bytes), s.Label
	}
	for _, budget := range []int64{0, 50_000, 1 << 20} {
		again := newShapes(t, ShapesOptions{Samples: n, Seed: 7, MaxBytes: budget})
		var wg sync.WaitGroup
		for w := range 8 {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(w), 0))
				for range 2 {
					for _, i := range rng.Perm(n)[:n/2] {
						s := readShape(t, again, i)
						if s.Name != names[i] || string(s.Bytes) != data[i] || s.Label != labels[i] {
							t.Errorf("budget %d: image %d differs", budget, i)
						}
					}
				}
			})
		}
		wg.Wait()
		if again.used > budget {
			t.Errorf("budget %d: %d bytes kept", budget, again.used)
		}
		sum := int64(0)
		for _, b := range again.kept {
			sum += int64(len(b)) + entryBytes
		}
		if sum != again.used {
			t.Errorf("budget %d: %d bytes counted, %d kept", budget, again.used, sum)
		}
		if budget == 1<<20 && len(again.kept) < n*3/4 {
			t.Errorf("only %d images were kept though there is room", len(again.kept))
		}
	}
}

func TestShapesKeptBytesAreNotTheCallers(t *testing.T) {
	s := newShapes(t, ShapesOptions{Samples: 10, MaxBytes: 1 << 20})
	a := readShape(t, s, 3)
	want := bytes.Clone(a.Bytes)
	for range 2 { // as made, and as kept
		clear(a.Bytes)
		if err := s.Read(t.Context(), 3, a); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a.Bytes, want) {
			t.Fatal("a caller changed the bytes of the next")
		}
	}
}

// TestShapesAreFixed holds the dataset itself: accuracies are comparable only
// while it does not change. Whoever changes it on purpose puts the new sum here.
func TestShapesAreFixed(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the sum is amd64's: elsewhere a compiler may fuse products and sums")
	}
	const want = "92ef2537bcbb754825ed35992556c007416f3e2e65914c3e63a2a40d3a3d047b"
	h := sha256.New()
	for _, split := range splits {
		s := newShapes(t, ShapesOptions{Samples: 50, Seed: 1, Split: split})
		for i := range s.Len() {
			sample := readShape(t, s, i)
			fmt.Fprintln(h, sample.Name, sample.Label)
			h.Write(sample.Bytes)
		}
	}
	if got := fmt.Sprintf("%x", h.Sum(nil)); got != want {
		t.Errorf("the dataset has sum\n%s, want\n%s", got, want)
	}
}

func TestShapesSplitsAndSeedsAreDisjoint(t *testing.T) {
	seen := map[[32]byte]string{}
	for _, split := range splits {
		for seed := range uint64(2) {
			s := newShapes(t, ShapesOptions{Samples: 150, Seed: seed, Split: split})
			for i := range s.Len() {
				where := fmt.Sprintf("%s %d %d", split, seed, i)
				sum := sha256.Sum256(readShape(t, s, i).Bytes)
				if other, dup := seen[sum]; dup {
					t.Errorf("%s is %s", where, other)
				}
				seen[sum] = where
			}
		}
	}
}

func TestShapesLabelsAreBalancedAndShuffled(t *testing.T) {
	for _, classes := range []int{2, 3, 10} {
		s := newShapes(t, ShapesOptions{Samples: 1003, Classes: classes, Seed: 5})
		count := make([]int, classes)
		inOrder := 0
		for i := range s.Len() {
			c := s.class(i)
			count[c]++
			if c == i%classes {
				inOrder++
			}
		}
		if least, most := slices.Min(count), slices.Max(count); most-least > 1 {
			t.Errorf("%d classes: %v images of each", classes, count)
		}
		if share := float64(inOrder) / 1003; math.Abs(share-1/float64(classes)) > 0.1 {
			t.Errorf("%d classes: %.2f of the labels are as if not shuffled", classes, share)
		}
	}
}

func TestShapesVary(t *testing.T) {
	s := newShapes(t, ShapesOptions{Samples: 300, Seed: 2})
	kinds := map[string]int{}
	wide, high, least, most := 0, 0, 1000, 0
	tables := map[byte]bool{}
	for i := range s.Len() {
		data := readShape(t, s, i).Bytes
		img, err := jpeg.Decode(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		size := img.Bounds().Size()
		least, most = min(least, size.X, size.Y), max(most, size.X, size.Y)
		if size.X > size.Y {
			wide++
		} else if size.X < size.Y {
			high++
		}
		if m, ok := img.(*image.YCbCr); ok {
			kinds[m.SubsampleRatio.String()]++
		} else {
			kinds["gray"]++
		}
		dqt := bytes.Index(data, []byte{0xFF, 0xDB})
		tables[data[dqt+5]] = true // the first step tells qualities apart
	}
	if least < shapeMinSide || most > shapeMaxSide || least > 110 || most < 180 {
		t.Errorf("sides are %d to %d", least, most)
	}
	if wide < 75 || high < 75 {
		t.Errorf("%d are wide and %d high", wide, high)
	}
	if len(kinds) != 4 || kinds["gray"] < 10 {
		t.Errorf("kinds are %v", kinds)
	}
	if len(tables) < 8 {
		t.Errorf("only %d different quantisers", len(tables))
	}
}

func TestShapeFormsFitTheirCircle(t *testing.T) {
	for _, class := range shapeClasses {
		if class.outline == nil {
			continue
		}
		inside, all := 0, 0
		for v := float32(-1.5); v <= 1.5; v += 0.02 {
			for u := float32(-1.5); u <= 1.5; u += 0.02 {
				d, r := class.outline(u, v), hypot(u, v)
				if d < 0 && r > 1.005 {
					t.Fatalf("%s reaches to (%.2f, %.2f)", class.name, u, v)
				}
				if r <= 1 {
					all++
					if d < 0 {
						inside++
					}
				}
			}
		}
		if share := float64(inside) / float64(all); share < 0.25 {
			t.Errorf("%s fills only %.2f of its circle", class.name, share)
		}
	}
	for _, class := range shapeClasses {
		if class.pattern == nil {
			continue
		}
		inside := 0
		for i := range 10000 {
			if class.pattern(float32(i%100)/100-3, float32(i/100)/100+5) < 0 {
				inside++
			}
		}
		if inside < 2500 || inside > 5500 {
			t.Errorf("%s has %d of 10000 in its second tone", class.name, inside)
		}
	}
}

func TestShapesMapClasses(t *testing.T) {
	s := newShapes(t, ShapesOptions{Samples: 40, Classes: 3, Split: "val"})
	if got := s.Classes(); !slices.Equal(got, []string{"disc", "square", "triangle"}) {
		t.Fatalf("classes are %q", got)
	}
	names := []string{"triangle", "other", "disc", "square"}
	if err := s.MapClasses(names); err != nil {
		t.Fatal(err)
	}
	for i := range s.Len() {
		sample := readShape(t, s, i)
		if !strings.Contains(sample.Name, "/"+names[sample.Label]+"/") {
			t.Fatalf("%s has label %d of %q", sample.Name, sample.Label, names)
		}
	}
	err := s.MapClasses([]string{"disc", "square"})
	if err == nil || !strings.Contains(err.Error(), `"triangle"`) {
		t.Errorf("a class unknown to training gives %v", err)
	}
}

func TestShapesRefuse(t *testing.T) {
	good := ShapesOptions{Samples: 10, Classes: 10, Split: "train"}
	for want, change := range map[string]func(*ShapesOptions){
		"samples":   func(o *ShapesOptions) { o.Samples = 0 },
		"classes":   func(o *ShapesOptions) { o.Classes = 1 },
		"classes ":  func(o *ShapesOptions) { o.Classes = 11 },
		"split":     func(o *ShapesOptions) { o.Split = "test" },
		"max_bytes": func(o *ShapesOptions) { o.MaxBytes = -1 },
	} {
		o := good
		change(&o)
		if _, err := NewShapes(o); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%+v gives %v, want an error about %s", o, err, want)
		}
	}
	s := newShapes(t, good)
	for _, i := range []int{-1, 10} {
		if err := s.Read(t.Context(), i, new(pipeline.Sample)); err == nil {
			t.Errorf("image %d of 10 gives no error", i)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Read(ctx, 0, new(pipeline.Sample)); err != context.Canceled {
		t.Errorf("a cancelled read gives %v", err)
	}
}

// shapeFeatures are what a linear classifier is given of an image.
type shapeFeatures struct {
	rgb   [][]float64 // mean red, green, blue
	small [][]float64 // 16x16 pixels of the central square, RGB
	label []int
}

func featuresOf(t *testing.T, s *Shapes) shapeFeatures {
	n := s.Len()
	f := shapeFeatures{make([][]float64, n), make([][]float64, n), make([]int, n)}
	eachShape(t, s, func(i int, sample *pipeline.Sample) {
		img, err := jpeg.Decode(bytes.NewReader(sample.Bytes))
		if err != nil {
			t.Error(err)
			return
		}
		const side = 16
		b := img.Bounds()
		short := min(b.Dx(), b.Dy())
		x0, y0 := (b.Dx()-short)/2, (b.Dy()-short)/2
		rgba := image.NewRGBA(b)
		draw.Draw(rgba, b, img, b.Min, draw.Src)
		mean, small := make([]float64, 3), make([]float64, 3*side*side)
		for y := range b.Dy() {
			for x := range b.Dx() {
				for c, v := range rgba.Pix[rgba.PixOffset(x, y):][:3] {
					f := float64(v) / 255
					mean[c] += f
					if u, v := x-x0, y-y0; u >= 0 && u < short && v >= 0 && v < short {
						small[3*(v*side/short*side+u*side/short)+c] += f
					}
				}
			}
		}
		for c := range mean {
			mean[c] /= float64(b.Dx() * b.Dy())
		}
		for k := range small {
			small[k] /= float64(short*short) / (side * side)
		}
		f.rgb[i], f.small[i], f.label[i] = mean, small, int(sample.Label)
	})
	return f
}

// linearAccuracy trains a multinomial logistic regression on standardised
// features by gradient descent, and gives its accuracy on held-out data.
func linearAccuracy(train [][]float64, trainLabel []int, test [][]float64, testLabel []int, classes, steps int, rate float64) float64 {
	dim := len(train[0])
	mean, std := make([]float64, dim), make([]float64, dim)
	for k := range dim {
		for _, x := range train {
			mean[k] += x[k] / float64(len(train))
		}
		for _, x := range train {
			std[k] += (x[k] - mean[k]) * (x[k] - mean[k]) / float64(len(train))
		}
		std[k] = math.Sqrt(std[k]) + 1e-9
	}
	standard := func(set [][]float64) [][]float64 {
		out := make([][]float64, len(set))
		for i, x := range set {
			out[i] = append(make([]float64, 0, dim+1), x...)
			for k := range dim {
				out[i][k] = (x[k] - mean[k]) / std[k]
			}
			out[i] = append(out[i], 1)
		}
		return out
	}
	w := make([][]float64, classes)
	for c := range w {
		w[c] = make([]float64, dim+1)
	}
	score := make([]float64, classes)
	logits := func(x []float64) {
		for c := range classes {
			score[c] = 0
			for k, v := range x {
				score[c] += w[c][k] * v
			}
		}
	}
	x := standard(train)
	for range steps {
		grad := make([][]float64, classes)
		for c := range grad {
			grad[c] = make([]float64, dim+1)
		}
		for i := range x {
			logits(x[i])
			most, sum := slices.Max(score), 0.0
			for c := range score {
				score[c] = math.Exp(score[c] - most)
				sum += score[c]
			}
			for c := range score {
				d := score[c] / sum
				if c == trainLabel[i] {
					d--
				}
				for k, v := range x[i] {
					grad[c][k] += d * v
				}
			}
		}
		for c := range w {
			for k := range w[c] {
				w[c][k] -= rate * grad[c][k] / float64(len(x))
			}
		}
	}
	right := 0
	for i, x := range standard(test) {
		logits(x)
		best := 0
		for c := range score {
			if score[c] > score[best] {
				best = c
			}
		}
		if best == testLabel[i] {
			right++
		}
	}
	return float64(right) / float64(len(test))
}

// TestShapesAreNotToldByColour holds a linear classifier on the mean colour near
// chance (0.1), and shows by tinted classes that it would find colour.
func TestShapesAreNotToldByColour(t *testing.T) {
	train := featuresOf(t, newShapes(t, ShapesOptions{Samples: 1000, Seed: 1}))
	val := featuresOf(t, newShapes(t, ShapesOptions{Samples: 800, Seed: 1, Split: "val"}))
	classes := len(shapeClasses)

	got := linearAccuracy(train.rgb, train.label, val.rgb, val.label, classes, 200, 1)
	t.Logf("mean RGB: %.3f", got)
	if got >= 0.3 {
		t.Errorf("a linear classifier on mean RGB is right in %.3f of held-out images, want less than 0.3", got)
	}
	pixels := linearAccuracy(train.small, train.label, val.small, val.label, classes, 25, 0.02)
	t.Logf("16x16 pixels: %.3f", pixels)
	if pixels >= 0.5 {
		t.Errorf("a linear classifier on pixels is right in %.3f of held-out images: the shapes are too easy", pixels)
	}

	tint := func(f shapeFeatures) [][]float64 {
		out := make([][]float64, len(f.rgb))
		for i, x := range f.rgb {
			angle := 2 * math.Pi * float64(f.label[i]) / float64(classes)
			out[i] = []float64{x[0] + math.Cos(angle), x[1] + math.Sin(angle), x[2]}
		}
		return out
	}
	if found := linearAccuracy(tint(train), train.label, tint(val), val.label, classes, 200, 1); found < 0.6 {
		t.Errorf("tinted classes are told in only %.3f: this test would not see a difference in colour", found)
	}
}

func BenchmarkShapes(b *testing.B) {
	for name, budget := range map[string]int64{"made": 0, "kept": 1 << 30} {
		b.Run(name, func(b *testing.B) {
			s := newShapes(b, ShapesOptions{Samples: 500, Seed: 1, MaxBytes: budget})
			eachShape(b, s, func(int, *pipeline.Sample) {})
			var sample pipeline.Sample
			i, size := 0, 0
			for b.Loop() {
				if err := s.Read(b.Context(), i%s.Len(), &sample); err != nil {
					b.Fatal(err)
				}
				size += len(sample.Bytes)
				i++
			}
			b.ReportMetric(float64(size)/float64(i), "bytes/image")
			b.ReportMetric(float64(i)/b.Elapsed().Seconds(), "images/s")
		})
	}
}
