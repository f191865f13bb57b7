package stages

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"go.uber.org/goleak"

	"sluice/pipeline"
)

// programVariable makes the test binary the program of an exec stage; what it does
// are its arguments.
const programVariable = "SLUICE_TEST_EXEC_PROGRAM"

func init() {
	if os.Getenv(programVariable) != "" {
		if err := misbehave(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// misbehave answers each batch with a column "sum" of its pixels, or does as it is told.
func misbehave(args []string) error {
	number := func(i int) int { n, _ := strconv.Atoi(args[i]); return n }
	var seen int
	sum := func(in *arrow.Schema) (*arrow.Schema, error) {
		return arrow.NewSchema(append(in.Fields(), arrow.Field{Name: "sum", Type: arrow.PrimitiveTypes.Int64}), nil), nil
	}
	same := func(in *arrow.Schema) (*arrow.Schema, error) { return in, nil }
	schema, answer := sum, sums
	once := func() bool { // whether this is the first program to come here
		f, err := os.OpenFile(args[2], os.O_CREATE|os.O_EXCL, 0o666)
		return err == nil && f.Close() == nil
	}
	before := func(n int, f func() error) func(arrow.Record) (arrow.Record, error) {
		return func(rec arrow.Record) (arrow.Record, error) {
			if seen++; seen > n {
				if err := f(); err != nil {
					return nil, err
				}
			}
			return sums(rec)
		}
	}
	switch args[0] {
	case "sum":
	case "pass":
		schema = same
		answer = func(rec arrow.Record) (arrow.Record, error) { rec.Retain(); return rec, nil }
	case "crash":
		answer = before(number(1), func() error { return errors.New("the disk is on fire") })
	case "crash once":
		answer = before(number(1), func() error {
			if once() {
				return errors.New("only this time")
			}
			return nil
		})
	case "exit":
		answer = before(number(1), func() error { os.Exit(0); return nil })
	case "hang":
		answer = before(number(1), func() error { time.Sleep(time.Hour); return nil })
	case "hang at start":
		time.Sleep(time.Hour)
	case "noisy":
		fmt.Fprintln(os.Stderr, strings.Repeat("x", 10*maxLine))
		for i := range 3 * maxLines {
			fmt.Fprintln(os.Stderr, "line", i)
		}
	case "slow": // the more, the earlier the batch
		answer = func(rec arrow.Record) (arrow.Record, error) {
			time.Sleep(time.Duration(20-5*(indexOf(rec)/4%4)) * time.Millisecond)
			return sums(rec)
		}
	case "garbage":
		fmt.Println("Loading the model ... done")
	case "garbage later":
		answer = before(number(1), func() error { fmt.Print("progress: 12 %"); return nil })
	case "half":
		r, err := newReader(os.Stdin, memory.DefaultAllocator)
		if err != nil {
			return err
		}
		if _, err := newWriter(os.Stdout, r.schema); err != nil {
			return err
		}
		rec, err := r.Read()
		if err != nil {
			return err
		}
		var whole bytes.Buffer
		w, err := newWriter(&whole, r.schema)
		if err != nil {
			return err
		}
		start := whole.Len()
		if err := w.Write(rec); err != nil {
			return err
		}
		_, err = os.Stdout.Write(whole.Bytes()[start : start+(whole.Len()-start)/2])
		return err
	case "lacks a column":
		schema = func(in *arrow.Schema) (*arrow.Schema, error) { return arrow.NewSchema(in.Fields()[1:], nil), nil }
	case "another type":
		schema = func(in *arrow.Schema) (*arrow.Schema, error) {
			f := slices.Clone(in.Fields())
			f[1].Type = arrow.PrimitiveTypes.Float64
			return arrow.NewSchema(f, nil), nil
		}
	case "rows":
		schema = same
		answer = func(rec arrow.Record) (arrow.Record, error) { return rec.NewSlice(1, rec.NumRows()), nil }
	case "order":
		schema = same
		answer = func(rec arrow.Record) (arrow.Record, error) {
			at := rec.Schema().FieldIndices("index")[0]
			values := rec.Column(at).(*array.Int64).Int64Values()
			slices.Reverse(values)
			rec.Retain()
			return rec, nil
		}
	case "once more":
		schema = same
		r := io.MultiReader(os.Stdin)
		var all bytes.Buffer
		err := ServeExec(r, io.MultiWriter(os.Stdout, &all), schema, func(rec arrow.Record) (arrow.Record, error) {
			rec.Retain()
			return rec, nil
		})
		return errors.Join(err, errors.New("bad end"))
	case "family": // starts a child, tells its number, and both stay
		child, err := os.StartProcess(os.Args[0], []string{os.Args[0], "hang at start"}, &os.ProcAttr{Files: []*os.File{nil, nil, nil}})
		if err != nil {
			return err
		}
		if err := os.WriteFile(args[1], fmt.Appendf(nil, "%d %d", os.Getpid(), child.Pid), 0o666); err != nil {
			return err
		}
		answer = before(0, func() error { time.Sleep(time.Hour); return nil })
	case "wrapper": // lets a child do the work, with its own standard input and output
		child, err := os.StartProcess(os.Args[0], []string{os.Args[0], "sum"}, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
		if err != nil {
			return err
		}
		if err := os.WriteFile(args[1], fmt.Appendf(nil, "%d %d", os.Getpid(), child.Pid), 0o666); err != nil {
			return err
		}
		_, err = child.Wait()
		return err
	case "parent": // runs a stage with the program that it is told, to be killed
		x, err := NewExec(ExecOptions{Command: append([]string{os.Args[0]}, args[1:]...), Workers: 1, Ordered: true, Timeout: time.Hour, StartTimeout: time.Minute})
		if err != nil {
			return err
		}
		if err := x.Process(context.Background(), batches(1, 4)[0], nil); err != nil {
			return err
		}
		time.Sleep(time.Hour)
		return nil
	default:
		return fmt.Errorf("no program %q", args[0])
	}
	return ServeExec(os.Stdin, os.Stdout, schema, answer)
}

func indexOf(rec arrow.Record) int64 {
	return rec.Column(rec.Schema().FieldIndices("index")[0]).(*array.Int64).Value(0)
}

func sums(rec arrow.Record) (arrow.Record, error) {
	b := array.NewInt64Builder(memory.DefaultAllocator)
	defer b.Release()
	list := rec.Column(0).(*array.FixedSizeList)
	pixels, n := list.ListValues().(*array.Uint8).Uint8Values(), int(list.DataType().(*arrow.FixedSizeListType).Len())
	for i := range int(rec.NumRows()) {
		total := int64(0)
		for _, v := range pixels[i*n : (i+1)*n] {
			total += int64(v)
		}
		b.Append(total)
	}
	column := b.NewArray()
	defer column.Release()
	schema := arrow.NewSchema(append(rec.Schema().Fields(), arrow.Field{Name: "sum", Type: arrow.PrimitiveTypes.Int64}), nil)
	return array.NewRecord(schema, append(slices.Clone(rec.Columns()), column), rec.NumRows()), nil
}

var execSchema = func() *arrow.Schema {
	meta := arrow.NewMetadata([]string{"canvas"}, []string{"8x8"})
	return arrow.NewSchema([]arrow.Field{
		{Name: "image", Type: arrow.FixedSizeListOf(192, arrow.PrimitiveTypes.Uint8), Nullable: true, Metadata: arrow.NewMetadata([]string{"about"}, []string{"pixels"})},
		{Name: "index", Type: arrow.PrimitiveTypes.Int64},
		{Name: "name", Type: arrow.BinaryTypes.String},
	}, &meta)
}()

// batches makes n batches of 4 rows; the last has rows.
func batches(n, rows int) []*pipeline.Batch {
	out := make([]*pipeline.Batch, n)
	for i := range out {
		b := array.NewRecordBuilder(memory.DefaultAllocator, execSchema)
		here := 4
		if i == n-1 {
			here = rows
		}
		for r := range here {
			list := b.Field(0).(*array.FixedSizeListBuilder)
			list.Append(true)
			for p := range 192 {
				list.ValueBuilder().(*array.Uint8Builder).Append(byte(i*7 + r*3 + p))
			}
			b.Field(1).(*array.Int64Builder).Append(int64(4*i + r))
			b.Field(2).(*array.StringBuilder).Append(fmt.Sprintf("image %d", 4*i+r))
		}
		out[i] = &pipeline.Batch{Kind: pipeline.Samples, Epoch: 2, Step: i, Cursor: pipeline.Cursor{Epoch: 2, Pos: 4*i + here}, Record: b.NewRecord()}
		b.Release()
	}
	return out
}

// through sends batches through a stage, and describes what comes out, a batch a line.
func through(ctx context.Context, x *Exec, in []*pipeline.Batch) (out []string, err error) {
	emit := func(b *pipeline.Batch) error {
		defer b.Record.Release()
		var line strings.Builder
		meta := b.Record.Schema().Metadata()
		fmt.Fprint(&line, b.Step, b.Cursor, meta, b.Record.Schema().Field(0).Metadata)
		for i, c := range b.Record.Columns() {
			fmt.Fprint(&line, " ", b.Record.ColumnName(i), c)
		}
		out = append(out, line.String())
		return nil
	}
	for _, b := range in {
		if err == nil {
			err = x.Process(ctx, b, emit)
		}
		b.Record.Release()
	}
	if err == nil {
		err = x.Flush(ctx, emit)
	}
	return out, errors.Join(err, x.Close())
}

// execOf is a stage whose program is the test itself.
func execOf(t testing.TB, change func(*ExecOptions), args ...string) (x *Exec, said func() []string) {
	t.Helper()
	t.Setenv(programVariable, "1")
	o := ExecOptions{Command: append([]string{os.Args[0]}, args...), Workers: 1, Ordered: true, Timeout: time.Minute, StartTimeout: time.Minute}
	if change != nil {
		change(&o)
	}
	x, err := NewExec(o)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var lines []string
	err = x.Prepare(t.Context(), &pipeline.Env{Warn: func(text string) { mu.Lock(); defer mu.Unlock(); lines = append(lines, text) }})
	if err != nil {
		t.Fatal(err)
	}
	return x, func() []string { mu.Lock(); defer mu.Unlock(); return slices.Clone(lines) }
}

// Whatever the workers, the batches are the same, in their order, with what came.
func TestExecOrder(t *testing.T) {
	defer goleak.VerifyNone(t)
	x, _ := execOf(t, nil, "sum")
	want, err := through(t.Context(), x, batches(9, 3))
	if err != nil || len(want) != 9 {
		t.Fatalf("%d batches, %v", len(want), err)
	}
	for _, part := range []string{"8 {2 35 0 0}", "canvas", "about", `name["image 32"`, "sum["} {
		if !strings.Contains(want[8], part) {
			t.Errorf("the last batch is %s, without %s", want[8], part)
		}
	}
	for _, workers := range []int{1, 4} {
		x, _ := execOf(t, func(o *ExecOptions) { o.Workers = workers }, "slow")
		got, err := through(t.Context(), x, batches(9, 3))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%d workers: %v, got\n%s\nwant\n%s", workers, err, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	x, _ = execOf(t, func(o *ExecOptions) { o.Workers, o.Ordered = 4, false }, "slow")
	got, err := through(t.Context(), x, batches(9, 3))
	slices.Sort(got)
	if slices.Sort(want); err != nil || !slices.Equal(got, want) {
		t.Errorf("in any order: %v, other batches", err)
	}
}

// Every way to fail is an error that names the program and the batch, and leaks nothing.
func TestExecFailures(t *testing.T) {
	nowhere := filepath.Join(t.TempDir(), "nowhere")
	text := filepath.Join(t.TempDir(), "text.py")
	if err := os.WriteFile(text, []byte("print(1)\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	short := func(o *ExecOptions) { o.Timeout, o.StartTimeout = 300*time.Millisecond, time.Minute }
	for _, c := range []struct {
		args   []string
		change func(*ExecOptions)
		want   []string
	}{
		{[]string{"crash", "0"}, nil, []string{"batch 0 of epoch 3", "exit status 1", "before it gave an answer", "the disk is on fire"}},
		{[]string{"crash", "2"}, nil, []string{"batch 2 of epoch 3", "the disk is on fire"}},
		{[]string{"exit", "1"}, nil, []string{"batch 1 of epoch 3", "exit status 0"}},
		{[]string{"hang", "0"}, short, []string{"batch 0 of epoch 3", "did not give an answer within 300ms"}},
		{[]string{"hang at start"}, func(o *ExecOptions) { o.StartTimeout = 300 * time.Millisecond }, []string{"batch 0", "did not give its schema within 300ms"}},
		{[]string{"garbage"}, nil, []string{"Loading ", "print to standard error"}},
		{[]string{"garbage later", "1"}, nil, []string{"batch 1 of epoch 3", "progress"}},
		{[]string{"half"}, nil, []string{"batch 0 of epoch 3", "in the middle of an answer"}},
		{[]string{"lacks a column"}, nil, []string{`lacks the column "image"`}},
		{[]string{"another type"}, nil, []string{`column "index" as float64, it comes as int64`}},
		{[]string{"rows"}, nil, []string{"batch 0 of epoch 3", "the answer has 3 rows, the batch 4"}},
		{[]string{"order"}, nil, []string{`"index" is not as it came`}},
		{[]string{"once more"}, nil, []string{"failed at the end of its input", "bad end"}},
		{nil, func(o *ExecOptions) { o.Command = []string{nowhere} }, []string{nowhere, "cannot be started", "no such file"}},
		{nil, func(o *ExecOptions) { o.Command = []string{text} }, []string{text, "cannot be started", "permission denied"}},
	} {
		name := strings.Join(c.args, " ")
		x, _ := execOf(t, c.change, c.args...)
		_, err := through(t.Context(), x, batches(4, 4))
		for _, want := range append(c.want, "program ") {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q in it", name, err, want)
			}
		}
		goleak.VerifyNone(t)
	}
}

func TestExecRestarts(t *testing.T) {
	defer goleak.VerifyNone(t)
	x, _ := execOf(t, nil, "sum")
	want, err := through(t.Context(), x, batches(4, 4))
	if err != nil {
		t.Fatal(err)
	}
	x, said := execOf(t, func(o *ExecOptions) { o.Restarts = 1 }, "crash once", "2", filepath.Join(t.TempDir(), "mark"))
	got, err := through(t.Context(), x, batches(4, 4))
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("with a restart: %v, other batches", err)
	}
	if lines := strings.Join(said(), "\n"); !strings.Contains(lines, "batch 2 of epoch 3") || !strings.Contains(lines, "started again (1 of 1)") {
		t.Errorf("it said %q", lines)
	}
	x, said = execOf(t, func(o *ExecOptions) { o.Restarts = 2 }, "crash", "1")
	got, err = through(t.Context(), x, batches(8, 4))
	if err == nil || !strings.Contains(err.Error(), "started again 2 times") || !slices.Equal(got, want[:len(got)]) {
		t.Errorf("beyond the bound: %d batches, %v", len(got), err)
	}
	if n := len(slices.DeleteFunc(said(), func(s string) bool { return !strings.Contains(s, "started again") })); n != 2 {
		t.Errorf("it told of %d restarts, want 2", n)
	}
}

// What a program says is told with its name, in bounds.
func TestExecStandardError(t *testing.T) {
	x, said := execOf(t, nil, "noisy")
	if _, err := through(t.Context(), x, batches(2, 4)); err != nil {
		t.Fatal(err)
	}
	lines := said()
	if len(lines) != maxLines+1 || !strings.HasSuffix(lines[1], "noisy: line 0") || len(lines[0]) > maxLine+len(x.name)+2 || !strings.Contains(lines[maxLines], "not shown") {
		t.Errorf("%d lines, the second %q, the last %q", len(lines), lines[1], lines[len(lines)-1])
	}
}

func TestExecCancel(t *testing.T) {
	defer goleak.VerifyNone(t)
	x, _ := execOf(t, func(o *ExecOptions) { o.Workers = 3; o.Timeout = time.Hour }, "hang", "0")
	stop := errors.New("enough of it")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(200*time.Millisecond, func() { cancel(stop) })
	if _, err := through(ctx, x, batches(5, 4)); !errors.Is(err, stop) {
		t.Errorf("%v, want the cause", err)
	}
}

func TestExecPlan(t *testing.T) {
	x, _ := execOf(t, nil, "sum")
	plan, err := x.Plan(&pipeline.Env{Schema: execSchema, BatchSize: 4})
	if err != nil || !plan.Schema.HasField("sum") || !strings.Contains(plan.Text, "adds column sum: int64") {
		t.Errorf("%+v, %v", plan, err)
	}
	x, _ = execOf(t, nil, "lacks a column")
	if _, err := x.Plan(&pipeline.Env{Schema: execSchema}); err == nil || !strings.Contains(err.Error(), "lacks the column") {
		t.Error(err)
	}
	x, _ = execOf(t, func(o *ExecOptions) { o.Ordered = false }, "sum")
	if _, err := x.Plan(&pipeline.Env{Schema: execSchema, Checkpoints: &pipeline.Checkpoints{}}); err == nil {
		t.Error("any order is taken with checkpoints")
	}
	if err := x.Prepare(t.Context(), &pipeline.Env{Resume: true}); !errors.Is(err, pipeline.ErrResume) {
		t.Error(err)
	}
	_, err = NewExec(ExecOptions{Restarts: -1})
	for _, want := range []string{"command", "workers", "timeout", "start_timeout", "restarts"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s in it", err, want)
		}
	}
}

// Buffers that do not hold what they promise are found before anybody reads them.
func TestExecBrokenBuffers(t *testing.T) {
	buffer := func(n int) *memory.Buffer { return memory.NewBufferBytes(make([]byte, n)) }
	offsets := func(at ...int32) *memory.Buffer {
		return memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(at))
	}
	i32, text := arrow.PrimitiveTypes.Int32, arrow.BinaryTypes.String
	for name, c := range map[string]struct {
		data *array.Data
		want string
	}{
		"good":     {array.NewData(i32, 2, []*memory.Buffer{nil, buffer(8)}, nil, 0, 0), ""},
		"short":    {array.NewData(i32, 3, []*memory.Buffer{nil, buffer(8)}, nil, 0, 0), "needs 12"},
		"bitmap":   {array.NewData(i32, 20, []*memory.Buffer{buffer(1), buffer(80)}, nil, 1, 0), "bitmap is too short"},
		"no map":   {array.NewData(i32, 2, []*memory.Buffer{nil, buffer(8)}, nil, 1, 0), "no validity bitmap"},
		"text":     {array.NewData(text, 2, []*memory.Buffer{nil, offsets(0, 1, 2), buffer(2)}, nil, 0, 0), ""},
		"backward": {array.NewData(text, 2, []*memory.Buffer{nil, offsets(0, 5, 2), buffer(2)}, nil, 0, 0), "offset 2 is 2, after 5"},
		"beyond":   {array.NewData(text, 2, []*memory.Buffer{nil, offsets(0, 1, 3), buffer(2)}, nil, 0, 0), "needs 3"},
		"few":      {array.NewData(text, 4, []*memory.Buffer{nil, offsets(0, 1, 2), buffer(2)}, nil, 0, 0), "bytes of offsets"},
	} {
		err := sound(c.data)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// No stream of bytes makes the reader panic, or allocate what does not come.
func FuzzExecStream(f *testing.F) {
	var good bytes.Buffer
	w, err := newWriter(&good, execSchema)
	if err != nil {
		f.Fatal(err)
	}
	for _, b := range batches(2, 3) {
		if err := w.Write(b.Record); err != nil {
			f.Fatal(err)
		}
		b.Record.Release()
	}
	f.Add(good.Bytes())
	f.Add(good.Bytes()[:good.Len()/2])
	f.Add([]byte("hello"))
	f.Add(binary.LittleEndian.AppendUint32(slices.Clone(endOfStream[:4]), maxMessage))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := newReader(bytes.NewReader(data), &recycler{keep: 2})
		if err != nil {
			return
		}
		a, err := agree(execSchema, r.schema)
		if err != nil {
			return
		}
		for {
			rec, err := r.Read()
			if err != nil {
				return
			}
			if taken, err := a.take(rec, rec.NumRows(), nil); err == nil {
				_ = fmt.Sprint(taken)
				taken.Release()
			}
			rec.Release()
		}
	})
}

// What a batch costs on its way through a program that gives it back as it is:
// 128 pictures of 224x224.
func BenchmarkExec(b *testing.B) {
	b.Run("go", func(b *testing.B) { benchmarkExec(b, os.Args[0], "pass") })
	if python := os.Getenv("SLUICE_PYARROW"); python != "" { // a Python that has pyarrow
		b.Run("python", func(b *testing.B) { benchmarkExec(b, python, "testdata/exec_pass.py") })
	}
}

func benchmarkExec(b *testing.B, command ...string) {
	for _, workers := range []int{1, 2} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			x, _ := execOf(b, func(o *ExecOptions) { o.Command, o.Workers = command, workers })
			const rows, size = 128, 224 * 224 * 3
			pixels := array.NewData(arrow.PrimitiveTypes.Uint8, rows*size, []*memory.Buffer{nil, memory.NewBufferBytes(bytes.Repeat([]byte{1, 2, 3, 4}, rows*size/4))}, nil, 0, 0)
			list := arrow.FixedSizeListOf(size, arrow.PrimitiveTypes.Uint8)
			column := array.MakeFromData(array.NewData(list, rows, []*memory.Buffer{nil}, []arrow.ArrayData{pixels}, 0, 0))
			schema := arrow.NewSchema([]arrow.Field{{Name: "image", Type: list, Nullable: true}}, nil)
			rec := array.NewRecord(schema, []arrow.Array{column}, rows)
			got := 0
			emit := func(b *pipeline.Batch) error { b.Record.Release(); got++; return nil }
			send := func(n int) {
				for range n {
					if err := x.Process(b.Context(), &pipeline.Batch{Record: rec}, emit); err != nil {
						b.Fatal(err)
					}
				}
			}
			send(2 * workers) // all have started
			b.ResetTimer()
			send(b.N)
			b.StopTimer()
			b.ReportMetric(float64(b.N)*rows*size/1e9/b.Elapsed().Seconds(), "GB/s")
			if err := errors.Join(x.Flush(b.Context(), emit), x.Close()); err != nil || got != b.N+2*workers {
				b.Fatalf("%d batches, %v", got, err)
			}
		})
	}
}
