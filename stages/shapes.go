package stages

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"

	"sluice/pipeline"
	"sluice/pipeline/config"
)

func init() {
	pipeline.RegisterSource("shapes",
		"A dataset that needs no file and no network: photo-like JPEGs of textured shapes, rendered in memory, the same for the same seed. "+
			"The classes differ in form and texture, not in colour.",
		ShapesOptions{Samples: 10000, Classes: len(shapeClasses), Seed: 1, Split: "train", MaxBytes: 256 << 20},
		func(o ShapesOptions) (pipeline.Source, error) { return NewShapes(o) })
}

// ShapesOptions are the options of the shapes source.
type ShapesOptions struct {
	Samples  int    `yaml:"samples" doc:"how many images there are; each class has its share, to within one image"`
	Classes  int    `yaml:"classes" doc:"how many classes, 2 to 10: disc, square, triangle, star, ring, cross, crescent, stripes, checker, dots"`
	Seed     uint64 `yaml:"seed" doc:"another seed is another dataset of the same kind"`
	Split    string `yaml:"split" doc:"train or val: two datasets with no image in common"`
	MaxBytes int64  `yaml:"max_bytes" doc:"memory for images once made, in bytes; those beyond it are made again every time, with the same bytes"`
}

// splits are the values of split; the place of one keys its random numbers.
var splits = []string{"train", "val"}

// Shapes is the source of that name. Image i is a pure function of (seed, split,
// i): a JPEG of 96 to 200 pixels a side, made on the first Read and kept as long
// as the byte budget allows.
type Shapes struct {
	opt    ShapesOptions
	split  uint64
	labels []int32 // class number to label; nil: the same

	painters sync.Pool // *shapePainter

	mu   sync.RWMutex
	kept map[int][]byte // never changed once in
	used int64          // bytes of kept, with what a map entry costs
}

// NewShapes makes the source. It renders nothing yet.
func NewShapes(o ShapesOptions) (*Shapes, error) {
	if o.Samples < 1 {
		return nil, config.Fieldf("samples", "must be at least 1, is %d", o.Samples)
	}
	if o.Classes < 2 || o.Classes > len(shapeClasses) {
		return nil, config.Fieldf("classes", "must be 2 to %d, is %d", len(shapeClasses), o.Classes)
	}
	if o.MaxBytes < 0 {
		return nil, config.Fieldf("max_bytes", "must not be negative, is %d; 0 keeps nothing", o.MaxBytes)
	}
	split := slices.Index(splits, o.Split)
	if split < 0 {
		return nil, config.Fieldf("split", "must be train or val, is %q", o.Split)
	}
	return &Shapes{
		opt: o, split: uint64(split),
		painters: sync.Pool{New: func() any { return new(shapePainter) }},
		kept:     map[int][]byte{},
	}, nil
}

// Fingerprint adds nothing: the options say all. It implements pipeline.Fingerprinter.
func (s *Shapes) Fingerprint(io.Writer) error { return nil }

// Len is the number of images.
func (s *Shapes) Len() int { return s.opt.Samples }

// Classes names the classes by label, before MapClasses.
func (s *Shapes) Classes() []string {
	names := make([]string, s.opt.Classes)
	for i := range names {
		names[i] = shapeClasses[i].name
	}
	return names
}

// MapClasses makes label i the class called names[i]. It is called before the
// first Read.
func (s *Shapes) MapClasses(names []string) error {
	labels := make([]int32, s.opt.Classes)
	for c := range labels {
		i := slices.Index(names, shapeClasses[c].name)
		if i < 0 {
			return fmt.Errorf("shapes has a class %q that the training source lacks (it has %d: %q); give both the same classes",
				shapeClasses[c].name, len(names), names)
		}
		labels[c] = int32(i)
	}
	s.labels = labels
	return nil
}

// class is the class number of image i: each run of as many images as there are
// classes holds every class once, in an order of its own.
func (s *Shapes) class(i int) int {
	block := i / s.opt.Classes
	return s.rand('c', block).Perm(s.opt.Classes)[i%s.opt.Classes]
}

// rand is the generator for one purpose and place. All four numbers are its key,
// so no two streams meet, of train and val least of all.
func (s *Shapes) rand(purpose byte, i int) *rand.Rand {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[0:], s.opt.Seed)
	binary.LittleEndian.PutUint64(key[8:], s.split)
	binary.LittleEndian.PutUint64(key[16:], uint64(i))
	key[24] = purpose
	return rand.New(rand.NewChaCha8(key))
}

// Read gives image i. It is safe for concurrent use.
func (s *Shapes) Read(ctx context.Context, i int, out *pipeline.Sample) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if i < 0 || i >= s.opt.Samples {
		return fmt.Errorf("shapes: image %d is outside 0..%d", i, s.opt.Samples-1)
	}
	class := s.class(i)
	out.Name = fmt.Sprintf("shapes/%s/%s/%06d.jpg", s.opt.Split, shapeClasses[class].name, i)
	out.Label = int32(class)
	if s.labels != nil {
		out.Label = s.labels[class]
	}
	s.mu.RLock()
	data, ok := s.kept[i]
	s.mu.RUnlock()
	if ok {
		out.Bytes = append(out.Bytes[:0], data...)
		return nil
	}
	p := s.painters.Get().(*shapePainter)
	defer s.painters.Put(p)
	data, err := p.paint(out.Bytes[:0], s.rand('p', i), &shapeClasses[class])
	if err != nil {
		return err
	}
	out.Bytes = data
	s.keep(i, data)
	return nil
}

// entryBytes is about what the map takes for an entry, beside the bytes.
const entryBytes = 64

// keep copies data if the budget has room. Of two that made the same image at
// once, the second finds it there.
func (s *Shapes) keep(i int, data []byte) {
	size := int64(len(data)) + entryBytes
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.kept[i]; ok || size > s.opt.MaxBytes-s.used {
		return
	}
	s.kept[i] = slices.Clone(data)
	s.used += size
}
