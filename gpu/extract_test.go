package gpu

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"sluice/net"
	"sluice/pipeline"
)

// featureBox is a sink that keeps features and metrics.
type featureBox struct {
	records []arrow.Record
	cursors []pipeline.Cursor
	metrics []pipeline.Metric
}

func (b *featureBox) Write(_ context.Context, in *pipeline.Batch) (err error) {
	switch in.Kind {
	case pipeline.Features:
		in.Record.Retain()
		b.records, b.cursors = append(b.records, in.Record), append(b.cursors, in.Cursor)
	case pipeline.Metrics:
		var rows []pipeline.Metric
		rows, err = pipeline.MetricsOf(in.Record)
		b.metrics = append(b.metrics, rows...)
	}
	return err
}
func (b *featureBox) Close() error { return nil }

// features is all rows, column by column.
type features struct {
	index  []int64
	name   []string
	label  []int32
	floats map[string][]float32
	ints   map[string][]int32
	schema *arrow.Schema
}

func (b *featureBox) table(t testing.TB) features {
	t.Helper()
	out := features{floats: map[string][]float32{}, ints: map[string][]int32{}}
	for _, rec := range b.records {
		out.schema = rec.Schema()
		for i, f := range rec.Schema().Fields() {
			switch col := rec.Column(i).(type) {
			case *array.Int64:
				out.index = append(out.index, col.Int64Values()...)
			case *array.Int32:
				out.label = append(out.label, col.Int32Values()...)
			case *array.String:
				for j := range col.Len() {
					out.name = append(out.name, strings.Clone(col.Value(j)))
				}
			case *array.FixedSizeList:
				if !f.Nullable || col.NullN() != 0 {
					t.Errorf("column %s: nullable %v with %d nulls, want true and 0", f.Name, f.Nullable, col.NullN())
				}
				switch v := col.ListValues().(type) {
				case *array.Float32:
					out.floats[f.Name] = append(out.floats[f.Name], v.Float32Values()...)
				case *array.Int32:
					out.ints[f.Name] = append(out.ints[f.Name], v.Int32Values()...)
				case *array.Float16:
					for _, bits := range arrow.Uint16Traits.CastFromBytes(v.Data().Buffers()[1].Bytes()) {
						out.floats[f.Name] = append(out.floats[f.Name], widened(bits))
					}
				}
			}
		}
	}
	return out
}

// widened is the number that float16 bits mean, from the definition.
func widened(bits uint16) float32 {
	sign := float64(1 - 2*int(bits>>15))
	exponent, fraction := int(bits>>10&31), float64(bits&1023)
	switch exponent {
	case 0:
		return float32(sign * fraction * math.Pow(2, -24))
	case 31:
		if fraction == 0 {
			return float32(math.Inf(int(sign)))
		}
		return float32(math.NaN())
	}
	return float32(sign * (1 + fraction/1024) * math.Pow(2, float64(exponent-15)))
}

// someWeights trains a little and gives the file.
func someWeights(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	trained(t, dir, 1, 1, weightsSink(t))
	return filepath.Join(dir, "weights.safetensors")
}

