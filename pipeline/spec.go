package pipeline

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"sluice/pipeline/config"
)

// Spec is a run as its YAML file says it, checked as a whole: every stage is
// built, every size is known. A Spec is good for one run, as its stages are.
type Spec struct {
	Name     string          `yaml:"name" config:"required" doc:"names the run: results go to a folder of this name"`
	Seed     uint64          `yaml:"seed" doc:"of everything random: the same seed gives the same run"`
	Source   sourceItem      `yaml:"source" config:"required" doc:"where the images come from"`
	Samples  []sampleItem    `yaml:"samples" doc:"stages that every image goes through, in order"`
	Batch    BatchSpec       `yaml:"batch" doc:"how images are packed"`
	Batches  []batchItem     `yaml:"batches" doc:"stages that every batch goes through, in order"`
	Validate *ValidationSpec `yaml:"validate" doc:"images to measure on that are not trained on"`
	Sinks    []sinkItem      `yaml:"sinks" doc:"where results go; without any, none are written"`
	Run      RunSpec         `yaml:"run" doc:"how the line runs"`

	// What the checks of the whole file found out.
	env        Env
	plans      []part // batch stages and sinks with their plans
	train      bool   // a batch stage learns
	validation *Line
	given      map[string]bool // statistics, by where they are from
}

// BatchSpec is the `batch:` of a file.
type BatchSpec struct {
	Size    int     `yaml:"size" doc:"images in a batch"`
	Shuffle Shuffle `yaml:"shuffle" doc:"give every epoch an order of its own; auto: if a stage trains"`
	Last    Last    `yaml:"last" doc:"what becomes of a short last batch of an epoch; auto: drop it if a stage trains"`
}

// ValidationSpec is the `validate:` of a file.
type ValidationSpec struct {
	Source  sourceItem          `yaml:"source" config:"required" doc:"where the images come from"`
	Samples []sampleItem        `yaml:"samples" doc:"stages that every image goes through, in order"`
	Batch   ValidationBatchSpec `yaml:"batch" doc:"how images are packed"`
}

// ValidationBatchSpec is the `batch:` of a `validate:`.
type ValidationBatchSpec struct {
	Size Count `yaml:"size" doc:"images in a batch; auto: as many as in training"`
}

// RunSpec is the `run:` of a file.
type RunSpec struct {
	Workers Count   `yaml:"workers" doc:"goroutines that read and prepare images; auto: one a core. The result is the same for any number"`
	Threads Count   `yaml:"threads" doc:"threads that compute on the CPU; auto: one a core. The result is the same for any number"`
	Dir     string  `yaml:"dir" doc:"folder of all runs"`
	OnError OnError `yaml:"on_error" doc:"what becomes of an image that cannot be read or processed"`

	Stall time.Duration `yaml:"stall" doc:"how long nothing may move until the run says which stages are at work, and on what; 0: for ever"`
	Grace time.Duration `yaml:"grace" doc:"how long nothing may move in a run that was stopped, or has failed, until it ends without the stages that are still at work, and names them; 0: for ever"`
}

// The items of a file are decoded by the registry of their kind.
type (
	sourceItem struct{ config.Item[Source] }
	sampleItem struct{ config.Item[SampleStage] }
	batchItem  struct{ config.Item[BatchStage] }
	sinkItem   struct{ config.Item[Sink] }
)

func (i *sourceItem) UnmarshalConfig(d *config.Decoder, n *yaml.Node) {
	i.Item, _ = Sources.Decode(d, n)
}
func (i *sampleItem) UnmarshalConfig(d *config.Decoder, n *yaml.Node) {
	i.Item, _ = SampleStages.Decode(d, n)
}
func (i *batchItem) UnmarshalConfig(d *config.Decoder, n *yaml.Node) {
	i.Item, _ = BatchStages.Decode(d, n)
}
func (i *sinkItem) UnmarshalConfig(d *config.Decoder, n *yaml.Node) {
	i.Item, _ = Sinks.Decode(d, n)
}

func (*sourceItem) Choice(name string) any { return Sources.Choice(name) }
func (*sampleItem) Choice(name string) any { return SampleStages.Choice(name) }
func (*batchItem) Choice(name string) any  { return BatchStages.Choice(name) }
func (*sinkItem) Choice(name string) any   { return Sinks.Choice(name) }

