package gpu

import (
	"errors"
	"strings"
	"testing"

	"sluice/gpu/host"
	"sluice/net"
)

func TestOpen(t *testing.T) {
	for _, device := range []string{Auto, CPU} {
		e, err := Open(device, 2)
		if err != nil {
			t.Fatalf("%s: %v", device, err)
		}
		if e.Name() == "" {
			t.Errorf("%s has no name", device)
		}
		if err := e.Close(); err != nil {
			t.Errorf("%s: %v", device, err)
		}
	}
	if _, err := Open("tpu", 1); err == nil || !strings.Contains(err.Error(), "device must be auto, cpu or cuda") {
		t.Errorf("an unknown device: error %v", err)
	}
}

func TestOpenAtALevel(t *testing.T) {
	t.Setenv("SLUICE_CPU", "generic")
	e, err := Open(CPU, 1)
	if err != nil {
		t.Fatal(err)
	}
	if got := e.Name(); got != "cpu (generic, 1 thread)" {
		t.Errorf("the engine is %q", got)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	t.Setenv("SLUICE_CPU", "mmx")
	if _, err := Open(CPU, 1); err == nil || !strings.Contains(err.Error(), `SLUICE_CPU: there is no CPU level "mmx"`) {
		t.Errorf("an unknown level: error %v", err)
	}
}

// Asked for by name, a card that is not there is an error, never the CPU.
func TestOpenCUDA(t *testing.T) {
	e, err := Open(CUDA, 1)
	if err == nil {
		if !strings.Contains(e.Name(), "cuda") {
			t.Errorf("cuda gave %q", e.Name())
		}
		_ = e.Close()
		return
	}
	if !errors.Is(err, ErrNoCUDA) || !strings.Contains(err.Error(), "set device: cpu") {
		t.Errorf("error %v does not say what to do", err)
	}
}

// Every stage asks its engine for what its option says. The layer is wide enough to
// be worth transforming at every level.
func TestWinogradOption(t *testing.T) {
	g := net.Conv{Size: 3, Stride: 1, Pad: 1}
	x := net.Spec{Name: "x", Shape: net.Shape{N: 8, C: 128, H: 13, W: 13}, Kind: net.Map, Halo: 1, To: -1}
	w := net.Spec{Name: "w", Shape: net.Shape{N: 128, C: 128, H: 3, W: 3}, Kind: net.Filter, To: -1}
	b := net.Spec{Name: "b", Shape: net.Shape{N: 1, C: 128, H: 1, W: 1}, Kind: net.Vector, To: -1}
	for _, on := range []bool{true, false} {
		for _, s := range []profiled{
			&Train{opt: TrainOptions{Device: CPU, Winograd: on}, open: Open},
			&Evaluate{opt: EvaluateOptions{Device: CPU, Winograd: on}, open: Open},
			&Extract{opt: ExtractOptions{Device: CPU, Winograd: on}, open: Open},
		} {
			e, err := s.newEngine(env(8))
			if err != nil {
				t.Fatal(err)
			}
			ts, err := e.Alloc([]net.Spec{x, x, w, b})
			if err != nil {
				t.Fatal(err)
			}
			e.Conv(ts[1], ts[0], ts[2], ts[3], g)
			if direct, transformed := e.(*host.Engine).Passes(); transformed == 1 != on || direct+transformed != 1 {
				t.Errorf("%T with winograd %v: %d passes directly, %d by Winograd's algorithm", s, on, direct, transformed)
			}
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
