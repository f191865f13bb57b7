package net

import "fmt"

func init() {
	RegisterLayer("softmax", "Probabilities over the classes; learns by the mean cross-entropy with the labels. It ends a network.",
		struct{}{}, func(struct{}) (Layer, error) { return SoftmaxLayer{}, nil })
}

// SoftmaxLayer is the Loss: N x C x 1 x 1 logits to probabilities.
type SoftmaxLayer struct{}

var _ Loss = SoftmaxLayer{}

// IsLoss marks the end of a network.
func (SoftmaxLayer) IsLoss() {}

// Plan says what the layer makes of one input.
func (SoftmaxLayer) Plan(in []Shape) (Plan, error) {
	x, err := single(in)
	if err != nil {
		return Plan{}, err
	}
	if x.H != 1 || x.W != 1 {
		return Plan{}, fmt.Errorf("the input must be one number a class, and is %d x %d x %d: put a dense layer before it", x.C, x.H, x.W)
	}
	row := Shape{1, x.N, 1, 1}
	return Plan{Out: x, KeepY: true, Saved: []Spec{{Name: "loss", Shape: row, Kind: Vector}, {Name: "rank", Shape: row, Kind: Vector}}}, nil
}

// Forward computes probabilities, and the loss and rank of each row.
func (SoftmaxLayer) Forward(e Engine, f *Frame) {
	e.SoftmaxLoss(f.Y, f.Saved[0], f.Saved[1], f.X[0], f.Labels, f.Smoothing)
}

// Backward computes the gradient of the batch's mean loss.
func (SoftmaxLayer) Backward(e Engine, f *Frame) {
	if f.DX[0] != nil {
		e.SoftmaxLossGrad(f.DX[0], f.Y, f.Labels, f.Smoothing)
	}
}
