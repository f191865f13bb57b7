package gpu

import (
	"context"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/augment"
	"sluice/net"
	"sluice/pipeline"
	"sluice/sinks"
)

// mirrored makes two pictures of each image: as it is, and its mirror image.
func mirrored(l *pipeline.Line) {
	l.Steps = []pipeline.Step{{Label: "mirrored", Stage: pipeline.SampleFunc(func(_ context.Context, s *pipeline.Sample) error {
		s.SetViews(s.View(), s.View().Mirror())
		return nil
	})}}
	l.Frame.Views, l.Env.Frame.Views = 2, 2
}

// outputs computes a layer of the pictures first to first+n-1 and, after each, of
// its mirror image if asked, one by one and apart from the stages.
func outputs(t *testing.T, weights, layer string, first, n int, mirror bool) (rows [][]float32) {
	t.Helper()
	network, in := partOf(t, weights, layer)
	for i := range n {
		pix, _ := picture(first+i, side)
		both := [][]byte{pix}
		if mirror {
			flipped := augment.NewRGB(side, side)
			var r augment.Renderer
			if err := r.Render(flipped, &augment.RGB{Pix: pix, Stride: 3 * side, W: side, H: side}, augment.NewView(side, side, 1).Mirror()); err != nil {
				t.Fatal(err)
			}
			both = append(both, flipped.Pix)
		}
		for _, p := range both {
			if err := in.Load(net.ImageBatch{N: 1, Pixels: p, Labels: []int32{0}}); err != nil {
				t.Fatal(err)
			}
			if err := network.Forward(t.Context(), in, 0, false); err != nil {
				t.Fatal(err)
			}
			row, err := network.Activation(nil, layer, 1)
			if err != nil {
				t.Fatal(err)
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// evaluateLine runs pictures 500 to 520 through evaluate.
func evaluateLine(t *testing.T, workers, batch int, files []string, edit func(*pipeline.Line)) *box {
	t.Helper()
	stage, err := NewEvaluate(EvaluateOptions{Weights: files, Preprocessing: samePreprocessing, Device: testDevice(), LogEvery: 2})
	if err != nil {
		t.Fatal(err)
	}
	out := &box{}
	l := line(t, t.TempDir(), workers, stage, "evaluate", pipeline.NamedSink{Name: "box", Sink: out})
	l.Source, l.Epochs, l.DropLast, l.Shuffle = pictures{n: 21, first: 500}, 1, false, false
	l.BatchSize, l.Env.BatchSize = batch, batch
	if edit != nil {
		edit(l)
	}
	if err := l.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return out
}

// twoWeights are of two networks that are trained unalike; those of the second have
// their classes in another order.
func twoWeights(t *testing.T) []string {
	t.Helper()
	var files []string
	for i, seed := range []uint64{5, 6} {
		dir := t.TempDir()
		l := line(t, dir, 2, trainStage(t, smallNet+"epochs: 1", nil), "train", weightsSink(t))
		l.Epochs, l.Seed, l.Env.Seed = 1, seed, seed
		if i == 1 {
			reversed := slices.Clone(classes)
			slices.Reverse(reversed)
			l.Source, l.Env.Classes = relabelled{pictures{n: 40}, reversed, func(l int32) int32 { return 2 - l }}, reversed
		}
		if err := l.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		files = append(files, filepath.Join(dir, "weights.safetensors"))
	}
	return files
}

// The predictions of several views, of several networks, and of both are averaged
// before they are scored, and the same at any number of workers and batch size.
func TestEvaluateAveragesPredictions(t *testing.T) {
	files := twoWeights(t)
	for _, tt := range []struct {
		files []string
		views int
	}{{files[:1], 1}, {files[:1], 2}, {files, 1}, {files, 2}} {
		const n = 21
		mean := make([][]float64, n)
		for f, file := range tt.files {
			for i, row := range outputs(t, file, "softmax1", 500, n, tt.views == 2) {
				at := i / tt.views
				if mean[at] == nil {
					mean[at] = make([]float64, 3)
				}
				if f == 1 {
					slices.Reverse(row)
				}
				for c, p := range row {
					mean[at][c] += float64(p) / float64(len(tt.files)*tt.views)
				}
			}
		}
		var loss, top1 float64
		counts := map[[2]int32]int64{}
		for i, p := range mean {
			label := (500 + i) % 3
			loss -= math.Log(p[label]) / n
			best := slices.Index(p, slices.Max(p))
			counts[[2]int32{int32(label), int32(best)}]++
			if best == label {
				top1 += 1. / n
			}
		}
		var first *box
		for _, width := range []struct{ workers, batch int }{{1, 8}, {4, 8}, {2, 20}} {
			out := evaluateLine(t, width.workers, width.batch, tt.files, func(l *pipeline.Line) {
				if tt.views == 2 {
					mirrored(l)
				}
			})
			m := out.of("done")[0]
			if math.Abs(m.Loss-loss) > 1e-5 || math.Abs(m.Top1-top1) > 1e-9 || m.Top5 != 1 {
				t.Errorf("%d files, %d views, %+v: %+v, want loss %g and top-1 %g", len(tt.files), tt.views, width, m, loss, top1)
			}
			for _, o := range out.outcomes {
				if o.Images != counts[[2]int32{o.Label, o.Predicted}] || o.Class != classes[o.Label] || o.PredictedClass != classes[o.Predicted] || o.Top5 != o.Images {
					t.Errorf("outcome %+v, want %d images", o, counts[[2]int32{o.Label, o.Predicted}])
				}
			}
			if first == nil {
				first = out
			} else if f := first.of("done")[0]; width.batch == 8 && (f.Loss != m.Loss || f.Top1 != m.Top1) {
				t.Errorf("%d workers give %+v, one gives %+v", width.workers, m, f)
			}
			if !slices.Equal(out.outcomes, first.outcomes) {
				t.Error("another confusion matrix at another width")
			}
		}
		total := int64(0)
		for _, o := range first.outcomes {
			total += o.Images
		}
		if total != n || len(first.of("progress")) == 0 {
			t.Errorf("the confusion matrix counts %d images, want %d; %d progress metrics", total, n, len(first.of("progress")))
		}
	}
}

func TestEvaluateRefusesUnlikeWeights(t *testing.T) {
	file := someWeights(t)
	dir := t.TempDir()
	l := line(t, dir, 1, trainStage(t, smallNet+"epochs: 1", nil), "train", weightsSink(t))
	more := append(slices.Clone(classes), "stars")
	l.Epochs, l.Env.Classes, l.Source = 1, more, relabelled{pictures{n: 40}, more, func(l int32) int32 { return l }}
	if err := l.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	four := filepath.Join(dir, "weights.safetensors")
	stage, err := NewEvaluate(EvaluateOptions{Weights: Files{file, four}, Preprocessing: samePreprocessing, Device: CPU, LogEvery: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stage.Plan(env(8)); err == nil || !strings.HasSuffix(err.Error(), "cannot be averaged: it has 4 classes, and those before have 3") {
		t.Errorf("error %v", err)
	}
}

// A validation of several views averages them too.
func TestValidationAveragesViews(t *testing.T) {
	dir := t.TempDir()
	out := &box{}
	l := line(t, dir, 2, trainStage(t, smallNet+"epochs: 1", nil), "train", weightsSink(t), pipeline.NamedSink{Name: "box", Sink: out})
	l.Epochs, l.Validation = 1, validation()
	l.Validation.Env = &pipeline.Env{}
	mirrored(l.Validation)
	l.Validation.Env = nil
	if err := l.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := out.of("validation")[0]
	want := evaluateLine(t, 1, 8, []string{filepath.Join(dir, "weights.safetensors")}, mirrored).of("done")[0]
	if got.Loss != want.Loss || got.Top1 != want.Top1 || got.Top1 == 0 {
		t.Errorf("validation gives %+v, evaluate %+v", got, want)
	}
}

// The features of an image are the mean over its views, scaled after that.
func TestExtractAveragesViews(t *testing.T) {
	weights := someWeights(t)
	const n = 21
	layer, soft := outputs(t, weights, "fc2", 500, n, true), outputs(t, weights, "softmax1", 500, n, true)
	var first features
	for _, width := range []struct{ workers, batch int }{{1, 8}, {4, 8}, {2, 12}} {
		x := extractStage(t, weights, func(o *ExtractOptions) { o.Layers, o.Logits, o.TopK, o.Normalize = []string{"fc2"}, true, 3, true })
		got := extracted(t, x, pictures{n: n, first: 500}, width.batch, width.workers, mirrored).table(t)
		if len(got.index) != n || got.index[n-1] != n-1 || got.name[1] != "picture 501" {
			t.Fatalf("%d rows, the last of image %d", len(got.index), got.index[len(got.index)-1])
		}
		for i := range n {
			squares := 0.0
			var mean, p [3]float64
			for c := range 3 {
				mean[c] = (float64(layer[2*i][c]) + float64(layer[2*i+1][c])) / 2
				p[c] = (float64(soft[2*i][c]) + float64(soft[2*i+1][c])) / 2
				squares += mean[c] * mean[c]
			}
			top := got.ints["top_labels"][3*i : 3*i+3]
			for c := range 3 {
				if g := float64(got.floats["logits"][3*i+c]); math.Abs(g-mean[c]) > 1e-4 {
					t.Fatalf("row %d: logit %d is %g, want %g", i, c, g, mean[c])
				}
				if g := float64(got.floats["fc2"][3*i+c]); math.Abs(g-mean[c]/math.Sqrt(squares)) > 1e-5 {
					t.Fatalf("row %d: feature %d is %g, want %g", i, c, g, mean[c]/math.Sqrt(squares))
				}
				if g := float64(got.floats["top_scores"][3*i+c]); math.Abs(g-p[top[c]]) > 1e-5 || c > 0 && p[top[c]] > p[top[c-1]]+1e-6 {
					t.Fatalf("row %d: place %d has class %d of %g, probabilities are %v", i, c, top[c], g, p)
				}
			}
		}
		if first.index == nil {
			first = got
		} else if width.batch == 8 && !slices.Equal(first.floats["fc2"], got.floats["fc2"]) {
			t.Error("other bits at another number of workers")
		}
	}
}

func TestTenCropOfSamples(t *testing.T) {
	const one, ten = "- decode: {}\n- center_crop:\n    size: 16\n", "- decode: {}\n- ten_crop:\n    size: 16\n"
	if got, err := TenCrop(one); err != nil || got != ten {
		t.Errorf("TenCrop gives %q (%v)", got, err)
	}
	if got, err := TenCrop(ten); err != nil || got != ten {
		t.Errorf("TenCrop of ten crops gives %q (%v)", got, err)
	}
	if OneCrop(ten) != OneCrop(one) || OneCrop(one) != one {
		t.Errorf("OneCrop gives %q and %q", OneCrop(ten), OneCrop(one))
	}
	for bad, want := range map[string]string{"- decode\n- flip: {}\n": `end in "flip"`, "": "no sample stages", "{": "the sample stages: yaml"} {
		if _, err := TenCrop(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("TenCrop of %q gives %v", bad, err)
		}
	}
	// Weights that were validated on one crop may be used with ten.
	dir := t.TempDir()
	l := line(t, dir, 1, trainStage(t, smallNet+"epochs: 1", nil), "train", pipeline.NamedSink{Name: "weights", Sink: must(sinks.NewWeights(sinks.WeightsOptions{File: "w.safetensors", Every: 1}))})
	l.Epochs, l.Env.ValidationPreprocessing = 1, one
	if err := l.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	e := env(8)
	e.Preprocessing, e.Frame.Views = ten, 2
	x := extractStage(t, filepath.Join(dir, "w.safetensors"), func(o *ExtractOptions) { o.Logits = true })
	if _, err := x.Plan(e); err != nil {
		t.Error(err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
