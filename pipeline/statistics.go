package pipeline

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"

	"sluice/augment"
)

// Statistics are numbers about a set of images, as float32, so that they are the
// same when they come from a file.
type Statistics struct {
	Images int
	// W, H is the size of the images, and MeanImage (H x W x 3, RGB, in levels of
	// 0..255) their mean; 0 and nil where they differ in size.
	W, H      int
	MeanImage []float32
	Mean      [3]float32 // of all pixels, RGB, in levels
	// PCA is that of the RGB values of all pixels on 0..1.
	PCA augment.PCA
}

// FromSource is what a StatisticsUser says for those of the training images.
const FromSource = "auto"

// Sum is the SHA-256 of all numbers, hex.
func (s *Statistics) Sum() string {
	sum := sha256.New()
	// A hash takes everything, and all of these have a size.
	for _, v := range []any{int64(s.Images), int64(s.W), int64(s.H), s.MeanImage, s.Mean, s.PCA} {
		_ = binary.Write(sum, binary.LittleEndian, v)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// maxPixels bounds what a tally can count: sums of squares stay below 2^64.
const maxPixels = 1 << 48

// tally is sums over images: whole numbers, so that neither the order of the
// images nor who counted which changes them.
type tally struct {
	images, pixels int64
	w, h           int
	varied         bool     // images of another size than w x h came
	place          []uint64 // H x W x 3; nil if varied
	sum            [3]uint64
	product        [6]uint64 // RR, RG, RB, GG, GB, BB
}

// products are the places in tally.product.
var products = [3][3]int{{0, 1, 2}, {1, 3, 4}, {2, 4, 5}}

// add counts an image of w x h pixels without gaps.
func (t *tally) add(pix []byte, w, h int) {
	if t.images == 0 {
		t.w, t.h, t.place = w, h, make([]uint64, len(pix))
	} else if t.w != w || t.h != h {
		t.varied, t.place = true, nil
	}
	t.images++
	t.pixels += int64(w) * int64(h)
	if place := t.place; len(place) >= len(pix) {
		for i, v := range pix {
			place[i] += uint64(v)
		}
	}
	var sr, sg, sb, rr, rg, rb, gg, gb, bb uint64
	for i := 2; i < len(pix); i += 3 {
		r, g, b := uint64(pix[i-2]), uint64(pix[i-1]), uint64(pix[i])
		sr, sg, sb = sr+r, sg+g, sb+b
		rr, rg, rb = rr+r*r, rg+r*g, rb+r*b
		gg, gb, bb = gg+g*g, gb+g*b, bb+b*b
	}
	for i, v := range [3]uint64{sr, sg, sb} {
		t.sum[i] += v
	}
	for i, v := range [6]uint64{rr, rg, rb, gg, gb, bb} {
		t.product[i] += v
	}
}

// merge counts what o has counted.
func (t *tally) merge(o *tally) {
	switch {
	case o.images == 0:
		return
	case t.images == 0:
		t.w, t.h, t.place = o.w, o.h, make([]uint64, len(o.place))
	}
	t.images += o.images
	t.pixels += o.pixels
	if t.varied = t.varied || o.varied || t.w != o.w || t.h != o.h; t.varied {
		t.place = nil
	}
	for i := range t.place {
		t.place[i] += o.place[i]
	}
	for i, v := range o.sum {
		t.sum[i] += v
	}
	for i, v := range o.product {
		t.product[i] += v
	}
}

// statistics divides.
func (t *tally) statistics() (*Statistics, error) {
	if t.images == 0 {
		return nil, errors.New("there is no image to take statistics of")
	}
	s := &Statistics{Images: int(t.images)}
	if !t.varied {
		s.W, s.H, s.MeanImage = t.w, t.h, make([]float32, len(t.place))
		for i, v := range t.place {
			s.MeanImage[i] = float32(float64(v) / float64(t.images))
		}
	}
	// Sxy/n - Sx/n Sy/n would cancel in float64; (n Sxy - Sx Sy) / n^2 is exact in
	// whole numbers.
	var covariance [3][3]float64
	number := func(v uint64) *big.Int { return new(big.Int).SetUint64(v) }
	n := big.NewInt(t.pixels)
	square := new(big.Int).Mul(n, n)
	square.Mul(square, big.NewInt(255*255))
	for a := range 3 {
		s.Mean[a] = float32(float64(t.sum[a]) / float64(t.pixels))
		for b := range 3 {
			v := new(big.Int).Mul(n, number(t.product[products[a][b]]))
			v.Sub(v, new(big.Int).Mul(number(t.sum[a]), number(t.sum[b])))
			covariance[a][b], _ = new(big.Rat).SetFrac(v, square).Float64()
		}
	}
	var err error
	s.PCA, err = augment.NewPCA(covariance)
	return s, err
}

// tallies is a sample stage that counts images, and makes each a picture of one
// pixel: that is all there is to batch.
type tallies struct {
	mu   sync.Mutex
	free []*tally // all that nobody is counting with
}

var onePixel = &augment.RGB{Pix: make([]byte, 3), Stride: 3, W: 1, H: 1}

// Process counts the sample's image.
func (t *tallies) Process(_ context.Context, s *Sample) error {
	if s.drew {
		return errors.New("a stage before the first crop draws random numbers, and statistics are of images without any: say so with Random (pipeline.RandomStage), and it is left out")
	}
	img, err := s.Pixels()
	if err != nil {
		return err
	}
	t.mu.Lock()
	mine := &tally{}
	if n := len(t.free); n > 0 {
		mine, t.free = t.free[n-1], t.free[:n-1]
	}
	t.mu.Unlock()

	full := mine.pixels+int64(img.W)*int64(img.H) > maxPixels
	if !full {
		mine.add(img.Pix[:3*img.W*img.H], img.W, img.H)
	}

	t.mu.Lock()
	t.free = append(t.free, mine)
	t.mu.Unlock()
	if full {
		return fmt.Errorf("these are more than the %d pixels that can be counted", int64(maxPixels))
	}
	s.SetImage(onePixel)
	return nil
}

// statistics sums up, when all samples are done with.
func (t *tallies) statistics() (*Statistics, error) {
	var all tally
	for _, one := range t.free {
		if all.pixels+one.pixels > maxPixels {
			return nil, fmt.Errorf("these are more than the %d pixels that can be counted", int64(maxPixels))
		}
		all.merge(one)
	}
	return all.statistics()
}

// Survey is a pass over a file's training images that takes their Statistics. They
// are taken of the images as they are before anything random: after the sample
// stages up to the canvas that crops are cut from.
type Survey struct {
	Source string   // its name
	Images int      // of the source
	Stages []string // labels of the sample stages
	// W, H is the size of the images; 0 where they differ.
	W, H int

	line        *Line
	tallies     *tallies
	fingerprint func() (string, error)
}

// surveyed says which of the sample stages a Survey has, and the size of images
// after them: those before anything random, up to the last after which an image is
// the whole canvas. The frame of the file is known to be right.
func surveyed(src sourceItem, items []sampleItem) (n int, f Frame) {
	var at Frame
	if framer, ok := src.Value.(Framer); ok {
		at, _ = framer.Frame(at)
		f = Frame{W: at.W, H: at.H}
	}
	calm := 0
	for i, item := range items {
		if r, ok := item.Value.(RandomStage); item.Value == nil || ok && r.Random() {
			break
		}
		if framer, ok := item.Value.(Framer); ok {
			var err error
			if at, err = framer.Frame(at); err != nil || at.views() > 1 {
				break
			}
		}
		calm = i + 1
		if at.W > 0 && at.H > 0 && (at.CanvasW == 0 || at.CanvasW == at.W && at.CanvasH == at.H) {
			n, f = calm, Frame{W: at.W, H: at.H}
		}
	}
	if f.W == 0 { // they differ in size to the end
		n = calm
	}
	return n, f
}

// Survey makes the pass. A Spec is good for one: make another for the run.
func (s *Spec) Survey() (*Survey, error) {
	n, f := surveyed(s.Source, s.Samples)
	items := s.Samples[:n]
	v := &Survey{Source: s.Source.Name, Images: s.env.Samples, W: f.W, H: f.H, tallies: &tallies{}}
	chain := steps(items)
	for _, step := range chain {
		v.Stages = append(v.Stages, step.Label)
	}
	env := s.env
	env.Warn = func(string) {} // the run will say it
	env.RunDir, env.Resume, env.Checkpoints, env.Validate, env.StopAfter = "", false, nil, nil, 0
	env.Epochs, env.BatchSize = 1, min(64, env.Samples)
	env.StepsPerEpoch = (env.Samples + env.BatchSize - 1) / env.BatchSize
	v.line = &Line{
		Seed: s.Seed, Source: s.Source.Value, SourceName: s.Source.Name,
		Steps:     append(chain, Step{"statistics", v.tallies}),
		Frame:     Frame{W: 1, H: 1},
		BatchSize: env.BatchSize, Epochs: 1, Workers: env.Workers, OnError: s.Run.OnError.Policy,
		Stall: s.Run.Stall, Grace: s.Run.Grace,
		Env: &env,
	}
	v.fingerprint = func() (string, error) {
		f, ok := s.Source.Value.(Fingerprinter)
		if !ok {
			return "", nil
		}
		source, err1 := marshal(s.Source)
		samples, err2 := marshal(items)
		sum := sha256.New()
		fmt.Fprintf(sum, "statistics 1\n%s\n%s\n%d\n", source, samples, env.Samples)
		err := errors.Join(err1, err2, f.Fingerprint(sum))
		return hex.EncodeToString(sum.Sum(nil)), err
	}
	return v, v.line.check()
}

// Fingerprint is a hash of the source, with what it says of its images, and of the
// stages: while it is the same, so are the statistics. It is "" if the source
// cannot tell (see Fingerprinter).
func (v *Survey) Fingerprint() (string, error) { return v.fingerprint() }

// Run takes the statistics. A Survey runs once. Sinks get a batch now and then, of
// one pixel an image, and may say how far it is; bad images are treated as in the
// run, but that nothing is kept of them.
func (v *Survey) Run(ctx context.Context, sinks ...NamedSink) (*Statistics, error) {
	v.line.Sinks = sinks
	if err := v.line.Run(ctx); err != nil {
		return nil, err
	}
	return v.tallies.statistics()
}

// users are the stages that want statistics.
func (s *Spec) users() (all []part) {
	every := slices.Concat([]part{s.Source.part()}, parts(s.Samples), parts(s.Batches), parts(s.Sinks))
	if v := s.Validate; v != nil {
		every = slices.Concat(every, []part{v.Source.part()}, parts(v.Samples))
	}
	for _, p := range every {
		if u, ok := p.value.(StatisticsUser); ok && u.Statistics() != "" {
			all = append(all, p)
		}
	}
	return all
}

// StatisticsWanted says where the stages want statistics from: FromSource, or files.
// They must be given (SetStatistics) before the run.
func (s *Spec) StatisticsWanted() (from []string) {
	for _, p := range s.users() {
		if f := p.value.(StatisticsUser).Statistics(); !slices.Contains(from, f) {
			from = append(from, f)
		}
	}
	return from
}

// SetStatistics gives the stages the statistics that they want from there.
func (s *Spec) SetStatistics(from string, t *Statistics) error {
	for _, p := range s.users() {
		if u := p.value.(StatisticsUser); u.Statistics() == from {
			if err := u.SetStatistics(t); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
		}
	}
	if s.given == nil {
		s.given = map[string]bool{}
	}
	s.given[from] = true
	s.env.Numbers = append(s.env.Numbers, fmt.Sprintf("statistics %s: %s", from, t.Sum()))
	return nil
}

// statisticsGiven is an error where there were none.
func (s *Spec) statisticsGiven() error {
	for _, p := range s.users() {
		if from := p.value.(StatisticsUser).Statistics(); !s.given[from] {
			return fmt.Errorf("%s wants statistics from %q, and was not given any (Spec.SetStatistics)", p.name, from)
		}
	}
	return nil
}
