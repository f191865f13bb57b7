//go:build !unix

package cmd

import "os"

// lockDir opens the folder; there are no advisory locks here, so keeping two
// runs apart is left to their names.
func lockDir(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, reason(err)
	}
	return f, nil
}