// Count is a number of at least 1, or 0 for `auto`.
type Count int

// maxCount is more workers, threads or images in a batch than make sense: a
// number beyond it is a slip, found before it takes all memory.
const maxCount = 1 << 16

// ConfigType says what a Count takes.
func (Count) ConfigType() string { return "auto or a whole number" }

// UnmarshalConfig reads `auto` or a number.
func (c *Count) UnmarshalConfig(d *config.Decoder, n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && n.Value == "auto" {
		*c = 0
		return
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" {
		d.Wrong(n, "auto or a whole number")
		return
	}
	v := 0
	if d.Decode(n, &v) && (v < 1 || v > maxCount) {
		d.Wrong(n, fmt.Sprintf("auto, or from 1 to %d", maxCount))
		v = 0 // for the checks that come after it, some of which start threads
	}
	*c = Count(v)
}

// MarshalYAML gives the form that UnmarshalConfig reads.
func (c Count) MarshalYAML() (any, error) {
	if c == 0 {
		return "auto", nil
	}
	return int(c), nil
}

// or gives the number, or what auto stands for.
func (c Count) or(auto int) int {
	if c == 0 {
		return auto
	}
	return int(c)
}

// Shuffle is `auto`, `true` or `false`.
type Shuffle string

// ConfigType says what a Shuffle takes.
func (Shuffle) ConfigType() string { return "auto, true or false" }

// UnmarshalConfig reads one of the words.
func (s *Shuffle) UnmarshalConfig(d *config.Decoder, n *yaml.Node) {
	if w, ok := d.Word(n, "auto", "true", "false"); ok {
		*s = Shuffle(w)
	}
}

// MarshalYAML gives the form that UnmarshalConfig reads.
func (s Shuffle) MarshalYAML() (any, error) {
	if b, err := strconv.ParseBool(string(s)); err == nil {
		return b, nil
	}
	return string(s), nil
}

func (s Shuffle) or(auto bool) bool { return s == "true" || s == "auto" && auto }

// Last is `auto`, `drop` or `keep`.
type Last string

// ConfigType says what a Last takes.
func (Last) ConfigType() string { return "auto, drop or keep" }

// UnmarshalConfig reads one of the words.
func (l *Last) UnmarshalConfig(d *config.Decoder, n *yaml.Node) {
	if w, ok := d.Word(n, "auto", "drop", "keep"); ok {
		*l = Last(w)
	}
}

func (l Last) drop(auto bool) bool { return l == "drop" || l == "auto" && auto }

// OnError is `fail`, `skip` or `quarantine`, the last two with a budget if
// wanted: `{skip: {max: 10}}`, `{quarantine: {max_fraction: 0.001}}`.
type OnError struct {
	Policy Policy
	node   *yaml.Node
}

type budget struct {
	Max         int     `yaml:"max" doc:"fail after all if more images of one epoch than this are bad; 0 for no bound"`
	MaxFraction float64 `yaml:"max_fraction" doc:"the same as a fraction of the source; 0 for no bound"`
}

// ConfigType says what an OnError takes.
func (OnError) ConfigType() string {
	return "fail, skip or quarantine; {skip: {max: 10}}, {quarantine: {max_fraction: 0.001}}"
}

// Choice gives the options of a word.
func (*OnError) Choice(name string) any {
	if name == "skip" || name == "quarantine" {
		return budget{}
	}
	return nil
}

// UnmarshalConfig reads one of the forms.
func (o *OnError) UnmarshalConfig(d *config.Decoder, n *yaml.Node) {
	o.node = n
	var b budget
	name, ok := d.OneOf(n, config.Choice{Name: "fail"}, config.Choice{Name: "skip", Options: &b}, config.Choice{Name: "quarantine", Options: &b})
	if !ok {
		return
	}
	if b.Max < 0 {
		d.Report(optionsOf(n), config.Fieldf("max", "must be at least 0, is %d", b.Max))
	}
	if b.MaxFraction < 0 || b.MaxFraction > 1 {
		d.Report(optionsOf(n), config.Fieldf("max_fraction", "must be from 0 to 1, is %g", b.MaxFraction))
	}
	o.Policy = Policy{Skip: name == "skip", Quarantine: name == "quarantine", Max: b.Max, MaxFraction: b.MaxFraction}
}

