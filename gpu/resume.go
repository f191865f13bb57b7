package gpu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"sluice/net"
	"sluice/pipeline"
)

// mark is where training stands between two steps: with the weights and the
// momentum of that moment, all that it takes to go on.
type mark struct {
	// Cursor is where the batches to come begin. If Open, its epoch has begun and
	// its end, with the validation, is still to come.
	Cursor   pipeline.Cursor `json:"cursor"`
	Open     bool            `json:"open"`
	Step     int             `json:"step"`   // steps done
	Epochs   int             `json:"epochs"` // of the run
	LR       float64         `json:"lr"`     // of the last step
	Schedule json.RawMessage `json:"schedule"`
	Window   span            `json:"window"` // steps since the last metric of them
	Epoch    span            `json:"epoch"`  // and before these, of this epoch
	Run      span            `json:"run"`    // and of the whole run
	Result   pipeline.Metric `json:"result"` // of the last epoch that is done with
	Stall    stall           `json:"stall"`
	Watch    watched         `json:"watch"`
	Seconds  float64         `json:"seconds"`
	Accuracy *float64        `json:"accuracy,omitempty"` // of the validation that has just ended an epoch
}

// epoch is the one that the last step is of.
func (m mark) epoch() int {
	if m.Open {
		return m.Cursor.Epoch
	}
	return m.Cursor.Epoch - 1
}

// Keys of a checkpoint's metadata beside those of about.
const (
	stateKey  = "state"  // JSON of a mark
	configKey = "config" // lines of what changes the numbers
)

// now is the mark of this moment.
func (t *Train) now(at pipeline.Cursor, open bool) mark {
	m := mark{
		Cursor: at, Open: open, Step: t.done, Epochs: t.env.Epochs, LR: t.lr, Schedule: t.schedule,
		Window: t.meter.window, Epoch: t.meter.epoch, Run: t.meter.run, Result: t.result, Stall: t.stall, Watch: t.watched.clone(),
		Seconds: time.Since(t.meter.began).Seconds(),
	}
	m.Window.wall += time.Since(t.meter.start)
	return m
}

// restore goes back to a mark.
func (t *Train) restore(m mark) error {
	if err := json.Unmarshal(m.Schedule, t.sched); err != nil {
		return fmt.Errorf("the state of the schedule: %w", err)
	}
	t.mark, t.saved, t.whole = m, m, true
	t.done, t.lr, t.schedule, t.result, t.stall, t.watched = m.Step, m.LR, m.Schedule, m.Result, m.Stall, m.Watch.clone()
	t.meter.window, t.meter.epoch, t.meter.run = m.Window, m.Epoch, m.Run
	t.meter.began = time.Now().Add(-time.Duration(m.Seconds * float64(time.Second)))
	return nil
}

// due reports whether a sink wants a checkpoint after this update.
func (t *Train) due() bool {
	c := t.env.Checkpoints
	return c != nil && (c.Steps > 0 && t.done/c.Steps > t.saved.Step/c.Steps || c.Interval > 0 && time.Since(t.savedAt) >= c.Interval)
}

// checkpoint hands out the weights and the momentum with the mark they are of.
func (t *Train) checkpoint(ctx context.Context, emit pipeline.Emit) error {
	if t.env.Checkpoints == nil {
		return nil
	}
	epoch := t.mark.epoch()
	if err := t.take(ctx, epoch); err != nil {
		return err
	}
	a := t.about(epoch, t.mark.Accuracy)
	a.Step = t.mark.Step // batches since then have not changed the weights
	meta, err := a.metadata()
	if err != nil {
		return err
	}
	state, err := json.Marshal(t.mark)
	if err != nil {
		return err
	}
	meta[stateKey], meta[configKey] = string(state), strings.Join(t.config, "\n")
	b := &pipeline.Batch{Kind: pipeline.Checkpoint, Epoch: epoch, Step: t.mark.Step, Cursor: t.mark.Cursor, Record: t.snapshot.Record(meta)}
	if err := t.meter.blocked(func() error { return emit(b) }); err != nil {
		return err // an interrupted run has Stop try again
	}
	t.saved, t.savedAt = t.mark, time.Now()
	return nil
}

// Stop saves the last whole step of a run that is ended early.
func (t *Train) Stop(ctx context.Context, emit pipeline.Emit) error {
	if !t.whole || t.mark.Step == t.saved.Step && t.mark.Cursor == t.saved.Cursor {
		return nil
	}
	return t.checkpoint(ctx, emit)
}

// A checkpoint that was read.
type checkpoint struct {
	mark    mark
	tensors []net.NamedTensor
}

