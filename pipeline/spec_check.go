package pipeline

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"sluice/pipeline/config"
)

// checker finds the mistakes that only the whole file shows, and settles what
// follows from it. Each check is made if what it needs was built.
type checker struct {
	*Spec
	d    *config.Decoder
	root *yaml.Node
}

// part is any item of the file: what was built of it (nil after a mistake), and
// a way to report its own errors at its line.
type part struct {
	name   string
	value  any
	plan   Plan
	report func(*config.Decoder, error)
}

func (i sourceItem) part() part { return part{name: i.Name, value: i.Value, report: i.Report} }
func (i sampleItem) part() part { return part{name: i.Name, value: i.Value, report: i.Report} }
func (i batchItem) part() part  { return part{name: i.Name, value: i.Value, report: i.Report} }
func (i sinkItem) part() part   { return part{name: i.Name, value: i.Value, report: i.Report} }

func parts[I interface{ part() part }](items []I) []part {
	out := make([]part, len(items))
	for i, item := range items {
		out[i] = item.part()
	}
	return out
}

// ask calls a method of a part's value; its error, or its panic, is a mistake
// at the part's line.
func (c *checker) ask(p part, f func() error) bool {
	err := func() (err error) {
		defer func() {
			if v := recover(); v != nil {
				err = panicked(v)
			}
		}()
		return f()
	}()
	if err != nil {
		p.report(c.d, err)
	}
	return err == nil
}

// node is the value at a path of the file, or the closest one above it.
func (c *checker) node(path string) *yaml.Node {
	n := c.root
	for step := range strings.SplitSeq(path, ".") {
		next := n
		for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == step {
				next = n.Content[i+1]
			}
		}
		if next == n {
			break
		}
		n = next
	}
	return n
}

func (c *checker) errorf(path, format string, args ...any) {
	c.d.Errorf(c.node(path), format, args...)
}

func (c *checker) check() {
	if n := c.node("name"); n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" && !safeName.MatchString(c.Name) {
		c.errorf("name", "name becomes a folder: at most 100 letters, digits, '_', '-', '.' and spaces, with a letter, digit or '_' first and no '.' or space last; it is %q", c.Name)
	}
	if n := c.node("run.dir"); c.Run.Dir == "" && n.Kind == yaml.ScalarNode {
		c.errorf("run.dir", "dir must not be empty; \".\" is the folder of the command")
	}
	if c.Run.Stall < 0 {
		c.errorf("run.stall", "stall must be at least 0, is %v", c.Run.Stall)
	}
	if c.Run.Grace < 0 {
		c.errorf("run.grace", "grace must be at least 0, is %v", c.Run.Grace)
	}
	sized := c.Batch.Size >= 1 && c.Batch.Size <= maxCount
	if !sized {
		c.errorf("batch.size", "size must be from 1 to %d, is %d", maxCount, c.Batch.Size)
	}
	c.quarantine()

	samples, counted := c.count(c.Source)
	frame, framed := c.frame(c.Source, c.Samples, "samples")
	sized = sized && (!framed || c.wholeSamples("batch.size", c.Batch.Size, frame))
	c.env = Env{
		Name: c.Name, Seed: c.Seed, RunDir: filepath.Join(c.Run.Dir, c.Name),
		Frame: frame, Samples: samples, BatchSize: c.Batch.Size,
		Workers: c.Run.Workers.or(runtime.GOMAXPROCS(0)), Threads: int(c.Run.Threads), Accepts: c.accepts,
	}
	if framed { // no Framer fails, or panics
		_, c.env.Survey = surveyed(c.Source, c.Samples)
	}
	c.checkpoints()
	c.outputs()
	if counted {
		c.env.Classes = c.classes(c.Source)
	}
	if c.Validate != nil {
		c.validate(counted, framed)
	}
	c.env.Preprocessing = c.preprocessing(c.Samples)
	validated := calm(c.Samples)
	if c.Validate != nil {
		validated = c.Validate.Samples
	}
	c.env.ValidationPreprocessing = c.preprocessing(validated)
	if counted && framed && sized {
		c.plan()
		c.checkLine()
	}
	if c.d.Err() == nil {
		whole := part{report: func(d *config.Decoder, err error) { d.Report(c.root, err) }}
		c.ask(whole, c.resolve)
	}
}

// preprocessing is sample stages as YAML, empty after a mistake in one.
func (c *checker) preprocessing(items []sampleItem) string {
	for _, i := range items {
		if i.Value == nil {
			return ""
		}
	}
	var text string
	whole := part{report: func(d *config.Decoder, err error) { d.Report(c.root, err) }}
	c.ask(whole, func() (err error) { text, err = marshal(items); return err })
	return text
}

