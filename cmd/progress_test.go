package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"sluice/pipeline"
)

func running() *progress {
	p := &progress{epochs: 20, stepsPerEpoch: 128}
	for step := 1; step <= 120; step++ {
		p.add(pipeline.Metric{Event: "step", Step: step, Loss: 1.5, Top1: 0.561, ImagesPerSecond: 320,
			InputWait: 0.02, Seconds: 3 + float64(step)/10})
	}
	return p
}

func TestStatusLinesFit(t *testing.T) {
	p := running()
	for width := range 200 {
		for _, line := range []string{p.barLine(width), p.numbersLine(width)} {
			if len(line) > width {
				t.Errorf("width %d: %q has %d columns", width, line, len(line))
			}
			if strings.ContainsAny(line, "\n\r\x1b") {
				t.Errorf("width %d: %q holds control characters", width, line)
			}
		}
	}
	if got, want := p.barLine(80), "[=                                       ]  epoch 1/20  step 120/2560  ETA 4m04s"; got != want {
		t.Errorf("80 columns:\n got %q\nwant %q", got, want)
	}
	if got, want := p.numbersLine(80), "loss 1.500  top-1 56.1 %  320 images/s  compute-bound"; got != want {
		t.Errorf("80 columns:\n got %q\nwant %q", got, want)
	}
	if got, want := p.barLine(30), "epoch 1/20  step 120/2560"; got != want {
		t.Errorf("30 columns: got %q, want %q", got, want)
	}
}

func TestStatusBeforeTheFirstStep(t *testing.T) {
	p := &progress{epochs: 2, stepsPerEpoch: 3}
	if got := p.barLine(80); !strings.Contains(got, "working") {
		t.Errorf("got %q", got)
	}
	if got := p.numbersLine(80); got != "" {
		t.Errorf("got %q", got)
	}
	p.add(pipeline.Metric{Event: "step", Step: 1, Seconds: 1})
	if got := p.plainLine(); strings.Contains(got, "ETA") {
		t.Errorf("an ETA from one step: %q", got)
	}
}

func TestBottleneck(t *testing.T) {
	for _, c := range []struct {
		input, sink float64
		want        string
	}{{0, 0, "compute-bound"}, {0.05, 0.05, "compute-bound"}, {0.4, 0, "input-bound"}, {0.2, 0.5, "sink-bound"}} {
		if got := bottleneck(c.input, c.sink); got != c.want {
			t.Errorf("waits %v and %v: %s, want %s", c.input, c.sink, got, c.want)
		}
	}
}

func TestDurationAndSize(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 8 * time.Second: "8s", 125 * time.Second: "2m05s", 11223 * time.Second: "3h07m", 59600 * time.Millisecond: "1m00s",
	} {
		if got := duration(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 4123: "4.1 kB", 9960: "10 kB", 243860896: "244 MB", 999600: "1.0 MB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

// send hands metrics to a console as a run does.
func send(t *testing.T, c *console, rows ...pipeline.Metric) {
	t.Helper()
	for _, m := range rows {
		rec := pipeline.MetricsRecord(m)
		err := c.Write(t.Context(), &pipeline.Batch{Kind: pipeline.Metrics, Record: rec})
		rec.Release()
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestPlainViewPrintsNowAndThen(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(0, 0)
	c := &console{view: &plainView{out: &out, now: func() time.Time { return now }}}
	if err := c.Prepare(t.Context(), &pipeline.Env{Epochs: 1, StepsPerEpoch: 100}); err != nil {
		t.Fatal(err)
	}
	for step := 1; step <= 21; step++ {
		send(t, c, pipeline.Metric{Event: "step", Step: step, Seconds: float64(step) / 2})
		now = now.Add(time.Second / 2)
	}
	send(t, c, pipeline.Metric{Event: "validation", Step: 100, Top1: 0.9, Top5: 1})
	// An evaluation tells the epoch of the weights, which its own epochs do not count.
	send(t, c, pipeline.Metric{Event: "validation", Epoch: 5, Top1: 0.9, Top5: 1})
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 5 { // steps 1, 11, 21 and the validations
		t.Fatalf("%d lines:\n%s", len(lines), out.String())
	}
	if !strings.Contains(lines[1], "step 11/100") || !strings.HasPrefix(lines[3], "epoch 1/1  validation") || !strings.Contains(lines[3], "top-1 90.0 %") ||
		!strings.HasPrefix(lines[4], "epoch 6  validation") {
		t.Errorf("got\n%s", out.String())
	}
}

func TestJSONLines(t *testing.T) {
	var out, human bytes.Buffer
	c := newConsole(&out, &human, true, false)
	if err := c.Prepare(context.Background(), &pipeline.Env{Epochs: 1, StepsPerEpoch: 1}); err != nil {
		t.Fatal(err)
	}
	want := []pipeline.Metric{
		{Event: "step", Step: 1, Loss: 2.25, Top1: 0.125, LR: 0.01, ImagesPerSecond: 32, InputWait: 0.5, Seconds: 1},
		{Event: "validation", Step: 1, Loss: 2, Top1: 0.25, Top5: 0.75},
		{Event: "done", Step: 1, Top1: 0.25},
	}
	send(t, c, want...)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(&out)
	dec.DisallowUnknownFields()
	for i := range want {
		var got pipeline.Metric
		if err := dec.Decode(&got); err != nil {
			t.Fatal(err)
		}
		if got != want[i] {
			t.Errorf("line %d: got %+v, want %+v", i, got, want[i])
		}
	}
	if _, err := dec.Token(); err != io.EOF {
		t.Errorf("more than the metrics on standard output: %v", err)
	}
	if !strings.Contains(human.String(), "step 1/1") {
		t.Errorf("no human text on the other stream: %q", human.String())
	}
}
