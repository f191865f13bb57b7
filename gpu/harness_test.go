package gpu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"sluice/augment"
	"sluice/gpu/host"
	"sluice/net"
	"sluice/pipeline"
	"sluice/pipeline/config"
)

const side = 16 // of the images that these tests learn from

var classes = []string{"across", "down", "dots"}

// picture is image i, side x side, of a dataset of striped and dotted noise, class i % 3.
func picture(i, side int) (pix []byte, label int32) {
	r := rand.New(rand.NewPCG(7, uint64(i)))
	label = int32(i % len(classes))
	pix = make([]byte, 0, side*side*3)
	for y := range side {
		for x := range side {
			on := [...]bool{y%4 < 2, x%4 < 2, (x/2+y/2)%2 == 0}[label]
			v := 60 + r.IntN(60)
			if on {
				v += 100
			}
			pix = append(pix, byte(v), byte(v+r.IntN(20)), byte(v))
		}
	}
	return pix, label
}

// pictures is a dataset of pictures from first on. Its labels are moved by
// shift, for the tests of bad ones.
type pictures struct {
	n, first int
	shift    int32
}

func (p pictures) Len() int          { return p.n }
func (p pictures) Classes() []string { return classes }
func (p pictures) Read(_ context.Context, i int, s *pipeline.Sample) error {
	pix, label := picture(p.first+i, side)
	s.Name, s.Label = fmt.Sprintf("picture %d", p.first+i), label+p.shift
	s.SetImage(&augment.RGB{Pix: pix, Stride: side * 3, W: side, H: side})
	return nil
}

// batch makes a batch of n pictures from first on, in mem; edit may change the
// labels.
func batch(mem memory.Allocator, epoch, step, first, n int, edit func(labels []int32)) *pipeline.Batch {
	return &pipeline.Batch{Kind: pipeline.Samples, Epoch: epoch, Step: step, Record: record(mem, side, first, n, edit)}
}

// record makes the record of a batch of pictures of side x side.
func record(mem memory.Allocator, side, first, n int, edit func(labels []int32)) arrow.Record {
	shape := fmt.Sprintf(`{"shape":[%d,%d,3]}`, side, side)
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "image", Type: arrow.FixedSizeListOf(int32(side*side*3), arrow.PrimitiveTypes.Uint8), Nullable: true,
			Metadata: arrow.NewMetadata([]string{"ARROW:extension:name", "ARROW:extension:metadata"}, []string{"arrow.fixed_shape_tensor", shape})},
		{Name: "view", Type: arrow.PrimitiveTypes.Int32},
		{Name: "shift", Type: arrow.FixedSizeListOf(3, arrow.PrimitiveTypes.Float32), Nullable: true},
		{Name: "origin", Type: arrow.FixedSizeListOf(2, arrow.PrimitiveTypes.Int32), Nullable: true},
		{Name: "flip", Type: arrow.FixedWidthTypes.Boolean},
		{Name: "label", Type: arrow.PrimitiveTypes.Int32},
		{Name: "index", Type: arrow.PrimitiveTypes.Int64},
		{Name: "name", Type: arrow.BinaryTypes.String},
	}, nil)
	labels := make([]int32, n)
	b := array.NewRecordBuilder(mem, schema)
	defer b.Release()
	for i := range n {
		pix, label := picture(first+i, side)
		labels[i] = label
		image := b.Field(0).(*array.FixedSizeListBuilder)
		image.Append(true)
		image.ValueBuilder().(*array.Uint8Builder).AppendValues(pix, nil)
		b.Field(1).(*array.Int32Builder).Append(0)
		shift := b.Field(2).(*array.FixedSizeListBuilder)
		shift.Append(true)
		shift.ValueBuilder().(*array.Float32Builder).AppendValues([]float32{0, 0, 0}, nil)
		origin := b.Field(3).(*array.FixedSizeListBuilder)
		origin.Append(true)
		origin.ValueBuilder().(*array.Int32Builder).AppendValues([]int32{0, 0}, nil)
		b.Field(4).(*array.BooleanBuilder).Append(false)
		b.Field(6).(*array.Int64Builder).Append(int64(first + i))
		b.Field(7).(*array.StringBuilder).Append(fmt.Sprintf("picture %d", first+i))
	}
	if edit != nil {
		edit(labels)
	}
	b.Field(5).(*array.Int32Builder).AppendValues(labels, nil)
	return b.NewRecord()
}

// env is that of a line over pictures.
func env(batch int) *pipeline.Env {
	return &pipeline.Env{
		Name: "test", Seed: 5, Version: "test", Classes: classes, BatchSize: batch, Threads: 2, Epochs: 1,
		Frame:   pipeline.Frame{W: side, H: side, CanvasW: side, CanvasH: side},
		Accepts: func(pipeline.Kind) bool { return true },
	}
}

