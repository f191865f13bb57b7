package gpu

import (
	"errors"
	"strings"
	"testing"
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
