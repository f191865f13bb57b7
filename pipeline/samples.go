package pipeline

import "sluice/pipeline/config"

// ParseSamples builds sample stages from a YAML list, as Env.Preprocessing has it
// and weights keep it. name names the text in messages. The frame is that of the
// pictures they make of any image.
func ParseSamples(name, text string) ([]Step, Frame, error) {
	c, err := samplesOf(name, text)
	if err != nil {
		return nil, Frame{}, err
	}
	frame, _ := c.frame(sourceItem{}, c.Samples, "samples")
	return steps(c.Samples), frame, c.d.Err()
}

// ResolveSamples is such a list with every default filled in, those of options that
// did not exist yet when it was written too.
func ResolveSamples(name, text string) (string, error) {
	c, err := samplesOf(name, text)
	if err != nil {
		return "", err
	}
	if err := c.d.Err(); err != nil {
		return "", err
	}
	return marshal(c.Samples)
}

func samplesOf(name, text string) (*checker, error) {
	doc, err := config.Parse(name, []byte("samples:\n"+text))
	if err != nil {
		return nil, err
	}
	d := doc.Decoder()
	var list struct {
		Samples []sampleItem `yaml:"samples"`
	}
	d.Decode(doc.Root, &list)
	return &checker{Spec: &Spec{Samples: list.Samples}, d: d, root: doc.Root}, nil
}