// outbox takes what a stage emits.
type outbox struct {
	metrics []pipeline.Metric
	order   []string // events, and "weights"

	outcomes []pipeline.Outcome
	weights  []net.NamedTensor
	meta     map[string]string
}

func (o *outbox) emit(b *pipeline.Batch) (err error) {
	defer b.Record.Release()
	if b.Kind == pipeline.Weights {
		o.order = append(o.order, "weights")
		o.weights, o.meta, err = net.TensorsOf(b.Record)
		for i := range o.weights { // it is the record's memory
			o.weights[i].Data = slices.Clone(o.weights[i].Data)
		}
		return err
	}
	if b.Kind == pipeline.Evaluation {
		o.outcomes, err = pipeline.OutcomesOf(b.Record)
		return err
	}
	rows, err := pipeline.MetricsOf(b.Record)
	for _, r := range rows {
		o.order = append(o.order, r.Event)
	}
	o.metrics = append(o.metrics, rows...)
	return err
}

// of gives the metrics of an event.
func (o *outbox) of(event string) (rows []pipeline.Metric) {
	for _, m := range o.metrics {
		if m.Event == event {
			rows = append(rows, m)
		}
	}
	return rows
}

// journal is what a spied engine was asked to do, in order.
type journal struct {
	mu     sync.Mutex
	events []string
	loads  int
	steps  int
	// stepped is closed and replaced at the end of every step.
	stepped map[int]chan struct{}
}

func newJournal() *journal { return &journal{stepped: map[int]chan struct{}{}} }

func (j *journal) note(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events = append(j.events, fmt.Sprintf(format, args...))
}

// step is a channel closed when step n has been computed.
func (j *journal) step(n int) chan struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	c, ok := j.stepped[n]
	if !ok {
		c = make(chan struct{})
		j.stepped[n] = c
	}
	return c
}

// spy is an engine that notes loads and steps. With lazy set, the load of batch
// n+1 does not end before the step of batch n has: a stage that waited for the
// load first would wait for ever.
type spy struct {
	net.Engine
	journal *journal
	lazy    bool
	onLoad  func() error
	updated bool
}

func (s *spy) SGD(w, v, dw *net.Tensor, o net.SGD) {
	s.updated = true
	s.Engine.SGD(w, v, dw, o)
}

func (s *spy) Sync() error {
	err := s.Engine.Sync()
	if s.updated {
		s.updated = false
		s.journal.mu.Lock()
		n := s.journal.steps
		s.journal.steps++
		s.journal.mu.Unlock()
		s.journal.note("step %d ends", n)
		close(s.journal.step(n))
	}
	return err
}

func (s *spy) NewInput(spec net.InputSpec) (net.Input, error) {
	in, err := s.Engine.NewInput(spec)
	return &spyInput{Input: in, spy: s}, err
}

type spyInput struct {
	net.Input
	spy     *spy
	pending sync.WaitGroup
	err     error
	loading bool // and nobody has waited for it
}

func (i *spyInput) Load(b net.ImageBatch) error {
	j := i.spy.journal
	if i.spy.onLoad != nil {
		if err := i.spy.onLoad(); err != nil {
			b.Release()
			return err
		}
	}
	j.mu.Lock()
	n := j.loads
	j.loads++
	j.mu.Unlock()
	j.note("load %d begins", n)
	i.loading = true
	if !i.spy.lazy {
		return i.Input.Load(b)
	}
	i.pending.Go(func() {
		if n > 0 {
			<-j.step(n - 1)
		}
		i.err = i.Input.Load(b)
	})
	return nil
}

func (i *spyInput) Tensors() (x, labels *net.Tensor, err error) {
	i.pending.Wait()
	i.loading = false
	if i.err != nil {
		return nil, nil, i.err
	}
	return i.Input.Tensors()
}

func (i *spyInput) Close() error {
	if i.loading {
		i.spy.journal.note("closed while it loads")
	}
	i.pending.Wait()
	return i.Input.Close()
}

// testDevice is what the stages are tested on: the CPU, unless the environment says
// otherwise (make test-cuda does).
func testDevice() string { return cmp.Or(os.Getenv("SLUICE_TEST_DEVICE"), CPU) }

// opener opens engines of testDevice, each in what wrap makes of it.
func opener(wrap func(net.Engine) net.Engine) openFunc {
	return func(_ string, threads int, options ...host.Option) (net.Engine, error) {
		e, err := Open(testDevice(), threads, options...)
		if err != nil || wrap == nil {
			return e, err
		}
		return wrap(e), nil
	}
}

// smallNet has a layer of each kind that training treats in its own way. It is
// followed by the other options of train, in braces or one of them.
const smallNet = `
net:
  input: {mean: [120, 120, 120], scale: 0.02}
  layers:
    - conv: {name: conv1, out: 8, size: 3, padding: 1}
    - max_pool: {size: 2, stride: 2}
    - dropout: {rate: 0.25}
    - dense: {name: fc2}
    - softmax
`

