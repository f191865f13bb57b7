package gpu

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/arrow/go/v17/arrow"

	"sluice/net"
	"sluice/pipeline"
	"sluice/pipeline/config"
)

func init() {
	pipeline.RegisterBatchStage("extract",
		"Computes features of the line's images with trained weights: the outputs of any layers, logits, the best classes. The network ends at the last layer that is wanted. Of several pictures of an image (ten_crop) it gives the mean.",
		ExtractOptions{Pool: "none", DType: "float32", Preprocessing: samePreprocessing, Device: Auto, Winograd: true, LogEvery: 10},
		func(o ExtractOptions) (pipeline.BatchStage, error) { return NewExtract(o) })
}

// ExtractOptions are the options of the extract stage.
type ExtractOptions struct {
	Weights   string   `yaml:"weights" config:"required" doc:"a safetensors file that a training run wrote; it says what the network and its classes are"`
	Layers    []string `yaml:"layers" doc:"names of layers (pipeline check lists them), a column each: the layer's output, after its activation where one belongs to it"`
	Pool      string   `yaml:"pool" doc:"none: the numbers of a map in the order channel, row, column; average: the mean of each channel"`
	Normalize bool     `yaml:"normalize" doc:"scale the vector of each layer to length 1"`
	DType     string   `yaml:"dtype" doc:"float32, or float16 (half the bytes, three digits) for the columns of layers and logits"`
	Logits    bool     `yaml:"logits" doc:"a column of the last layer's outputs before the softmax, one a class of the weights"`
	TopK      int      `yaml:"top_k" doc:"columns top_labels and top_scores of that many classes of the weights, the likeliest first"`
	// Preprocessing is "same" or "any".
	Preprocessing string    `yaml:"preprocessing" doc:"same: refuse sample stages that are not those of the training's validation; any: take them"`
	Device        string    `yaml:"device" doc:"auto (cuda where there is one, else the CPU), cpu or cuda"`
	Precision     Precision `yaml:"precision" doc:"how numbers are held and multiplied: fp32 is 32-bit floats; tf32, of CUDA cards alone, rounds what convolutions and dense layers multiply to 10 bits, for tensor cores"`
	Winograd      bool      `yaml:"winograd" doc:"on the CPU, compute convolutions by Winograd's algorithm where it pays: faster, and rounded a little more"`
	LogEvery      int       `yaml:"log_every" doc:"batches between two metrics that tell how far it is"`
}

// Extract is the stage that computes features. It holds up to two batches, one
// that is loaded and one that computes, and emits for each a Features batch:
//
//	index       int64
//	name        utf8
//	label       int32, as the source numbers it; below zero: none
//	LAYER       fixed-size list of float32 or float16, a column each layer
//	logits      the same, one number a class of the weights
//	top_labels  fixed-size list of int32, of the weights' classes
//	top_scores  fixed-size list of float32, their probabilities
//
// An image that comes as several pictures (ten_crop) has one row: the mean of each
// layer over them, before it is scaled to length 1, and of the probabilities.
//
// A layer's output is that which the layer computes, so it is after the
// activation that is part of conv and dense; what comes before it can be had only
// where the activation is a layer of its own. Dropout does nothing here. The
// lists are nullable and never null: arrow v17 writes others to Parquet as nulls.
// The metadata of a list has its "shape", a JSON list of channels, height and
// width. The metadata of the schema says where the numbers are from:
//
//	weights_sha256  of the whole file of weights, hex
//	layers          JSON list of the layers
//	pool, normalize as in the options
//	samples         the sample stages, resolved, as YAML
//	input           JSON: how an image becomes the first activation
//	preprocessing   SHA-256 of samples and input, hex: equal for features that may be compared
//	classes         JSON list, the weights' classes
//	labels          JSON list, the source's classes, if it knows them
//
// Its metrics are "progress" and, last, "done". After the last batch it emits one
// without rows, so that a sink learns the schema where there was nothing to do.
type Extract struct {
	opt  ExtractOptions
	open openFunc

	plan    *net.NetPlan
	about   about
	columns []column
	logits  string // the layers of top-k
	loss    string

	schema *arrow.Schema
	engine net.Engine
	net    *net.Network
	feed   *feed
	meter  meter
	rows   identity // of the batch that waits in feed
	last   identity // that was computed last
	views  int      // rows a sample
	done   int      // batches, those before a resume too
	buf    []float32
	scores []float32
}