func extractStage(t testing.TB, weights string, edit func(*ExtractOptions)) *Extract {
	t.Helper()
	o := ExtractOptions{Weights: weights, Pool: "none", DType: "float32", Preprocessing: samePreprocessing, Device: CPU, LogEvery: 2}
	edit(&o)
	x, err := NewExtract(o)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// extracted runs n pictures through the stage in a whole line.
func extracted(t *testing.T, x *Extract, source pipeline.Source, size, workers int, edit func(*pipeline.Line)) *featureBox {
	t.Helper()
	out := &featureBox{}
	l := line(t, t.TempDir(), workers, x, "extract", pipeline.NamedSink{Name: "box", Sink: out})
	l.Source, l.BatchSize, l.Env.BatchSize, l.Epochs, l.DropLast, l.Shuffle = source, size, size, 1, false, false
	l.Env.Samples = source.Len()
	l.Env.Preprocessing = "[decode]\n"
	if edit != nil {
		edit(l)
	}
	if err := l.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return out
}

// partOf is as much of the network of weights as computes these layers, for one
// image at a time, apart from the stages.
func partOf(t *testing.T, weights string, layers ...string) (*net.Network, net.Input) {
	t.Helper()
	a, err := readAbout(weights)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := a.Net.Plan(1, side, side, len(a.Classes))
	if err == nil {
		plan, err = plan.Until(layers...)
	}
	if err != nil {
		t.Fatal(err)
	}
	engine, err := Open(testDevice(), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = engine.Close() })
	network, err := net.New(t.Context(), engine, plan, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	tensors, err := readWeights(weights)
	if err == nil {
		err = network.Load(tensors)
	}
	if err != nil {
		t.Fatal(err)
	}
	in, err := network.NewInput()
	if err != nil {
		t.Fatal(err)
	}
	return network, in
}

// activations computes layers of the pictures one by one, apart from the stage.
func activations(t *testing.T, weights string, first, n int, names ...string) map[string][]float32 {
	t.Helper()
	network, in := partOf(t, weights, names...)
	var err error
	out := map[string][]float32{}
	for i := range n {
		load(t, in, first+i, 1)
		if err := network.Forward(t.Context(), in, 0, false); err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if out[name], err = network.Activation(out[name], name, 1); err != nil {
				t.Fatal(err)
			}
		}
	}
	return out
}

func closeTo(got, want []float32, tolerance float64) bool {
	return len(want) > 0 && slices.EqualFunc(got, want, func(a, b float32) bool {
		return math.Abs(float64(a-b)) <= tolerance*(1+math.Abs(float64(b)))
	})
}

// Every kind of column holds what the network computes for that picture; the
// last batch is a short one.
func TestExtractGivesWhatTheLayersCompute(t *testing.T) {
	weights := someWeights(t)
	const n = 21
	want := activations(t, weights, 500, n, "conv1", "pool1", "fc2", "softmax1")
	for _, size := range []int{8, 5, 32} {
		x := extractStage(t, weights, func(o *ExtractOptions) {
			o.Layers, o.Logits, o.TopK = []string{"pool1", "fc2", "conv1"}, true, 2
		})
		out := extracted(t, x, pictures{n: n, first: 500}, size, 3, nil)
		got := out.table(t)
		var names []string
		for _, f := range got.schema.Fields() {
			names = append(names, f.Name)
		}
		if w := []string{"index", "name", "label", "pool1", "fc2", "conv1", "logits", "top_labels", "top_scores"}; !slices.Equal(names, w) {
			t.Fatalf("columns %v, want %v", names, w)
		}
		for i := range n {
			if got.index[i] != int64(i) || got.name[i] != fmt.Sprintf("picture %d", 500+i) || got.label[i] != int32((500+i)%3) {
				t.Fatalf("row %d is %d, %q, label %d", i, got.index[i], got.name[i], got.label[i])
			}
		}
		for column, layer := range map[string]string{"pool1": "pool1", "fc2": "fc2", "conv1": "conv1", "logits": "fc2"} {
			if !closeTo(got.floats[column], want[layer], 1e-5) {
				t.Errorf("batches of %d: column %s differs from layer %s", size, column, layer)
			}
		}
		for i := range n {
			logits, scores := want["fc2"][3*i:3*i+3], want["softmax1"][3*i:3*i+3]
			first := slices.Index(logits, slices.Max(logits))
			top := got.ints["top_labels"][2*i : 2*i+2]
			if int(top[0]) != first || top[1] == top[0] || logits[top[1]] < slices.Min(logits) {
				t.Fatalf("row %d: the best are %v of %v", i, top, logits)
			}
			third := 3 - top[0] - top[1]
			if logits[third] > logits[top[1]] {
				t.Fatalf("row %d: the best are %v of %v", i, top, logits)
			}
			if !closeTo(got.floats["top_scores"][2*i:2*i+2], []float32{scores[top[0]], scores[top[1]]}, 1e-5) {
				t.Fatalf("row %d: scores %v of %v", i, got.floats["top_scores"][2*i:2*i+2], scores)
			}
		}
		shape, _ := got.schema.Field(5).Metadata.GetValue("shape")
		if shape != "[8,16,16]" {
			t.Errorf("conv1's shape is %s", shape)
		}
		last := out.metrics[len(out.metrics)-1]
		if last.Event != "done" || last.Step != (n+size-1)/size || last.ImagesPerSecond <= 0 {
			t.Errorf("the last metric is %+v", last)
		}
		if end := out.cursors[len(out.cursors)-1]; end.Pos != n || out.records[len(out.records)-1].NumRows() != 0 {
			t.Errorf("the last batch is at %+v with %d rows, want %d and none", end, out.records[len(out.records)-1].NumRows(), n)
		}
	}
}