// Resume finds the newest checkpoint that is whole, and holds the configuration
// to be the one it was made by, in everything that changes the numbers.
func (t *Train) Resume(_ context.Context, env *pipeline.Env) (start pipeline.Cursor, step int, err error) {
	if t.plan == nil {
		if _, err := t.Plan(env); err != nil {
			return start, 0, err
		}
	}
	dir := filepath.Join(env.RunDir, net.CheckpointDir)
	files, err := net.Checkpoints(dir)
	if err != nil {
		return start, 0, err
	}
	if len(files) == 0 {
		return start, 0, fmt.Errorf("%w: there is no checkpoint in %s yet: run it without --resume (a run keeps them if \"checkpoints\" is among its sinks)", pipeline.ErrResume, dir)
	}
	config, err := t.numbers(env)
	if err != nil {
		return start, 0, err
	}
	for i, f := range files {
		tensors, meta, err := f.Read()
		var m mark
		if err == nil {
			if err = json.Unmarshal([]byte(meta[stateKey]), &m); err != nil {
				err = fmt.Errorf("%s: its state: %w", f.Path, err)
			}
		}
		if err != nil {
			if i == len(files)-1 {
				return start, 0, fmt.Errorf("%w: no checkpoint is whole: %w", pipeline.ErrResume, err)
			}
			env.Warn(fmt.Sprintf("%v; going back to the checkpoint before, of step %d", err, files[i+1].Step))
			continue
		}
		changes := differences(strings.Split(meta[configKey], "\n"), config)
		if why := t.boundTo(m, env); why != "" {
			changes = append(changes, fmt.Sprintf("epochs: %d, was %d (%s)", env.Epochs, m.Epochs, why))
		}
		if len(changes) > 0 && !env.Force {
			return start, 0, fmt.Errorf("%w: the configuration is not that of the checkpoint in what changes the numbers:\n  %s\nrun it as it was, or go on all the same with --resume=force",
				pipeline.ErrResume, strings.Join(changes, "\n  "))
		}
		if v := meta["version"]; v != env.Version {
			env.Warn(fmt.Sprintf("the checkpoint was written by version %s and this is %s: results may differ from those of one version", v, env.Version))
		}
		t.restored = &checkpoint{m, tensors}
		return m.Cursor, m.Step, nil
	}
	return start, 0, nil // not reached: the last file returns
}

// boundTo says why a run cannot have another number of epochs than the
// checkpoint's; "" if it can, or has the same.
func (t *Train) boundTo(m mark, env *pipeline.Env) string {
	every := t.opt.ValidateEvery
	switch {
	case m.Epochs == env.Epochs:
		return ""
	case !t.opt.Solver.OpenEnded():
		return "the schedule depends on it"
	case env.ValidationSamples > 0 && m.Cursor == (pipeline.Cursor{Epoch: m.Epochs}) && (every == 0 || m.Epochs%every != 0):
		return "its last epoch was validated, out of turn"
	}
	return ""
}

// ofThreads is what an engine's name says of its threads, which change no number.
var ofThreads = regexp.MustCompile(`, [0-9]+ threads?`)

// numbers are the settings that change the numbers of a run, a line each: the
// resolved YAML without names, folders, sinks, workers, threads and device, and
// what of the data and the engine it does not say.
func (t *Train) numbers(env *pipeline.Env) ([]string, error) {
	e, err := t.newEngine(env)
	if err != nil {
		return nil, err
	}
	engine := ofThreads.ReplaceAllString(e.Name(), "")
	if err := e.Close(); err != nil {
		return nil, err
	}
	lines := []string{
		"engine: " + engine,
		fmt.Sprintf("images: %d", env.Samples),
		fmt.Sprintf("classes: %q", env.Classes),
		fmt.Sprintf("validation images: %d", env.ValidationSamples),
		fmt.Sprintf("seed: %d", env.Seed),
	}
	lines = append(lines, env.Numbers...)
	if m := t.mean; m != nil && t.Statistics() == "" { // of a file; statistics are among env.Numbers
		lines = append(lines, "mean image: "+sumOf(m.Pixels))
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(env.Resolved, &doc); err != nil {
		return nil, fmt.Errorf("the resolved YAML: %w", err)
	}
	for _, root := range doc.Content {
		lines = flatten(lines, "", root)
	}
	slices.Sort(lines)
	return slices.Compact(lines), nil
}

// neutral are settings that change no number: where results go, how fast they
// come, and what is said of them, and
// what has a line of its own.
var neutral = regexp.MustCompile(`^(name|run|sinks|seed|batches\.[0-9]+\.train\.(epochs|device|watch))$`)

// flatten appends a line for every value in n.
func flatten(lines []string, path string, n *yaml.Node) []string {
	if neutral.MatchString(path) {
		return lines
	}
	under := func(key string) string { return strings.TrimPrefix(path+"."+key, ".") }
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			lines = flatten(lines, under(n.Content[i].Value), n.Content[i+1])
		}
	case yaml.SequenceNode:
		for i, c := range n.Content {
			lines = flatten(lines, under(strconv.Itoa(i)), c)
		}
	}
	if len(n.Content) == 0 { // a value, or a stage without options
		lines = append(lines, path+": "+strconv.Quote(n.Value))
	}
	return lines
}

// differences says what of two sorted lists of "path: value" is not the same.
func differences(old, now []string) []string {
	values := func(lines []string) map[string]string {
		m := map[string]string{}
		for _, l := range lines {
			path, value, _ := strings.Cut(l, ": ")
			m[path] = value
		}
		return m
	}
	was, is := values(old), values(now)
	var out []string
	for _, l := range now {
		path, value, _ := strings.Cut(l, ": ")
		if before, ok := was[path]; !ok {
			out = append(out, fmt.Sprintf("%s: %s, was not there", path, value))
		} else if before != value {
			out = append(out, fmt.Sprintf("%s: %s, was %s", path, value, before))
		}
	}
	for _, l := range old {
		path, value, _ := strings.Cut(l, ": ")
		if _, ok := is[path]; !ok {
			out = append(out, fmt.Sprintf("%s: is gone, was %s", path, value))
		}
	}
	return out
}

// load puts the network where the checkpoint was taken.
func (t *Train) load(c *checkpoint) error {
	if err := errors.Join(t.net.Load(c.tensors), t.restore(c.mark)); err != nil {
		return fmt.Errorf("%w: the checkpoint does not fit the network: %w", pipeline.ErrResume, err) // as --resume=force allows
	}
	return nil
}