// wideNet ends in another width than there are classes.
const wideNet = `
net:
  layers:
    - dense: {name: fc1, out: 5, activation: none}
    - softmax
`

// trainOptions reads the options of train from a YAML, as a run does.
func trainOptions(t testing.TB, text string) TrainOptions {
	t.Helper()
	o := TrainOptions{Device: Auto, Winograd: true, Solver: net.DefaultSolver(), LogEvery: 10, ValidateEvery: 1, Watch: DefaultWatch()}
	o.Solver.LR = 0.05
	doc, err := config.Parse("test.yaml", []byte(text))
	if err == nil {
		err = doc.Decode(&o)
	}
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// trainStage makes the stage, on engines that wrap may change.
func trainStage(t testing.TB, text string, wrap func(net.Engine) net.Engine) *Train {
	t.Helper()
	s, err := NewTrain(trainOptions(t, text))
	if err != nil {
		t.Fatal(err)
	}
	s.open = opener(wrap)
	return s
}

func prepare(t testing.TB, s pipeline.Preparer, e *pipeline.Env) {
	t.Helper()
	if err := s.Prepare(t.Context(), e); err != nil {
		t.Fatal(err)
	}
}

// process lends b to the stage and releases it.
func process(t testing.TB, s pipeline.BatchStage, b *pipeline.Batch, emit pipeline.Emit) {
	t.Helper()
	record := b.Record
	defer record.Release()
	if err := s.Process(t.Context(), b, emit); err != nil {
		t.Fatal(err)
	}
}

// run trains for some epochs of some steps and closes the stage.
func run(t testing.TB, s *Train, e *pipeline.Env, steps, epochs int, emit pipeline.Emit) {
	t.Helper()
	prepare(t, s, e)
	for n := range steps * epochs {
		process(t, s, batch(memory.DefaultAllocator, n/steps, n, n%steps*e.BatchSize, e.BatchSize, nil), emit)
	}
	if err := s.Flush(t.Context(), emit); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// feedBatches runs batches of the given sizes through a stage, as the runner does.
func feedBatches(ctx context.Context, s pipeline.BatchStage, epoch, first int, sizes []int, emit pipeline.Emit) error {
	for n, size := range sizes {
		b := batch(memory.DefaultAllocator, epoch, n, first, size, nil)
		err := s.Process(ctx, b, emit)
		b.Record.Release()
		if err != nil {
			return err
		}
		first += size
	}
	return s.(pipeline.Flusher).Flush(ctx, emit)
}

func discard(b *pipeline.Batch) error { b.Record.Release(); return nil }

// errAny stands for some error.
var errAny = errors.New("any error")

func is(err, want error) bool {
	if want == errAny {
		return err != nil
	}
	return errors.Is(err, want)
}

// untrained is the network of smallNet before any step, for batches of n, apart
// from the stage.
func untrained(t testing.TB, n int) (*net.Network, net.Input, net.Engine) {
	t.Helper()
	e := env(n)
	plan, err := trainOptions(t, smallNet+"epochs: 1").Net.Plan(n, side, side, len(classes))
	if err != nil {
		t.Fatal(err)
	}
	engine, err := Open(testDevice(), 1)
	if err != nil {
		t.Fatal(err)
	}
	network, err := net.New(t.Context(), engine, plan, e.Seed, true)
	if err != nil {
		t.Fatal(err)
	}
	in, err := network.NewInput()
	if err != nil {
		t.Fatal(err)
	}
	return network, in, engine
}

// load loads n pictures from first on.
func load(t testing.TB, in net.Input, first, n int) {
	t.Helper()
	b := net.ImageBatch{N: n}
	for i := range n {
		pix, label := picture(first+i, side)
		b.Pixels, b.Labels = append(b.Pixels, pix...), append(b.Labels, label)
	}
	if err := in.Load(b); err != nil {
		t.Fatal(err)
	}
}

// sameTensors holds two sets of tensors to the same bits.
func sameTensors(t testing.TB, what string, got, want []net.NamedTensor) {
	t.Helper()
	if len(got) != len(want) || len(want) == 0 {
		t.Fatalf("%s: %d tensors, want %d", what, len(got), len(want))
	}
	for i, w := range want {
		g := got[i]
		if g.Name != w.Name || g.Role != w.Role || len(g.Data) != len(w.Data) {
			t.Fatalf("%s: tensor %d is %s of %d, want %s of %d", what, i, g.Name, len(g.Data), w.Name, len(w.Data))
		}
		for k := range w.Data {
			if math.Float32bits(g.Data[k]) != math.Float32bits(w.Data[k]) {
				t.Fatalf("%s: %s[%d] is %g, want %g", what, w.Name, k, g.Data[k], w.Data[k])
			}
		}
	}
}
