package gpu

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"go.yaml.in/yaml/v3"

	"sluice/pipeline"
)

// fingerprint is what features need to have in common to be compared, beside the
// weights: what becomes of an image before the first layer.
func fingerprint(samples, input string) string {
	sum := sha256.Sum256([]byte(samples + "\n" + input))
	return hex.EncodeToString(sum[:])
}

// Names of the sample stages that give one picture of an image, and ten around it.
const (
	oneCrop  = "center_crop"
	tenCrops = "ten_crop"
)

// TenCrop is sample stages, a YAML list as weights keep it, with ten_crop in the
// place of the center_crop at their end. They must end in one or the other.
func TenCrop(samples string) (string, error) {
	text, last, err := renameLast(samples, oneCrop, tenCrops)
	if err == nil && last != oneCrop && last != tenCrops {
		err = fmt.Errorf("the sample stages end in %q; ten crops take the place of a %s at their end", last, oneCrop)
	}
	return text, err
}

// OneCrop is the same the other way round. Any other samples it gives back with all
// defaults and in one form, so that two that mean the same are equal; what is no
// list of known stages, as it is.
func OneCrop(samples string) string {
	if text, err := pipeline.ResolveSamples("", samples); err == nil {
		samples = text
	}
	if text, _, err := renameLast(samples, tenCrops, oneCrop); err == nil {
		return text
	}
	return samples
}

// renameLast gives the last stage the name to, if it is from, and says what it was.
func renameLast(samples, from, to string) (text, last string, err error) {
	var stages []yaml.Node
	if err := yaml.Unmarshal([]byte(samples), &stages); err != nil {
		return "", "", fmt.Errorf("the sample stages: %w", err)
	}
	if len(stages) == 0 {
		return "", "", errors.New("there are no sample stages")
	}
	name := &stages[len(stages)-1]
	if name.Kind == yaml.MappingNode && len(name.Content) > 0 {
		name = name.Content[0]
	}
	if last = name.Value; last == from {
		name.Value = to
	}
	out, err := yaml.Marshal(stages)
	return string(out), last, err
}
