package host

import (
	"fmt"
	"sync"

	"sluice/gpu/host/simd"
	"sluice/net"
)

// input is a place for a batch, with a goroutine of its own that fills it.
type input struct {
	e         *Engine
	spec      net.InputSpec
	x, labels *net.Tensor
	affine    simd.Affine // of the image that is converted now
	// mean is the mean image as it is and mirrored, channels in the tensor's order;
	// nil without one.
	mean [2][]float32

	batches chan net.ImageBatch
	loaded  chan error // one for each batch
	ended   sync.WaitGroup

	mu      sync.Mutex
	loading bool
	closed  bool
	err     error // of the last load
	n       int
}

// NewInput makes a place for batches. Mean, Scale and the batch's Shift are in
// RGB order whatever BGR says.
func (e *Engine) NewInput(s net.InputSpec) (net.Input, error) {
	if e.err != nil {
		return nil, e.err
	}
	if err := s.Check(); err != nil {
		return nil, fmt.Errorf("cpu: %w", err)
	}
	ts, err := e.Alloc([]net.Spec{
		{Name: "input", Shape: s.Shape(), Kind: net.Map, Halo: s.Halo, To: -1},
		{Name: "labels", Shape: net.Shape{N: 1, C: s.N, H: 1, W: 1}, Kind: net.Vector, To: -1},
	})
	if err != nil {
		return nil, err
	}
	in := &input{e: e, spec: s, x: ts[0], labels: ts[1], batches: make(chan net.ImageBatch), loaded: make(chan error, 1)}
	in.mean = means(s)
	in.fillLabels(nil)
	in.ended.Go(in.serve)
	e.inputs = append(e.inputs, in)
	return in, nil
}

// means is the mean image, and mirrored, in the order in which lines have channels.
func means(s net.InputSpec) (both [2][]float32) {
	m := s.MeanImage
	if m == nil {
		return both
	}
	for i := range both {
		both[i] = make([]float32, len(m.Pixels))
	}
	for at := range m.H * m.W {
		mirrored := at - at%m.W + m.W - 1 - at%m.W
		for c := range 3 {
			to := c
			if s.BGR {
				to = 2 - c
			}
			v := m.Pixels[3*at+c]
			both[0][3*at+to], both[1][3*mirrored+to] = v, v
		}
	}
	return both
}

func (in *input) serve() {
	for b := range in.batches {
		in.loaded <- in.convert(b)
	}
}

// Load begins to convert b.
func (in *input) Load(b net.ImageBatch) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	err := in.spec.Fits(b)
	if err != nil {
		err = fmt.Errorf("cpu: %w", err)
	}
	if err == nil && in.closed {
		err = fmt.Errorf("cpu: loading into a closed input")
	}
	if err != nil {
		if b.Release != nil {
			b.Release()
		}
		return err
	}
	in.wait()
	in.n, in.loading = b.N, true
	in.batches <- b
	return nil
}

// wait is for the load under way; in.mu is held.
func (in *input) wait() {
	if in.loading {
		in.err = <-in.loaded
		in.loading = false
	}
}

// Tensors waits for the load and gives the images and labels.
func (in *input) Tensors() (x, labels *net.Tensor, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return nil, nil, fmt.Errorf("cpu: the input is closed")
	}
	in.wait()
	if in.err != nil {
		return nil, nil, in.err
	}
	return in.x, in.labels, nil
}

// N is how many rows were loaded.
func (in *input) N() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.n
}

// Close ends the goroutine, after the load under way.
func (in *input) Close() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.closed {
		in.closed = true
		in.wait()
		close(in.batches)
		in.ended.Wait()
	}
	return nil
}

// convert computes ((pixel - mean) + shift) * scale, in this order.
func (in *input) convert(b net.ImageBatch) (err error) {
	defer func() {
		if v := recover(); v != nil { // a Release that panics
			err = fmt.Errorf("cpu: loading a batch: panic: %v", v)
		}
	}()
	x := open(in.x)
	for n := range x.n {
		if n >= b.N {
			for h := range x.h {
				clear(x.line(n, h))
			}
			continue
		}
		in.image(&x, &b, n)
	}
	in.fillLabels(b.Labels)
	if b.Release != nil {
		b.Release()
	}
	return nil
}

func (in *input) image(x *view, b *net.ImageBatch, n int) {
	s, points := &in.spec, simd.PointsOf(in.e.level)
	var shift [3]float32
	if b.Shift != nil {
		copy(shift[:], b.Shift[3*n:])
	}
	in.affine.Set(s.Mean, shift, s.Scale, s.BGR)
	var mean []float32 // of the image's first pixel
	if m := s.MeanImage; m != nil {
		at, which := int(b.Origin[2*n]), 0
		if b.Flip != nil && b.Flip[n] {
			at, which = m.W-s.W-at, 1
		}
		mean = in.mean[which][3*(int(b.Origin[2*n+1])*m.W+at):]
	}
	// Rows and columns of padding are zero from the beginning.
	for h := range s.H {
		src, dst := b.Pixels[(n*s.H+h)*s.W*3:], x.line(n, s.Top+h)[s.Left*3:][:s.W*3]
		if mean != nil {
			points.AffineImage(dst, src, mean[3*h*s.MeanImage.W:], &in.affine)
		} else {
			points.Affine(dst, src, &in.affine)
		}
	}
}

// fillLabels sets the labels, -1 for rows beyond them.
func (in *input) fillLabels(labels []int32) {
	dst := in.labels.Mem.(*memory).f
	for i := range dst {
		dst[i] = -1
		if i < len(labels) {
			dst[i] = float32(labels[i])
		}
	}
}
