package gpu

import (
	"strings"

	"go.yaml.in/yaml/v3"

	"sluice/net"
	"sluice/pipeline/config"
)

// Precision is how numbers are held and multiplied. It changes the numbers of a
// run, so one with another cannot be resumed.
type Precision int

// The precisions that there are. One that only some engines have is theirs to
// refuse, where the stage opens them.
const (
	FP32 Precision = iota // 32-bit floats, and products of them
	TF32                  // 32-bit floats; convolutions and dense layers multiply what is rounded to 10 bits after the point
)

var precisions = []string{FP32: "fp32", TF32: "tf32"}

func (p Precision) String() string { return precisions[p] }

// ConfigType says what the YAML takes.
func (Precision) ConfigType() string { return strings.Join(precisions, " or ") }

// UnmarshalConfig reads the name of a precision.
func (p *Precision) UnmarshalConfig(d *config.Decoder, n *yaml.Node) {
	if word, ok := d.Word(n, precisions...); ok {
		for i, name := range precisions {
			if name == word {
				*p = Precision(i)
			}
		}
	}
}

// MarshalYAML gives the name.
func (p Precision) MarshalYAML() (any, error) { return p.String(), nil }

// with has an engine compute in this precision; it closes one that cannot.
func (p Precision) with(e net.Engine) error {
	if p == FP32 {
		return nil
	}
	if t, ok := e.(interface{ UseTF32() }); ok {
		t.UseTF32()
		return nil
	}
	err := config.Fieldf("precision", "tf32 is of CUDA cards, and this is %s: set precision: fp32, or device: cuda on a machine with a card", e.Name())
	_ = e.Close() // of no card, and nothing ran
	return err
}
