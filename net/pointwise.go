package net

// Pointwise is a layer that computes each element by itself, Y = f(X), as Go functions on
// the host: right on every engine, slow on a card. slope is the derivative of f.
func Pointwise(f, slope func(x float32) float32) Layer { return pointwise{f, slope} }

type pointwise struct{ f, slope func(float32) float32 }

// Plan keeps the input, which Backward reads.
func (p pointwise) Plan(in []Shape) (Plan, error) {
	plan, err := PlanLike(in)
	plan.KeepX = true
	return plan, err
}

// Forward computes Y.
func (p pointwise) Forward(e Engine, f *Frame) {
	e.Host([]*Tensor{f.Y}, f.X, func(outs, ins [][]float32) {
		for i, x := range ins[0] {
			outs[0][i] = p.f(x)
		}
	})
}

// Backward computes the gradient of the input, if it is wanted.
func (p pointwise) Backward(e Engine, f *Frame) {
	if f.DX[0] == nil {
		return
	}
	e.Host(f.DX, []*Tensor{f.DY, f.X[0]}, func(outs, ins [][]float32) {
		for i, dy := range ins[0] {
			outs[0][i] = dy * p.slope(ins[1][i])
		}
	})
}
