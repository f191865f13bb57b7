package cmd

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"sluice/gpu"
	"sluice/net"
	"sluice/net/onnx"
	"sluice/net/torch"
)

func newExport() *cobra.Command {
	var format, output string
	var force bool
	c := &cobra.Command{
		Use:   "export WEIGHTS --format onnx|torchvision -o FILE",
		Short: "Turn a file of weights into one that other programs take",
		Long: `Writes weights for other programs:

  onnx         a model of the whole network (opset 17), for onnxruntime and
               others. It takes images as float32 of N x 3 x H x W, RGB levels
               0..255: mean, scale and channel order are its first operators.
               It gives logits and probabilities
  torchvision  safetensors with the names of torchvision.models.alexnet, for
               that network only`,
		Example: `  pipeline export runs/quickstart/weights.safetensors --format onnx -o net.onnx`,
		Args:    exactly("WEIGHTS"),
		RunE: func(c *cobra.Command, args []string) error {
			if output == "" {
				return usagef("say which file to write: -o FILE")
			}
			write, ok := map[string]func(*gpu.Model, string, bool) (string, error){"onnx": exportONNX, "torchvision": exportTorchvision}[format]
			if !ok {
				return usagef("--format must be onnx or torchvision, is %q", format)
			}
			if err := mustBeFile(args[0], wantWeights); err != nil {
				return err
			}
			m, err := gpu.ReadModel(args[0])
			if err != nil {
				return err
			}
			note, err := write(m, output, force)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "wrote %s; %s\n", output, note)
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&format, "format", "", "`FORMAT`: onnx or torchvision")
	f.StringVarP(&output, "output", "o", "", "`FILE` to write")
	f.BoolVar(&force, "force", false, "write over a file that is there")
	return c
}

func exportONNX(m *gpu.Model, output string, force bool) (string, error) {
	plan, err := m.Plan(1)
	if err != nil {
		return "", err
	}
	meta, err := m.Metadata(currentVersions().Sluice)
	if err != nil {
		return "", err
	}
	err = writeOutput(output, force, func(w io.Writer) error {
		return onnx.Write(w, plan, m.Tensors, currentVersions().Sluice, meta)
	})
	return fmt.Sprintf("it takes %q, float32 of N x 3 x %d x %d, RGB levels 0..255", onnx.Images, m.Height, m.Width), err
}

func exportTorchvision(m *gpu.Model, output string, force bool) (string, error) {
	plan, err := m.Plan(1)
	if err != nil {
		return "", err
	}
	state, err := torch.AlexNetState(plan, m.Tensors)
	if err != nil {
		return "", err
	}
	err = writeOutput(output, force, func(w io.Writer) error {
		return net.WriteSafetensors(w, state, map[string]string{"format": "pt"})
	})
	// torchvision's transforms are of values from 0 to 1.
	in := plan.Input
	var mean, std [3]float32
	for c := range mean {
		mean[c], std[c] = in.Mean[c]/255, 1/(255*in.Scale[c])
	}
	return fmt.Sprintf("load it with load_state_dict(safetensors.torch.load_file(...)) and num_classes=%d, and normalise images of 0..1 by mean %.4v and std %.4v", len(m.Classes), mean, std), err
}
