package pipeline

import (
	"errors"
	"fmt"
	"image"
	"math/rand/v2"
	"slices"

	"sluice/augment"
)

// Key names a sample by its place in the dataset, never by its place in the
// stream.
type Key struct{ Epoch, Index int }

// Sample is one image on its way. It is owned by the engine and lent to one
// stage at a time; a stage must not keep it, its Bytes, its pixels or its Rand.
type Sample struct {
	Key
	Name  string
	Label int32
	Bytes []byte // encoded
	// Shift is added to every pixel, a channel (RGB, in levels of 0..255); the
	// device does it, so stages see pixels without it.
	Shift [3]float32

	sampleState
}

type sampleState struct {
	seed, label uint64 // with the Key, what Rand is made of
	chacha      rand.ChaCha8
	rng         *rand.Rand
	seeded      bool // chacha stands for this sample and this stage
	drew        bool // some stage has asked for Rand

	post    *post    // where the worker notes which stage has it; nil outside a run
	stage   string   // that has the sample, as errors name it
	notices []notice // what stages had to say of it
	pending Picture  // instead of img, until its pixels are needed
	decoder string   // the stage that set pending
	spoilt  error    // why pending gave no picture
	blamed  string   // the stage of spoilt, or of a panic instead

	img      image.Image
	view     augment.View   // pending, of img or of pending
	views    []augment.View // instead of view, if the sample is several pictures
	mixed    bool           // views, and then another geometry
	done     geometry       // rendered into img already
	renderer augment.Renderer
	// Two buffers, because rendering an image that is in one needs another.
	rendered [2]augment.RGB
	// lent is how stages see them: without what lies behind the picture in a buffer
	// that held a larger one, so that writing there panics and says who did it.
	lent     [2]augment.RGB
	several  []augment.RGB // a buffer for each of views
	pictures []rendering
	scratch  []scratch
}

type scratch struct{ owner, memory any }

// Scratch is memory of type T that a stage (owner) keeps with the sample's place
// in the engine: the zero T at first, later what an earlier sample left in it. It
// serves one sample at a time, so a decoder and its buffers can be reused, and
// what SetImage is given may lie in it.
func Scratch[T any](s *Sample, owner any) *T {
	for _, m := range s.scratch {
		if t, ok := m.memory.(*T); ok && m.owner == owner {
			return t
		}
	}
	t := new(T)
	s.scratch = append(s.scratch, scratch{owner, t})
	return t
}

// geometry is what the record says of where the pixels come from.
type geometry struct {
	origin  image.Point // of the pixels on their canvas, before the flip
	flip    bool
	cropped bool // the canvas is settled: a further crop moves the origin on it
}

// NewSample makes a sample outside a run, for tests of stages: seed and stage
// decide what Rand gives, as in a run.
func NewSample(seed uint64, stage string, key Key) *Sample {
	s := &Sample{}
	s.seed = seed
	s.reset(key)
	s.enter(stage, labelHash(stage))
	return s
}

// reset makes a used sample a new one and keeps its memory.
func (s *Sample) reset(key Key) {
	s.Key, s.Name, s.Label, s.Bytes, s.Shift = key, "", -1, s.Bytes[:0], [3]float32{}
	s.img, s.view, s.done = nil, augment.View{}, geometry{}
	s.views, s.mixed = s.views[:0], false
	s.drew = false
	s.stage, s.notices = "", s.notices[:0]
	s.pending, s.decoder, s.spoilt, s.blamed = nil, "", nil, ""
}

// enter hands the sample to the stage with that label, and the label's hash.
func (s *Sample) enter(stage string, label uint64) {
	s.stage, s.label, s.seeded = stage, label, false
	s.post.enter(call{stage: stage, name: s.Name, key: s.Key})
}

// Rand is the stage's own random numbers for this sample: a pure function of
// (seed, epoch, index, stage label). Within one stage, further calls go on with
// the same stream.
func (s *Sample) Rand() *rand.Rand {
	s.drew = true
	if s.rng == nil {
		s.rng = rand.New(&s.chacha)
	}
	if !s.seeded {
		s.chacha.Seed(randKey(s.seed, s.Key, s.label))
		s.seeded = true
	}
	return s.rng
}

