package gpu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"sluice/net"
	"sluice/pipeline"
	"sluice/pipeline/config"
)

// about is what weights say about themselves: enough to run the network again,
// and where they come from. It is the metadata of a Weights batch, and of the
// safetensors file made of it:
//
//	net             the network, as in a YAML
//	classes         JSON list of the classes' names, in the order of the outputs
//	input           JSON: height and width of an image, and how it becomes the first activation
//	samples         YAML: the sample stages that make such an image of a picture, as in validation (without one, as in training, what is random left out)
//	preprocessing   SHA-256 of samples and input, hex: equal for weights that see images alike
//	epoch, step     after which they were taken (steps of the whole run)
//	seed, version   of the run, and of the program
//	validation_top1 accuracy over the validation after that epoch, if there was one
type about struct {
	Net         net.Def
	Classes     []string
	Input       inputAbout
	Samples     string
	Epoch, Step int
	Seed        uint64
	Version     string
	Top1        *float64
}

// inputAbout says how an image becomes the network's input:
// (pixel - mean + PCA shift) * scale, and zeros around it.
type inputAbout struct {
	Height   int        `json:"height"`
	Width    int        `json:"width"`
	Channels string     `json:"channels"` // "rgb" or "bgr", the order in the network; mean and scale are RGB
	Mean     [3]float32 `json:"mean"`     // of levels 0..255; of the mean image, if there is one
	Scale    [3]float32 `json:"scale"`
	Padding  [4]int     `json:"padding"` // top, bottom, left, right
	// MeanImage is what is subtracted instead of Mean: the tensor net.InputMeanName.
	MeanImage *meanAbout `json:"mean_image,omitempty"`
}

func aboutInput(s net.InputSpec) inputAbout {
	channels := "rgb"
	if s.BGR {
		channels = "bgr"
	}
	return inputAbout{Height: s.H, Width: s.W, Channels: channels, Mean: s.Mean, Scale: s.Scale,
		Padding: [4]int{s.Top, s.Bottom, s.Left, s.Right}, MeanImage: aboutMean(s.MeanImage)}
}

func (a about) metadata() (map[string]string, error) {
	def, err1 := yaml.Marshal(a.Net)
	classes, err2 := json.Marshal(a.Classes)
	input, err3 := json.Marshal(a.Input)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	meta := map[string]string{
		"net":     string(def),
		"classes": string(classes),
		"input":   string(input),
		"epoch":   strconv.Itoa(a.Epoch),
		"step":    strconv.Itoa(a.Step),
		"seed":    strconv.FormatUint(a.Seed, 10),
		"version": a.Version,
	}
	meta["preprocessing"] = fingerprint(a.Samples, meta["input"])
	if a.Samples != "" {
		meta["samples"] = a.Samples
	}
	if a.Top1 != nil {
		meta["validation_top1"] = strconv.FormatFloat(*a.Top1, 'g', -1, 64)
	}
	return meta, nil
}

// parseAbout reads what metadata wrote. file is for messages. Only what it takes
// to run the network must be there.
func parseAbout(file string, meta map[string]string) (a about, err error) {
	for _, key := range []string{"net", "classes", "input"} {
		if meta[key] == "" {
			return a, fmt.Errorf("%s does not say its %q, so it is not known what network its weights belong to: use a file that a training run wrote", file, key)
		}
	}
	doc, err := config.Parse(file, []byte(meta["net"]))
	if err == nil {
		err = doc.Decode(&a.Net)
	}
	if err != nil {
		return a, fmt.Errorf("%s: the network in its metadata: %w", file, err)
	}
	var errs []error
	structured := func(key string, v any) {
		if err := json.Unmarshal([]byte(meta[key]), v); err != nil {
			errs = append(errs, fmt.Errorf("%s: %q in its metadata: %w", file, key, err))
		}
	}
	structured("classes", &a.Classes)
	structured("input", &a.Input)
	a.Samples = meta["samples"]
	for key, v := range map[string]*int{"epoch": &a.Epoch, "step": &a.Step} {
		if meta[key] != "" {
			structured(key, v)
		}
	}
	if len(errs) == 0 && len(a.Classes) == 0 {
		errs = append(errs, fmt.Errorf("%s names no classes in its metadata", file))
	}
	return a, errors.Join(errs...)
}

