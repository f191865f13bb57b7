package stages

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"sluice/augment"
	"sluice/pipeline"
	"sluice/pipeline/config"
)

func init() {
	pipeline.RegisterSampleStage("pca_jitter",
		"Shift the colour of the whole image along the principal components of the data's RGB values by random amounts, drawn once an image and epoch (section 4.1 of the AlexNet paper). "+
			"The shift travels beside the pixels and the device adds it, so a stage after this one sees pixels without it.",
		PCAJitterOptions{Sigma: 0.1, Scale: "eigenvalue", PCA: imageNet},
		func(o PCAJitterOptions) (pipeline.SampleStage, error) { return NewPCAJitter(o) })
}

// imageNet is the value of pca for the components of ImageNet.
const imageNet = "imagenet"

// PCAJitterOptions are the options of the pca_jitter stage.
type PCAJitterOptions struct {
	Sigma float64 `yaml:"sigma" doc:"standard deviation of the random factor of each component"`
	Scale string  `yaml:"scale" doc:"what the factor multiplies: eigenvalue, as in the paper with pixels on 0..1 (ImageNet: about 5 levels of 255), or sqrt of it, as in the authors' cuda-convnet2 (about 12; its division of the picture by 1.1 is input.scale of the network)"`
	PCA   string  `yaml:"pca" doc:"the components: imagenet, auto for those of the training images (computed before the run, and kept), or a file that the stats command wrote"`
}

// PCAJitter is the sample stage of that name. It adds to the sample's Shift and touches no pixel.
type PCAJitter struct {
	opt   PCAJitterOptions
	shift func(alpha [3]float64) [3]float32 // nil until the components are known
}

// NewPCAJitter makes the stage. With other components than ImageNet's it needs
// SetStatistics.
func NewPCAJitter(o PCAJitterOptions) (*PCAJitter, error) {
	var errs []error
	if !(o.Sigma >= 0) || math.IsInf(o.Sigma, 0) {
		errs = append(errs, config.Fieldf("sigma", "must be 0 or more, is %g", o.Sigma))
	}
	if o.Scale != "eigenvalue" && o.Scale != "sqrt" {
		errs = append(errs, config.Fieldf("scale", "must be eigenvalue or sqrt, is %q", o.Scale))
	}
	if o.PCA != imageNet && o.PCA != pipeline.FromSource && !strings.HasSuffix(o.PCA, ".safetensors") {
		errs = append(errs, config.Fieldf("pca", "must be imagenet, auto or a .safetensors file, is %q", o.PCA))
	}
	j := &PCAJitter{opt: o}
	if o.PCA == imageNet {
		j.use(augment.ImageNet())
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return j, nil
}

func (j *PCAJitter) use(pca augment.PCA) {
	j.shift = pca.Shift
	if j.opt.Scale == "sqrt" {
		j.shift = pca.ShiftBySqrt
	}
}

// Random implements pipeline.RandomStage.
func (j *PCAJitter) Random() bool { return true }

// Statistics says where the components come from. It implements
// pipeline.StatisticsUser.
func (j *PCAJitter) Statistics() string {
	if j.opt.PCA == imageNet {
		return ""
	}
	return j.opt.PCA
}

// SetStatistics gives the components.
func (j *PCAJitter) SetStatistics(s *pipeline.Statistics) error {
	for i, v := range s.PCA.Values {
		if !(v >= 0) || math.IsInf(v, 0) {
			return config.Fieldf("pca", "has the eigenvalue %g, and those of a covariance are 0 or more", v)
		}
		for c := range 3 {
			if e := s.PCA.Vectors[c][i]; !(math.Abs(e) <= 1) {
				return config.Fieldf("pca", "has an eigenvector with the element %g, and those of length 1 have none", e)
			}
		}
	}
	j.use(s.PCA)
	return nil
}

// Process draws the shift of s.
func (j *PCAJitter) Process(_ context.Context, s *pipeline.Sample) error {
	if j.shift == nil {
		return fmt.Errorf("the principal components (pca: %s) were not given", j.opt.PCA)
	}
	rng := s.Rand()
	var alpha [3]float64
	for i := range alpha {
		alpha[i] = j.opt.Sigma * rng.NormFloat64()
	}
	for c, v := range j.shift(alpha) {
		s.Shift[c] += v
	}
	return nil
}