// SetImage gives the sample a decoded picture and resets the View to all of it.
// The sample holds img until it is rendered. Pictures other than *image.YCbCr
// and *augment.RGB are converted when rendered.
func (s *Sample) SetImage(img image.Image) {
	size := img.Bounds().Size()
	s.img, s.view, s.done = img, augment.NewView(size.X, size.Y, 1), geometry{}
	s.views, s.mixed = s.views[:0], false
	s.pending, s.spoilt, s.blamed = nil, nil, ""
}

// A Picture is one whose pixels are computed when they are needed, and only where.
type Picture interface {
	// Bounds begins at (0, 0).
	Bounds() image.Rectangle
	// Decode gives the picture, of those bounds. region is what of it will be looked
	// at; elsewhere its pixels may be anything. It is called once at most, with the
	// sample that SetPicture had. Its error is that of the stage that called SetPicture.
	Decode(s *Sample, region image.Rectangle) (image.Image, error)
}

// SetPicture is SetImage for a picture that is decoded later: when the last stage
// has said which window of it is kept, or a stage asks for its pixels. What Decode
// reads, such as Bytes, must not change until then.
func (s *Sample) SetPicture(p Picture) {
	size := p.Bounds().Size()
	s.img, s.view, s.done = nil, augment.NewView(size.X, size.Y, 1), geometry{}
	s.views, s.mixed = s.views[:0], false
	s.pending, s.decoder, s.spoilt, s.blamed = p, s.stage, nil, ""
}

// HasImage reports whether there is a picture, decoded or yet to be.
func (s *Sample) HasImage() bool { return s.img != nil || s.pending != nil || s.spoilt != nil }

// Image is the decoded picture that the View is of, nil before decode. It decodes
// what SetPicture was given, all of it; if that fails it is nil, and Pixels has the
// error. A stage that only edits the View asks HasImage.
func (s *Sample) Image() image.Image {
	if s.pending != nil {
		s.decode(s.pending.Bounds())
	}
	return s.img
}

// decode makes what is pending the image.
func (s *Sample) decode(region image.Rectangle) error {
	p, stage := s.pending, s.stage
	if p == nil {
		return s.spoilt
	}
	s.pending, s.stage, s.blamed = nil, s.decoder, s.decoder
	before := s.post.enter(call{stage: s.decoder, name: s.Name, key: s.Key})
	img, err := p.Decode(s, region)
	s.post.enter(before)
	if err == nil && (img == nil || img.Bounds().Size() != p.Bounds().Size()) {
		err = fmt.Errorf("a picture of %v has decoded to another size", p.Bounds().Size())
	}
	s.stage = stage
	if err != nil {
		s.spoilt = err
		return err
	}
	s.img, s.blamed = img, ""
	return nil
}

// Warn says that there is something wrong with the sample, which is used all the
// same. The user is told which sample and why, and a quarantine sink has a row of it.
func (s *Sample) Warn(reason string) { s.notices = append(s.notices, notice{s.stage, reason}) }

// Warnings are the reasons that stages gave to Warn so far.
func (s *Sample) Warnings() []string {
	var all []string
	for _, n := range s.notices {
		all = append(all, n.reason)
	}
	return all
}

// notice is what a stage had to say of a sample.
type notice struct{ stage, reason string }

// View is the pending geometry; the zero View before there is an image.
func (s *Sample) View() augment.View { return s.view }

// SetView replaces the pending geometry. Before there is an image it does
// nothing, and Pixels returns ErrNoImage. After SetViews it is a mistake, of which
// the error is that of the sample.
func (s *Sample) SetView(v augment.View) {
	if s.HasImage() {
		s.view, s.mixed = v, len(s.views) > 0
	}
}

// SetViews makes several pictures of the sample, each a window of the image of its
// own, all of one size: each has a row of its own in the batch, in their order,
// with the sample's index, name, label and shift. No geometry may follow, and
// Pixels is ErrViews from here on. A stage that does it has Frame, and says how
// many there are in Frame.Views. Before there is an image it does nothing.
func (s *Sample) SetViews(views ...augment.View) {
	if s.HasImage() {
		s.mixed = len(s.views) > 0
		s.views = append(s.views[:0], views...)
	}
}

