package host

import (
	"sluice/gpu/host/simd"
	"sluice/net"
)

// winoPlan is the scratch memory that Winograd's algorithm takes for the tensors of
// a network.
type winoPlan struct {
	// In the arena: of gradients of weights, for as long as one is computed, and of
	// weights that no step changes, for ever. of is each one's place among the tensors.
	specs []net.Spec
	of    []int
	// Of the other passes, which all share, and in each worker's buffers.
	shared, buf, alt int
}

// winoPlan plans for all passes that specs have tensors for. Which of them belong to
// a convolution is not known, nor its stride: it is taken to give every map of as many
// channels, at every stride.
func (e *Engine) winoPlan(specs []net.Spec) (p winoPlan) {
	trains := false
	for _, s := range specs {
		trains = trains || isGradient(s)
	}
	for i, s := range specs {
		if _, err := elements(s, e.level); err != nil || s.Kind != net.Filter || s.Shape.H != s.Shape.W {
			continue
		}
		w := weightOf(s, e.level)
		back := simd.TilesFor(e.level, w.c)
		scratch := 0
		for _, m := range specs {
			if _, err := elements(m, e.level); err != nil || m.Kind != net.Map {
				continue
			}
			for stride := 1; stride <= s.Shape.H; stride++ {
				f := e.form(m.Shape, net.Conv{Size: s.Shape.H, Stride: stride, Groups: w.groups}, s.Shape)
				if f == nil {
					continue
				}
				if m.Shape.C == w.o*w.groups {
					if isGradient(s) {
						j := weightGradOf(f, m.Shape, w, stride)
						x, dy, sums := j.cut()
						scratch = max(scratch, x+dy+sums)
						back := j.filter()
						p.share(0, back.copied(), j.patch(f.Side))
					} else {
						j := forwardOf(f, m.Shape, &w, stride)
						shared, buf, alt := j.cut(e.threads)
						if !trains {
							scratch, shared = max(scratch, shared), 0
						}
						p.share(shared, buf, alt)
					}
				}
				if trains && stride == 1 && m.Shape.C == w.c*w.groups {
					j := dataGradOf(f, m.Shape, &w, back)
					shared, buf, alt := j.cut(e.threads)
					p.share(shared+w.groups*j.panels*w.height*w.width*w.o*back.Lanes, buf, alt)
				}
			}
		}
		if scratch > 0 {
			to := s.From
			if !trains {
				to = -1
			}
			p.specs = append(p.specs, net.Spec{Name: s.Name + ".scratch", Shape: net.Shape{N: 1, C: scratch, H: 1, W: 1}, Kind: net.Vector, From: s.From, To: to})
			p.of = append(p.of, i)
		}
	}
	return p
}

// isGradient reports whether s is a gradient of weights: what lives in a step alone.
func isGradient(s net.Spec) bool { return s.Kind == net.Filter && s.To >= 0 }

func (p *winoPlan) share(shared, buf, alt int) {
	p.shared, p.buf, p.alt = max(p.shared, shared), max(p.buf, buf), max(p.alt, alt)
}
