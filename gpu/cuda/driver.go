//go:build cuda && linux

package cuda

// #cgo LDFLAGS: -ldl
// #include <cuda.h>
import "C"

import (
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"gorgonia.org/cu"
)

// ErrNoDevice says that there is no card, or no driver for one.
var ErrNoDevice = errors.New("no CUDA device")

// Device describes a card.
type Device struct {
	Ordinal int
	Name    string
	// Memory is all of the card's, in bytes.
	Memory int64
	// Major and Minor are the compute capability. The kernels need 8.0 or more.
	Major, Minor    int
	Multiprocessors int
	// Emulated says that it is the driver of package emu: slow, for tests.
	Emulated bool
}

// emulatedName is how the emulated driver's device begins.
const emulatedName = "Emulated"

// String is one line about the card.
func (d Device) String() string {
	return fmt.Sprintf("cuda:%d %s, %.1f GiB, compute capability %d.%d, %d multiprocessors",
		d.Ordinal, d.Name, float64(d.Memory)/(1<<30), d.Major, d.Minor, d.Multiprocessors)
}

// Driver is the version of the driver's interface, such as 12.4. The error wraps
// ErrNoDevice where there is no driver, or none that starts.
func Driver() (string, error) {
	var why *C.char
	if r := C.sluiceDriver(&why); r != C.CUDA_SUCCESS {
		return "", fmt.Errorf("%w: %s", ErrNoDevice, strings.TrimSpace(C.GoString(why)))
	}
	v := cu.Version()
	return fmt.Sprintf("%d.%d", v/1000, v%1000/10), nil
}

// Devices lists the cards. The error wraps ErrNoDevice where there is none.
func Devices() ([]Device, error) {
	if _, err := Driver(); err != nil {
		return nil, err
	}
	n, err := cu.NumDevices()
	if err != nil {
		return nil, fmt.Errorf("counting the cards: %w", err)
	}
	if n == 0 {
		return nil, fmt.Errorf("%w: the driver sees none (CUDA_VISIBLE_DEVICES may hide them)", ErrNoDevice)
	}
	devices := make([]Device, n)
	for i := range devices {
		if devices[i], err = describe(i); err != nil {
			return nil, fmt.Errorf("card %d: %w", i, err)
		}
	}
	return devices, nil
}

func describe(ordinal int) (Device, error) {
	d := Device{Ordinal: ordinal}
	dev, err := cu.GetDevice(ordinal)
	if err != nil {
		return d, err
	}
	if d.Name, err = dev.Name(); err != nil {
		return d, err
	}
	d.Name = strings.TrimRight(d.Name, "\x00")
	d.Emulated = strings.HasPrefix(d.Name, emulatedName)
	if d.Memory, err = dev.TotalMem(); err != nil {
		return d, err
	}
	for _, a := range []struct {
		of cu.DeviceAttribute
		to *int
	}{
		{cu.ComputeCapabilityMajor, &d.Major},
		{cu.ComputeCapabilityMinor, &d.Minor},
		{cu.MultiprocessorCount, &d.Multiprocessors},
	} {
		if *a.to, err = dev.Attribute(a.of); err != nil {
			return d, err
		}
	}
	return d, nil
}

// allowShared lets launches of a kernel ask for more shared memory than 48 KiB, which cu has
// no function for.
func allowShared(f cu.Function, bytes int) error {
	if r := C.cuFuncSetAttribute(*(*C.CUfunction)(unsafe.Pointer(&f)), C.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, C.int(bytes)); r != C.CUDA_SUCCESS {
		return fmt.Errorf("%d bytes of shared memory: CUDA error %d", bytes, int(r))
	}
	return nil
}
