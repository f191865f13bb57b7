package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"sluice/net"
	"sluice/pipeline"
)

func newVerifyResume() *cobra.Command {
	var s settings
	v := verifier{}
	c := &cobra.Command{
		Use:   "verify-resume FILE",
		Short: "Prove that a run that is killed and resumed gives the same bits",
		Long: `Runs the first steps of a training file straight through, and again in a process
that is killed (SIGKILL) at random moments and resumed, and compares every bit
of the weights, the momentum and the metrics, timings aside. Both run in
temporary folders. The exit code is 0 only if all are equal.

A run that ends before it was killed often enough is compared too, and another
one is begun, until there were as many kills as wanted and two of them were
resumed from a checkpoint.`,
		Example: `  pipeline verify-resume examples/quickstart/train.yaml --kills 20 --steps 100`,
		Args:    exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			if v.kills < 2 || v.steps < 2 {
				return usagef("--kills and --steps are at least 2")
			}
			spec, err := s.load(args[0])
			if err != nil {
				return err
			}
			if v.seed == 0 {
				v.seed = rand.Uint64()
			}
			v.out = c.OutOrStdout()
			ctx, stop := untilSignal(c.Context(), c.ErrOrStderr())
			defer stop()
			return v.verify(ctx, spec)
		},
	}
	s.flags(c)
	c.Flags().IntVar(&v.kills, "kills", 5, "kill `N` times")
	c.Flags().IntVar(&v.steps, "steps", 100, "run `N` steps")
	c.Flags().IntVar(&v.every, "every", 0, "`N` steps between checkpoints (default an eighth of the steps)")
	c.Flags().Uint64Var(&v.seed, "kill-seed", 0, "`N` draws the moments of the kills (default another one every time)")
	return c
}

// verifier is one call of verify-resume.
type verifier struct {
	kills, steps, every int
	seed                uint64
	out                 io.Writer
	dir                 string // temporary
	file                string // in it, the YAML that is run
}

func (v *verifier) verify(ctx context.Context, spec *pipeline.Spec) (err error) {
	if v.dir, err = os.MkdirTemp("", "verify-resume-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(v.dir)) }()
	if v.every < 1 {
		v.every = max(1, v.steps/8)
	}
	if err := v.writeFile(spec.Resolved()); err != nil {
		return err
	}
	fmt.Fprintf(v.out, "running %d steps straight through, a checkpoint every %d\n", v.steps, v.every)
	began := time.Now()
	if _, err := v.run(ctx, "straight", false, 0); err != nil {
		return err
	}
	whole := time.Since(began)
	want, err := v.outcome("straight")
	if err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(v.seed, 1))
	kills, resumes, runs := 0, 0, 0
	for ; kills < v.kills || resumes < 2; runs++ {
		if runs > 4*v.kills+20 {
			return fmt.Errorf("after %d runs there were %d kills and %d resumes: the run is too short to be killed; raise --steps", runs, kills, resumes)
		}
		name := fmt.Sprintf("killed%d", runs)
		for done := false; !done; {
			// Whether there is a checkpoint does not depend on what killed it.
			files, err := net.Checkpoints(v.checkpoints(name))
			if err != nil {
				return err
			}
			resume := len(files) > 0
			after := time.Duration(0)
			if kills < v.kills || resumes < 2 {
				after = max(1, time.Duration(random.Float64()*0.7*float64(whole)))
			}
			killed, err := v.run(ctx, name, resume, after)
			if err != nil {
				return err
			}
			if resume {
				resumes++
			}
			if killed {
				kills++
				fmt.Fprintf(v.out, "  kill %d after %v%s\n", kills, after.Round(time.Millisecond), where(files))
			}
			done = !killed
		}
		got, err := v.outcome(name)
		if err != nil {
			return err
		}
		if diff := want.differs(got); diff != "" {
			return fmt.Errorf("not the same: %s (kill seed %d)", diff, v.seed)
		}
		if err := os.RemoveAll(filepath.Join(v.dir, name)); err != nil {
			return err
		}
	}
	fmt.Fprintf(v.out, "equal: %d kills and %d resumes in %d runs of %d steps; %d tensors and %d metrics are the same to the bit\n",
		kills, resumes, runs, v.steps, len(want.tensors), len(want.metrics))
	return nil
}

// where says which checkpoint a killed process had begun from.
func where(files []net.CheckpointFile) string {
	if len(files) == 0 {
		return ""
	}
	return fmt.Sprintf(", resumed from step %d", files[0].Step)
}

func (v *verifier) checkpoints(name string) string {
	return filepath.Join(v.dir, name, "run", net.CheckpointDir)
}

// writeFile writes the resolved YAML with the sinks that are compared, and
// without the others.
func (v *verifier) writeFile(resolved []byte) error {
	var doc map[string]any
	if err := yaml.Unmarshal(resolved, &doc); err != nil {
		return err
	}
	doc["name"] = "run"
	sinks := []any{
		map[string]any{"metrics": map[string]any{"parquet": ""}},
		map[string]any{"checkpoints": map[string]any{"every_steps": v.every, "every_minutes": 0, "every_epochs": 1, "keep": 2}},
	}
	if list, ok := doc["sinks"].([]any); ok {
		for _, item := range list {
			if m, ok := item.(map[string]any); ok && m["quarantine"] != nil {
				sinks = append(sinks, map[string]any{"quarantine": map[string]any{}})
			}
		}
	}
	doc["sinks"] = sinks
	text, err := yaml.Marshal(doc)
	if err != nil {
		return err
	}
	v.file = filepath.Join(v.dir, "run.yaml")
	return os.WriteFile(v.file, text, 0o666)
}

