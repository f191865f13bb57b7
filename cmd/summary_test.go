package cmd

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/net"
	"sluice/pipeline"
)

// What is told of a run that was stopped agrees with itself: the step that was last
// shown may be older than the checkpoint, and what is empty was not kept.
func TestWhatWasKept(t *testing.T) {
	d := &runDir{path: t.TempDir(), record: runRecord{File: "train.yaml", Set: []string{"name=a b"}}}
	checkpoints := filepath.Join(d.path, net.CheckpointDir)
	if err := os.Mkdir(checkpoints, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.path, "metrics.jsonl"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	told := func(c *console) string {
		var out bytes.Buffer
		c.whatWasKept(&out, d)
		return out.String()
	}
	c := &console{prog: progress{epochs: 2, stepsPerEpoch: 50}}
	if got, want := told(c), "stopped before the first step; kept in "+d.path+":\nno weights had been written yet\n"; got != want {
		t.Errorf("nothing done: got %q, want %q", got, want)
	}
	if err := os.WriteFile(filepath.Join(checkpoints, "step-16.safetensors"), []byte("0123456789"), 0o666); err != nil {
		t.Fatal(err)
	}
	for shown, want := range map[int]string{0: "stopped after step 16 of 100", 10: "stopped after step 16 of 100", 20: "stopped after step 20 of 100"} {
		c.step = nil
		if shown > 0 {
			c.step = &pipeline.Metric{Step: shown}
		}
		got := told(c)
		if !strings.HasPrefix(got, want) || !strings.Contains(got, "checkpoints/") || strings.Contains(got, "metrics.jsonl") ||
			!strings.Contains(got, `to go on after step 16: `) || !strings.HasSuffix(got, ` run train.yaml --set "name=a b" --resume`+"\n") {
			t.Errorf("shown %d: got\n%s", shown, got)
		}
	}
}
