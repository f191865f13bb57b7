//go:build cuda && linux

package gpu

import (
	"errors"
	"fmt"

	"sluice/gpu/cuda"
	"sluice/net"
)

// noCard is ErrNoCUDA with the reason.
type noCard struct{ error }

func (noCard) Is(target error) bool { return target == ErrNoCUDA }

// cudaDevices lists the cards, each with the version of the driver.
func cudaDevices() ([]string, error) {
	driver, err := cuda.Driver()
	if err != nil {
		return nil, err
	}
	devices, err := cuda.Devices()
	if err != nil {
		return nil, err
	}
	var all []string
	for _, d := range devices {
		all = append(all, d.String()+", driver for CUDA "+driver)
	}
	return all, nil
}

// openCUDA opens the first card.
func openCUDA() (net.Engine, error) {
	devices, err := cuda.Devices()
	if err != nil {
		if errors.Is(err, cuda.ErrNoDevice) {
			return nil, noCard{fmt.Errorf("%w; set device: cpu (or auto)", err)}
		}
		return nil, err
	}
	e, err := cuda.New(devices[0])
	if err != nil {
		return nil, fmt.Errorf("%w; set device: cpu to do without it", err)
	}
	return e, nil
}
