package host

import "sluice/net"

// channelsJob copies n channels of each pixel. A task is a row of an image.
type channelsJob struct {
	y, x        view
	to, from, n int
}

// CopyChannels is y's channels from to on = x's channels from from on, n of them.
func (e *Engine) CopyChannels(y, x *net.Tensor, to, from, n int) {
	if !e.ready("CopyChannels", y, x) {
		return
	}
	s := x.Shape
	s.C = y.Shape.C
	if !e.expect("CopyChannels", "x", x, net.Map, x.Shape) || !e.expect("CopyChannels", "y", y, net.Map, s) {
		return
	}
	if n < 1 || min(to, from) < 0 || n > y.Shape.C-to || n > x.Shape.C-from {
		e.fail("CopyChannels: %d channels from %d on of %q of %v do not fit from %d on into %q of %v", n, from, x.Name, x.Shape, to, y.Name, y.Shape)
		return
	}
	j := &e.jobs.channels
	*j = channelsJob{open(y), open(x), to, from, n}
	e.run("CopyChannels", j.y.n*j.y.h, j)
}

func (j *channelsJob) do(_ *worker, task int) {
	n, h := task/j.y.h, task%j.y.h
	y, x := j.y.line(n, h), j.x.line(n, h)
	for w := range j.y.w {
		copy(y[w*j.y.c+j.to:][:j.n], x[w*j.x.c+j.from:])
	}
	j.y.border(n, h)
}
