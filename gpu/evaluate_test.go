package gpu

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/net"
	"sluice/pipeline"
	"sluice/sinks"
)

// line is a whole line over pictures, with the numbers of a small run.
func line(t *testing.T, dir string, workers int, stage pipeline.BatchStage, name string, kinds ...pipeline.NamedSink) *pipeline.Line {
	t.Helper()
	frame := pipeline.Frame{W: side, H: side, CanvasW: side, CanvasH: side}
	e := env(8)
	e.RunDir = dir
	e.Accepts = nil // the runner knows the sinks
	return &pipeline.Line{
		Seed: 5, Source: pictures{n: 40}, SourceName: "pictures", Frame: frame,
		BatchSize: 8, DropLast: true, Shuffle: true, Epochs: 4, Workers: workers,
		Stages: []pipeline.NamedStage{{Name: name, Stage: stage}}, Sinks: kinds, Env: e,
	}
}

// validation has a short last batch.
func validation() *pipeline.Line {
	return &pipeline.Line{
		Source: pictures{n: 21, first: 500}, SourceName: "pictures", BatchSize: 8, Workers: 1, Epochs: 1,
		Frame: pipeline.Frame{W: side, H: side, CanvasW: side, CanvasH: side},
	}
}

// a box is a sink that keeps everything.
type box struct{ outbox }

func (b *box) Write(_ context.Context, in *pipeline.Batch) error {
	in.Record.Retain() // emit gives it back
	return b.emit(in)
}
func (b *box) Close() error { return nil }

func weightsSink(t *testing.T) pipeline.NamedSink {
	t.Helper()
	s, err := sinks.NewWeights(sinks.WeightsOptions{File: "weights.safetensors", Every: 1})
	if err != nil {
		t.Fatal(err)
	}
	return pipeline.NamedSink{Name: "weights", Sink: s}
}

// trained runs the whole line, 20 steps, and gives what came out.
func trained(t *testing.T, dir string, workers, threads int, more ...pipeline.NamedSink) *box {
	t.Helper()
	out := &box{}
	l := line(t, dir, workers, trainStage(t, smallNet+"epochs: 4", nil), "train",
		append(more, pipeline.NamedSink{Name: "box", Sink: out})...)
	l.Validation = validation()
	l.Env.Threads = threads
	if err := l.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return out
}

// Weights do not depend on how many goroutines read, nor on how many compute.
func TestTrainGivesTheSameWeightsAtAnyWidth(t *testing.T) {
	want := trained(t, t.TempDir(), 1, 1)
	if n := len(want.of("validation")); n != 4 || want.metrics[len(want.metrics)-1].Step != 20 {
		t.Fatalf("the run had %d validations and ended in %+v, want 4 and 20 steps", n, want.metrics[len(want.metrics)-1])
	}
	for _, tt := range []struct{ workers, threads int }{{1, 2}, {2, 1}, {5, 2}, {16, 2}} {
		got := trained(t, t.TempDir(), tt.workers, tt.threads)
		sameTensors(t, "weights", got.weights, want.weights)
		for i, m := range got.metrics {
			w := want.metrics[i]
			if m.Event != w.Event || m.Loss != w.Loss || m.Top1 != w.Top1 || m.Top5 != w.Top5 {
				t.Errorf("%+v: metric %+v, want %+v", tt, m, w)
			}
		}
	}
}

// The small net learns its three textures: a step that goes nowhere would show.
func TestTrainLearns(t *testing.T) {
	out := trained(t, t.TempDir(), 2, 2)
	first, last := out.of("validation")[0], out.of("done")[0]
	if last.Top1 < 0.9 || last.Loss >= first.Loss {
		t.Errorf("validation went from %+v to %+v", first, last)
	}
}

// The written weights give exactly the training run's final validation.
func TestEvaluateGivesTheNumbersOfTraining(t *testing.T) {
	dir := t.TempDir()
	want := trained(t, dir, 2, 2, weightsSink(t)).of("done")[0]
	stage, err := NewEvaluate(EvaluateOptions{Weights: Files{filepath.Join(dir, "weights.safetensors")}, LogEvery: 10, Preprocessing: samePreprocessing, Device: CPU})
	if err != nil {
		t.Fatal(err)
	}
	out := &box{}
	v := validation()
	l := line(t, t.TempDir(), 2, stage, "evaluate", pipeline.NamedSink{Name: "box", Sink: out})
	l.Source, l.Epochs, l.DropLast, l.Shuffle = v.Source, 1, false, false
	if err := l.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(out.order, []string{"validation", "done"}) {
		t.Fatalf("emitted %v", out.order)
	}
	for _, m := range out.metrics {
		if m.Loss != want.Loss || m.Top1 != want.Top1 || m.Top5 != want.Top5 || m.Epoch != want.Epoch || m.Step != want.Step {
			t.Errorf("evaluation %+v, want the numbers of training's %+v", m, want)
		}
	}
}