// run runs the file in a process of its own, and kills it after a while, unless
// that is 0. killed is false if it ended before.
func (v *verifier) run(ctx context.Context, name string, resume bool, after time.Duration) (killed bool, err error) {
	program, err := os.Executable()
	if err != nil {
		return false, err
	}
	args := []string{"run", v.file, "--quiet", "--steps", strconv.Itoa(v.steps), "--set", "run.dir=" + filepath.Join(v.dir, name)}
	if resume {
		args = append(args, "--resume")
	}
	c := exec.CommandContext(ctx, program, args...)
	var said bytes.Buffer
	c.Stdout, c.Stderr = &said, &said
	if err := c.Start(); err != nil {
		return false, err
	}
	if after > 0 {
		timer := time.AfterFunc(after, func() { _ = c.Process.Kill() }) // fails only if it has ended
		defer timer.Stop()
	}
	err = c.Wait()
	switch {
	case ctx.Err() != nil:
		return false, context.Cause(ctx)
	case err == nil:
		return false, nil
	case after > 0 && c.ProcessState.ExitCode() == -1: // ended by a signal
		return true, nil
	}
	return false, fmt.Errorf("%s run: %w\n%s", filepath.Base(program), err, said.Bytes())
}

// outcome is all of a finished run that is compared.
type outcome struct {
	tensors []net.NamedTensor
	state   map[string]any
	metrics []map[string]any
	bad     []string // rows of the quarantine
}

func (v *verifier) outcome(name string) (*outcome, error) {
	files, err := net.Checkpoints(v.checkpoints(name))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("the run has left no checkpoint: verify-resume is for runs that train")
	}
	o := &outcome{}
	tensors, meta, err := files[0].Read()
	if err != nil {
		return nil, err
	}
	o.tensors = tensors
	if err := json.Unmarshal([]byte(meta["state"]), &o.state); err != nil {
		return nil, fmt.Errorf("%s: %w", files[0].Path, err)
	}
	timeless(o.state)
	data, err := os.ReadFile(filepath.Join(v.dir, name, "run", "metrics.jsonl"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(data)) {
		var row map[string]any
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			return nil, fmt.Errorf("metrics.jsonl: %w", err)
		}
		timeless(row)
		o.metrics = append(o.metrics, row)
	}
	o.bad, err = badRows(filepath.Join(v.dir, name, "run", "quarantine.parquet"))
	return o, err
}

// timings are the fields that no two runs have alike.
var timings = []string{"seconds", "images_per_second", "input_wait", "sink_wait", "wall", "input", "sink"}

// timeless takes the timings out of a JSON object and those within it.
func timeless(v map[string]any) {
	maps.DeleteFunc(v, func(key string, _ any) bool { return slices.Contains(timings, key) })
	for _, inner := range v {
		if m, ok := inner.(map[string]any); ok {
			timeless(m)
		}
	}
}

// differs says in what two outcomes are not the same, "" if in nothing.
func (o *outcome) differs(other *outcome) string {
	if len(o.tensors) != len(other.tensors) {
		return fmt.Sprintf("%d tensors and %d", len(o.tensors), len(other.tensors))
	}
	for i, a := range o.tensors {
		b := other.tensors[i]
		if a.Name != b.Name || a.Role != b.Role || !slices.Equal(a.Dims, b.Dims) {
			return fmt.Sprintf("tensor %d is %s (%s) and %s (%s)", i, a.Name, a.Role, b.Name, b.Role)
		}
		for j := range a.Data {
			if math.Float32bits(a.Data[j]) != math.Float32bits(b.Data[j]) {
				return fmt.Sprintf("number %d of %s (%s) is %g and %g", j, a.Name, a.Role, a.Data[j], b.Data[j])
			}
		}
	}
	for i := range max(len(o.metrics), len(other.metrics)) {
		var a, b any
		if i < len(o.metrics) {
			a = o.metrics[i]
		}
		if i < len(other.metrics) {
			b = other.metrics[i]
		}
		if x, y := fmt.Sprint(a), fmt.Sprint(b); x != y { // maps print in order
			return fmt.Sprintf("metric %d is %s and %s", i, x, y)
		}
	}
	if a, b := fmt.Sprint(o.state), fmt.Sprint(other.state); a != b {
		return fmt.Sprintf("the state at the end is %s and %s", a, b)
	}
	if !slices.Equal(o.bad, other.bad) {
		return fmt.Sprintf("%d images were put aside and %d, or not the same ones", len(o.bad), len(other.bad))
	}
	return ""
}

// badRows reads a quarantine, sorted; none if there is no file.
func badRows(path string) ([]string, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	table, err := pqarrow.ReadTable(context.Background(), f, nil, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	defer table.Release()
	records := array.NewTableReader(table, 0)
	defer records.Release()
	var rows []string
	for records.Next() {
		bad, err := pipeline.QuarantineOf(records.Record())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		for _, row := range bad {
			rows = append(rows, fmt.Sprintf("%+v", row))
		}
	}
	slices.Sort(rows)
	return rows, nil
}