// readAbout reads only what the file says about itself.
func readAbout(file string) (about, error) {
	f, err := os.Open(file)
	if err != nil {
		return about{}, config.Fieldf("weights", "cannot be read: %w", err)
	}
	defer f.Close()
	meta, err := net.ReadSafetensorsMetadata(f)
	if err != nil {
		return about{}, fmt.Errorf("%s: %w", file, err)
	}
	return parseAbout(file, meta)
}

// take copies the network's parameters for the sinks, once those made before have
// been written. Weights that are not numbers are an error, so that they never
// replace a good file.
func (t *Train) take(ctx context.Context, epoch int) error {
	t.engine.Begin(ctx) // that of a validation before has ended
	tensors, err := t.snapshot.Take(ctx)
	if err != nil {
		return err
	}
	for _, w := range tensors {
		for _, v := range w.Data {
			if v-v != 0 { // true of NaN and of the infinities only
				return fmt.Errorf("epoch %d, step %d: %s has become %g, so training has diverged: try a lower solver.lr (it is %g now); the weights of earlier epochs are as they were",
					epoch+1, t.done, w.Name, v, t.lr)
			}
		}
	}
	return nil
}

func (t *Train) about(epoch int, accuracy *float64) about {
	return about{
		Net: t.opt.Net, Classes: t.env.Classes, Input: aboutInput(t.plan.Input), Samples: t.env.ValidationPreprocessing,
		Epoch: epoch, Step: t.done, Seed: t.env.Seed, Version: t.env.Version, Top1: accuracy,
	}
}

// weights is the batch of the weights after an epoch. Its metadata has "last" if
// the run ends with it, which may be before the last of its epochs.
func (t *Train) weights(ctx context.Context, epoch int, last bool, accuracy *float64) (*pipeline.Batch, error) {
	if err := t.take(ctx, epoch); err != nil {
		return nil, err
	}
	meta, err := t.about(epoch, accuracy).metadata()
	if err != nil {
		return nil, err
	}
	if last {
		meta["last"] = "true"
	}
	return &pipeline.Batch{Kind: pipeline.Weights, Epoch: epoch, Step: t.done, Record: t.snapshot.Weights(meta)}, nil
}

// Values of the option preprocessing.
const (
	samePreprocessing = "same"
	anyPreprocessing  = "any"
)

func checkPreprocessing(option string) error {
	if option != samePreprocessing && option != anyPreprocessing {
		return config.Fieldf("preprocessing", "must be same or any, is %q", option)
	}
	return nil
}

// checkImages holds a line's images to those that the weights of a file were
// validated on: their size always, and how they are made unless any will do.
func (a about) checkImages(env *pipeline.Env, file, preprocessing string) error {
	if env.Frame.W != a.Input.Width || env.Frame.H != a.Input.Height {
		return fmt.Errorf("the images are %dx%d (width x height), and %s was trained on %dx%d: use the sample stages of its validation",
			env.Frame.W, env.Frame.H, file, a.Input.Width, a.Input.Height)
	}
	if m := a.Input.MeanImage; m != nil {
		if err := checkCanvas(env.Frame, "", "the mean image in "+file, m.Width, m.Height); err != nil {
			return err
		}
	}
	// Go code that makes a line without a YAML says nothing.
	if preprocessing == anyPreprocessing || a.Samples == "" || env.Preprocessing == "" || OneCrop(a.Samples) == OneCrop(env.Preprocessing) {
		return nil
	}
	return fmt.Errorf("the images are made by other sample stages than those %s was validated with: use samples: %s (here they are %s), or set preprocessing: any",
		file, inOneLine(a.Samples), inOneLine(env.Preprocessing))
}

// inOneLine writes a YAML without line breaks.
func inOneLine(text string) string {
	var n yaml.Node
	if err := yaml.Unmarshal([]byte(text), &n); err != nil || len(n.Content) == 0 {
		return strings.Join(strings.Fields(text), " ")
	}
	n.Content[0].Style = yaml.FlowStyle // and so is all in it
	out, err := yaml.Marshal(n.Content[0])
	if err != nil {
		return strings.Join(strings.Fields(text), " ")
	}
	return strings.Join(strings.Fields(string(out)), " ")
}

// few lists names, and how many more there are.
func few(names []string) string {
	if len(names) > 8 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:8], ", "), len(names)-8)
	}
	return strings.Join(names, ", ")
}

// readWeights reads a whole file.
func readWeights(file string) ([]net.NamedTensor, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, config.Fieldf("weights", "cannot be read: %w", err)
	}
	defer f.Close()
	tensors, _, err := net.ReadSafetensors(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return tensors, nil
}
