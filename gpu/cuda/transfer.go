//go:build cuda && linux

package cuda

import (
	"fmt"
	"math"
	"unsafe"

	"gorgonia.org/cu"

	"sluice/net"
)

// transfer is an Upload or a Download under way: a few rows (images, outputs) at a time
// go through pinned memory, and through a piece of the card's where their channels are
// turned into or out of the card's order.
type transfer struct {
	t        *net.Tensor
	from, to []float32 // of the host; one of them

	host   []byte
	device cu.DevicePtr
	bytes  int
}

// transferBytes is how much is copied at a time, unless one row is more.
const transferBytes = 8 << 20

// Upload copies src, NCHW or OIHW, into dst, and waits for it.
func (e *Engine) Upload(dst *net.Tensor, src []float32) {
	if e.ready("Upload", dst) && e.sized("Upload", dst, len(src)) {
		e.transfer.t, e.transfer.from = dst, src
		e.carry(e.uploadFunc)
	}
}

// Download copies src into dst, NCHW or OIHW, and waits for it.
func (e *Engine) Download(dst []float32, src *net.Tensor) {
	if e.ready("Download", src) && e.sized("Download", src, len(dst)) {
		e.transfer.t, e.transfer.to = src, dst
		e.carry(e.downloadFunc)
	}
}

func (e *Engine) carry(do func() error) {
	if err := e.call(do); err != nil {
		e.stick(err)
	}
	e.transfer.t, e.transfer.from, e.transfer.to = nil, nil, nil
}

func (e *Engine) sized(op string, t *net.Tensor, n int) bool {
	if n != t.Shape.Len() {
		e.fail("%s: %s %q has %d elements, the slice %d", op, t.Shape, t.Name, t.Shape.Len(), n)
		return false
	}
	return true
}

// rows is how a tensor is carried: rows of a x b numbers of size bytes, turned.
func rows(t *net.Tensor) (n, a, b, size int) {
	s := t.Shape
	switch t.Kind {
	case net.Vector:
		return 1, 1, s.Len(), 4
	case net.Index:
		return s.N, s.C, s.H * s.W, 2
	}
	return s.N, s.C, s.H * s.W, 4
}

// stage makes room for some rows and says for how many.
func (e *Engine) stage(n, rowBytes int) (int, error) {
	f := &e.transfer
	want := max(rowBytes, min(n*rowBytes, transferBytes))
	if want > f.bytes {
		if err := e.land(); err != nil {
			return 0, err
		}
		e.pinned.Free(f.host)
		if f.device != 0 {
			if err := cu.MemFree(f.device); err != nil {
				return 0, fmt.Errorf("freeing: CUDA says %w", err)
			}
		}
		f.host, f.device, f.bytes = nil, 0, 0
		p, err := e.allocate(want)
		if err != nil {
			return 0, err
		}
		f.host, f.device, f.bytes = e.pinned.Allocate(want), p, want
	}
	return f.bytes / rowBytes, nil
}

func (e *Engine) upload() error {
	f := &e.transfer
	return e.chunks("Upload", func(first, count, a, b, size int) error {
		from := f.from[first*a*b:][:count*a*b]
		if size == 2 {
			to := unsafe.Slice((*uint16)(unsafe.Pointer(&f.host[0])), len(from))
			for i := range to { // turned here: it is not worth a kernel
				row, place, c := i/(a*b), i%(a*b)/a, i%a
				to[i] = uint16(from[row*a*b+c*b+place])
			}
		} else {
			copy(unsafe.Slice((*float32)(unsafe.Pointer(&f.host[0])), len(from)), from)
		}
		to, bytes := at(f.t)+cu.DevicePtr(first*a*b*size), count*a*b*size
		if size == 2 || a == 1 || b == 1 {
			return cu.MemcpyHtoDAsync(to, unsafe.Pointer(&f.host[0]), int64(bytes), e.compute)
		}
		if err := cu.MemcpyHtoDAsync(f.device, unsafe.Pointer(&f.host[0]), int64(bytes), e.compute); err != nil {
			return err
		}
		l := turn("Upload", f.t.Name, to, f.device, count, a, b)
		return e.start(&l, e.compute)
	}, nil)
}

