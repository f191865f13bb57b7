package pipeline

import "sluice/pipeline/config"

// ParseSamples builds sample stages from a YAML list, as Env.Preprocessing has it
// and weights keep it. name names the text in messages. The frame is that of the
// pictures they make of any image.
func ParseSamples(name, text string) ([]Step, Frame, error) {
	doc, err := config.Parse(name, []byte("samples:\n"+text))
	if err != nil {
		return nil, Frame{}, err
	}
	var s Spec
	d := doc.Decoder()
	var list struct {
		Samples []sampleItem `yaml:"samples"`
	}
	d.Decode(doc.Root, &list)
	s.Samples = list.Samples
	c := checker{Spec: &s, d: d, root: doc.Root}
	frame, _ := c.frame(s.Samples, "samples")
	return steps(s.Samples), frame, d.Err()
}
