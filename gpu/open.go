// Package gpu runs networks on devices.
//
//	open.go       the engine for a device
//	precision.go  how numbers are held
//	feed.go       the two inputs of a network: one is loaded while the other computes
//	train.go      the stage that learns
//	early_stop.go when a run has learnt enough
//	evaluate.go   the stage that measures trained weights
//	scorer.go     predictions, averaged over networks and views, and scored
//	extract.go    the stage that computes features with trained weights
//	features.go   the batch of features
//	progress.go   averages over steps, and the metrics made of them
//	weights.go    the batch of weights and what is written about them
//	preprocessing.go how images are made for weights
//	mean.go       a mean that is known when training begins
//	resume.go     checkpoints, and how a run goes on from one
//	plan.go       what check prints of a network and its memory
//	profile.go    where the time of a step goes
//
// The stages know no device: they work on every net.Engine. The engines are in
// the folders below.
package gpu

import (
	"errors"
	"fmt"
	"os"

	"sluice/gpu/host"
	"sluice/gpu/host/simd"
	"sluice/net"
	"sluice/pipeline/config"
)

// Devices are the names that Open knows.
const (
	Auto = "auto"
	CPU  = "cpu"
	CUDA = "cuda"
)

// ErrNoCUDA says that there is no card to run on, or that this program cannot
// use one.
var ErrNoCUDA = errors.New("no CUDA device")

// Open gives the engine for a device: "cpu", "cuda", or "auto" (cuda where there
// is one). threads bounds the CPU engine's goroutines; 0 means all cores. It
// allocates no tensor. The environment's SLUICE_CPU (avx512, avx2 or generic) holds
// the CPU engine to a level of instructions. The options are the CPU engine's.
func Open(device string, threads int, options ...host.Option) (net.Engine, error) {
	if err := checkDevice(device); err != nil {
		return nil, err
	}
	if device != CPU {
		e, err := openCUDA()
		if err == nil {
			return e, nil
		}
		// A card that is there and fails is not passed over in silence.
		if device == CUDA || !errors.Is(err, ErrNoCUDA) {
			return nil, fmt.Errorf("device cuda: %w", err)
		}
	}
	level, err := simd.Choose(os.Getenv("SLUICE_CPU"))
	if err != nil {
		return nil, fmt.Errorf("the environment's SLUICE_CPU: %w", err)
	}
	return host.New(threads, level, options...), nil
}

// openFunc is Open, or what a test has in its place.
type openFunc func(device string, threads int, options ...host.Option) (net.Engine, error)

// winograd is what the stages' option of that name asks of the CPU engine.
func winograd(on bool) host.Option {
	if on {
		return host.WithWinograd(host.WhereItPays)
	}
	return host.WithWinograd(host.Nowhere)
}

func checkDevice(device string) error {
	switch device {
	case Auto, CPU, CUDA:
		return nil
	}
	return config.Fieldf("device", "must be auto, cpu or cuda, is %q", device)
}