// quarantine adds the sink that bad images go to, unless there is one.
func (c *checker) quarantine() {
	isQuarantine := func(k sinkItem) bool { return k.Name == "quarantine" }
	if !c.Run.OnError.Policy.Quarantine || slices.ContainsFunc(c.Sinks, isQuarantine) {
		return
	}
	n := c.node("run.on_error")
	item, err := Sinks.New("quarantine")
	if err != nil {
		c.d.Errorf(n, "on_error: the sink that bad images go to cannot be made: %s", err)
		return
	}
	item.Node = n
	c.Sinks = append(c.Sinks, sinkItem{item})
}

// checkpoints finds the sink that wants checkpoints.
func (c *checker) checkpoints() {
	for _, k := range c.Sinks {
		keeper, ok := k.Value.(Checkpointer)
		if !ok {
			continue
		}
		if c.env.Checkpoints != nil {
			k.Report(c.d, errors.New("there is a sink for checkpoints before it: one is enough"))
			continue
		}
		wants := keeper.Checkpoints()
		c.env.Checkpoints = &wants
	}
}

// outputs holds sinks to write each a file of its own.
func (c *checker) outputs() {
	type output struct{ path, sink string }
	var all []output
	for _, k := range c.Sinks {
		o, ok := k.Value.(Outputer)
		if !ok {
			continue
		}
		c.ask(k.part(), func() error {
			for _, name := range o.Outputs() {
				path := filepath.ToSlash(filepath.Clean(name))
				for _, b := range all {
					if path == b.path || strings.HasPrefix(path, b.path+"/") || strings.HasPrefix(b.path, path+"/") {
						return fmt.Errorf("it would write %s, and %s before it writes %s: give one of them another name, or take it out", path, b.sink, b.path)
					}
				}
				all = append(all, output{path, k.Name})
			}
			return nil
		})
	}
}

// count gives the length of a source that was built.
func (c *checker) count(src sourceItem) (n int, ok bool) {
	if src.Value == nil {
		return 0, false
	}
	ok = c.ask(src.part(), func() error {
		if n = src.Value.Len(); n < 1 {
			return errors.New("the source has no images")
		}
		return nil
	})
	return n, ok
}

func (c *checker) classes(src sourceItem) (names []string) {
	if known, ok := src.Value.(Classer); ok {
		c.ask(src.part(), func() error { names = known.Classes(); return nil })
	}
	return names
}

// frame asks the source, if it has pictures of a size, and every sample stage what it does to the size of images, which in
// the end must be fixed for the batcher. path is the list's in the file.
func (c *checker) frame(src sourceItem, items []sampleItem, path string) (f Frame, ok bool) {
	if framer, is := src.Value.(Framer); is {
		if !c.ask(src.part(), func() (err error) { f, err = framer.Frame(f); return err }) {
			return f, false
		}
	}
	stages := parts(items)
	for _, p := range stages {
		if p.value == nil {
			return f, false
		}
		if f.views() > 1 {
			p.report(c.d, fmt.Errorf("it comes after a stage that makes %d pictures of an image, which must be the last of the samples", f.Views))
			return f, false
		}
		if framer, is := p.value.(Framer); is {
			if !c.ask(p, func() (err error) { f, err = framer.Frame(f); return err }) {
				return f, false
			}
		}
	}
	if f.W > 0 && f.H > 0 {
		return f, true
	}
	const advice = "images differ in size, and a batch needs them equal: add center_crop or random_crop, as center_crop: {size: 224}"
	if n := len(stages); n > 0 {
		stages[n-1].report(c.d, fmt.Errorf("after it %s", advice))
	} else if c.node(path).Kind != yaml.ScalarNode { // that is a mistake told already
		c.errorf(path, "%s: %s", path, advice)
	}
	return f, false
}

// wholeSamples holds a batch to all views of its samples.
func (c *checker) wholeSamples(path string, size int, f Frame) bool {
	n := f.views()
	if size%n == 0 {
		return true
	}
	less := max(size/n, 1) * n
	c.errorf(path, "a batch of %d does not hold %d pictures of each image; make it a multiple of %d, as %d or %d", size, n, n, less, less+n)
	return false
}

