package cmd

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// barView redraws two lines at the bottom of a terminal: how far the run is, and
// how well it goes. It uses no colour.
type barView struct {
	out  *os.File
	prog *progress
	bar  *mpb.Bar

	mu  sync.Mutex // of mpb, which warnings come to from any goroutine
	mpb *mpb.Progress
}

func (v *barView) begin(p *progress) {
	v.prog = p
	v.mu.Lock()
	v.mpb = mpb.New(mpb.WithOutput(v.out), mpb.WithRefreshRate(200*time.Millisecond))
	v.mu.Unlock()
	top := mpb.BarFillerFunc(func(w io.Writer, s decor.Statistics) error {
		_, err := io.WriteString(w, v.prog.barLine(s.AvailableWidth))
		return err
	})
	below := mpb.BarFillerFunc(func(w io.Writer, s decor.Statistics) error {
		_, err := io.WriteString(w, v.prog.numbersLine(s.AvailableWidth)+"\n")
		return err
	})
	// The bar's own count is not shown; the run ends it in close.
	var err error
	if v.bar, err = v.mpb.Add(0, top, mpb.BarFillerTrim(), mpb.BarBtmExtender(below)); err != nil {
		panic(err) // only for a container that has ended
	}
}

// step does nothing: the display reads the progress when it redraws.
func (v *barView) step() {}

func (v *barView) line(text string) { fmt.Fprintln(v.mpb, text) }

// above writes a line above the two, if they are drawn at the moment.
func (v *barView) above(text string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.mpb == nil {
		return false
	}
	_, err := fmt.Fprintln(v.mpb, text)
	return err == nil // it is an error once the display has ended
}

func (v *barView) close() {
	if v.mpb != nil {
		// Completing the bar, and not only ending it, draws the last state and
		// the lines above it once more.
		v.bar.SetTotal(-1, true)
		v.mpb.Wait()
	}
}