// Pixels renders the pending View (8-bit RGB, H x W x 3, rows without gaps) and
// makes it the sample's image, keeping crop origin and flip for the record. The
// caller may change the pixels in place, and nothing else of the picture: another
// size is another picture, for SetImage. They are the engine's memory: valid until
// the sample leaves the stage.
func (s *Sample) Pixels() (*augment.RGB, error) {
	switch {
	case !s.HasImage():
		return nil, ErrNoImage
	case len(s.views) > 0:
		return nil, ErrViews
	}
	if err := s.decode(s.view.Source()); err != nil {
		return nil, err
	}
	pixels, _ := s.img.(*augment.RGB)
	if err := s.intact(); err != nil {
		return nil, err
	}
	mine := pixels == &s.lent[0] || pixels == &s.lent[1]
	if !mine || !untouched(s.view) {
		i := 0
		if pixels == &s.lent[0] {
			i = 1
		}
		dst := &s.rendered[i]
		if err := s.renderer.Render(dst, s.img, s.view); err != nil {
			return nil, err
		}
		pixels = &s.lent[i]
		*pixels = *dst
		pixels.Pix = slices.Clip(dst.Pix)
	}
	if pixels.W < 1 || pixels.H < 1 {
		return nil, errors.New("the picture is empty")
	}
	s.done = s.done.then(s.view)
	s.img, s.view = pixels, augment.NewView(pixels.W, pixels.H, 1)
	return pixels, nil
}

// intact says what a stage did to the picture that Pixels gave it, other than to
// change its pixels.
func (s *Sample) intact() error {
	for i := range s.lent {
		got, want := &s.lent[i], &s.rendered[i]
		if s.img == got && (got.W != want.W || got.H != want.H || got.Stride != want.Stride || len(got.Pix) != len(want.Pix) || len(want.Pix) > 0 && &got.Pix[0] != &want.Pix[0]) {
			return fmt.Errorf("the stage has replaced the picture of %dx%d that Pixels gave it: change its bytes in place, or give another picture by SetImage",
				want.W, want.H)
		}
	}
	return nil
}

// rendering is a row of the batch: pixels and where they come from.
type rendering struct {
	rgb *augment.RGB
	geometry
}

// render gives the pictures that the sample has become, valid as those of Pixels.
func (s *Sample) render() ([]rendering, error) {
	s.pictures = s.pictures[:0]
	if len(s.views) == 0 {
		rgb, err := s.Pixels()
		if err == nil {
			s.pictures = append(s.pictures, rendering{rgb, s.done})
		}
		return s.pictures, err
	}
	if s.mixed {
		return nil, ErrViews
	}
	region := s.views[0].Source()
	for _, v := range s.views[1:] {
		region = region.Union(v.Source())
	}
	if err := s.decode(region); err != nil {
		return nil, err
	}
	for len(s.several) < len(s.views) {
		s.several = append(s.several, augment.RGB{})
	}
	for i, v := range s.views {
		if err := s.renderer.Render(&s.several[i], s.img, v); err != nil {
			return nil, err
		}
		s.pictures = append(s.pictures, rendering{&s.several[i], s.done.then(v)})
	}
	return s.pictures, nil
}

// untouched reports whether rendering v would be a copy.
func untouched(v augment.View) bool {
	return v.Orient <= 1 && v.Part.Empty() && v.Scaled == v.Size && v.Window == (image.Rectangle{Max: v.Size}) && !v.Flip
}

// then is the geometry after v is rendered from pixels of geometry g.
func (g geometry) then(v augment.View) geometry {
	next := geometry{origin: v.Origin(), flip: g.flip != v.Flip, cropped: v.Cropped}
	if v.Scaled != v.Size || !v.Part.Empty() || v.Orient > 1 {
		return next // a new canvas
	}
	canvas := v.Canvas
	if g.cropped {
		canvas, next.cropped = image.Rectangle{Max: v.Size}, true // what was cropped before
	}
	// v's window lies on pixels that are flipped already if g.flip; the record's
	// origin counts on the canvas before the flip.
	x := v.Window.Min.X - canvas.Min.X
	if g.flip {
		x = canvas.Max.X - v.Window.Max.X
	}
	next.origin = g.origin.Add(image.Pt(x, v.Window.Min.Y-canvas.Min.Y))
	return next
}
