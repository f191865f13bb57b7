//go:build !cuda || !linux

package gpu

import (
	"fmt"

	"sluice/net"
)

// cudaDevices lists the cards that this program can use: none.
func cudaDevices() ([]string, error) {
	return nil, fmt.Errorf("%w: this program was built without CUDA; make build-cuda builds one with it", ErrNoCUDA)
}

// openCUDA stands for the CUDA engine in a program built without it. The file
// with build tag cuda has the other one.
func openCUDA() (net.Engine, error) {
	return nil, fmt.Errorf("%w: this program was built without CUDA; set device: cpu (or auto)", ErrNoCUDA)
}
