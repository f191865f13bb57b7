package gpu

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"sluice/net"
	"sluice/pipeline"
)

// feed is the two inputs of a network. A batch is loaded into one, in the
// background, while the batch before it computes from the other:
//
//	Process(0)   load 0 ▸ input 0
//	Process(1)   load 1 ▸ input 1   compute 0
//	Process(2)   load 2 ▸ input 0   compute 1
//	Flush                           compute 2
//
// The record of a batch is retained until its input no longer reads it.
type feed struct {
	stage   string // for errors
	plan    *net.NetPlan
	classes []string
	// labels[i] is the network's label of the source's label i; nil where they
	// are the same.
	labels []int32
	// unlabelled loads no labels, whatever the source has.
	unlabelled bool
	// trace, unless nil, is told of the end of each load.
	trace func(step int, began time.Time)

	in      [2]net.Input
	mapped  [2][]int32 // labels of the loaded batch, if they differ
	n       int        // batches loaded so far: the next goes to input n%2
	waiting *loaded    // loaded and not yet taken
}

// loaded is a batch in an input, ready to be computed.
type loaded struct {
	net.Input
	epoch, step int
	cursor      pipeline.Cursor // after it
	names       []string        // of its images
}

func newFeed(stage string, n *net.Network, classes []string) (*feed, error) {
	f := &feed{stage: stage, plan: n.Plan(), classes: classes}
	for i := range f.in {
		var err error
		if f.in[i], err = n.NewInput(); err != nil {
			return nil, errors.Join(err, f.close())
		}
	}
	return f, nil
}

// load begins to load b and returns. What was waiting must have been taken, and
// what was taken before that computed.
func (f *feed) load(b *pipeline.Batch) error {
	images, err := pipeline.ImagesOf(b.Record)
	if err != nil {
		return err
	}
	return f.loadImages(b, images)
}

// loadImages is load for whoever has looked at the images of b already.
func (f *feed) loadImages(b *pipeline.Batch, images pipeline.Images) error {
	spec := f.plan.Input
	if images.H != spec.H || images.W != spec.W || images.N > spec.N {
		return fmt.Errorf("a batch of %d images of %dx%d (width x height) came to a network made for at most %d of %dx%d",
			images.N, images.W, images.H, spec.N, spec.W, spec.H)
	}
	slot := f.n % 2
	labels, err := f.networkLabels(slot, b.Epoch, images)
	if err != nil {
		return err
	}
	b.Record.Retain()
	release := b.Record.Release
	if f.trace != nil {
		step, began, done := b.Step, time.Now(), release
		release = func() {
			f.trace(step, began)
			done()
		}
	}
	err = f.in[slot].Load(net.ImageBatch{
		N: images.N, Pixels: images.Pixels, Shift: images.Shift, Labels: labels, Origin: images.Origin, Flip: images.Flip,
		Release: release,
	})
	if err != nil {
		return err
	}
	f.waiting = &loaded{Input: f.in[slot], epoch: b.Epoch, step: b.Step, cursor: b.Cursor, names: images.Name}
	f.waiting.cursor.Epoch = b.Epoch
	f.n++
	return nil
}

// take gives the batch that waits, or nil.
func (f *feed) take() *loaded {
	p := f.waiting
	f.waiting = nil
	return p
}

// networkLabels checks the labels of a batch and numbers them as the network
// does.
func (f *feed) networkLabels(slot, epoch int, images pipeline.Images) ([]int32, error) {
	if f.unlabelled {
		out := slices.Grow(f.mapped[slot][:0], images.N)[:images.N]
		for i := range out {
			out[i] = -1
		}
		f.mapped[slot] = out
		return out, nil
	}
	known := len(f.classes)
	if f.labels != nil {
		known = len(f.labels)
	}
	for i, l := range images.Label {
		if l >= 0 && int(l) < known {
			continue
		}
		err := fmt.Errorf("label %d is not among the %d classes (0 to %d)", l, known, known-1)
		if l < 0 {
			err = errors.New("it has no label; put it in a class folder or give its label in the list")
		}
		return nil, &pipeline.Error{
			Stage: f.stage, Name: images.Name[i],
			Key: pipeline.Key{Epoch: epoch, Index: int(images.Index[i])}, Err: err,
		}
	}
	if f.labels == nil {
		return images.Label, nil
	}
	out := f.mapped[slot][:0]
	for _, l := range images.Label {
		out = append(out, f.labels[l])
	}
	f.mapped[slot] = out
	return out, nil
}

// close waits for what is being loaded, so that its record is released, and
// gives the inputs back.
func (f *feed) close() error {
	var errs []error
	for i, in := range f.in {
		if in == nil {
			continue
		}
		// Waits only where a batch was never computed; what its load says no
		// longer matters.
		_, _, _ = in.Tensors()
		errs = append(errs, in.Close())
		f.in[i] = nil
	}
	f.waiting = nil
	return errors.Join(errs...)
}
