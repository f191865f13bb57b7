package cmd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"sluice/gpu"
	"sluice/net"
	"sluice/net/caffe"
	"sluice/net/torch"
	"sluice/pipeline"
	"sluice/pipeline/config"
)

const torchvisionNet = "alexnet_torchvision"

func newImport() *cobra.Command {
	var output, network, mean, classes string
	var force bool
	c := &cobra.Command{
		Use:   "import FILE -o WEIGHTS",
		Short: "Turn weights of PyTorch or Caffe into a file of weights",
		Long: `Reads weights that another program has trained and writes them as a training run
does, with the network and the preprocessing that they need, for evaluate,
predict, extract and init_from.

  .pth, .pt, .safetensors  a state dict: torchvision's AlexNet, or with --net
                           FILE.yaml any network whose layers carry the
                           tensors' names ("/" and "." become "_")
  .caffemodel              Caffe, as bvlc_alexnet: the file says what the
                           network is; --mean names the mean image, without it
                           ImageNet's mean is taken

FILE.yaml has the network (net:) and the sample stages that make its images
(samples:), see examples/squeezenet.`,
		Example: `  pipeline import alexnet.pth -o alexnet.safetensors
  pipeline import squeezenet.pth --net net.yaml -o squeezenet.safetensors
  pipeline import bvlc_alexnet.caffemodel -o caffe.safetensors`,
		Args: exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			if output == "" {
				return usagef("say which file to write: -o WEIGHTS.safetensors")
			}
			if err := mustBeFile(args[0], "name the file to import: .pth, .pt, .safetensors or .caffemodel"); err != nil {
				return err
			}
			in := importer{file: args[0], net: network, mean: mean}
			m, err := in.read(c.Flags().Changed("net"))
			if err != nil {
				return err
			}
			if err := in.finish(m, classes); err != nil {
				return err
			}
			if err := writeOutput(output, force, func(w io.Writer) error { return m.Write(w, currentVersions().Sluice) }); err != nil {
				return err
			}
			return in.tell(c.OutOrStdout(), m, output)
		},
	}
	f := c.Flags()
	f.StringVarP(&output, "output", "o", "", "`FILE` of weights to write")
	f.StringVar(&network, "net", torchvisionNet, "what the tensors of a state dict belong to: alexnet_torchvision, or a YAML `FILE`")
	f.StringVar(&mean, "mean", "", "`FILE` with the mean image that Caffe's training subtracted (.binaryproto)")
	f.StringVar(&classes, "classes", "", "`FILE` with the name of a class a line, in the order of the outputs; without it they are numbered")
	f.BoolVar(&force, "force", false, "write over a file that is there")
	return c
}

// importer reads a file of another program.
type importer struct {
	file, net, mean string
	notes           []string // what the user should know
}

func (in *importer) read(netGiven bool) (*gpu.Model, error) {
	if filepath.Ext(in.file) == ".caffemodel" {
		if netGiven {
			return nil, usagef("--net is for state dicts: %s says itself what its network is", in.file)
		}
		return in.readCaffe()
	}
	if in.mean != "" {
		return nil, usagef("--mean is for a .caffemodel")
	}
	state, err := torch.ReadState(in.file)
	if err != nil {
		return nil, err
	}
	if in.net == torchvisionNet {
		g, tensors, err := torch.AlexNet(state)
		if err != nil {
			return nil, fmt.Errorf("%s is not torchvision's AlexNet; --net FILE.yaml says what else it is:\n%w", in.file, err)
		}
		return in.model(g.Def(), tensors, "- decode\n- resize: {shorter: 256}\n- center_crop: {size: 224}\n")
	}
	if ext := filepath.Ext(in.net); ext != ".yaml" && ext != ".yml" {
		return nil, usagef("--net must be %s or a YAML file, is %q", torchvisionNet, in.net)
	}
	return in.named(state)
}

func (in *importer) readCaffe() (*gpu.Model, error) {
	m, err := caffe.Read(in.file)
	if err != nil {
		return nil, err
	}
	if m.Side == 0 {
		return nil, fmt.Errorf("%s does not say how large its images are: it has neither a data layer with crop_size nor an input with its shape", in.file)
	}
	switch {
	case in.mean != "":
		if m.Graph.Input.Mean.RGB, err = caffe.ReadMean(in.mean); err != nil {
			return nil, err
		}
		in.notes = append(in.notes, fmt.Sprintf("subtracted is the mean a channel of %s, as Caffe's classify.py does", in.mean))
	case m.MeanFile != "":
		in.notes = append(in.notes, fmt.Sprintf("it was trained with the mean image %s; name it with --mean, or the mean of ImageNet's is taken, as here", m.MeanFile))
	}
	side := max(256, m.Side)
	// Caffe squashes.
	samples := fmt.Sprintf("- decode\n- resize: {size: [%d, %d]}\n- center_crop: {size: %d}\n", side, side, m.Side)
	return in.model(m.Graph.Def(), m.Tensors, samples)
}

