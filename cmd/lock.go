package cmd

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// lockDir holds a folder for this process until the file is closed, so that two
// runs never write into one.
func lockDir(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, reason(err)
	}
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		f.Close()
		return nil, errors.New("another run is writing to it; wait for it, or give this one another name with --set name=NAME")
	case err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.ENOLCK) && !errors.Is(err, unix.ENOSYS):
		// Some network file systems have no locks; a run is still possible there.
		f.Close()
		return nil, err
	}
	return f, nil
}