// validate checks the validation line against the training line and builds it.
func (c *checker) validate(counted, framed bool) {
	v := c.Validate
	n, vcounted := c.count(v.Source)
	f, vframed := c.frame(v.Source, v.Samples, "validate.samples")
	if framed && vframed && (f.W != c.env.Frame.W || f.H != c.env.Frame.H) {
		c.errorf("validate.samples", "validation images are %dx%d (width x height), those of training %dx%d; they must be the same", f.W, f.H, c.env.Frame.W, c.env.Frame.H)
	}
	if counted && vcounted {
		c.mapClasses(v.Source)
	}
	c.env.ValidationSamples, c.env.ValidationFrame = n, f
	c.env.ValidationBatch = v.Batch.Size.or(max(c.Batch.Size-c.Batch.Size%f.views(), f.views()))
	if vframed {
		c.wholeSamples("validate.batch.size", c.env.ValidationBatch, f)
	}
	c.validation = &Line{
		Seed: c.Seed, Source: v.Source.Value, SourceName: v.Source.Name, Steps: steps(v.Samples), Frame: f,
		BatchSize: c.env.ValidationBatch, Workers: c.env.Workers, OnError: c.Run.OnError.Policy, Epochs: 1,
	}
}

// mapClasses renumbers the labels of a validation source to those of training.
func (c *checker) mapClasses(src sourceItem) {
	training := c.env.Classes
	if training == nil {
		return
	}
	if m, ok := src.Value.(ClassMapper); ok {
		c.ask(src.part(), func() error { return m.MapClasses(training) })
		return
	}
	if own := c.classes(src); own != nil && !slices.Equal(own, training) {
		src.Report(c.d, fmt.Errorf("its classes (%s) are not those of training (%s)", someOf(own), someOf(training)))
	}
}

// someOf lists a few words.
func someOf(words []string) string {
	if len(words) > 5 {
		return fmt.Sprintf("%s, ... %d in all", strings.Join(words[:5], ", "), len(words))
	}
	return strings.Join(words, ", ")
}

// accepts reports whether a sink takes batches of a kind.
func (s *Spec) accepts(k Kind) bool {
	return slices.ContainsFunc(s.Sinks, func(i sinkItem) bool {
		a, ok := i.Value.(Acceptor)
		return !ok || a.Accepts(k)
	})
}

// plan asks every batch stage and sink for its plan. Whether a short last batch
// is dropped, and whether there is an order, follows from the plans and is told to them, so if one says that it
// trains, which drops it, there is a second round.
func (c *checker) plan() {
	auto := false
	border, err := borderOf(c.Sinks, func(s sinkItem) any { return s.Value })
	if err != nil {
		c.errorf("sinks", "%s", err)
	}
	for {
		c.env.Shuffle = c.Batch.Shuffle.or(auto)
		c.env.DropLast = c.Batch.Last.drop(auto)
		ends := border
		if c.env.Shuffle {
			ends = 0
		}
		c.env.StepsPerEpoch = stepsOf(0, c.env.Samples, c.env.BatchSize/c.env.Frame.views(), ends, c.env.DropLast)
		if !c.planRound() {
			break
		}
		auto = c.train
		if c.env.DropLast == c.Batch.Last.drop(auto) && c.env.Shuffle == c.Batch.Shuffle.or(auto) {
			break
		}
	}
	if c.env.DropLast && c.env.Samples*c.env.Frame.views() < c.env.BatchSize {
		c.errorf("batch.size", "a batch of %d is larger than the dataset of %d images, and a short batch is dropped (last: %s); make it smaller",
			c.env.BatchSize, c.env.Samples, c.Batch.Last)
	}
	c.env.Epochs = 1
	for _, p := range c.plans {
		c.env.Epochs = max(c.env.Epochs, p.plan.Epochs)
	}
}

func (c *checker) planRound() bool {
	c.plans, c.train = slices.Concat(parts(c.Batches), parts(c.Sinks)), false
	c.env.Schema = imageSchema(c.env.Frame, c.env.Classes)
	ok := true
	for i := range c.plans {
		p := &c.plans[i]
		if planner, is := p.value.(Planner); is {
			ok = c.ask(*p, func() (err error) { p.plan, err = planner.Plan(&c.env); return err }) && ok
			c.train = c.train || p.plan.Train
			if p.plan.Schema != nil {
				c.env.Schema = p.plan.Schema
			}
		}
	}
	return ok
}

// checkLine lets sources and sample stages look at the whole line.
func (c *checker) checkLine() {
	input := append([]part{c.Source.part()}, parts(c.Samples)...)
	if v := c.Validate; v != nil {
		input = append(append(input, v.Source.part()), parts(v.Samples)...)
	}
	for _, p := range input {
		if b, ok := p.value.(BatchChecker); ok {
			c.ask(p, func() error { return b.CheckLine(&c.env) })
		}
	}
}
