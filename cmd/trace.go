package cmd

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/renameio/v2"
)

// trace is a file of what happened when, in the Trace Event Format that Perfetto
// (ui.perfetto.dev) and Chrome (chrome://tracing) show. It has its name when it is whole.
type trace struct {
	mu     sync.Mutex
	file   *renameio.PendingFile
	out    *bufio.Writer
	began  time.Time
	tracks map[string]int // their numbers, from 1
	before string         // what comes before the next event
	err    error          // the first
}

// newTrace begins a trace; close writes it.
func newTrace(path string) (*trace, error) {
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)), renameio.WithPermissions(0o644))
	if err != nil {
		if e := (*fs.PathError)(nil); errors.As(err, &e) { // which names the temporary file
			err = e.Err
		}
		return nil, fmt.Errorf("--trace %s: %w", path, err)
	}
	t := &trace{file: f, out: bufio.NewWriter(f), began: time.Now(), tracks: map[string]int{}, before: "[\n"}
	t.put(event{Name: "process_name", Phase: "M", Args: map[string]string{"name": "pipeline " + fmt.Sprint(os.Getpid())}})
	return t, nil
}

// event is one of the format's: X is a span, M is what something is called.
type event struct {
	Name     string            `json:"name"`
	Phase    string            `json:"ph"`
	Begin    float64           `json:"ts"` // microseconds
	Duration float64           `json:"dur,omitempty"`
	Process  int               `json:"pid"`
	Track    int               `json:"tid"`
	Args     map[string]string `json:"args,omitempty"`
}

// put writes an event; t.mu is held, or nobody else has t.
func (t *trace) put(e event) {
	if t.err != nil {
		return
	}
	e.Process = 1
	line, err := json.Marshal(e)
	if err == nil {
		_, err = t.out.Write(append([]byte(t.before), line...))
	}
	t.before, t.err = ",\n", err
}

// span is a stretch of a track's time. It may be called from any goroutine.
func (t *trace) span(track, name string, from, to time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, ok := t.tracks[track]
	if !ok {
		n = len(t.tracks) + 1
		t.tracks[track] = n
		t.put(event{Name: "thread_name", Phase: "M", Track: n, Args: map[string]string{"name": track}})
	}
	microseconds := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
	t.put(event{Name: name, Phase: "X", Begin: microseconds(from.Sub(t.began)), Duration: microseconds(to.Sub(from)), Track: n})
}

// discard leaves nothing behind, unless close has written the file.
func (t *trace) discard() { _ = t.file.Cleanup() }

// close writes the file, also of a run that failed.
func (t *trace) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		_, t.err = t.out.WriteString("\n]\n")
	}
	if t.err == nil {
		t.err = t.out.Flush()
	}
	if t.err == nil {
		t.err = t.file.CloseAtomicallyReplace()
	}
	if t.err != nil {
		return fmt.Errorf("--trace: %w", t.err)
	}
	return nil
}
