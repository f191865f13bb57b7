package pipeline

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"image"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"sluice/pipeline/config"
)

var updateSpecs = flag.Bool("update-specs", false, "write the expected errors of testdata/spec_*.txt anew")

// The things that the specs of these tests name.
type (
	specSourceOptions struct {
		Count   int      `yaml:"count" doc:"number of images"`
		Classes []string `yaml:"classes" doc:"names of the classes"`
		Broken  bool     `yaml:"broken" doc:"panic when asked for the length"`
		MinSide int      `yaml:"min_side" doc:"refuse smaller images"`
	}
	specSource struct {
		o      specSourceOptions
		mapped []string
	}
	// unmappedSource cannot renumber its labels.
	unmappedSource struct{ s *specSource }

	sideOptions struct {
		Size int `yaml:"size" config:"required" doc:"side of the square"`
	}
	specCrop struct{ size int }
	specKeep struct{}

	specTrainOptions struct {
		Epochs int    `yaml:"epochs" doc:"epochs"`
		Learn  bool   `yaml:"learn" doc:"whether it trains"`
		Max    int    `yaml:"max" doc:"greatest side it takes, 0 for any"`
		Bytes  int64  `yaml:"bytes" doc:"memory it plans"`
		Text   string `yaml:"text" doc:"what it says"`
	}
	specTrain struct {
		specTrainOptions
		plans []planned
	}
	planned struct {
		drop          bool
		steps, epochs int
	}

	// mute is an option that cannot be written.
	mute        struct{ Word string }
	muteOptions struct {
		Mute mute `yaml:"mute" doc:"fail or panic"`
	}

	specSinkOptions struct {
		Kind string `yaml:"kind" doc:"what it accepts, empty for all"`
		Fail bool   `yaml:"fail" doc:"fail to plan"`
	}
	specSink struct{ o specSinkOptions }
	allSink  struct{}
)

func (s *specSource) Len() int {
	if s.o.Broken {
		panic("no length")
	}
	return s.o.Count
}
func (s *specSource) Read(_ context.Context, i int, smp *Sample) error {
	smp.Name, smp.Label = fmt.Sprint("image", i), int32(i%max(1, len(s.o.Classes)))
	smp.SetImage(image.NewGray(image.Rect(0, 0, 9+i, 12)))
	return nil
}
func (s *specSource) Classes() []string { return s.o.Classes }
func (s *specSource) MapClasses(names []string) error {
	s.mapped = names
	for _, c := range s.o.Classes {
		if !slices.Contains(names, c) {
			return fmt.Errorf("class %q is not one of training's", c)
		}
	}
	return nil
}
func (s *specSource) CheckLine(env *Env) error {
	if env.Frame.W < s.o.MinSide {
		return config.Fieldf("min_side", "is more than the %d pixels of a batch", env.Frame.W)
	}
	return nil
}

func (u unmappedSource) Len() int                                       { return u.s.Len() }
func (u unmappedSource) Read(c context.Context, i int, s *Sample) error { return u.s.Read(c, i, s) }
func (u unmappedSource) Classes() []string                              { return u.s.o.Classes }

func (c specCrop) Process(_ context.Context, s *Sample) error {
	s.SetView(s.View().Crop(0, 0, c.size, c.size))
	return nil
}
func (c specCrop) Frame(in Frame) (Frame, error) {
	if in.W > 0 && c.size > in.W {
		return in, config.Fieldf("size", "must be at most %d, is %d", in.W, c.size)
	}
	return Frame{W: c.size, H: c.size, CanvasW: c.size, CanvasH: c.size}, nil
}

func (specKeep) Process(context.Context, *Sample) error { return nil }

func (t *specTrain) Process(context.Context, *Batch, Emit) error { return nil }
func (t *specTrain) Holds() int                                  { return 2 }
func (t *specTrain) Plan(env *Env) (Plan, error) {
	t.plans = append(t.plans, planned{env.DropLast, env.StepsPerEpoch, env.Epochs})
	if t.Max > 0 && env.Frame.W > t.Max {
		return Plan{}, config.Fieldf("max", "is less than the %d of the images", env.Frame.W)
	}
	p := Plan{Epochs: t.Epochs, Train: t.Learn, Text: t.Text}
	if t.Bytes > 0 {
		p.Memory = []Memory{{"weights", t.Bytes}}
	}
	return p, nil
}

