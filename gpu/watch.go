package gpu

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"sluice/net"
	"sluice/pipeline"
	"sluice/pipeline/config"
)

// Watch are the options of looking after a run that trains. What it says is a
// "warning" among the metrics, once of a kind in a run.
type Watch struct {
	Every        int     `yaml:"every" doc:"steps between looks at every layer: the size of its updates against its weights, its gradient, its dead units; 0: never"`
	FlatSteps    int     `yaml:"flat_steps" doc:"steps with a loss of ln(classes), that of guessing, after which the run counts as lost; 0: never"`
	ChanceEpochs int     `yaml:"chance_epochs" doc:"epochs after which the accuracy must be better than that of guessing; 0: never"`
	Dead         float64 `yaml:"dead" doc:"fraction of a layer's ReLUs that are 0 for every image of a batch from which on that is worth a warning; 0: never"`
	// Lost is "warn" or "stop".
	Lost string `yaml:"lost" doc:"what becomes of a run that learns nothing: warn, or stop to end it with an error. One whose numbers are no longer finite is always stopped"`
}

// DefaultWatch warns early of runs that are probably lost, and ends none that may
// recover.
func DefaultWatch() Watch {
	return Watch{Every: 100, FlatSteps: 2000, ChanceEpochs: 1, Dead: 0.9, Lost: warnLost}
}

// Values of Watch.Lost.
const (
	warnLost = "warn"
	stopLost = "stop"
)

func (w Watch) check() error {
	var errs []error
	for name, v := range map[string]int{"watch.every": w.Every, "watch.flat_steps": w.FlatSteps, "watch.chance_epochs": w.ChanceEpochs} {
		if v < 0 {
			errs = append(errs, config.Fieldf(name, "must be at least 0, is %d", v))
		}
	}
	if !(w.Dead >= 0 && w.Dead <= 1) {
		errs = append(errs, config.Fieldf("watch.dead", "must be from 0 to 1, is %g", w.Dead))
	}
	if w.Lost != warnLost && w.Lost != stopLost {
		errs = append(errs, config.Fieldf("watch.lost", "must be warn or stop, is %q", w.Lost))
	}
	return errors.Join(errs...)
}

const (
	// flatParts is into how many parts Watch.FlatSteps is cut: the mean loss of each
	// must be that of guessing, so that a run that has just begun to learn is not lost.
	flatParts = 4
	// flatWithin is how near to ln(classes) is flat: 6.84 to 6.98 with 1000 classes.
	flatWithin = 0.01
	// chanceSteps is how many steps a run is given at least to become better than
	// guessing, however short its epochs are, and chanceHits how many images must have
	// been guessed right by chance for their number to say anything.
	chanceSteps = 100
	chanceHits  = 5
)

// watched is what has been seen of a run. It is part of its checkpoints, so that a
// run that is resumed says what one says that ran through.
type watched struct {
	Part net.Stats         `json:"part"` // of the steps since the last whole part of flat ones
	Took int               `json:"took"` // these steps
	Flat int               `json:"flat"` // parts in a row
	Told map[string]bool   `json:"told"` // what was warned of
	Due  []pipeline.Metric `json:"due"`  // to be said
	Lost string            `json:"lost"` // why the run is lost; empty if it is not
}

func (w watched) clone() watched {
	w.Told, w.Due = maps.Clone(w.Told), slices.Clone(w.Due)
	return w
}

// warn notes a text to be said, unless one of its kind was.
func (w *watched) warn(kind, text string) {
	if w.Told[kind] {
		return
	}
	if w.Told == nil {
		w.Told = map[string]bool{}
	}
	w.Told[kind] = true
	w.Due = append(w.Due, pipeline.Metric{Event: "warning", Text: text})
}

// learn is told of every step.
func (w *watched) learn(s net.Stats, o Watch, classes int) {
	if o.FlatSteps == 0 || s.Rows == 0 {
		return
	}
	w.Part = sum(w.Part, s)
	w.Took++
	if w.Took < max(1, o.FlatSteps/flatParts) {
		return
	}
	mean, guess := w.Part.Loss/float64(w.Part.Rows), math.Log(float64(classes))
	w.Part, w.Took = net.Stats{}, 0
	if math.Abs(mean-guess) > flatWithin*guess {
		w.Flat = 0
		return
	}
	if w.Flat++; w.Flat < min(flatParts, o.FlatSteps) {
		return
	}
	text := fmt.Sprintf("the loss has stayed at %.3f = ln(%d), that of guessing, for %d steps: the network learns nothing. "+
		"Often the learning rate is too high or too low (try a tenth, and three times as much, with some solver.warmup), or the initial weights or biases do not suit the pixels "+
		"(try bias: 0.1 in alexnet, and a look at input.scale), or the labels are wrong", mean, classes, o.FlatSteps)
	w.warn("flat", text)
	if o.Lost == stopLost {
		w.Lost = text
	}
}