func TestExtractPoolsScalesAndRounds(t *testing.T) {
	weights := someWeights(t)
	const n = 9
	want := activations(t, weights, 500, n, "conv1", "fc2")
	means := make([]float32, 0, n*8)
	for i := range n * 8 {
		sum := 0.0
		for _, v := range want["conv1"][i*256 : (i+1)*256] {
			sum += float64(v)
		}
		means = append(means, float32(sum/256))
	}
	unit := func(v []float32, width int) []float32 {
		out := slices.Clone(v)
		for row := range slices.Chunk(out, width) {
			squares := 0.0
			for _, a := range row {
				squares += float64(a) * float64(a)
			}
			for i := range row {
				row[i] = float32(float64(row[i]) / math.Sqrt(squares))
			}
		}
		return out
	}
	run := func(edit func(*ExtractOptions)) features {
		x := extractStage(t, weights, func(o *ExtractOptions) {
			o.Layers, o.Logits = []string{"conv1", "fc2"}, true
			edit(o)
		})
		return extracted(t, x, pictures{n: n, first: 500}, 4, 1, nil).table(t)
	}
	pooled := run(func(o *ExtractOptions) { o.Pool = "average" })
	if !closeTo(pooled.floats["conv1"], means, 1e-5) || !closeTo(pooled.floats["fc2"], want["fc2"], 1e-5) {
		t.Error("the means differ")
	}
	scaled := run(func(o *ExtractOptions) { o.Pool, o.Normalize = "average", true })
	if !closeTo(scaled.floats["conv1"], unit(means, 8), 1e-5) || !closeTo(scaled.floats["fc2"], unit(want["fc2"], 3), 1e-5) {
		t.Error("the vectors of length 1 differ")
	}
	if !closeTo(scaled.floats["logits"], want["fc2"], 1e-5) {
		t.Error("the logits are scaled")
	}
	rounded := run(func(o *ExtractOptions) { o.DType = "float16" })
	if !closeTo(rounded.floats["conv1"], want["conv1"], 1./1024) || !closeTo(rounded.floats["logits"], want["fc2"], 1./1024) {
		t.Error("the rounded numbers differ")
	}
	if of := rounded.schema.Field(3).Type.(*arrow.FixedSizeListType).Elem(); of.ID() != arrow.FLOAT16 {
		t.Errorf("float16 became %v", of)
	}
}

// The bytes are the same for any number of workers and threads.
func TestExtractGivesTheSameAtAnyWidth(t *testing.T) {
	weights := someWeights(t)
	var want features
	for i, tt := range []struct{ workers, threads int }{{1, 1}, {1, 2}, {5, 1}, {16, 2}} {
		x := extractStage(t, weights, func(o *ExtractOptions) { o.Layers, o.TopK = []string{"conv1", "fc2"}, 3 })
		got := extracted(t, x, pictures{n: 30}, 8, tt.workers, func(l *pipeline.Line) { l.Env.Threads = tt.threads }).table(t)
		if i == 0 {
			want = got
			continue
		}
		for _, name := range []string{"conv1", "fc2", "top_scores"} {
			if !slices.EqualFunc(got.floats[name], want.floats[name], func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }) {
				t.Errorf("%+v: %s differs", tt, name)
			}
		}
		if !slices.Equal(got.index, want.index) || !slices.Equal(got.ints["top_labels"], want.ints["top_labels"]) {
			t.Errorf("%+v: the rows differ", tt)
		}
	}
}

// unlabelled is a source that knows no classes.
type unlabelled struct{ p pictures }

func (u unlabelled) Len() int { return u.p.Len() }
func (u unlabelled) Read(ctx context.Context, i int, s *pipeline.Sample) error {
	err := u.p.Read(ctx, i, s)
	s.Label = -1
	return err
}

