package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"sluice/augment"
)

// noiseSource gives images of random pixels, all of one size or not.
type noiseSource struct {
	n, side int
	varied  bool
	bad     int // index of an image that cannot be read; 0 is none
}

func (s *noiseSource) Len() int { return s.n }

// Frame is that of pictures of one size.
func (s *noiseSource) Frame(in Frame) (Frame, error) {
	if !s.varied {
		in.W, in.H = s.side, s.side
	}
	return in, nil
}

func (s *noiseSource) image(i int) *augment.RGB {
	w, h := s.side, s.side
	if s.varied {
		w += i % 3
	}
	m := &augment.RGB{Pix: make([]byte, 3*w*h), Stride: 3 * w, W: w, H: h}
	r := rand.New(rand.NewPCG(uint64(i), 1))
	for p := range w * h {
		red := r.IntN(256)
		m.Pix[3*p], m.Pix[3*p+1], m.Pix[3*p+2] = byte(red), byte((red+r.IntN(64))/2), byte(r.IntN(100))
	}
	return m
}

func (s *noiseSource) Read(_ context.Context, i int, sample *Sample) error {
	if s.bad > 0 && i == s.bad {
		return errors.New("broken")
	}
	sample.Name = fmt.Sprint(i)
	sample.SetImage(s.image(i))
	return nil
}

func (s *noiseSource) Fingerprint(w io.Writer) error {
	_, err := fmt.Fprint(w, s.side)
	return err
}

// randomKeep draws, and says so or does not.
type randomKeep struct{ says bool }

func (r randomKeep) Random() bool { return r.says }
func (r randomKeep) Process(_ context.Context, s *Sample) error {
	s.Rand().Uint64()
	return nil
}

type noiseOptions struct {
	Side   int  `yaml:"side" doc:"side of an image"`
	Count  int  `yaml:"count" doc:"images"`
	Varied bool `yaml:"varied" doc:"images of several widths"`
	Bad    int  `yaml:"bad" doc:"an image that cannot be read"`
}

type randomOptions struct {
	Says bool `yaml:"says" doc:"whether it says that it draws"`
}

// wanting is a sample stage that wants statistics.
type wanting struct {
	from string
	got  *Statistics
}

func (w *wanting) Statistics() string                         { return w.from }
func (w *wanting) SetStatistics(s *Statistics) error          { w.got = s; return nil }
func (w *wanting) Process(_ context.Context, _ *Sample) error { return nil }

type wantingOptions struct {
	From string `yaml:"from" doc:"where from"`
}

func init() {
	RegisterSource("noise", "test images", noiseOptions{Side: 12, Count: 70}, func(o noiseOptions) (Source, error) {
		return &noiseSource{n: o.Count, side: o.Side, varied: o.Varied, bad: o.Bad}, nil
	})
	RegisterSampleStage("noise_draws", "draws", randomOptions{Says: true}, func(o randomOptions) (SampleStage, error) { return randomKeep{o.Says}, nil })
	RegisterSampleStage("noise_wants", "wants statistics", wantingOptions{}, func(o wantingOptions) (SampleStage, error) { return &wanting{from: o.From}, nil })
	RegisterSampleStage("noise_crop", "crops", sideOptions{}, func(o sideOptions) (SampleStage, error) { return noiseCrop{o.Size}, nil })
}

// noiseCrop keeps the upper left corner.
type noiseCrop struct{ size int }

func (c noiseCrop) Frame(in Frame) (Frame, error) {
	out := Frame{W: c.size, H: c.size, CanvasW: in.CanvasW, CanvasH: in.CanvasH}
	if out.CanvasW == 0 {
		out.CanvasW, out.CanvasH = c.size, c.size
	}
	return out, nil
}

func (c noiseCrop) Process(_ context.Context, s *Sample) error {
	s.SetView(s.View().Crop(0, 0, c.size, c.size))
	return nil
}

