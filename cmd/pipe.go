package cmd

import (
	"errors"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
)

// ignoreBrokenPipes makes a write to a pipe without reader an error. By default
// the system ends the process.
func ignoreBrokenPipes() { signal.Ignore(syscall.SIGPIPE) }

// lossyPipe is a standard stream whose reader may go away: from then on what is
// written to it is dropped, and the program goes on. Any other error of writing, as
// of a disk that is full, is kept, for few who print look at it.
type lossyPipe struct {
	w      *os.File
	broken atomic.Bool
	failed atomic.Pointer[error] // the first
}

func (p *lossyPipe) Write(b []byte) (int, error) {
	if p.broken.Load() {
		return len(b), nil
	}
	n, err := p.w.Write(b)
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe) {
		p.broken.Store(true)
		return len(b), nil
	}
	if err != nil {
		p.failed.CompareAndSwap(nil, &err)
	}
	return n, err
}

// err is the first error of writing but that of a reader who went away.
func (p *lossyPipe) err() error {
	if err := p.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// file is the file behind a stream, nil if there is none.
func file(w io.Writer) *os.File {
	switch w := w.(type) {
	case *lossyPipe:
		return w.w
	case *os.File:
		return w
	}
	return nil
}