// Features need no labels, and labels need not be the network's.
func TestExtractNeedsNoLabels(t *testing.T) {
	weights := someWeights(t)
	one := func(o *ExtractOptions) { o.Layers, o.TopK = []string{"fc2"}, 1 }
	want := extracted(t, extractStage(t, weights, one), pictures{n: 10}, 4, 1, nil).table(t)
	bare := extracted(t, extractStage(t, weights, one), unlabelled{pictures{n: 10}}, 4, 1, func(l *pipeline.Line) { l.Env.Classes = nil }).table(t)
	if !slices.Equal(bare.floats["fc2"], want.floats["fc2"]) || slices.Max(bare.label) != -1 {
		t.Errorf("without labels the features differ, or labels are %v", bare.label)
	}
	if bare.schema.Metadata().FindKey("labels") >= 0 {
		t.Error("labels have names that nobody knows")
	}
	far := extracted(t, extractStage(t, weights, one), pictures{n: 10, shift: 100}, 4, 1, func(l *pipeline.Line) { l.Env.Classes = []string{"other"} }).table(t)
	if !slices.Equal(far.floats["fc2"], want.floats["fc2"]) || far.label[0] != 100 {
		t.Errorf("with other labels the features differ, or labels are %v", far.label)
	}
}

// What the features say about themselves identifies weights and preprocessing.
func TestExtractSaysWhereFeaturesAreFrom(t *testing.T) {
	weights := someWeights(t)
	run := func(edit func(*pipeline.Line)) map[string]string {
		x := extractStage(t, weights, func(o *ExtractOptions) { o.Layers = []string{"fc2"} })
		return extracted(t, x, pictures{n: 3}, 2, 1, edit).table(t).schema.Metadata().ToMap()
	}
	meta := run(nil)
	var layers, known []string
	if err := json.Unmarshal([]byte(meta["layers"]), &layers); err != nil || !slices.Equal(layers, []string{"fc2"}) {
		t.Errorf("layers %q (%v)", meta["layers"], err)
	}
	if err := json.Unmarshal([]byte(meta["classes"]), &known); err != nil || !slices.Equal(known, classes) || meta["labels"] != meta["classes"] {
		t.Errorf("classes %q (%v), labels %q", meta["classes"], err, meta["labels"])
	}
	if len(meta["weights_sha256"]) != 64 || len(meta["preprocessing"]) != 64 || meta["pool"] != "none" || meta["normalize"] != "false" {
		t.Errorf("metadata %v", meta)
	}
	if again := run(nil); again["preprocessing"] != meta["preprocessing"] || again["weights_sha256"] != meta["weights_sha256"] {
		t.Error("a second run has other fingerprints")
	}
	if other := run(func(l *pipeline.Line) { l.Env.Preprocessing = "[decode, flip]\n" }); other["preprocessing"] == meta["preprocessing"] {
		t.Error("another preprocessing has the same fingerprint")
	}
}

