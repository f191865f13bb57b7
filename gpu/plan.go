package gpu

import (
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"

	"sluice/net"
	"sluice/pipeline"
)

// memoryTable asks the engine what a network will take on the device, so that check
// can say it before anything is allocated.
func memoryTable(e net.Engine, p *net.NetPlan, train bool) []pipeline.Memory {
	what := "weights and activations"
	if train {
		what = "weights, momentum, gradients and activations"
	}
	input := net.Spec{Name: "input", Shape: p.Input.Shape(), Kind: net.Map, Halo: p.Input.Halo, To: -1}
	labels := net.Spec{Name: "labels", Shape: net.Shape{N: 1, C: p.Input.N, H: 1, W: 1}, Kind: net.Vector, To: -1}
	inputs := e.Size([]net.Spec{input, labels})
	if s, ok := e.(interface{ InputSize(net.InputSpec) int64 }); ok { // which keeps more of a batch than its images and labels
		inputs = s.InputSize(p.Input)
	}
	return []pipeline.Memory{
		{Name: what + " on " + e.Name(), Bytes: e.Size(p.Specs(train))},
		{Name: "two input batches on " + e.Name(), Bytes: 2 * inputs},
	}
}

// checkWidth holds the network's last layer to the classes.
func checkWidth(p *net.NetPlan, classes []string) error {
	if len(p.Layers) == 0 || len(classes) == 0 {
		return nil
	}
	last := p.Layers[len(p.Layers)-1]
	if width := last.Plan.Out.Image(); width != len(classes) {
		return fmt.Errorf("the network ends in %q with %d outputs, and there are %d classes: leave the width of its last dense layer out, and it becomes %d",
			last.Name, width, len(classes), len(classes))
	}
	return nil
}

// table shows a network as check prints it, sizes and multiply-adds of one image.
func table(p *net.NetPlan, device string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "network on %s, batches of %d\n", device, p.Input.N)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	const line = "%s\t%s\t%s\t%13s\t%16s\n" // numbers to the right
	fmt.Fprintf(w, line, "layer", "type", "output", "parameters", "multiply-adds")
	row := func(name, kind string, out net.Shape, params int, macs int64) {
		fmt.Fprintf(w, line, name, kind, fmt.Sprintf("%dx%dx%d", out.C, out.H, out.W), thousands(int64(params)), thousands(macs))
	}
	row("input", "", p.Input.Shape(), 0, 0)
	for _, l := range p.Layers {
		params := 0
		for _, s := range l.Plan.Params {
			params += s.Shape.Len()
		}
		row(l.Name, l.Type, l.Plan.Out, params, l.Plan.MACs/int64(max(p.Input.N, 1)))
	}
	fmt.Fprintf(w, line, "total", "", "", thousands(int64(p.Params)), thousands(p.MACs))
	_ = w.Flush() // a strings.Builder takes everything
	return b.String()
}

// thousands writes 60965224 as 60,965,224.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
