package pipeline

// A thread runs calls one after the other on one goroutine, because all methods
// of a batch stage or sink are promised to be called from one.
type thread chan func()

func newThread() thread {
	t := make(thread)
	go func() {
		for f := range t {
			f()
		}
	}()
	return t
}

// start runs f after the calls before it; the channel it returns is closed at f's end.
func (t thread) start(f func()) <-chan struct{} {
	done := make(chan struct{})
	t <- func() {
		defer close(done)
		f()
	}
	return done
}

// do runs f and waits for its end.
func (t thread) do(f func()) { <-t.start(f) }

// end lets the goroutine end after the calls before it.
func (t thread) end() { close(t) }