func (e *Engine) download() error {
	f := &e.transfer
	return e.chunks("Download", func(first, count, a, b, size int) error {
		from, bytes := at(f.t)+cu.DevicePtr(first*a*b*size), count*a*b*size
		if size == 4 && a > 1 && b > 1 {
			l := turn("Download", f.t.Name, f.device, from, count, b, a)
			if err := e.start(&l, e.compute); err != nil {
				return err
			}
			from = f.device
		}
		return cu.MemcpyDtoHAsync(unsafe.Pointer(&f.host[0]), from, int64(bytes), e.compute)
	}, func(first, count, a, b, size int) {
		to := f.to[first*a*b:][:count*a*b]
		if size == 4 {
			copy(to, unsafe.Slice((*float32)(unsafe.Pointer(&f.host[0])), len(to)))
			return
		}
		for i, v := range unsafe.Slice((*uint16)(unsafe.Pointer(&f.host[0])), len(to)) {
			row, place, c := i/(a*b), i%(a*b)/a, i%a
			to[row*a*b+c*b+place] = float32(v)
		}
	})
}

// chunks does f for some rows after others, waits, and does then.
func (e *Engine) chunks(op string, f func(first, count, a, b, size int) error, then func(first, count, a, b, size int)) error {
	if e.step.Err() != nil {
		return nil
	}
	n, a, b, size := rows(e.transfer.t)
	each, err := e.stage(n, a*b*size)
	if err != nil {
		return fmt.Errorf("%s of %q: %w", op, e.transfer.t.Name, err)
	}
	for first := 0; first < n; first += each {
		count := min(each, n-first)
		if err := f(first, count, a, b, size); err != nil {
			return fmt.Errorf("%s of %q: CUDA says %w", op, e.transfer.t.Name, err)
		}
		if err := e.compute.Synchronize(); err != nil {
			return fmt.Errorf("%s of %q: %w", op, e.transfer.t.Name, told(err))
		}
		e.flight.landed()
		e.tracer.tell()
		if then != nil {
			then(first, count, a, b, size)
		}
	}
	return nil
}

// turn is y[n][b][a] = x[n][a][b].
func turn(op, tensor string, y, x cu.DevicePtr, n, a, b int) launch {
	squares := n * ((a + 31) / 32) * ((b + 31) / 32)
	l := launch{kernel: "turn", op: op, tensor: tensor, threads: 256, grid: [3]int{min(squares, 1<<15), 1, 1}}
	l.pointer(y).pointer(x).ints(n, a, b)
	return l
}

// land waits for all that was launched, by the owner, and asks whether a label was wrong. It
// waits by an event that gives the processor to others (the decoders): to wait for the stream
// keeps one busy, which is quicker for what is short.
func (e *Engine) land() error {
	err := e.landing.Record(e.compute)
	if err == nil {
		err = e.landing.Synchronize()
	}
	if err != nil {
		return told(err)
	}
	e.flight.landed()
	e.tracer.tell()
	var row int32
	if err := cu.MemcpyDtoH(unsafe.Pointer(&row), e.bad, 4); err != nil {
		return fmt.Errorf("reading the state: CUDA says %w", err)
	}
	if row != math.MaxInt32 {
		return fmt.Errorf("SoftmaxLoss: the label of row %d is none of the network's classes", row)
	}
	return nil
}

// clearBad says that no label was wrong yet.
func (e *Engine) clearBad() error {
	if err := cu.MemsetD32Async(e.bad, math.MaxInt32, 1, e.compute); err != nil {
		return fmt.Errorf("clearing the state: CUDA says %w", err)
	}
	return nil
}

// Host runs f over host copies; they are kept for the next call.
func (e *Engine) Host(outs, ins []*net.Tensor, f func(outs, ins [][]float32)) {
	if !e.ready("Host", outs...) || !e.ready("Host", ins...) {
		return
	}
	for len(e.hosts) < len(outs)+len(ins) {
		e.hosts = append(e.hosts, nil)
	}
	host := e.hosts[:len(outs)+len(ins)]
	for i := range host {
		t := append(append([]*net.Tensor(nil), outs...), ins...)[i]
		if n := t.Shape.Len(); cap(host[i]) < n {
			host[i] = make([]float32, n)
		} else {
			host[i] = host[i][:n]
		}
		e.Download(host[i], t)
	}
	if e.stopped() || !e.run(f, host[:len(outs)], host[len(outs):]) {
		return
	}
	for i, t := range outs {
		e.Upload(t, host[i])
	}
}

// run turns a panic of a layer's function into an error.
func (e *Engine) run(f func(outs, ins [][]float32), outs, ins [][]float32) (ok bool) {
	defer func() {
		if v := recover(); v != nil {
			e.fail("Host: panic: %v", v)
			ok = false
		}
	}()
	f(outs, ins)
	return true
}