func (k specSink) Write(context.Context, *Batch) error { return nil }
func (k specSink) Close() error                        { return nil }
func (k specSink) Accepts(kind Kind) bool              { return k.o.Kind == "" || string(kind) == k.o.Kind }
func (k specSink) Plan(*Env) (Plan, error) {
	if k.o.Fail {
		return Plan{}, errors.New("there is no place for it")
	}
	return Plan{Text: "spec.out"}, nil
}

func (m *mute) UnmarshalConfig(d *config.Decoder, n *yaml.Node) {
	m.Word, _ = d.Word(n, "fail", "panic")
}
func (m mute) MarshalYAML() (any, error) {
	if m.Word == "panic" {
		panic("cannot write")
	}
	return nil, errors.New("cannot write")
}

func (allSink) Write(context.Context, *Batch) error { return nil }
func (allSink) Close() error                        { return nil }

func init() {
	source := specSourceOptions{Count: 20, Classes: []string{"cat", "dog"}}
	RegisterSource("spec_source", "test source", source, func(o specSourceOptions) (Source, error) {
		return &specSource{o: o}, nil
	})
	RegisterSource("spec_unmapped", "test source", source, func(o specSourceOptions) (Source, error) {
		return unmappedSource{&specSource{o: o}}, nil
	})
	RegisterSampleStage("spec_crop", "test crop", sideOptions{}, func(o sideOptions) (SampleStage, error) {
		if o.Size < 1 {
			return nil, config.Fieldf("size", "must be at least 1, is %d", o.Size)
		}
		return specCrop{o.Size}, nil
	})
	RegisterSampleStage("spec_keep", "test stage", struct{}{}, func(struct{}) (SampleStage, error) {
		return specKeep{}, nil
	})
	RegisterSampleStage("spec_mute", "test stage", muteOptions{}, func(muteOptions) (SampleStage, error) {
		return specKeep{}, nil
	})
	RegisterBatchStage("spec_train", "test training", specTrainOptions{Epochs: 3, Learn: true}, func(o specTrainOptions) (BatchStage, error) {
		return &specTrain{specTrainOptions: o}, nil
	})
	RegisterSink("spec_sink", "test sink", specSinkOptions{}, func(o specSinkOptions) (Sink, error) { return specSink{o}, nil })
	RegisterSink("spec_all", "takes everything", struct{}{}, func(struct{}) (Sink, error) { return allSink{}, nil })
}

// withQuarantine registers, once, the sink that on_error may add: the real one
// is in a package that imports this one.
func withQuarantine() {
	if _, ok := Sinks.Lookup("quarantine"); !ok {
		RegisterSink("quarantine", "test quarantine", struct{}{}, func(struct{}) (Sink, error) {
			return specSink{specSinkOptions{Kind: string(Quarantine)}}, nil
		})
	}
}

const wholeSpec = `
name: whole
seed: 7
source: {spec_source: {count: 21}}
samples: [spec_keep, {spec_crop: {size: 8}}, spec_keep, {spec_crop: {size: 6}}]
batch: {size: 4}
batches: [{spec_train: {bytes: 1048576}}]
validate:
  source: {spec_source: {count: 5, classes: [dog]}}
  samples: [{spec_crop: {size: 6}}]
  batch: {size: 3}
sinks: [{spec_sink: {kind: metrics}}]
run: {workers: 3, threads: 2, dir: out, on_error: {quarantine: {max_fraction: 0.25, max: 2}}}
`