// named reads a state dict into the network of a YAML, by the names of its layers.
func (in *importer) named(state []net.NamedTensor) (*gpu.Model, error) {
	data, err := os.ReadFile(in.net)
	if err != nil {
		return nil, err
	}
	doc, err := config.Parse(in.net, data)
	if err != nil {
		return nil, &exitError{exitUsage, err}
	}
	var file struct {
		Net     net.Def    `yaml:"net" config:"required" doc:"the network"`
		Samples sampleList `yaml:"samples" config:"required" doc:"the sample stages that make its images"`
	}
	if err := doc.Decode(&file); err != nil {
		return nil, &exitError{exitUsage, err}
	}
	file.Samples.node.Style = 0 // a line each, as pipeline reads them
	samples, err := yaml.Marshal(file.Samples.node)
	if err != nil {
		return nil, err
	}
	for i, t := range state {
		layer, parameter := t.Name, ""
		if at := strings.LastIndex(t.Name, "."); at >= 0 {
			layer, parameter = t.Name[:at], t.Name[at:]
		}
		state[i].Name = strings.NewReplacer("/", "_", ".", "_").Replace(layer) + parameter
	}
	return in.model(file.Net, state, string(samples))
}

// sampleList is sample stages as they stand in a YAML; model understands them.
type sampleList struct{ node *yaml.Node }

func (s *sampleList) UnmarshalConfig(_ *config.Decoder, n *yaml.Node) { s.node = n }

// ConfigType says what the YAML takes.
func (sampleList) ConfigType() string { return "list of sample stages" }

// model puts together what was read. samples is sample stages as YAML.
func (in *importer) model(def net.Def, tensors []net.NamedTensor, samples string) (*gpu.Model, error) {
	resolved, err := pipeline.ResolveSamples("samples", samples)
	if err != nil {
		return nil, &exitError{exitUsage, err}
	}
	_, frame, err := pipeline.ParseSamples("samples", samples)
	if err != nil {
		return nil, &exitError{exitUsage, err}
	}
	return &gpu.Model{Net: def, Height: frame.H, Width: frame.W, Samples: resolved, Tensors: tensors}, nil
}

// finish names the classes, and holds the weights to the network.
func (in *importer) finish(m *gpu.Model, classes string) (err error) {
	if classes != "" {
		if m.Classes, err = readLines(classes); err != nil {
			return err
		}
	}
	plan, err := m.Net.Plan(1, m.Height, m.Width, len(m.Classes))
	if _, ok := errors.AsType[config.Errors](err); ok {
		return &exitError{exitUsage, err}
	}
	if err != nil {
		return fmt.Errorf("the network of %s: %w", in.file, err)
	}
	count := plan.Layers[len(plan.Layers)-1].Plan.Out.C
	switch {
	case classes == "":
		for i := range count {
			m.Classes = append(m.Classes, strconv.Itoa(i))
		}
		in.notes = append(in.notes, fmt.Sprintf("its %d classes are numbered; --classes FILE names them", count))
	case len(m.Classes) != count:
		return usagef("%s names %d classes, and the network has %d", classes, len(m.Classes), count)
	}
	if _, err := m.Plan(1); err != nil {
		return fmt.Errorf("%s: %w", in.file, err)
	}
	return nil
}

// readLines reads names, one a line, each once.
func readLines(file string) ([]string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var names []string
	for i, name := range strings.Split(strings.TrimRight(string(data), "\r\n"), "\n") {
		name = strings.TrimSpace(name)
		switch {
		case name == "":
			return nil, fmt.Errorf("%s: line %d is empty", file, i+1)
		case slices.Contains(names, name):
			return nil, fmt.Errorf("%s: line %d is %q once more", file, i+1, name)
		}
		names = append(names, name)
	}
	return names, nil
}

func (in *importer) tell(out io.Writer, m *gpu.Model, output string) error {
	numbers := 0
	for _, t := range m.Tensors {
		numbers += len(t.Data)
	}
	w := &errWriter{w: out}
	fmt.Fprintf(w, "read %d tensors of %d numbers in all from %s\n", len(m.Tensors), numbers, in.file)
	for _, note := range in.notes {
		fmt.Fprintln(w, note)
	}
	fmt.Fprintf(w, "wrote %s, for images of %d x %d; %s inspect %[1]s tells how they are made\n", output, m.Width, m.Height, invocation())
	return w.err
}

// writeOutput gives a file, whole or not at all, what write writes. One that is
// there is written over only by force.
func writeOutput(path string, force bool, write func(io.Writer) error) error {
	if _, err := os.Stat(path); err == nil && !force {
		return usagef("%s is there already; --force writes over it, -o FILE writes to another file", path)
	}
	return writePicture(path, write)
}