// A number that is none never gets into a file in silence, and the error says of
// which picture.
func TestExtractRefusesNumbersThatAreNone(t *testing.T) {
	for want, tt := range map[string]struct {
		value float32
		edit  func(*ExtractOptions)
	}{
		"layer fc2 gives a number that is infinite or none": {float32(math.NaN()), func(o *ExtractOptions) { o.Layers = []string{"fc2"} }},
		"layer fc2 gives 1e+06, which float16 does not":     {1e6, func(o *ExtractOptions) { o.Layers, o.DType = []string{"fc2"}, "float16" }},
		"the softmax gives no number":                       {float32(math.NaN()), func(o *ExtractOptions) { o.TopK = 1 }},
	} {
		file := filepath.Join(t.TempDir(), "w.safetensors")
		a, err := about{
			Net: trainOptions(t, "net: {input: {mean: 0}, layers: [{dense: {name: fc2}}, softmax]}\nepochs: 1").Net, Classes: classes,
			Input: inputAbout{Height: side, Width: side},
		}.metadata()
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(file)
		if err != nil {
			t.Fatal(err)
		}
		err = net.WriteSafetensors(f, []net.NamedTensor{
			{Name: "fc2.weight", Role: net.RoleWeight, Dims: []int{3, side * side * 3}, Data: make([]float32, 3*side*side*3)},
			{Name: "fc2.bias", Role: net.RoleWeight, Dims: []int{3}, Data: []float32{0, tt.value, 0}},
		}, a)
		if err != nil || f.Close() != nil {
			t.Fatal(err)
		}
		x := extractStage(t, file, tt.edit)
		prepare(t, x, env(4))
		err = feedBatches(t.Context(), x, 0, 0, []int{4}, discard)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "picture 0") {
			t.Errorf("error %v, want %q of picture 0", err, want)
		}
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Batches are given back, whatever happens.
func TestExtractHoldsNothingInTheEnd(t *testing.T) {
	weights := someWeights(t)
	mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
	defer mem.AssertSize(t, 0)
	for _, stop := range []int{1, 2, 5} {
		x := extractStage(t, weights, func(o *ExtractOptions) { o.Layers = []string{"fc2"} })
		prepare(t, x, env(8))
		for i := range stop {
			process(t, x, batch(mem, 0, i, 8*i, 8, nil), discard)
		}
		if stop == 5 {
			if err := x.Flush(t.Context(), discard); err != nil {
				t.Error(err)
			}
		}
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	}
	x := extractStage(t, weights, func(o *ExtractOptions) { o.Layers = []string{"fc2"} })
	prepare(t, x, env(8))
	defer x.Close()
	process(t, x, batch(mem, 0, 0, 0, 8, nil), discard)
	b := batch(mem, 0, 1, 8, 8, nil)
	defer b.Record.Release()
	err := x.Process(t.Context(), b, func(b *pipeline.Batch) error { b.Record.Release(); return errAny })
	if !is(err, errAny) {
		t.Errorf("the sink's error became %v", err)
	}
}

func TestExtractMistakes(t *testing.T) {
	for want, edit := range map[string]func(*ExtractOptions){
		"weights is empty":                              func(o *ExtractOptions) { o.Weights = "" },
		"layers is empty, and neither":                  func(o *ExtractOptions) { o.Layers = nil },
		`layers.1 is "fc2" once more`:                   func(o *ExtractOptions) { o.Layers = []string{"fc2", "fc2"} },
		`layers.0 is "label", which is the name`:        func(o *ExtractOptions) { o.Layers = []string{"label"} },
		"pool must be none or average":                  func(o *ExtractOptions) { o.Pool = "max" },
		"dtype must be float32 or float16":              func(o *ExtractOptions) { o.DType = "float64" },
		"top_k must be at least 0":                      func(o *ExtractOptions) { o.TopK = -1 },
		"preprocessing must be same or any, is \"all\"": func(o *ExtractOptions) { o.Preprocessing = "all" },
		"log_every must be at least 1":                  func(o *ExtractOptions) { o.LogEvery = 0 },
		"device must be auto, cpu or cuda, is \"tpu\"":  func(o *ExtractOptions) { o.Device = "tpu" },
	} {
		o := ExtractOptions{Weights: "w", Layers: []string{"fc2"}, Pool: "none", DType: "float32", Preprocessing: samePreprocessing, Device: CPU, LogEvery: 1}
		edit(&o)
		if _, err := NewExtract(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}

	weights := someWeights(t)
	plan := func(edit func(*ExtractOptions), change func(*pipeline.Env)) error {
		x := extractStage(t, weights, func(o *ExtractOptions) { o.Layers = []string{"fc2"}; edit(o) })
		e := env(8)
		change(e)
		_, err := x.Plan(e)
		return err
	}
	as := func(*pipeline.Env) {}
	for want, err := range map[string]error{
		`layers.1 is wrong: there is no layer "conv11"; did you mean "conv1"?`: plan(func(o *ExtractOptions) { o.Layers = []string{"fc2", "conv11"} }, as),
		"the network has conv1, pool1, dropout1, fc2, softmax1":                plan(func(o *ExtractOptions) { o.Layers = []string{"xyzzy"} }, as),
		"top_k must be at most 3":                                              plan(func(o *ExtractOptions) { o.TopK = 4 }, as),
		"the images are 20x16":                                                 plan(func(*ExtractOptions) {}, func(e *pipeline.Env) { e.Frame.W = 20 }),
		"no sink takes the features: add features to sinks":                    plan(func(*ExtractOptions) {}, func(e *pipeline.Env) { e.Accepts = func(k pipeline.Kind) bool { return k == pipeline.Metrics } }),
		"weights are what a training run":                                      plan(func(o *ExtractOptions) { o.Weights = filepath.Join(t.TempDir(), "none") }, as),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// Images that are made otherwise than the weights' validation images are refused
// unless any will do; weights that do not say theirs take all.
func TestPreprocessingBelongsToTheWeights(t *testing.T) {
	dir := t.TempDir()
	l := line(t, dir, 1, trainStage(t, smallNet+"epochs: 1", nil), "train", weightsSink(t))
	l.Epochs = 1
	l.Env.ValidationPreprocessing = "- decode: {}\n- center_crop:\n    size: 16\n"
	if err := l.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	said, silent := filepath.Join(dir, "weights.safetensors"), someWeights(t)
	const other = "- decode: {}\n- flip: {}\n"
	for _, tt := range []struct{ weights, samples, option, want string }{
		{said, l.Env.ValidationPreprocessing, "same", ""},
		{said, other, "any", ""},
		{said, "", "same", ""},
		{silent, other, "same", ""},
		{said, other, "same", "use samples: [{decode: {}}, {center_crop: {size: 16}}] (here they are [{decode: {}}, {flip: {}}]), or set preprocessing: any"},
	} {
		e := env(8)
		e.Preprocessing = tt.samples
		x := extractStage(t, tt.weights, func(o *ExtractOptions) { o.Layers, o.Preprocessing = []string{"fc2"}, tt.option })
		v, err := NewEvaluate(EvaluateOptions{Weights: Files{tt.weights}, LogEvery: 10, Preprocessing: tt.option, Device: CPU})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []pipeline.Planner{x, v} {
			_, err := s.Plan(e)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%T, %+v: error %v", s, tt, err)
			}
		}
	}
}

// Only what the wanted layers need is planned and allocated.
func TestExtractLeavesTheRestOut(t *testing.T) {
	weights := someWeights(t)
	text := func(edit func(*ExtractOptions)) string {
		p, err := extractStage(t, weights, edit).Plan(env(8))
		if err != nil {
			t.Fatal(err)
		}
		return p.Text
	}
	if s := text(func(o *ExtractOptions) { o.Layers = []string{"pool1"} }); strings.Contains(s, "fc2") || !strings.Contains(s, "column pool1: 512 numbers of float32\n2,060 bytes an image") {
		t.Errorf("the plan is\n%s", s)
	}
	if s := text(func(o *ExtractOptions) { o.Logits, o.DType = true, "float16" }); strings.Contains(s, "softmax1") || !strings.Contains(s, "column logits: 3 numbers of float16\n18 bytes an image") {
		t.Errorf("the plan is\n%s", s)
	}
}

// half is right for every float16, and half way between two goes to the even one.
func TestHalfIsTheNearest(t *testing.T) {
	for bits := range uint16(0x7c00) {
		v := widened(bits)
		next := float64(widened(bits + 1))
		if bits+1 == 0x7c00 {
			next = 65536 // where the next would be
		}
		middle := float32((float64(v) + next) / 2)
		even := bits + bits&1
		for _, tt := range []struct {
			v    float32
			want uint16
		}{
			{v, bits},
			{middle, even},
			{math.Nextafter32(middle, 0), bits},
			{math.Nextafter32(middle, 1e9), bits + 1},
		} {
			if got := half(tt.v); got != tt.want {
				t.Fatalf("half(%g) is %#04x, want %#04x", tt.v, got, tt.want)
			}
			if got := half(-tt.v); got != tt.want|0x8000 {
				t.Fatalf("half(%g) is %#04x, want %#04x", -tt.v, got, tt.want|0x8000)
			}
		}
	}
	for v, want := range map[float32]uint16{1e30: 0x7c00, float32(math.Inf(-1)): 0xfc00} {
		if got := half(v); got != want {
			t.Errorf("half(%g) is %#04x, want %#04x", v, got, want)
		}
	}
	if got := half(float32(math.NaN())); got&0x7fff <= 0x7c00 {
		t.Errorf("half(NaN) is %#04x", got)
	}
}
