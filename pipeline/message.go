package pipeline

import "context"

// A message is what travels between the goroutines of a line: a batch, the error
// that ends the run, or (zero) the end. An error is sent like a batch and behind
// all batches that came before it, so that which error a run reports depends on
// the order of the stream and never on who was faster.
type message struct {
	batch *Batch
	err   error
}

// send hands m on, unless ctx ends first; then it releases m's batch.
func send(ctx context.Context, out chan<- message, m message) error {
	if ctx.Err() == nil {
		select {
		case out <- m:
			return nil
		case <-ctx.Done():
		}
	}
	if m.batch != nil {
		m.batch.Record.Release()
	}
	return context.Cause(ctx)
}

// receive waits for the next batch; nil is the end.
func receive(ctx context.Context, in <-chan message) (*Batch, error) {
	if ctx.Err() == nil {
		select {
		case m := <-in:
			return m.batch, m.err
		case <-ctx.Done():
		}
	}
	return nil, context.Cause(ctx)
}
