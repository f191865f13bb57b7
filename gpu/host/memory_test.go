package host

import (
	"testing"

	"sluice/gpu/host/simd"
	"sluice/net"
)

// A training step of alexnet at batch 128 is to stay below 1.6 GB. What is not
// counted here (scratch of other layers, batches on their way, the program) needs the rest.
func TestMemoryOfATrainingStep(t *testing.T) {
	const most = 1.51e9
	for _, level := range simd.Levels() {
		e := New(2, level)
		defer e.Close()
		p, err := net.Preset("alexnet").Plan(128, 224, 224, 1000)
		if err != nil {
			t.Fatal(err)
		}
		input := net.Spec{Name: "input", Shape: p.Input.Shape(), Kind: net.Map, Halo: p.Input.Halo, To: -1}
		if sum := e.Size(p.Specs(true)) + 2*e.Size([]net.Spec{input}); sum > most || sum < most/2 {
			t.Errorf("%v: the tensors and two inputs take %d bytes, more than %.0f or too few to be true", level, sum, most)
		}
	}
}

// What is copied to and from the host is not held afterwards: it may be as large
// as the largest tensor.
func TestHostMemoryIsLetGo(t *testing.T) {
	e := New(1, simd.Generic)
	defer e.Close()
	ts, err := e.Alloc([]net.Spec{{Name: "w", Shape: net.Shape{N: 3, C: 2, H: 1, W: 1}, Kind: net.Matrix, To: -1}})
	if err != nil {
		t.Fatal(err)
	}
	v := make([]float32, 6)
	e.Upload(ts[0], v)
	if e.jobs.pack.host != nil {
		t.Error("Upload holds what it copied")
	}
	e.Download(v, ts[0])
	if e.jobs.pack.host != nil {
		t.Error("Download holds what it copied")
	}
}