func parseSpec(t *testing.T, text string, sets ...string) *Spec {
	t.Helper()
	withQuarantine()
	s, err := Parse("spec.yaml", []byte(text), sets)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSpecMistakes reads testdata/spec_*.txt, in the form of the cases of
// package config.
func TestSpecMistakes(t *testing.T) {
	withQuarantine()
	files, err := filepath.Glob("testdata/spec_*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		for _, c := range strings.Split("\n"+string(data), "\n=== ")[1:] {
			name, rest, _ := strings.Cut(c, "\n")
			input, want, ok := strings.Cut(rest, "\n----")
			if !ok {
				t.Fatalf("%s: case %q has no ----", file, name)
			}
			text, sets := input, []string(nil)
			for strings.HasPrefix(text, "--set ") {
				var line string
				line, text, _ = strings.Cut(text, "\n")
				sets = append(sets, strings.TrimPrefix(line, "--set "))
			}
			if text == "whole" {
				text = wholeSpec
			}
			_, err := Parse("spec.yaml", []byte(text+"\n"), sets)
			got := fmt.Sprint(err)
			fmt.Fprintf(&out, "=== %s\n%s\n----\n%s\n", name, input, got)
			t.Run(name, func(t *testing.T) {
				if err == nil {
					t.Error("no mistake found")
				}
				if !*updateSpecs && got != strings.TrimSpace(want) {
					t.Errorf("got\n%s\nwant\n%s", got, want)
				}
			})
		}
		if *updateSpecs {
			if err := os.WriteFile(file, []byte(out.String()), 0o666); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestSpecLine(t *testing.T) {
	s := parseSpec(t, wholeSpec)
	l, err := s.Line("v1")
	if err != nil {
		t.Fatal(err)
	}
	var labels []string
	for _, st := range l.Steps {
		labels = append(labels, st.Label)
	}
	if want := []string{"spec_keep", "spec_crop", "spec_keep#2", "spec_crop#2"}; !slices.Equal(labels, want) {
		t.Errorf("labels %v, want %v", labels, want)
	}
	frame := Frame{W: 6, H: 6, CanvasW: 6, CanvasH: 6}
	if l.Seed != 7 || l.SourceName != "spec_source" || l.Frame != frame || l.BatchSize != 4 || !l.DropLast || !l.Shuffle || l.Epochs != 3 || l.Workers != 3 {
		t.Errorf("line %+v", l)
	}
	if want := (Policy{Quarantine: true, Max: 2, MaxFraction: 0.25}); l.OnError != want || l.Validation.OnError != want {
		t.Errorf("policies %+v and %+v, want %+v", l.OnError, l.Validation.OnError, want)
	}
	v := l.Validation
	if v.SourceName != "spec_source" || v.Frame != frame || v.BatchSize != 3 || v.DropLast || v.Shuffle || len(v.Steps) != 1 {
		t.Errorf("validation %+v", v)
	}
	if got := v.Source.(*specSource).mapped; !slices.Equal(got, []string{"cat", "dog"}) {
		t.Errorf("validation's labels were mapped to %v", got)
	}
	if len(l.Stages) != 1 || len(l.Sinks) != 2 || l.Sinks[1].Name != "quarantine" {
		t.Errorf("stages %v, sinks %v", l.Stages, l.Sinks)
	}
	env := l.Env
	if env.Name != "whole" || env.RunDir != filepath.Join("out", "whole") || env.Version != "v1" || env.Threads != 2 || env.Samples != 21 ||
		env.StepsPerEpoch != 5 || env.Epochs != 3 || env.ValidationBatch != 3 || env.ValidationSamples != 5 || env.Validate != nil {
		t.Errorf("env %+v", env)
	}
	if want := "- spec_keep: {}\n- spec_crop:\n    size: 8\n- spec_keep: {}\n- spec_crop:\n    size: 6\n"; env.Preprocessing != want {
		t.Errorf("preprocessing is %q, want %q", env.Preprocessing, want)
	}
	if want := "- spec_crop:\n    size: 6\n"; env.ValidationPreprocessing != want || !env.Shuffle {
		t.Errorf("preprocessing of the validation is %q, want %q; shuffle %v", env.ValidationPreprocessing, want, env.Shuffle)
	}
	if !env.Accepts(Metrics) || !env.Accepts(Quarantine) || env.Accepts(Weights) {
		t.Error("Accepts does not follow the sinks")
	}
	if !bytes.Equal(env.Resolved, s.Resolved()) {
		t.Error("the env has another resolved YAML")
	}
	// The stage is asked again once it is known that a short batch is dropped.
	plans := l.Stages[0].Stage.(*specTrain).plans
	if want := []planned{{false, 6, 0}, {true, 5, 0}}; !slices.Equal(plans, want) {
		t.Errorf("plans were asked with %+v", plans)
	}
}

func TestSpecAuto(t *testing.T) {
	const small = "name: small\nsource: spec_source\nsamples: [{spec_crop: {size: 4}}]\nbatch: {size: 8}\n"
	for _, c := range []struct {
		more          string
		sets          []string
		shuffle, drop bool
		epochs, steps int
	}{
		{"", nil, false, false, 1, 3},
		{"batches: [{spec_train: {learn: false}}]\n", nil, false, false, 3, 3},
		{"batches: [spec_train]\n", nil, true, true, 3, 2},
		{"batches: [spec_train]\n", []string{"batch.shuffle=false", "batch.last=keep"}, false, false, 3, 3},
		{"", []string{"batch.shuffle=true", "batch.last=drop"}, true, true, 1, 2},
		{"", []string{"batch.size=30"}, false, false, 1, 1},
		{"batches: [spec_train, {spec_train: {epochs: 9}}]\n", nil, true, true, 9, 2},
	} {
		l, err := parseSpec(t, small+c.more, append(c.sets, "run.dir="+t.TempDir())...).Line("")
		if err != nil {
			t.Fatal(err)
		}
		if l.Shuffle != c.shuffle || l.DropLast != c.drop || l.Epochs != c.epochs || l.Env.StepsPerEpoch != c.steps {
			t.Errorf("%q %q: shuffle %v, drop %v, %d epochs of %d steps", c.more, c.sets, l.Shuffle, l.DropLast, l.Epochs, l.Env.StepsPerEpoch)
		}
		if l.Workers != runtime.GOMAXPROCS(0) || l.Env.Threads != 0 {
			t.Errorf("%d workers, %d threads", l.Workers, l.Env.Threads)
		}
		if err := l.Run(t.Context()); err != nil {
			t.Errorf("%q %q: %v", c.more, c.sets, err)
		}
	}
}

func TestSpecResolved(t *testing.T) {
	for _, sets := range [][]string{
		nil,
		{"run.on_error=skip", "run.workers=auto", "batch.shuffle=true", "batch.last=keep"},
		{"run.on_error=fail", "validate=null", "sinks=null", "batches=null", "seed=18446744073709551615"},
		{"validate.batch=null", "name=1e3", "run.dir='~'"},
	} {
		s := parseSpec(t, wholeSpec, sets...)
		once := s.Resolved()
		again := parseSpec(t, string(once))
		if twice := again.Resolved(); !bytes.Equal(once, twice) {
			t.Errorf("%q: first\n%s\nthen\n%s", sets, once, twice)
		}
		a, _ := s.Line("")
		b, _ := again.Line("")
		a.Env.Accepts, b.Env.Accepts = nil, nil
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%q: the resolved YAML gives another line:\n%+v\n%+v", sets, a, b)
		}
	}
	got := string(parseSpec(t, wholeSpec).Resolved())
	for _, want := range []string{"seed: 7\n", "- spec_keep: {}\n", "max_fraction: 0.25\n", "epochs: 3\n", "shuffle: auto\n", "- quarantine: {}\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

func TestSpecCheck(t *testing.T) {
	dir := t.TempDir()
	s := parseSpec(t, wholeSpec, "run.dir="+dir, "batches.spec_train.text=a table")
	r, err := s.Check()
	if err != nil {
		t.Fatal(err)
	}
	// 2 and the 2 that the stage holds, of 4 and 3 images of 6x6x3 and their columns.
	if r.Memory[0].Bytes < 4*4*6*6*3 || r.Memory[0].Bytes > 2*4*(4*6*6*3+7*64) || r.Memory[0].Bytes%4 != 0 {
		t.Errorf("batches take %d bytes", r.Memory[0].Bytes)
	}
	if len(r.Memory) != 3 || r.TotalBytes() != r.Memory[0].Bytes+r.Memory[1].Bytes+1<<20 {
		t.Errorf("memory %+v", r.Memory)
	}
	text := r.String()
	for _, want := range []string{
		"spec_source: 21 images, 2 classes (cat, dog)", "spec_keep, spec_crop, spec_keep#2, spec_crop#2, by 3 workers", "spec_source: 5 images",
		"4 images of 6x6, shuffled, a short last one dropped", "5 an epoch, 3 epochs, 15 in all", "\nspec_train\n  a table\n",
		"spec_train: weights", "1.0 MiB", "writes to " + filepath.Join(dir, "whole"), "spec.out",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if files, _ := os.ReadDir(dir); len(files) != 0 {
		t.Errorf("check wrote %v", files)
	}

	s = parseSpec(t, "name: bare\nsource: {spec_source: {classes: []}}\nsamples: [{spec_crop: {size: 4}}]\nbatch: {size: 8}")
	if r, err = s.Check(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"no sink: no results are written", "no batch stage", "in the source's order, the short last one kept"} {
		if !strings.Contains(r.String(), want) {
			t.Errorf("no %q in\n%s", want, r)
		}
	}
}

func TestSpecCheckRunFolder(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ dir, want string }{
		{file, file + " is a file"},
		{filepath.Join(file, "deep", "er"), file + " is a file"},
	} {
		_, err := parseSpec(t, wholeSpec, "run.dir="+c.dir).Check()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.dir, err, c.want)
		}
	}
	locked := filepath.Join(dir, "locked")
	if err := os.Mkdir(locked, 0o555); err != nil {
		t.Fatal(err)
	}
	if _, err := parseSpec(t, wholeSpec, "run.dir="+locked).Check(); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("got %v", err)
	}
	if _, err := parseSpec(t, wholeSpec, "run.dir="+filepath.Join(dir, "new", "one")).Check(); err != nil {
		t.Error(err)
	}
}

func TestSpecLoad(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "none.yaml"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := Load(t.TempDir(), nil); err == nil {
		t.Error("a folder is no file")
	}
	file := filepath.Join(t.TempDir(), "train.yaml")
	if err := os.WriteFile(file, []byte(wholeSpec), 0o666); err != nil {
		t.Fatal(err)
	}
	withQuarantine()
	s, err := Load(file, []string{"source.spec_source.count=9", "batches.spec_train.epochs=4"})
	if err != nil {
		t.Fatal(err)
	}
	if s.env.Samples != 9 || s.env.Epochs != 4 {
		t.Errorf("env %+v", s.env)
	}
	if err := os.WriteFile(file, bytes.Repeat([]byte("# comment\n"), 200_000), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(file, nil); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	withQuarantine()
	f.Add(wholeSpec, "seed=1")
	f.Add("name: x\nsource: spec_source\nsamples: [{spec_crop: {size: 4}}]", "run.on_error.skip.max=3")
	f.Add("name: x\nsource: {spec_unmapped: {count: 3}}\nsamples: [spec_keep]\nvalidate: {source: spec_source}", "validate.source.spec_source.broken=true")
	f.Fuzz(func(t *testing.T, text, set string) {
		s, err := Parse("f", []byte(text), []string{set})
		if err != nil {
			if _, ok := err.(config.Errors); !ok {
				t.Errorf("%T is no Errors", err)
			}
			return
		}
		once := s.Resolved()
		again, err := Parse("f", once, nil)
		if err != nil {
			t.Fatalf("%v\n%s", err, once)
		}
		if !bytes.Equal(again.Resolved(), once) {
			t.Errorf("resolves to another:\n%s\n%s", once, again.Resolved())
		}
		if s.env.BatchSize < 1000 {
			if _, err := s.Check(); err != nil && !strings.Contains(err.Error(), "run folder") {
				t.Error(err)
			}
		}
	})
}
