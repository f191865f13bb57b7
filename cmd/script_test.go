package cmd_test

import (
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/rogpeppe/go-internal/testscript"

	"sluice/cmd"
	"sluice/pipeline"
	"sluice/stages"

	_ "sluice/gpu"
	_ "sluice/sinks"
)

// Stages that misbehave, for the scripts.
func init() {
	pipeline.RegisterBatchStage("stubborn", "Takes an hour a batch, whatever its context says.", struct{}{},
		func(struct{}) (pipeline.BatchStage, error) { return stubborn{}, nil })
	pipeline.RegisterSampleStage("slow", "Takes four milliseconds an image.", struct{}{},
		func(struct{}) (pipeline.SampleStage, error) {
			return pipeline.SampleFunc(func(context.Context, *pipeline.Sample) error {
				time.Sleep(4 * time.Millisecond)
				return nil
			}), nil
		})
	pipeline.RegisterSampleStage("panics", "Panics at the fourth image.", struct{}{},
		func(struct{}) (pipeline.SampleStage, error) {
			return pipeline.SampleFunc(func(_ context.Context, s *pipeline.Sample) error {
				if s.Index == 3 {
					panic("a mistake in a stage")
				}
				return nil
			}), nil
		})
}

type stubborn struct{}

func (stubborn) Process(context.Context, *pipeline.Batch, pipeline.Emit) error {
	time.Sleep(time.Hour)
	return nil
}

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"pipeline": cmd.Main, "brightness": brightness})
}

// brightness is a program for the stage exec, right or wrong in the way that it is told.
func brightness() {
	how := os.Args[1]
	schema := func(in *arrow.Schema) (*arrow.Schema, error) {
		switch fields := in.Fields(); how {
		case "hang":
			time.Sleep(time.Hour)
		case "no image":
			return arrow.NewSchema(fields[1:], nil), nil
		}
		return arrow.NewSchema(append(in.Fields(), arrow.Field{Name: "brightness", Type: arrow.PrimitiveTypes.Float64}), nil), nil
	}
	answer := func(rec arrow.Record) (arrow.Record, error) {
		images, err := pipeline.ImagesOf(rec)
		if err != nil {
			return nil, err
		}
		b := array.NewFloat64Builder(memory.DefaultAllocator)
		defer b.Release()
		size := images.H * images.W * 3
		for i := range images.N {
			sum := 0
			for _, v := range images.Pixels[i*size : (i+1)*size] {
				sum += int(v)
			}
			b.Append(float64(sum) / float64(size))
		}
		column := b.NewArray()
		defer column.Release()
		out, err := schema(rec.Schema())
		return array.NewRecord(out, append(slices.Clone(rec.Columns()), column), rec.NumRows()), err
	}
	fmt.Fprintln(os.Stderr, "ready")
	if how == "die" {
		fmt.Fprintln(os.Stderr, "the weights of the program are not there")
		os.Exit(3)
	}
	if how == "print" {
		fmt.Println("Loading ...")
	}
	if err := stages.ServeExec(os.Stdin, os.Stdout, schema, answer); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// TestScripts runs the command as a user does; see testdata/script.
func TestScripts(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("EXAMPLES", filepath.Join(root, "examples"))
			env.Setenv("RECIPES", filepath.Join(root, "recipes"))
			env.Setenv("NET", filepath.Join(root, "net"))
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"images":    makeImages,
			"lastline":  lastLine,
			"exit":      exitCode,
			"interrupt": interrupt,
			"unread":    unread,
			"truncated": truncateFile,
		},
	})
}

