package cmd

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestTrace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "trace.json")
	tr, err := newTrace(path)
	if err != nil {
		t.Fatal(err)
	}
	at := tr.began.Add(time.Millisecond)
	tr.span("copies", "copy \"1\"", at, at.Add(2*time.Millisecond))
	tr.span("compute", "conv", at, at.Add(time.Microsecond))
	tr.span("copies", "copy 2", at, at)
	if _, err := os.Stat(path); err == nil {
		t.Error("the file has its name before it is whole")
	}
	if err := tr.close(); err != nil {
		t.Fatal(err)
	}
	tr.discard()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var events []event
	if err := json.Unmarshal(text, &events); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	tracks := map[string]int{}
	spans := map[string]event{}
	for _, e := range events {
		switch e.Phase {
		case "M":
			tracks[e.Args["name"]] = e.Track
		case "X":
			spans[e.Name] = e
		}
	}
	if one := spans["copy \"1\""]; one.Begin != 1000 || one.Duration != 2000 || one.Track != tracks["copies"] || tracks["copies"] == tracks["compute"] {
		t.Errorf("the span is %+v, the tracks are %v", one, tracks)
	}
	if len(spans) != 3 {
		t.Errorf("there are %d spans, not 3", len(spans))
	}

	// One that nobody closes leaves nothing.
	other, err := newTrace(filepath.Join(dir, "other.json"))
	if err != nil {
		t.Fatal(err)
	}
	other.discard()
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("the folder holds %v (%v)", files, err)
	}
	if _, err := newTrace(filepath.Join(dir, "none", "trace.json")); err == nil {
		t.Error("a trace in a folder that is not there")
	}
}