// column is a column of numbers.
type column struct {
	name, layer string
	shape       [3]int // channels, height, width
	area        int    // of a channel, which is averaged; 1 if it is not
	unit        bool   // scaled to length 1
	half        bool
}

func (c column) width() int { return c.shape[0] * c.shape[1] * c.shape[2] }

// identity says whose features the rows of a batch are. Each sample is views of
// the network's rows, one after the other.
type identity struct {
	cursor      pipeline.Cursor
	epoch, step int
	index       []int64
	name        []string
	label       []int32
	views       int
}

// reserved are the columns that are no layer's.
var reserved = []string{"index", "name", "label", "logits", "top_labels", "top_scores"}

// NewExtract makes the extract stage; mistakes in the options are errors.
func NewExtract(o ExtractOptions) (*Extract, error) {
	var errs []error
	if o.Weights == "" {
		errs = append(errs, config.Fieldf("weights", "is empty: name the safetensors file of a training run, as runs/NAME/weights.safetensors"))
	}
	if len(o.Layers) == 0 && !o.Logits && o.TopK == 0 {
		errs = append(errs, config.Fieldf("layers", "is empty, and neither logits nor top_k is asked for: name a layer, as layers: [fc7]"))
	}
	for i, name := range o.Layers {
		switch {
		case slices.Contains(reserved, name):
			errs = append(errs, config.Fieldf(fmt.Sprintf("layers.%d", i), "is %q, which is the name of another column", name))
		case slices.Contains(o.Layers[:i], name):
			errs = append(errs, config.Fieldf(fmt.Sprintf("layers.%d", i), "is %q once more", name))
		}
	}
	if o.Pool != "none" && o.Pool != "average" {
		errs = append(errs, config.Fieldf("pool", "must be none or average, is %q", o.Pool))
	}
	if o.DType != "float32" && o.DType != "float16" {
		errs = append(errs, config.Fieldf("dtype", "must be float32 or float16, is %q", o.DType))
	}
	if o.TopK < 0 {
		errs = append(errs, config.Fieldf("top_k", "must be at least 0, is %d", o.TopK))
	}
	if o.LogEvery < 1 {
		errs = append(errs, config.Fieldf("log_every", "must be at least 1, is %d", o.LogEvery))
	}
	if err := errors.Join(append(errs, checkPreprocessing(o.Preprocessing), checkDevice(o.Device))...); err != nil {
		return nil, err
	}
	return &Extract{opt: o, open: Open}, nil
}

// Holds is two: the batch that is loaded and the one that computes.
func (x *Extract) Holds() int { return 2 }

func (x *Extract) newEngine(env *pipeline.Env) (net.Engine, error) {
	e, err := x.open(x.opt.Device, env.Threads, winograd(x.opt.Winograd))
	return opened(env, x.opt.Precision, e, err)
}

// Plan reads what the weights say about themselves, and lays out as much of
// their network as the layers need.
func (x *Extract) Plan(env *pipeline.Env) (pipeline.Plan, error) {
	if env.Accepts != nil && !env.Accepts(pipeline.Features) {
		return pipeline.Plan{}, errors.New("no sink takes the features: add features to sinks")
	}
	a, err := readAbout(x.opt.Weights)
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("%w; weights are what a training run with the sink weights leaves in its folder", err)
	}
	if err != nil {
		return pipeline.Plan{}, err
	}
	if err := a.checkImages(env, x.opt.Weights, x.opt.Preprocessing); err != nil {
		return pipeline.Plan{}, err
	}
	whole, err := a.Net.Plan(env.BatchSize, env.Frame.H, env.Frame.W, len(a.Classes))
	if err == nil {
		err = checkWidth(whole, a.Classes)
	}
	if err != nil {
		return pipeline.Plan{}, fmt.Errorf("the network in %s: %w", x.opt.Weights, err)
	}
	plan, err := x.cut(whole, len(a.Classes))
	if err != nil {
		return pipeline.Plan{}, err
	}
	x.plan, x.about = plan, a

	e, err := x.newEngine(env)
	if err != nil {
		return pipeline.Plan{}, err
	}
	return pipeline.Plan{Epochs: 1, Memory: memoryTable(e, plan, false), Text: table(plan, e.Name()) + x.columnTable()}, e.Close()
}

