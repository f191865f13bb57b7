package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// goroutineID is the number in a stack's first line, "goroutine 12 [running]:".
func goroutineID() string {
	buf := make([]byte, 64)
	id, _, _ := bytes.Cut(buf[:runtime.Stack(buf, false)], []byte(" ["))
	return string(id)
}

// Everything is prepared, in a run folder that is there, before the first read;
// every batch stage and sink has one goroutine for all its calls; the inputs are
// closed when nothing reads them any more, and the stage whose memory lies under
// the batches is closed last.
func TestLifeOfALine(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "runs", "x")
	r := newRig(t, 3)
	r.Env = &Env{Name: "x", RunDir: dir}
	var mu sync.Mutex
	var calls []string
	threads := map[string]map[string]bool{}
	memory := 0
	r.before = func(_ context.Context, call string) error {
		mu.Lock()
		defer mu.Unlock()
		part, method := call[:strings.LastIndex(call, ".")], call[strings.LastIndex(call, ".")+1:]
		switch method {
		case "Prepare":
			if s, err := os.Stat(dir); err != nil || !s.IsDir() {
				t.Errorf("%s: the run folder is not there (%v)", call, err)
			}
		case "Len", "Accepts", "Holds", "Classes":
			return nil
		}
		if part == "train" && method == "Process" {
			memory = max(memory, r.mem.CurrentAlloc())
		}
		if threads[part] == nil {
			threads[part] = map[string]bool{}
		}
		threads[part][goroutineID()] = true
		calls = append(calls, call)
		return nil
	}
	if err := r.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := calls[:5], []string{"train.Prepare", "extract.Prepare", "metrics.Prepare", "features.Prepare", "folder.Read"}; !slices.Equal(got, want) {
		t.Errorf("the first calls are %v, want %v", got, want)
	}
	for _, part := range []string{"train", "extract", "metrics", "features"} {
		if n := len(threads[part]); n != 1 {
			t.Errorf("%s was called from %d goroutines, want 1", part, n)
		}
	}
	for first, later := range map[string]string{
		"folder.Read": "folder.Close", "decode.Process": "decode.Close", "train.Process": "train.Flush", "train.Flush": "train.Close",
		"extract.Process": "extract.Flush", "extract.Flush": "extract.Close", "features.Write": "features.Finish", "features.Finish": "features.Close",
		"features.Close": "train.Close", "extract.Close": "train.Close", "folder.Close": "train.Close", "val.crop.Process": "val.crop.Close",
	} {
		last := len(calls) - 1
		for calls[last] != first {
			last--
		}
		if at := slices.Index(calls, later); at < last {
			t.Errorf("%s came before %s", later, first)
		}
	}
	// 2 buffers and one for train, which holds one: pictures and small columns.
	if want := 3 * 10 * 8 * 6 * 3; memory < want || memory > 2*want {
		t.Errorf("train's memory holds %d bytes of batches, want about %d", memory, want)
	}
}

func TestNoFlushOrFinishAfterAFailure(t *testing.T) {
	r := newRig(t, 3)
	r.before = func(_ context.Context, call string) error {
		switch {
		case call == "features.Write":
			return errors.New("disk full")
		case strings.HasSuffix(call, ".Flush"), strings.HasSuffix(call, ".Finish"):
			return fmt.Errorf("%s was called", call)
		}
		return nil
	}
	if err := r.run(t.Context()); err == nil || err.Error() != "features: disk full" {
		t.Errorf("error is %v", err)
	}
}

func TestRunFolderThatCannotBeMade(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, 2)
	r.Env = &Env{RunDir: filepath.Join(file, "x")}
	if err := r.run(t.Context()); err == nil || !strings.Contains(err.Error(), "the run folder: mkdir "+file) {
		t.Errorf("error is %v", err)
	}
}

// Errors of closing come after the error of the run, and none hides another.
func TestErrorsOfClosingAreJoined(t *testing.T) {
	r := newRig(t, 2)
	r.before = func(_ context.Context, call string) error {
		switch call {
		case "features.Write", "features.Close", "metrics.Close", "decode.Close", "train.Close":
			return errors.New("no " + call)
		}
		return nil
	}
	want := "features: no features.Write\ndecode: no decode.Close\ntrain: no train.Close\nmetrics: no metrics.Close\nfeatures: no features.Close"
	if err := r.run(t.Context()); err == nil || err.Error() != want {
		t.Errorf("error is\n%v\nwant\n%s", err, want)
	}
}

func TestEmitWithoutARecord(t *testing.T) {
	r := newRig(t, 2)
	r.Stages[1].Stage = stageFunc(func(_ context.Context, b *Batch, emit Emit) error { return emit(&Batch{Kind: Metrics}) })
	r.closed["extract"] = 1
	if err := r.run(t.Context()); err == nil || err.Error() != "extract: emit: a batch without a record" {
		t.Errorf("error is %v", err)
	}
}

type stageFunc func(ctx context.Context, b *Batch, emit Emit) error

func (f stageFunc) Process(ctx context.Context, b *Batch, emit Emit) error { return f(ctx, b, emit) }

// A stage may change the batch it is lent and may drop what emit tells it.
func TestACarelessStage(t *testing.T) {
	r := newRig(t, 2)
	r.closed["extract"] = 1
	r.Stages[1].Stage = stageFunc(func(_ context.Context, b *Batch, emit Emit) error {
		b.Record.Retain()
		_ = emit(b)
		b.Record, b.Kind = nil, "none"
		return nil
	})
	writes := 0
	r.before = func(_ context.Context, call string) error {
		if call == "features.Write" {
			if writes++; writes == 4 {
				return errors.New("disk full")
			}
		}
		return nil
	}
	if err := r.run(t.Context()); err == nil || err.Error() != "features: disk full" {
		t.Errorf("error is %v", err)
	}
	if len(r.got) != 3 {
		t.Errorf("%d batches arrived, want 3", len(r.got))
	}
}
