package pipeline

import (
	"errors"
	"fmt"
	"io"
	"runtime/debug"
)

// ErrNoImage says that a sample has no decoded picture yet: a stage like decode
// must come first.
var ErrNoImage = errors.New("the sample has no picture yet: a stage like decode must come before")

// ErrViews says that a sample is several pictures already (see Sample.SetViews), so
// that there is no one picture to render or to change the geometry of.
var ErrViews = errors.New("the image has become several pictures already: the stage that makes them, as ten_crop, must be the last of the samples")

// Error is what went wrong, in which stage, with which sample. Print it with
// %+v to see the stack of a panic.
type Error struct {
	Stage string // label of the source, stage or sink
	Name  string // of the sample, empty if unknown
	Key   Key    // Index is below zero where no one sample is to blame
	Err   error
	Stack []byte // where a panic came from, else nil
}

// Error gives "decode: flowers/a.jpg (epoch 1, sample 12): ...". Epochs count from 1 in what people
// read, and from 0 in a Key, as the index does.
func (e *Error) Error() string {
	return fmt.Sprintf("%s: %v", e.place(), e.Err)
}

// place says where it went wrong, without why.
func (e *Error) place() string {
	switch {
	case e.Key.Index < 0:
		return e.Stage
	case e.Name == "":
		return fmt.Sprintf("%s: epoch %d, sample %d", e.Stage, e.Key.Epoch+1, e.Key.Index)
	}
	return fmt.Sprintf("%s: %s (epoch %d, sample %d)", e.Stage, e.Name, e.Key.Epoch+1, e.Key.Index)
}

// Unwrap gives Err.
func (e *Error) Unwrap() error { return e.Err }

// Format prints the message, and with %+v the stack of a panic below it.
func (e *Error) Format(f fmt.State, verb rune) {
	if verb == 'q' {
		fmt.Fprintf(f, "%q", e.Error())
		return
	}
	io.WriteString(f, e.Error())
	if verb == 'v' && f.Flag('+') && e.Stack != nil {
		fmt.Fprintf(f, "\n\n%s", e.Stack)
	}
}

// noSample is the Key of an error that no one sample is to blame for.
var noSample = Key{Epoch: -1, Index: -1}

// panicked makes an error of a recovered value.
func panicked(v any) error {
	if err, ok := v.(error); ok {
		return fmt.Errorf("panic: %w", err)
	}
	return fmt.Errorf("panic: %v", v)
}

// guard calls the code of a batch stage or a sink. What it returns or panics
// with becomes an *Error with the stage's name; an *Error stays what it is.
func guard(stage string, f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &Error{Stage: stage, Key: noSample, Err: panicked(v), Stack: debug.Stack()}
		}
	}()
	err = f()
	if err == nil || errors.As(err, new(*Error)) {
		return err
	}
	return &Error{Stage: stage, Key: noSample, Err: err}
}