func survey(t *testing.T, samples, more string) *Survey {
	t.Helper()
	spec, err := Parse("test.yaml", []byte("name: x\nsource: {noise: {"+more+"}}\nsamples: "+samples+"\nbatch: {size: 8}\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	v, err := spec.Survey()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestStatistics compares with plain sums in float64.
func TestStatistics(t *testing.T) {
	for _, varied := range []bool{false, true} {
		src := &noiseSource{n: 70, side: 12, varied: varied}
		var sum [3]float64
		var square [3][3]float64
		pixels, place := 0., make([]float64, 12*12*3)
		for i := range src.n {
			m := src.image(i)
			for p := range m.W * m.H {
				rgb := m.Pix[3*p:]
				pixels++
				for a := range 3 {
					sum[a] += float64(rgb[a])
					if !varied {
						place[3*p+a] += float64(rgb[a]) / float64(src.n)
					}
					for b := range 3 {
						square[a][b] += float64(rgb[a]) * float64(rgb[b])
					}
				}
			}
		}
		want := &Statistics{Images: src.n}
		var covariance [3][3]float64
		for a := range 3 {
			want.Mean[a] = float32(sum[a] / pixels)
			for b := range 3 {
				covariance[a][b] = (square[a][b]/pixels - sum[a]/pixels*sum[b]/pixels) / (255 * 255)
			}
		}
		var err error
		if want.PCA, err = augment.NewPCA(covariance); err != nil {
			t.Fatal(err)
		}
		var first *Statistics
		for _, workers := range []int{1, 2, 7} {
			l := &tallies{}
			v := Survey{tallies: l, line: &Line{
				Source: src, SourceName: "noise", Steps: []Step{{"statistics", l}}, Frame: Frame{W: 1, H: 1},
				BatchSize: 16, Epochs: 1, Workers: workers, Env: &Env{},
			}}
			got, err := v.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if first == nil {
				first = got
			}
			if !reflect.DeepEqual(first, got) || first.Sum() != got.Sum() {
				t.Errorf("varied %v: %d workers have other statistics than 1", varied, workers)
			}
		}
		if (first.MeanImage == nil) != varied || !varied && (first.W != 12 || first.H != 12) {
			t.Fatalf("varied %v: a mean image of %dx%d, %d numbers", varied, first.W, first.H, len(first.MeanImage))
		}
		for i, v := range first.MeanImage {
			if math.Abs(float64(v)-place[i]) > 1e-4 {
				t.Fatalf("number %d of the mean image is %g, want %g", i, v, place[i])
			}
		}
		if first.Images != want.Images || first.Mean != want.Mean {
			t.Errorf("varied %v: %d images of mean %v, want %d of %v", varied, first.Images, first.Mean, want.Images, want.Mean)
		}
		for i := range 3 {
			if d := first.PCA.Values[i] - want.PCA.Values[i]; math.Abs(d) > 1e-7 {
				t.Errorf("varied %v: eigenvalue %d is %g, want %g", varied, i, first.PCA.Values[i], want.PCA.Values[i])
			}
			for c := range 3 {
				if d := first.PCA.Vectors[c][i] - want.PCA.Vectors[c][i]; math.Abs(d) > 1e-5 {
					t.Errorf("varied %v: eigenvector %d is %v, want %v", varied, i, first.PCA.Vectors, want.PCA.Vectors)
				}
			}
		}
	}
}

// A sum that differs in one number is another one.
func TestStatisticsSum(t *testing.T) {
	s := Statistics{Images: 3, W: 1, H: 1, MeanImage: []float32{1, 2, 3}}
	sums := map[string]bool{s.Sum(): true}
	for _, change := range []func(){func() { s.MeanImage[2]++ }, func() { s.Mean[0]++ }, func() { s.PCA.Values[2]++ }, func() { s.Images++ }} {
		change()
		if sums[s.Sum()] {
			t.Error("another set of numbers has the same sum")
		}
		sums[s.Sum()] = true
	}
}

// TestSurveyed: the images are those before anything random, and whole canvases.
func TestSurveyed(t *testing.T) {
	for _, c := range []struct {
		samples, stages string
		side            int
	}{
		{"[noise_wants, noise_draws]", "noise_wants", 12},
		{"[noise_crop: {size: 10}, noise_crop: {size: 8}]", "noise_crop", 10},
		{"[noise_crop: {size: 10}, noise_draws, noise_crop: {size: 8}]", "noise_crop", 10},
		{"[noise_draws, noise_crop: {size: 8}]", "", 12},
		{"[noise_crop: {size: 8}, noise_wants, noise_draws]", "noise_crop noise_wants", 8},
	} {
		v := survey(t, c.samples, "")
		if got := strings.Join(v.Stages, " "); got != c.stages || v.W != c.side || v.H != c.side {
			t.Errorf("%s: the survey has the stages %q and images of %dx%d, want %q and %d", c.samples, got, v.W, v.H, c.stages, c.side)
		}
		s, err := v.Run(t.Context())
		if err != nil || s.Images != 70 {
			t.Errorf("%s: %v, %v", c.samples, s, err)
		}
	}
	if _, err := survey(t, "[noise_draws: {says: false}, noise_crop: {size: 8}]", "").Run(t.Context()); err == nil || !strings.Contains(err.Error(), "Random") {
		t.Errorf("a stage that draws and does not say so: %v", err)
	}
	if _, err := survey(t, "[noise_crop: {size: 8}]", "bad: 5").Run(t.Context()); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("an image that cannot be read: %v", err)
	}
}

func TestSurveyFingerprint(t *testing.T) {
	sum := func(samples, more string) string {
		t.Helper()
		s, err := survey(t, samples, more).Fingerprint()
		if err != nil || s == "" {
			t.Fatalf("%q, %v", s, err)
		}
		return s
	}
	const samples = "[noise_crop: {size: 8}, noise_draws, noise_crop: {size: 4}]"
	first := sum(samples, "")
	if again := sum("[noise_crop: {size: 8}, noise_draws, noise_crop: {size: 5}]", ""); again != first {
		t.Error("what comes after the survey's stages changes the fingerprint")
	}
	for _, other := range []string{sum("[noise_crop: {size: 9}, noise_draws, noise_crop: {size: 4}]", ""), sum(samples, "side: 13"), sum(samples, "count: 71")} {
		if other == first {
			t.Error("another dataset, or other stages, have the same fingerprint")
		}
	}
}

func TestStatisticsWanted(t *testing.T) {
	parse := func() *Spec {
		spec, err := Parse("test.yaml", []byte("name: x\nsource: noise\nsamples: [noise_wants: {from: auto}, noise_wants: {from: b.safetensors}, noise_wants, noise_crop: {size: 4}]\nbatch: {size: 8}\n"), nil)
		if err != nil {
			t.Fatal(err)
		}
		return spec
	}
	spec := parse()
	if from := spec.StatisticsWanted(); !reflect.DeepEqual(from, []string{"auto", "b.safetensors"}) {
		t.Errorf("wanted from %q", from)
	}
	if _, err := spec.Line("test"); err == nil || !strings.Contains(err.Error(), "auto") {
		t.Errorf("a line without statistics: %v", err)
	}
	one, two := &Statistics{Images: 1}, &Statistics{Images: 2}
	if err := errors.Join(spec.SetStatistics("auto", one), spec.SetStatistics("b.safetensors", two)); err != nil {
		t.Fatal(err)
	}
	l, err := spec.Line("test")
	if err != nil {
		t.Fatal(err)
	}
	if a, b, c := l.Steps[0].Stage.(*wanting), l.Steps[1].Stage.(*wanting), l.Steps[2].Stage.(*wanting); a.got != one || b.got != two || c.got != nil {
		t.Errorf("given %v, %v and %v", a.got, b.got, c.got)
	}
	if n := l.Env.Numbers; len(n) != 2 || !strings.Contains(n[0], one.Sum()) || !strings.Contains(n[1], two.Sum()) {
		t.Errorf("the numbers are %q", n)
	}
}

func BenchmarkTally(b *testing.B) {
	m := (&noiseSource{side: 256}).image(0)
	var t tally
	b.SetBytes(int64(len(m.Pix)))
	for b.Loop() {
		t.add(m.Pix, m.W, m.H)
	}
}