// cut settles the columns, and gives the part of the network that computes them.
func (x *Extract) cut(whole *net.NetPlan, classes int) (*net.NetPlan, error) {
	x.columns = nil
	var errs []error
	var wanted []string
	add := func(name, layer string, out net.Shape) {
		c := column{name: name, layer: layer, shape: [3]int{out.C, out.H, out.W}, area: 1, half: x.opt.DType == "float16"}
		if name != "logits" {
			c.unit = x.opt.Normalize
			if x.opt.Pool == "average" {
				c.shape, c.area = [3]int{out.C, 1, 1}, out.H*out.W
			}
		}
		x.columns, wanted = append(x.columns, c), append(wanted, layer)
	}
	for i, name := range x.opt.Layers {
		out, err := whole.Out(name)
		if err != nil {
			errs = append(errs, config.Fieldf(fmt.Sprintf("layers.%d", i), "is wrong: %w", err))
			continue
		}
		add(name, name, out)
	}
	x.logits, x.loss = whole.Logits()
	if x.opt.Logits {
		out, err := whole.Out(x.logits)
		errs = append(errs, err)
		add("logits", x.logits, out)
	}
	if k := x.opt.TopK; k > 0 {
		if k > classes {
			errs = append(errs, config.Fieldf("top_k", "must be at most %d, as many as the weights have classes, is %d", classes, k))
		}
		wanted = append(wanted, x.logits, x.loss)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return whole.Until(wanted...)
}

// columnTable says what a row has.
func (x *Extract) columnTable() string {
	var b strings.Builder
	bytes := 8 + 4
	for _, c := range x.columns {
		fmt.Fprintf(&b, "column %s: %d numbers of %s\n", c.name, c.width(), x.opt.DType)
		bytes += c.width() * c.bytes()
	}
	if k := x.opt.TopK; k > 0 {
		fmt.Fprintf(&b, "columns top_labels and top_scores: %d each\n", k)
		bytes += 8 * k
	}
	fmt.Fprintf(&b, "%s bytes an image, and its name\n", thousands(int64(bytes)))
	return b.String()
}

func (c column) bytes() int {
	if c.half {
		return 2
	}
	return 4
}

// Prepare allocates the network and loads the weights.
func (x *Extract) Prepare(ctx context.Context, env *pipeline.Env) error {
	if x.plan == nil {
		if _, err := x.Plan(env); err != nil {
			return err
		}
	}
	x.meter.begin()
	x.done, x.views = env.StartStep, max(1, env.Frame.Views)
	tensors, sum, err := readHashed(x.opt.Weights)
	if err != nil {
		return err
	}
	if x.schema, err = x.newSchema(env, sum); err != nil {
		return err
	}
	if x.engine, err = x.newEngine(env); err != nil {
		return err
	}
	if x.net, err = net.New(ctx, x.engine, x.plan, 0, false); err != nil {
		return err
	}
	if err := x.net.Load(tensors); err != nil {
		return fmt.Errorf("%s: %w", x.opt.Weights, err)
	}
	if x.feed, err = newFeed("extract", x.net, nil); err != nil {
		return err
	}
	x.feed.unlabelled = true
	traced(env, x.engine, x.net, x.feed)
	return nil
}

// readHashed reads a whole file, and gives the SHA-256 of its bytes in hex.
func readHashed(file string) ([]net.NamedTensor, string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, "", config.Fieldf("weights", "cannot be read: %w", err)
	}
	defer f.Close()
	sum := sha256.New()
	tensors, _, err := net.ReadSafetensors(io.TeeReader(f, sum))
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", file, err)
	}
	return tensors, hex.EncodeToString(sum.Sum(nil)), nil
}

