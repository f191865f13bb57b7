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
