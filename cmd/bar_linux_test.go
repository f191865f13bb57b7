package cmd

import (
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"sluice/pipeline"
)

// openTerminal makes a pseudo-terminal of a size.
func openTerminal(t *testing.T, columns, rows uint16) (screen, tty *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminal here: %v", err)
	}
	t.Cleanup(func() { screen.Close() })
	fd := int(screen.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Skipf("no pseudo-terminal here: %v", err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminal here: %v", err)
	}
	t.Cleanup(func() { tty.Close() })
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}); err != nil {
		t.Fatal(err)
	}
	return screen, tty
}

var escape = regexp.MustCompile(`\x1b\[[0-9;?]*[A-Za-z]`)

// A terminal that cannot move its cursor gets plain lines.
func TestNoBarOnADumbTerminal(t *testing.T) {
	_, tty := openTerminal(t, 80, 24)
	t.Setenv("TERM", "dumb")
	c := newConsole(tty, tty, false, false)
	if _, plain := c.view.(*plainView); !plain {
		t.Errorf("a dumb terminal gets a %T", c.view)
	}
}

func TestBarOnATerminal(t *testing.T) {
	defer goleak.VerifyNone(t)
	t.Setenv("TERM", "xterm")
	for _, columns := range []uint16{12, 40, 80, 200} {
		screen, tty := openTerminal(t, columns, 24)
		shown := make(chan string)
		go func() {
			all, _ := io.ReadAll(screen) // ends with an error when the terminal is closed
			shown <- string(all)
		}()
		c := newConsole(tty, tty, false, false)
		if _, ok := c.view.(*barView); !ok {
			t.Fatalf("a terminal gets a %T", c.view)
		}
		if err := c.Prepare(t.Context(), &pipeline.Env{Epochs: 20, StepsPerEpoch: 128}); err != nil {
			t.Fatal(err)
		}
		for step := 1; step <= 3; step++ {
			send(t, c, pipeline.Metric{Event: "step", Step: step, Loss: 2.302, Top1: 0.1, ImagesPerSecond: 320, Seconds: float64(step)})
			time.Sleep(150 * time.Millisecond)
		}
		send(t, c, pipeline.Metric{Event: "validation", Step: 3, Top1: 0.5})
		var elsewhere strings.Builder
		c.warn(&elsewhere, "not here")
		c.warn(tty, "mind this")
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		c.warn(tty, "and that")
		tty.Close()
		if elsewhere.String() != "not here\n" {
			t.Errorf("%d columns: standard error, which is no terminal, got %q", columns, elsewhere.String())
		}
		text := <-shown
		if !strings.Contains(text, "epoch 1/20") {
			t.Errorf("%d columns: nothing shown: %q", columns, text)
		}
		if !strings.Contains(text, "epoch 1/20  validation  loss") || !strings.Contains(text[strings.LastIndex(text, "validation"):], "epoch 1/20") {
			t.Errorf("%d columns: no line for the validation above the bar: %q", columns, text)
		}
		if _, after, ok := strings.Cut(text, "mind this"); !ok || !strings.Contains(after, "epoch 1/20") || !strings.HasSuffix(strings.TrimSpace(after), "and that") {
			t.Errorf("%d columns: no warning above the bar, or none after it: %q", columns, text)
		}
		if columns >= 80 && (!strings.Contains(text, "[") || !strings.Contains(text, "images/s")) {
			t.Errorf("%d columns: no bar or no numbers: %q", columns, text)
		}
		text, _, _ = strings.Cut(text, "epoch 1/20  validation") // which may wrap: it is not drawn again
		for line := range strings.SplitSeq(escape.ReplaceAllString(text, "\n"), "\n") {
			if line = strings.Trim(line, "\r"); len(line) > int(columns) {
				t.Errorf("%d columns: a line of %d: %q", columns, len(line), line)
			}
		}
		if strings.Contains(text, "m") && regexp.MustCompile(`\x1b\[[0-9;]*m`).MatchString(text) {
			t.Errorf("%d columns: colour: %q", columns, text)
		}
	}
}