// Process begins to load b and meanwhile computes the batch before it.
func (x *Extract) Process(ctx context.Context, b *pipeline.Batch, emit pipeline.Emit) error {
	x.meter.enter()
	defer x.meter.leave()
	images, err := pipeline.ImagesOf(b.Record)
	if err != nil {
		return err
	}
	waiting, rows := x.feed.take(), x.rows
	if err := x.feed.loadImages(b, images); err != nil {
		return err
	}
	if x.rows, err = x.identify(b, images); err != nil {
		return err
	}
	return x.compute(ctx, waiting, rows, emit)
}

// identify copies what the rows of a batch are of, since the batch goes as soon as
// it is loaded.
func (x *Extract) identify(b *pipeline.Batch, images pipeline.Images) (identity, error) {
	n := images.N / x.views
	rows := identity{
		cursor: b.Cursor, epoch: b.Epoch, step: b.Step, views: x.views,
		index: make([]int64, 0, n), label: make([]int32, 0, n), name: make([]string, 0, n),
	}
	for i, index := range images.Index {
		if i%x.views == 0 {
			rows.index, rows.label, rows.name = append(rows.index, index), append(rows.label, images.Label[i]), append(rows.name, images.Name[i])
		} else if index != images.Index[i-1] {
			return rows, fmt.Errorf("row %d of a batch is of image %d, and must be one of the %d views of image %d", i, index, x.views, images.Index[i-1])
		}
	}
	if images.N%x.views != 0 {
		return rows, fmt.Errorf("a batch has %d rows, no multiple of the %d views of an image", images.N, x.views)
	}
	return rows, nil
}

// Flush computes the last batch and ends the run.
func (x *Extract) Flush(ctx context.Context, emit pipeline.Emit) error {
	x.meter.enter()
	if err := x.compute(ctx, x.feed.take(), x.rows, emit); err != nil {
		return err
	}
	end := identity{cursor: x.last.cursor, epoch: x.last.epoch, step: x.last.step}
	rec, err := x.record(end)
	if err != nil {
		return err
	}
	if err := x.send(emit, end, rec); err != nil {
		return err
	}
	if rest := x.meter.cut(); rest.steps > 0 {
		if err := x.tell(emit, rest.metric("progress")); err != nil {
			return err
		}
	}
	return x.tell(emit, x.meter.run.metric("done"))
}

// Close gives everything back, after success and after failure alike.
func (x *Extract) Close() error {
	var errs []error
	if x.feed != nil {
		errs = append(errs, x.feed.close())
	}
	if x.engine != nil {
		errs = append(errs, x.engine.Close())
	}
	x.feed, x.engine = nil, nil
	return errors.Join(errs...)
}

// compute gives out the features of a batch, if there is one.
func (x *Extract) compute(ctx context.Context, p *loaded, rows identity, emit pipeline.Emit) error {
	if p == nil {
		return nil
	}
	if err := x.net.Forward(ctx, p.Input, p.step, false); err != nil {
		return err
	}
	if err := x.engine.Sync(); err != nil {
		return err
	}
	rec, err := x.record(rows)
	if err != nil {
		return err
	}
	x.last = rows
	x.done++
	x.meter.step(net.Stats{Rows: len(rows.index)})
	if err := x.send(emit, rows, rec); err != nil {
		return err
	}
	if x.meter.window.steps < x.opt.LogEvery {
		return nil
	}
	return x.tell(emit, x.meter.cut().metric("progress"))
}

func (x *Extract) send(emit pipeline.Emit, rows identity, rec arrow.Record) error {
	return x.meter.blocked(func() error {
		return emit(&pipeline.Batch{Kind: pipeline.Features, Epoch: rows.epoch, Step: rows.step, Cursor: rows.cursor, Record: rec})
	})
}

func (x *Extract) tell(emit pipeline.Emit, row pipeline.Metric) error {
	row.Epoch, row.Step = x.last.epoch, x.done
	return x.meter.emit(emit, row)
}

