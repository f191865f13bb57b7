package cmd

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"sluice/pipeline"
)

// console is the sink that shows a run to whoever started it.
type console struct {
	json io.Writer // one object a line; nil without --log-format json
	view view
	prog progress

	// What the summary is made of.
	done, validation, step *pipeline.Metric
	extracts               bool  // features have come, if only a batch without rows
	features               int64 // rows
}

// A view shows progress to a human. Its methods are called from one goroutine.
type view interface {
	begin(p *progress)
	step()            // p has changed
	line(text string) // an event worth a line of its own
	close()
}

// newConsole chooses how to show a run: human text goes to stdout, or to stderr
// where stdout is for JSON.
func newConsole(stdout, stderr io.Writer, asJSON, quiet bool) *console {
	c := &console{view: quietView{}}
	human := stdout
	if asJSON {
		c.json, human = stdout, stderr
	}
	switch {
	case quiet:
	case isTerminal(human) && !(asJSON && isTerminal(stdout)):
		c.view = &barView{out: file(human)}
	default:
		c.view = &plainView{out: human, now: time.Now}
	}
	return c
}

// isTerminal reports whether a stream is a terminal of a known width, whose cursor can be
// moved.
func isTerminal(w io.Writer) bool {
	f := file(w)
	if f == nil || os.Getenv("TERM") == "dumb" || !term.IsTerminal(int(f.Fd())) {
		return false
	}
	width, height, err := term.GetSize(int(f.Fd()))
	return err == nil && width > 0 && height > 0
}

func (c *console) Accepts(k pipeline.Kind) bool {
	return k == pipeline.Metrics || k == pipeline.Features
}

func (c *console) Prepare(_ context.Context, env *pipeline.Env) error {
	c.prog.epochs = env.Epochs
	c.prog.stepsPerEpoch = env.StepsPerEpoch
	c.view.begin(&c.prog)
	return nil
}

func (c *console) Write(_ context.Context, b *pipeline.Batch) error {
	if b.Kind == pipeline.Features {
		c.extracts = true
		c.features += b.Record.NumRows()
		return nil
	}
	rows, err := pipeline.MetricsOf(b.Record)
	if err != nil {
		return err
	}
	for _, m := range rows {
		if c.json != nil {
			line, err := json.Marshal(m)
			if err != nil {
				return err
			}
			if _, err := c.json.Write(append(line, '\n')); err != nil {
				return fmt.Errorf("writing to standard output: %w", reason(err))
			}
		}
		switch m.Event {
		case "step", "progress":
			c.step = &m
			c.prog.add(m)
			c.view.step()
		case "validation":
			c.validation = &m
			c.view.line(c.prog.validationLine(m))
		case "done":
			c.done = &m
		}
	}
	return nil
}

func (c *console) Close() error {
	c.view.close()
	return nil
}

// warn tells what is no metric: above a display that would draw over it, where both
// are on a terminal.
func (c *console) warn(stderr io.Writer, text string) {
	if bar, ok := c.view.(*barView); ok && isTerminal(stderr) && bar.above(text) {
		return
	}
	fmt.Fprintln(stderr, text)
}

type quietView struct{}

func (quietView) begin(*progress) {}
func (quietView) step()           {}
func (quietView) line(string)     {}
func (quietView) close()          {}

// plainEvery is how often a run says where it is when there is no terminal.
const plainEvery = 5 * time.Second

// plainView prints a line every few seconds.
type plainView struct {
	out  io.Writer
	now  func() time.Time
	prog *progress
	next time.Time
}

func (v *plainView) begin(p *progress) { v.prog = p }

// step prints the first step at once, as a sign of life.
func (v *plainView) step() {
	if now := v.now(); !now.Before(v.next) {
		v.next = now.Add(plainEvery)
		fmt.Fprintln(v.out, v.prog.plainLine())
	}
}

func (v *plainView) line(text string) { fmt.Fprintln(v.out, text) }

func (v *plainView) close() {}