// judge is told how an epoch went: the error over rows images, after so many steps.
func (w *watched) judge(err float64, rows, steps, epoch int, o Watch, classes int) {
	chance, n := 1/float64(classes), float64(rows)
	if o.ChanceEpochs == 0 || epoch+1 < o.ChanceEpochs || steps < chanceSteps || n*chance < chanceHits {
		return
	}
	// Two standard deviations: of networks that guess, 2 in 100 are better.
	if top1 := 1 - err; top1 <= chance+2*math.Sqrt(chance*(1-chance)/n) {
		text := fmt.Sprintf("after epoch %d the top-1 accuracy is %.2f %% over %d images, no better than guessing among %d classes (%.2f %%): "+
			"if the loss has not fallen either, try another solver.lr or initialisation; if it has, look whether the labels and the sample stages of the images that were measured are those of training",
			epoch+1, 100*top1, rows, classes, 100*chance)
		w.warn("chance", text)
		if o.Lost == stopLost {
			w.Lost = text
		}
	}
}

// look notes how every layer fares after the update that was made just now.
func (t *Train) look() error {
	layers, err := t.net.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		known := func(v float64) float64 {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return 0
			}
			return v
		}
		t.watched.Due = append(t.watched.Due, pipeline.Metric{
			Event: "layer", Layer: l.Layer, GradNorm: known(l.Gradient), Update: known(l.Update), Dead: known(l.Dead),
		})
		if most := t.opt.Watch.Dead; most > 0 && l.Dead >= most {
			t.watched.warn("dead "+l.Layer, fmt.Sprintf("%.0f %% of the units of %s are dead: their ReLU gave 0 for every image of the batch, so they learn nothing any more. "+
				"Often one step was far too large: try a lower solver.lr, solver.warmup or solver.clip_norm, or a greater initial bias for this layer", 100*l.Dead, l.Layer))
		}
	}
	return nil
}

// say emits what was seen, and ends a run that is lost if that is wanted.
func (t *Train) say(epoch int, emit pipeline.Emit) error {
	for len(t.watched.Due) > 0 {
		row := t.watched.Due[0]
		t.watched.Due = t.watched.Due[1:]
		if row.Event == "warning" && t.env.Warn != nil {
			t.env.Warn(fmt.Sprintf("epoch %d, step %d: %s", epoch+1, t.done, row.Text))
		}
		if err := t.emit(emit, epoch, row); err != nil {
			return err
		}
	}
	if t.watched.Lost != "" {
		return fmt.Errorf("epoch %d, step %d: the run is lost (watch.lost is %s): %s", epoch+1, t.done, t.opt.Watch.Lost, t.watched.Lost)
	}
	return nil
}

// lost ends a run whose numbers are not finite, before its weights are touched.
func (t *Train) lost(ctx context.Context, p *loaded, what string, emit pipeline.Emit) error {
	var text strings.Builder
	fmt.Fprintf(&text, "%s, so training has diverged: try a lower solver.lr (it is %g now), solver.warmup or solver.clip_norm", what, t.lr)
	if s := t.plan.Input.Scale; max(s[0], s[1], s[2]) == 1 {
		text.WriteString(", or an input.scale of about 1/58 if the initial weights are not as small as the paper's")
	}
	fmt.Fprintf(&text, "; the weights are still those after step %d", t.mark.Step)
	if t.saved.Step > 0 {
		fmt.Fprintf(&text, ", and the last checkpoint is of step %d", t.saved.Step)
	}
	images := "the batch's images are"
	if t.pending > 1 {
		images = fmt.Sprintf("the images of its last %d batches are", t.pending)
	}
	fmt.Fprintf(&text, "; %s %s", images, few(t.names))
	err := t.emit(emit, p.epoch, pipeline.Metric{Event: "lost", Text: text.String()})
	return errors.Join(at(ctx, p, errors.New(text.String())), err)
}

// crosses reports whether a multiple of every lies after from and not after to; every
// 0 has none.
func crosses(from, to, every int) bool { return every > 0 && to/every > from/every }
