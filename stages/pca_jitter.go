package stages

import (
	"context"
	"errors"
	"math"

	"sluice/augment"
	"sluice/pipeline"
	"sluice/pipeline/config"
)

func init() {
	imageNet := augment.ImageNet()
	pipeline.RegisterSampleStage("pca_jitter",
		"Shift the colour of the whole image along the principal components of the data's RGB values by random amounts, drawn once an image and epoch (section 4.1 of the AlexNet paper). "+
			"The shift travels beside the pixels and the device adds it, so a stage after this one sees pixels without it.",
		PCAJitterOptions{Sigma: 0.1, Scale: "eigenvalue", Eigenvalues: imageNet.Values, Eigenvectors: imageNet.Vectors},
		func(o PCAJitterOptions) (pipeline.SampleStage, error) { return NewPCAJitter(o) })
}

// PCAJitterOptions are the options of the pca_jitter stage.
type PCAJitterOptions struct {
	Sigma        float64       `yaml:"sigma" doc:"standard deviation of the random factor of each component"`
	Scale        string        `yaml:"scale" doc:"what the factor multiplies: eigenvalue, as in the paper with pixels on 0..1 (ImageNet: about 5 levels of 255), or sqrt of it, as in the authors' cuda-convnet2 (about 12; its division of the picture by 1.1 is not made)"`
	Eigenvalues  [3]float64    `yaml:"eigenvalues" doc:"of the covariance of RGB on 0..1; the default is ImageNet's"`
	Eigenvectors [3][3]float64 `yaml:"eigenvectors" doc:"rows R, G, B; column i belongs to eigenvalue i; the default is ImageNet's"`
}

// PCAJitter is the sample stage of that name. It adds to the sample's Shift and touches no pixel.
type PCAJitter struct {
	sigma float64
	shift func(alpha [3]float64) [3]float32
}

// NewPCAJitter makes the stage.
func NewPCAJitter(o PCAJitterOptions) (*PCAJitter, error) {
	var errs []error
	if !(o.Sigma >= 0) || math.IsInf(o.Sigma, 0) {
		errs = append(errs, config.Fieldf("sigma", "must be 0 or more, is %g", o.Sigma))
	}
	for i, v := range o.Eigenvalues {
		if !(v >= 0) || math.IsInf(v, 0) {
			errs = append(errs, config.Fieldf("eigenvalues", "of a covariance are 0 or more; number %d is %g", i+1, v))
		}
		for _, e := range o.Eigenvectors[i] {
			if !(math.Abs(e) <= 1) {
				errs = append(errs, config.Fieldf("eigenvectors", "of length 1 have no element of %g", e))
			}
		}
	}
	pca := augment.PCA{Values: o.Eigenvalues, Vectors: o.Eigenvectors}
	j := &PCAJitter{sigma: o.Sigma}
	switch o.Scale {
	case "eigenvalue":
		j.shift = pca.Shift
	case "sqrt":
		j.shift = pca.ShiftBySqrt
	default:
		errs = append(errs, config.Fieldf("scale", "must be eigenvalue or sqrt, is %q", o.Scale))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return j, nil
}

// Process draws the shift of s.
func (j *PCAJitter) Process(_ context.Context, s *pipeline.Sample) error {
	rng := s.Rand()
	var alpha [3]float64
	for i := range alpha {
		alpha[i] = j.sigma * rng.NormFloat64()
	}
	for c, v := range j.shift(alpha) {
		s.Shift[c] += v
	}
	return nil
}
