package stages

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
)

// grace is how long a program that has closed a pipe, or was killed, may take to be gone.
const grace = 2 * time.Second

// errStart is in the error of a program that could not be started at all.
var errStart = errors.New("cannot be started")

// A program is one that runs, with the agreement that it has answered with.
type program struct {
	cmd     *exec.Cmd
	in, out *os.File // our ends of its standard input and output
	log     *lineLog
	reader  *recordReader
	writer  *ipc.Writer
	agreed  *agreement

	release func() bool   // of the context
	gone    chan struct{} // closed when it has ended
	exit    error         // why, nil for exit status 0
}

// startProgram starts a program and asks for its schema. When ctx ends it is killed.
func startProgram(ctx context.Context, command []string, schema *arrow.Schema, timeout time.Duration, mem memory.Allocator, say func(string)) (p *program, err error) {
	p = &program{cmd: exec.Command(command[0], command[1:]...), log: &lineLog{say: say}, gone: make(chan struct{})}
	defer func() {
		if err != nil {
			p.kill()
			p = nil
		}
	}()
	p.cmd.Stderr, p.cmd.WaitDelay = p.log, grace
	ownGroup(p.cmd)
	theirIn, in, err := os.Pipe()
	if err != nil {
		close(p.gone)
		return p, fmt.Errorf("%w: %w", errStart, err)
	}
	defer theirIn.Close()
	p.in = in
	out, theirOut, err := os.Pipe()
	if err != nil {
		close(p.gone)
		return p, fmt.Errorf("%w: %w", errStart, err)
	}
	defer theirOut.Close()
	p.out = out
	widen(in)
	widen(out)
	p.cmd.Stdin, p.cmd.Stdout = theirIn, theirOut

	started := make(chan error)
	go p.watch(started)
	if err := <-started; err != nil {
		return p, fmt.Errorf("%w: %w", errStart, err)
	}
	p.release = context.AfterFunc(ctx, func() { killGroup(p.cmd.Process) })
	theirIn.Close()
	theirOut.Close()

	if err := p.within(timeout); err != nil {
		return p, err
	}
	if p.writer, err = newWriter(in, schema); err == nil {
		p.reader, err = newReader(out, mem)
	}
	if err != nil {
		return p, p.explain(err, "its schema", timeout)
	}
	p.agreed, err = agree(schema, p.reader.schema)
	return p, err
}

// watch starts the program and waits for its end, on one thread: where the kernel
// kills a program with its parent, it is the thread that counts.
func (p *program) watch(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(p.gone)
	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	if p.exit = p.cmd.Wait(); errors.Is(p.exit, exec.ErrWaitDelay) {
		p.exit = nil // only what it has started holds its standard error still
	}
	killGroup(p.cmd.Process) // what it has started and left
}

// within bounds the time of what is read and written from now on.
func (p *program) within(d time.Duration) error {
	t := time.Now().Add(d)
	return errors.Join(p.in.SetDeadline(t), p.out.SetDeadline(t))
}

// exchange sends a batch and gives the answer, which is the caller's to release.
// sent is called when the program has the batch.
func (p *program) exchange(rec arrow.Record, timeout time.Duration, sent func()) (arrow.Record, error) {
	if err := p.within(timeout); err != nil {
		return nil, err
	}
	rows, id := rec.NumRows(), identityOf(rec)
	written := make(chan error, 1)
	go func() { // beside the reading: a program may begin to answer before it has read all
		err := p.writer.Write(rec)
		sent()
		written <- err
	}()
	answer, err := p.reader.Read()
	if err != nil {
		err = p.explain(err, "an answer", timeout)
		killGroup(p.cmd.Process) // else it may still be read
		<-written
		return nil, err
	}
	defer answer.Release()
	if err := <-written; err != nil {
		return nil, fmt.Errorf("it did not read the whole batch: %w", err)
	}
	return p.agreed.take(answer, rows, id)
}

// finish ends the input of a program that has answered all, and waits for its end.
func (p *program) finish(timeout time.Duration) error {
	defer p.kill()
	if err := p.within(timeout); err != nil {
		return err
	}
	if err := errors.Join(p.writer.Close(), p.in.Close()); err != nil {
		return p.explain(err, "the end of its input", timeout)
	}
	if more, err := p.reader.Read(); err == nil {
		more.Release()
		return errors.New("it answers though there was nothing more")
	} else if !errors.Is(err, io.EOF) {
		return p.explain(err, "the end of its answers", timeout)
	}
	select {
	case <-p.gone:
	case <-time.After(timeout):
		return fmt.Errorf("it does not end %v after its input has", timeout)
	}
	if p.exit != nil {
		return fmt.Errorf("it failed at the end of its input: %w%s", p.exit, p.log.tail())
	}
	return nil
}

// explain says why what was awaited did not come.
func (p *program) explain(err error, awaited string, timeout time.Duration) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("it did not give %s within %v%s", awaited, timeout, p.log.tail())
	}
	half := errors.Is(err, io.ErrUnexpectedEOF)
	if !half && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.EPIPE) {
		return fmt.Errorf("it did not give %s: %w%s", awaited, err, p.log.tail())
	}
	where := "before it gave " + awaited
	if half {
		where = "in the middle of " + awaited
	}
	select {
	case <-p.gone:
	case <-time.After(grace):
		return fmt.Errorf("it closed its standard input or output %s%s", where, p.log.tail())
	}
	how := "exit status 0"
	if p.exit != nil {
		how = p.exit.Error()
	}
	return fmt.Errorf("it ended (%s) %s%s", how, where, p.log.tail())
}

// kill ends the program, waits until it is gone, and closes what is open of it. A
// second call does nothing.
func (p *program) kill() {
	if p.release != nil {
		p.release()
	}
	if p.cmd.Process != nil {
		select {
		case <-p.gone: // its group was killed then, and its number may be another's
		default:
			killGroup(p.cmd.Process)
		}
	}
	<-p.gone
	for _, f := range []*os.File{p.in, p.out} {
		if f != nil {
			f.Close()
		}
	}
}

// What is told of a program's standard error.
const (
	maxLine  = 1 << 10 // bytes
	maxLines = 1000    // of one program; the last one an error tells all the same
)

// A lineLog is a program's standard error.
type lineLog struct {
	say func(string)

	mu    sync.Mutex
	line  []byte // not ended yet
	last  string
	lines int
}

// Write never fails: a program is not held up by what it says.
func (l *lineLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for part := range bytes.Lines(b) {
		text, ended := bytes.CutSuffix(part, []byte("\n"))
		l.line = append(l.line, text[:min(len(text), maxLine-len(l.line))]...)
		if ended {
			l.end()
		}
	}
	return len(b), nil
}

func (l *lineLog) end() {
	text := strings.TrimSpace(strings.ToValidUTF8(string(l.line), "\uFFFD"))
	l.line = l.line[:0]
	if text == "" {
		return
	}
	l.last = text
	switch l.lines++; {
	case l.lines <= maxLines:
		l.say(text)
	case l.lines == maxLines+1:
		l.say(fmt.Sprintf("(more than %d lines: the rest is not shown)", maxLines))
	}
}

// tail is the last line, to end an error with.
func (l *lineLog) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end()
	if l.last == "" {
		return ""
	}
	return "; its standard error ends with: " + l.last
}