// makeImages writes a folder of JPEGs: images DIR CLASSES COUNT WIDTH HEIGHT.
// Classes differ in the direction of their stripes.
func makeImages(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 5 {
		ts.Fatalf("usage: images DIR CLASSES COUNT WIDTH HEIGHT")
	}
	var n [4]int
	for i, a := range args[1:] {
		var err error
		n[i], err = strconv.Atoi(a)
		ts.Check(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for class := range n[0] {
		dir := filepath.Join(ts.MkAbs(args[0]), fmt.Sprintf("class%d", class))
		ts.Check(os.MkdirAll(dir, 0o777))
		for i := range n[1] {
			ts.Check(writeStripes(filepath.Join(dir, fmt.Sprintf("%03d.jpg", i)), class, n[2], n[3], rng))
		}
	}
}

func writeStripes(path string, class, w, h int, rng *rand.Rand) error {
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	phase := rng.IntN(16)
	for y := range h {
		for x := range w {
			along := []int{x, y, x + y}[class%3]
			level := uint8(64 + 8*((along+phase)%16) + rng.IntN(16))
			img.Set(x, y, color.RGBA{level, 255 - level, 128, 255})
		}
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := jpeg.Encode(f, img, nil); err != nil {
		return err
	}
	return f.Close()
}

// lastLine checks the last line of a file: lastline FILE TEXT...
func lastLine(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: lastline FILE TEXT...")
	}
	text := ts.ReadFile(args[0])
	if !strings.HasSuffix(text, "\n") {
		ts.Fatalf("%s does not end in a line", args[0])
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for _, want := range args[1:] {
		if last := lines[len(lines)-1]; !strings.Contains(last, want) {
			ts.Fatalf("the last line of %s is %q, without %q", args[0], last, want)
		}
	}
}

// exitCode runs a command that must end with a code: exit CODE COMMAND ARG...
// Its output is there for stdout and stderr.
func exitCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exit CODE COMMAND ARG...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		code = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("%s ended with code %d, want %s", args[1], code, args[0])
	}
}

// interrupt starts a command with its streams in the files stdout and stderr,
// waits until a file holds a text, sends a signal, and wants the command to end
// with a code soon: interrupt SIGNAL FILE TEXT CODE COMMAND ARG... INT+INT is a
// second signal after the first was slow. KILL ends a command with code -1.
func interrupt(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]os.Signal{"INT": os.Interrupt, "INT+INT": os.Interrupt, "TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL}
	if neg || len(args) < 5 || signals[args[0]] == nil {
		ts.Fatalf("usage: interrupt INT|TERM|KILL|INT+INT FILE TEXT CODE COMMAND ARG...")
	}
	c := command(ts, args[4:])
	out, err := os.Create(ts.MkAbs("stdout"))
	ts.Check(err)
	defer out.Close()
	errs, err := os.Create(ts.MkAbs("stderr"))
	ts.Check(err)
	defer errs.Close()
	c.Stdout, c.Stderr = out, errs
	ts.Check(c.Start())
	ended := make(chan struct{})
	go func() {
		_ = c.Wait() // its code is read below
		close(ended)
	}()
	show := func() string {
		text := ""
		for _, name := range []string{"stdout", "stderr"} {
			data, _ := os.ReadFile(ts.MkAbs(name))
			text += fmt.Sprintf("\n%s:\n%s", name, data)
		}
		return text
	}
	waitFor := func(file, text string) {
		for deadline := time.After(time.Minute); ; {
			data, err := os.ReadFile(ts.MkAbs(file))
			if err == nil && strings.Contains(string(data), text) {
				return
			}
			select {
			case <-ended:
				ts.Fatalf("the command ended before %s held %q%s", file, text, show())
			case <-deadline:
				_ = c.Process.Kill()
				ts.Fatalf("%s did not come to hold %q in a minute%s", file, text, show())
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	waitFor(args[1], args[2])
	time.Sleep(300 * time.Millisecond) // so that it is in the middle of something
	sent := time.Now()
	ts.Check(c.Process.Signal(signals[args[0]]))
	if args[0] == "INT+INT" {
		waitFor("stderr", "still stopping; once more ends the program at once")
		ts.Check(c.Process.Signal(signals[args[0]]))
	}
	select {
	case <-ended:
		ts.Logf("ended %v after the signal", time.Since(sent).Round(time.Millisecond))
	case <-time.After(time.Minute): // 2 s are promised; tests share their machine
		_ = c.Process.Kill()
		ts.Fatalf("the command went on for a minute after the signal%s", show())
	}
	if code := strconv.Itoa(c.ProcessState.ExitCode()); code != args[3] {
		ts.Fatalf("the command ended with code %s, want %s%s", code, args[3], show())
	}
}

// unread runs a command that must succeed though nobody reads its standard
// output: unread COMMAND ARG... Its standard error is in the file stderr.
func unread(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: unread COMMAND ARG...")
	}
	r, w, err := os.Pipe()
	ts.Check(err)
	ts.Check(r.Close())
	defer w.Close()
	errs, err := os.Create(ts.MkAbs("stderr"))
	ts.Check(err)
	defer errs.Close()
	c := command(ts, args)
	c.Stdout, c.Stderr = w, errs
	if err := c.Run(); err != nil {
		ts.Fatalf("%v\n%s", err, ts.ReadFile("stderr"))
	}
}

// command is a command of the script's folder and environment.
func command(ts *testscript.TestScript, args []string) *exec.Cmd {
	path := args[0]
	for dir := range strings.SplitSeq(ts.Getenv("PATH"), string(filepath.ListSeparator)) {
		if _, err := os.Stat(filepath.Join(dir, path)); err == nil {
			path = filepath.Join(dir, path)
			break
		}
	}
	c := exec.Command(path, args[1:]...)
	c.Dir = ts.MkAbs(".")
	c.Env = append(os.Environ(), "PATH="+ts.Getenv("PATH"))
	return c
}

// truncateFile cuts a file: truncated FILE BYTES.
func truncateFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: truncated FILE BYTES")
	}
	n, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	ts.Check(os.Truncate(ts.MkAbs(args[0]), n))
}