// relabelled is a source with classes of its own.
type relabelled struct {
	pictures
	classes []string
	label   func(int32) int32
}

func (r relabelled) Classes() []string { return r.classes }
func (r relabelled) Read(ctx context.Context, i int, s *pipeline.Sample) error {
	err := r.pictures.Read(ctx, i, s)
	s.Label = r.label(s.Label)
	return err
}

// Classes are matched by name, whatever number the source gives them.
func TestEvaluateMatchesClassesByName(t *testing.T) {
	dir := t.TempDir()
	want := trained(t, dir, 2, 2, weightsSink(t)).of("done")[0]
	file := filepath.Join(dir, "weights.safetensors")
	reversed := slices.Clone(classes)
	slices.Reverse(reversed)
	out := &box{}
	stage, err := NewEvaluate(EvaluateOptions{Weights: Files{file}, LogEvery: 10, Preprocessing: samePreprocessing, Device: CPU})
	if err != nil {
		t.Fatal(err)
	}
	l := line(t, t.TempDir(), 2, stage, "evaluate", pipeline.NamedSink{Name: "box", Sink: out})
	l.Source = relabelled{pictures{n: 21, first: 500}, reversed, func(l int32) int32 { return 2 - l }}
	l.Env.Classes = reversed
	l.Epochs, l.DropLast, l.Shuffle = 1, false, false
	if err := l.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := out.of("done")[0]; got.Loss != want.Loss || got.Top1 != want.Top1 {
		t.Errorf("evaluation %+v, want the numbers of training's %+v", got, want)
	}

	plan := func(edit func(*pipeline.Env)) error {
		s, err := NewEvaluate(EvaluateOptions{Weights: Files{file}, LogEvery: 10, Preprocessing: samePreprocessing, Device: CPU})
		if err != nil {
			t.Fatal(err)
		}
		e := env(8)
		edit(e)
		_, err = s.Plan(e)
		return err
	}
	for want, edit := range map[string]func(*pipeline.Env){
		`class "zebra" of the source is none of the 3 that the weights know (across, down, dots)`: func(e *pipeline.Env) { e.Classes = []string{"across", "zebra"} },
		"evaluation needs labels": func(e *pipeline.Env) { e.Classes = nil },
		"the images are 20x16 (width x height), and " + file + " was trained on 16x16": func(e *pipeline.Env) { e.Frame.W = 20 },
	} {
		if err := plan(edit); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	if err := plan(func(e *pipeline.Env) { e.Classes = []string{"dots", "across"} }); err != nil {
		t.Errorf("some of the classes, in another order: %v", err)
	}
}

func TestEvaluateRefusesFilesItCannotUse(t *testing.T) {
	dir := t.TempDir()
	put := func(name, content string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for file, want := range map[string]string{
		filepath.Join(dir, "missing.safetensors"):                     "weights cannot be read: ",
		put("empty.safetensors", ""):                                  "empty.safetensors",
		put("garbage.safetensors", strings.Repeat("garbage", 9)):      "garbage.safetensors",
		put("bare.safetensors", "\x02\x00\x00\x00\x00\x00\x00\x00{}"): `bare.safetensors does not say its "net"`,
	} {
		s, err := NewEvaluate(EvaluateOptions{Weights: Files{file}, LogEvery: 10, Preprocessing: samePreprocessing, Device: CPU})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Plan(env(8)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", file, err, want)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := NewEvaluate(EvaluateOptions{LogEvery: 10, Preprocessing: samePreprocessing, Device: CPU}); err == nil || !strings.Contains(err.Error(), "weights is empty") {
		t.Errorf("no file: error %v", err)
	}
}

// A result is the mean over every image of every batch, the last and short one
// too.
func TestEvaluateCountsEveryImage(t *testing.T) {
	dir := t.TempDir()
	trained(t, dir, 1, 1, weightsSink(t))
	measure := func(first int, sizes ...int) pipeline.Metric {
		t.Helper()
		s, err := NewEvaluate(EvaluateOptions{Weights: Files{filepath.Join(dir, "weights.safetensors")}, LogEvery: 10, Preprocessing: samePreprocessing, Device: CPU})
		if err != nil {
			t.Fatal(err)
		}
		prepare(t, s, env(8))
		defer s.Close()
		var out outbox
		if err := feedBatches(t.Context(), s, 0, first, sizes, out.emit); err != nil {
			t.Fatal(err)
		}
		return out.of("done")[0]
	}
	all := measure(700, 8, 8, 3)
	var want pipeline.Metric
	for _, m := range []struct{ first, n int }{{700, 8}, {708, 8}, {716, 3}} {
		one := measure(m.first, m.n)
		share := float64(m.n) / 19
		want.Loss, want.Top1, want.Top5 = want.Loss+share*one.Loss, want.Top1+share*one.Top1, want.Top5+share*one.Top5
	}
	if !near(all.Loss, want.Loss) || !near(all.Top1, want.Top1) || !near(all.Top5, want.Top5) {
		t.Errorf("all batches give %+v, one by one they give %+v", all, want)
	}
}

// A validation of nothing is no perfect score.
func TestEvaluateOfNothingIsAnError(t *testing.T) {
	dir := t.TempDir()
	trained(t, dir, 1, 1, weightsSink(t))
	s, err := NewEvaluate(EvaluateOptions{Weights: Files{filepath.Join(dir, "weights.safetensors")}, LogEvery: 10, Preprocessing: samePreprocessing, Device: CPU})
	if err != nil {
		t.Fatal(err)
	}
	prepare(t, s, env(8))
	defer s.Close()
	if err := s.Flush(t.Context(), discard); err == nil || !strings.Contains(err.Error(), "no image was left") {
		t.Errorf("error %v", err)
	}
}

// What weights say about themselves reads back as it was written.
func TestAboutRoundTrip(t *testing.T) {
	top1 := 0.875
	want := about{
		Net: trainOptions(t, smallNet+"epochs: 1").Net, Classes: []string{"a b", "ü", `"quoted"`},
		Input:   aboutInput(net.InputSpec{H: 16, W: 20, Top: 1, Left: 2, Mean: [3]float32{1, 2, 3}, Scale: [3]float32{0.1, 0.2, 0.3}, BGR: true}),
		Samples: "- decode: {}\n", Epoch: 3, Step: 20, Seed: 1<<64 - 1, Version: "v1", Top1: &top1,
	}
	meta, err := want.metadata()
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseAbout("x", meta)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Classes, want.Classes) || got.Input != want.Input || got.Samples != want.Samples || got.Epoch != 3 || got.Step != 20 {
		t.Errorf("read %+v, want %+v", got, want)
	}
	again, err := about{Net: got.Net}.metadata()
	if err != nil || again["net"] != meta["net"] {
		t.Errorf("the network came back as\n%s\nwant\n%s (%v)", again["net"], meta["net"], err)
	}
	if meta["seed"] != "18446744073709551615" || meta["validation_top1"] != "0.875" || meta["version"] != "v1" {
		t.Errorf("metadata %v", meta)
	}
	for key, bad := range map[string]string{"net": "{layers: [no_such_layer]}", "classes": "{", "input": "7", "epoch": "x"} {
		broken := map[string]string{}
		for k, v := range meta {
			broken[k] = v
		}
		broken[key] = bad
		if _, err := parseAbout("file.x", broken); err == nil || !strings.Contains(err.Error(), "file.x") {
			t.Errorf("%s %q: error %v, want one that names the file", key, bad, err)
		}
	}
}

// An error of the sink ends the whole line, and the message says which file.
func TestTrainEndsWhenWeightsCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "weights.safetensors"), 0o755); err != nil { // no file can take its name
		t.Fatal(err)
	}
	l := line(t, dir, 2, trainStage(t, smallNet+"epochs: 4", nil), "train", weightsSink(t))
	err := l.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "cannot write "+filepath.Join(dir, "weights.safetensors")) {
		t.Errorf("error %v", err)
	}
	if e := new(pipeline.Error); !errors.As(err, &e) || e.Stage != "weights" {
		t.Errorf("error %v does not name the sink", err)
	}
}
