package cmd

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// interrupted is the cause of a context that a signal ended.
type interrupted struct{ sig os.Signal }

func (i interrupted) Error() string { return "interrupted" }

// exitCode is what a shell gives for a process that the signal ended.
func (i interrupted) exitCode() int {
	if s, ok := i.sig.(syscall.Signal); ok {
		return 128 + int(s)
	}
	return exitFailed
}

// patience is how long a stop may take before the user is told how to hurry it.
const patience = 2 * time.Second

// untilSignal ends the context at the first Ctrl-C or SIGTERM; the second one
// ends the process at once. stop gives the signals back.
func untilSignal(parent context.Context, stderr io.Writer) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		var slow <-chan time.Time
		for {
			select {
			case <-done:
				return
			case sig := <-signals:
				again := interrupted{sig}
				if context.Cause(ctx) != nil {
					os.Exit(again.exitCode())
				}
				cancel(again)
				slow = time.After(patience)
			case <-slow:
				fmt.Fprintln(stderr, "still stopping; once more ends the program at once")
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel(nil)
	}
}
