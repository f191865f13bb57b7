package gpu

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"sluice/net"
	"sluice/pipeline"
)

// scorer computes networks forward over batches and sums what comes out. It is
// the whole of evaluate, and the validation within train, which lends it its
// network and inputs.
//
// Where there are several networks, or several views of each image, an image's
// prediction is the mean of their softmax outputs (the paper's section 4.1 and
// table 2).
type scorer struct {
	engine  net.Engine
	members []member
	meter   meter
	sum     span
	// total is added up batch by batch, so that how often progress is told changes
	// no bit of it.
	total net.Stats

	waiting samples // of the batch that is loaded and not yet computed
	sums    []float64
	buf     []float32
	counts  map[cell]outcome // nil if nobody wants to know
}

// member is one of the networks that are averaged.
type member struct {
	net  *net.Network
	feed *feed
	// order[c] is the output that stands for class c; nil where it is output c.
	order []int32
}

// samples are those of a batch: where the rows of each begin, and its class.
type samples struct {
	first  []int
	labels []int32
	rows   int
}

// cell is a place in the confusion matrix, outcome how often it came to it.
type (
	cell    struct{ label, predicted int32 }
	outcome struct{ images, top5 int64 }
)

func newScorer(e net.Engine, n *net.Network, f *feed) *scorer {
	return &scorer{engine: e, members: []member{{net: n, feed: f}}}
}

func (s *scorer) Holds() int { return 2 }

func (s *scorer) Process(ctx context.Context, b *pipeline.Batch, _ pipeline.Emit) error {
	s.meter.enter()
	defer s.meter.leave()
	images, err := pipeline.ImagesOf(b.Record)
	if err != nil {
		return err
	}
	last := make([]*loaded, len(s.members))
	for i, m := range s.members {
		last[i] = m.feed.take()
		if err := m.feed.loadImages(b, images); err != nil {
			return err
		}
	}
	before := s.waiting
	s.waiting = samplesOf(images, s.members[0].feed.labels)
	return s.compute(ctx, last, before)
}

// samplesOf finds the rows that are views of one sample, which follow each other,
// and numbers the labels as the network does.
func samplesOf(images pipeline.Images, labels []int32) samples {
	s := samples{rows: images.N}
	for i, index := range images.Index {
		if i > 0 && index == images.Index[i-1] {
			continue
		}
		label := images.Label[i]
		if labels != nil {
			label = labels[label] // feed.load has looked at it
		}
		s.first, s.labels = append(s.first, i), append(s.labels, label)
	}
	return s
}

func (s *scorer) Flush(ctx context.Context, _ pipeline.Emit) error {
	s.meter.enter()
	last := make([]*loaded, len(s.members))
	for i, m := range s.members {
		last[i] = m.feed.take()
	}
	err := s.compute(ctx, last, s.waiting)
	s.meter.cut()
	s.sum = s.meter.run
	s.sum.stats = s.total
	return err
}

// compute scores a batch, if there is one.
func (s *scorer) compute(ctx context.Context, p []*loaded, of samples) error {
	if p[0] == nil {
		return nil
	}
	for i, m := range s.members {
		if err := m.net.Forward(ctx, p[i].Input, p[i].step, false); err != nil {
			return err
		}
		if err := s.engine.Sync(); err != nil {
			return err
		}
	}
	// One network and one view: the engine's own loss is the exact one.
	single := len(s.members) == 1 && len(of.first) == of.rows
	var stats net.Stats
	if single {
		var err error
		if stats, err = s.members[0].net.Stats(); err != nil {
			return err
		}
	}
	if !single || s.counts != nil {
		mean, err := s.average(of)
		if err != nil {
			return err
		}
		averaged := s.score(mean, of)
		if !single {
			stats = averaged
		}
	}
	s.meter.step(stats)
	s.total = sum(s.total, stats)
	return nil
}