// MarshalYAML gives the form that UnmarshalConfig reads.
func (o OnError) MarshalYAML() (any, error) {
	p := o.Policy
	switch b := (budget{p.Max, p.MaxFraction}); {
	case p.Quarantine:
		return map[string]budget{"quarantine": b}, nil
	case p.Skip:
		return map[string]budget{"skip": b}, nil
	}
	return "fail", nil
}

// optionsOf is the options of `name: {options}`.
func optionsOf(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.MappingNode && len(n.Content) == 2 {
		return n.Content[1]
	}
	return n
}

// Load reads a YAML file, see Parse.
func Load(path string, sets []string) (*Spec, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// One byte more than is allowed is enough to see that it is too large.
	data, err := io.ReadAll(io.LimitReader(f, config.MaxBytes+1))
	if err != nil {
		return nil, err
	}
	return Parse(path, data, sets)
}

// Parse makes a Spec of a YAML text and of overrides ("path=value", see
// config.Document.Set). It builds every stage and plans the whole line. file
// names the text in messages. The error is a config.Errors with every mistake of
// the file.
func Parse(file string, data []byte, sets []string) (*Spec, error) {
	doc, err := config.Parse(file, data)
	if err != nil {
		return nil, err
	}
	spec := new(Spec)
	*spec = defaultSpec()
	var bad []error
	for _, set := range sets {
		if err := doc.Set(set, Spec{}); err != nil {
			bad = append(bad, err)
		}
	}
	d := doc.Decoder()
	for _, err := range bad {
		d.Report(doc.Root, err)
	}
	d.Decode(doc.Root, spec)
	c := checker{Spec: spec, d: d, root: doc.Root}
	c.check()
	if err := d.Err(); err != nil {
		return nil, err
	}
	return spec, nil
}

// safeName is what may be a folder's name on any system.
var safeName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9._ -]{0,98}[A-Za-z0-9_-])?$`)

// Resolved is the spec as YAML with every default filled in. It loads to the
// same spec.
func (s *Spec) Resolved() []byte { return s.env.Resolved }

func (s *Spec) resolve() error {
	text, err := marshal(s)
	s.env.Resolved = []byte(text)
	return err
}

func marshal(v any) (string, error) {
	var out strings.Builder
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(v); err != nil {
		return "", fmt.Errorf("writing the resolved YAML: %w", err) // of a stage's own MarshalYAML
	}
	return out.String(), nil
}

// Line is the line to run, with its Env. version is that of the program.
func (s *Spec) Line(version string) (*Line, error) {
	env := s.env
	env.Version = version
	l := &Line{
		Seed:       s.Seed,
		Source:     s.Source.Value,
		SourceName: s.Source.Name,
		Steps:      steps(s.Samples),
		Frame:      env.Frame,
		BatchSize:  env.BatchSize,
		DropLast:   env.DropLast,
		Shuffle:    s.Batch.Shuffle.or(s.train),
		Epochs:     env.Epochs,
		Workers:    env.Workers,
		OnError:    s.Run.OnError.Policy,
		Stall:      s.Run.Stall,
		Grace:      s.Run.Grace,
		Validation: s.validation,
		Env:        &env,
	}
	for _, b := range s.Batches {
		l.Stages = append(l.Stages, NamedStage{b.Name, b.Value})
	}
	for _, k := range s.Sinks {
		l.Sinks = append(l.Sinks, NamedSink{k.Name, k.Value})
	}
	return l, errors.Join(l.check(), s.statisticsGiven())
}

// steps labels sample stages: a second one of a name is "name#2".
func steps(items []sampleItem) []Step {
	seen := map[string]int{}
	out := make([]Step, len(items))
	for i, item := range items {
		seen[item.Name]++
		label := item.Name
		if n := seen[item.Name]; n > 1 {
			label = fmt.Sprintf("%s#%d", label, n)
		}
		out[i] = Step{label, item.Value}
	}
	return out
}