// values gives a column's numbers for rows, in memory that the next call uses
// again.
func (x *Extract) values(c column, rows identity) ([]float32, error) {
	n := len(rows.index)
	var err error
	if x.buf, err = x.net.Activation(x.buf[:0], c.layer, n*rows.views); err != nil {
		return nil, err
	}
	v := overViews(x.buf, n, rows.views)
	if c.area > 1 {
		for i := range v[:len(v)/c.area] {
			sum := 0.0
			for _, a := range v[i*c.area:][:c.area] {
				sum += float64(a)
			}
			v[i] = float32(sum / float64(c.area)) // behind what is still to be read
		}
		v = v[:len(v)/c.area]
	}
	for i := range n {
		row := v[i*c.width():][:c.width()]
		squares := 0.0
		for _, a := range row {
			squares += float64(a) * float64(a)
		}
		if math.IsNaN(squares) || math.IsInf(squares, 0) {
			return nil, x.bad(rows, i, fmt.Errorf("layer %s gives a number that is infinite or none: the weights in %s are damaged, or of a training that diverged", c.layer, x.opt.Weights))
		}
		if length := math.Sqrt(squares); c.unit && length > 0 {
			for j, a := range row {
				row[j] = float32(float64(a) / length)
			}
		}
	}
	return v, nil
}

// overViews is the mean over the views of each of n samples, in the memory of v.
func overViews(v []float32, n, views int) []float32 {
	if n == 0 || views == 1 {
		return v
	}
	width := len(v) / (n * views)
	for i := range n {
		of := v[i*views*width:][:views*width]
		for j := range width {
			sum := 0.0
			for k := range views {
				sum += float64(of[k*width+j])
			}
			v[i*width+j] = float32(sum / float64(views)) // behind what is still to be read, or of column j
		}
	}
	return v[:n*width]
}

// bad is an error of one sample.
func (x *Extract) bad(rows identity, i int, err error) error {
	return &pipeline.Error{Stage: "extract", Name: rows.name[i], Key: pipeline.Key{Epoch: rows.epoch, Index: int(rows.index[i])}, Err: err}
}

// best finds the k classes of the greatest logits, in order (the lower label
// first among equals), and their probabilities; of several views, those of the
// greatest mean probability.
func (x *Extract) best(rows identity, k int) (labels []int32, scores []float32, err error) {
	n := len(rows.index)
	if x.buf, err = x.net.Activation(x.buf[:0], x.logits, n*rows.views); err != nil {
		return nil, nil, err
	}
	if x.scores, err = x.net.Activation(x.scores[:0], x.loss, n*rows.views); err != nil || n == 0 {
		return nil, nil, err
	}
	logitsOf, scoresOf := x.buf, overViews(x.scores, n, rows.views)
	if rows.views > 1 {
		logitsOf = scoresOf
	}
	classes := len(scoresOf) / n
	labels, scores = make([]int32, 0, n*k), make([]float32, 0, n*k)
	order := make([]int32, classes)
	for i := range n {
		logits, probabilities := logitsOf[i*classes:][:classes], scoresOf[i*classes:][:classes]
		for c := range order {
			order[c] = int32(c)
			if p := float64(probabilities[c]); math.IsNaN(p) {
				return nil, nil, x.bad(rows, i, fmt.Errorf("the softmax gives no number: the weights in %s are damaged, or of a training that diverged", x.opt.Weights))
			}
		}
		slices.SortFunc(order, func(a, b int32) int {
			return cmp.Or(cmp.Compare(logits[b], logits[a]), cmp.Compare(a, b))
		})
		for _, c := range order[:k] {
			labels, scores = append(labels, c), append(scores, probabilities[c])
		}
	}
	return labels, scores, nil
}

func (x *Extract) newSchema(env *pipeline.Env, weights string) (*arrow.Schema, error) {
	layers := x.opt.Layers
	if layers == nil {
		layers = []string{}
	}
	var errs []error
	text := func(v any) string {
		data, err := json.Marshal(v)
		errs = append(errs, err)
		return string(data)
	}
	input := text(x.about.Input)
	meta := map[string]string{
		"weights_sha256": weights,
		"layers":         text(layers),
		"pool":           x.opt.Pool,
		"normalize":      strconv.FormatBool(x.opt.Normalize),
		"samples":        env.Preprocessing,
		"input":          input,
		"preprocessing":  fingerprint(env.Preprocessing, input),
		"classes":        text(x.about.Classes),
	}
	if env.Classes != nil {
		meta["labels"] = text(env.Classes)
	}
	return featureSchema(x.columns, x.opt.TopK, meta), errors.Join(errs...)
}