// average gives the prediction of each sample, one after the other: the mean over
// networks and views. The sums are in a fixed order.
func (s *scorer) average(of samples) ([]float64, error) {
	classes := 0
	for i, m := range s.members {
		s.buf = m.net.Probabilities(s.buf[:0], of.rows)
		if err := s.engine.Sync(); err != nil {
			return nil, err
		}
		if i == 0 {
			classes = len(s.buf) / of.rows
			s.sums = slices.Grow(s.sums[:0], len(of.first)*classes)[:len(of.first)*classes]
			clear(s.sums)
		}
		for k := range of.first {
			first, end := of.row(k)
			weight := 1 / float64((end-first)*len(s.members))
			sum := s.sums[k*classes:][:classes]
			for r := first; r < end; r++ {
				row := s.buf[r*classes:][:classes]
				for c := range sum {
					from := c
					if m.order != nil {
						from = int(m.order[c])
					}
					sum[c] += weight * float64(row[from])
				}
			}
		}
	}
	return s.sums, nil
}

// row is the rows first to end-1 of sample k.
func (s samples) row(k int) (first, end int) {
	if k+1 < len(s.first) {
		return s.first[k], s.first[k+1]
	}
	return s.first[k], s.rows
}

// least is the smallest probability that a float32 softmax gives, for a loss that
// is finite where all predictions round to 0.
const least = math.SmallestNonzeroFloat32

// score compares predictions with labels. Of equal ones the lower class is taken
// to be first, as the engines do.
func (s *scorer) score(mean []float64, of samples) (stats net.Stats) {
	classes := len(mean) / len(of.first)
	for k, label := range of.labels {
		p := mean[k*classes:][:classes]
		rank, best := 0, 0
		for c, v := range p {
			if v > p[label] || v == p[label] && c < int(label) {
				rank++
			}
			if v > p[best] {
				best = c
			}
		}
		stats.Rows++
		stats.Loss -= math.Log(max(p[label], least))
		if rank < 1 {
			stats.Top1++
		}
		if rank < 5 {
			stats.Top5++
		}
		if s.counts != nil {
			at := cell{label, int32(best)}
			n := s.counts[at]
			n.images++
			if rank < 5 {
				n.top5++
			}
			s.counts[at] = n
		}
	}
	return stats
}

// result gives the averages, after Flush.
func (s *scorer) result() (pipeline.Metric, error) {
	if s.sum.stats.Rows == 0 {
		return pipeline.Metric{}, errors.New("no image was left to measure")
	}
	row := s.sum.metric("validation")
	if math.IsNaN(row.Loss) || math.IsInf(row.Loss, 0) {
		return row, fmt.Errorf("the loss is %g: the network has diverged; train it with a lower solver.lr", row.Loss)
	}
	return row, nil
}

// outcomes are the confusion matrix, as rows of an Evaluation batch: what came up,
// and the diagonal, so that every class is named.
func (s *scorer) outcomes(classes []string) []pipeline.Outcome {
	var rows []pipeline.Outcome
	add := func(at cell, n outcome) {
		rows = append(rows, pipeline.Outcome{
			Label: at.label, Class: classes[at.label], Predicted: at.predicted, PredictedClass: classes[at.predicted],
			Images: n.images, Top5: n.top5,
		})
	}
	for at, n := range s.counts {
		add(at, n)
	}
	for c := range int32(len(classes)) {
		if at := (cell{c, c}); s.counts[at] == (outcome{}) {
			add(at, outcome{})
		}
	}
	slices.SortFunc(rows, func(a, b pipeline.Outcome) int {
		return slices.Compare([]int32{a.Label, a.Predicted}, []int32{b.Label, b.Predicted})
	})
	return rows
}

// close gives the inputs back.
func (s *scorer) close() error {
	var errs []error
	for _, m := range s.members {
		errs = append(errs, m.feed.close())
	}
	return errors.Join(errs...)
}
