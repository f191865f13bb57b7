package cmd

import "os"

// mustBeFile says what is wrong with a path that should be a file to read, and what
// is wanted: a mistake of whoever typed it.
func mustBeFile(path, wanted string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return usagef("%s: %w; %s", path, reason(err), wanted)
	case info.IsDir():
		return usagef("%s is a folder; %s", path, wanted)
	}
	return nil
}

// wantWeights ends a message about a path that is no file of weights.
const wantWeights = "name a file of weights, as a training run leaves one in its folder: runs/NAME/weights.safetensors"
