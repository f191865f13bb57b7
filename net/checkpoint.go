package net

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
)

// A checkpoint is a safetensors file with a checksum of all it says, so that a
// damaged one is found before it is gone on from. Those of a run lie in one folder,
// named by the step after which they were taken.

// CheckpointDir is the folder of a run's checkpoints, in its run folder.
const CheckpointDir = "checkpoints"

// ErrDamaged is in the error of a checkpoint that is not what was written.
var ErrDamaged = errors.New("damaged")

// checksumKey is the checksum in the metadata.
const checksumKey = "sha256"

// WriteCheckpoint is WriteSafetensors with a checksum in the metadata, under
// "sha256".
func WriteCheckpoint(w io.Writer, tensors []NamedTensor, meta map[string]string) error {
	if _, taken := meta[checksumKey]; taken {
		return fmt.Errorf("checkpoint: %q in the metadata is for the checksum", checksumKey)
	}
	signed := maps.Clone(meta)
	if signed == nil {
		signed = map[string]string{}
	}
	signed[checksumKey] = checksum(tensors, meta)
	return WriteSafetensors(w, tensors, signed)
}

// ReadCheckpoint is ReadSafetensors of a file that WriteCheckpoint wrote. A file
// that differs from it in one bit is an error with ErrDamaged.
func ReadCheckpoint(r io.Reader) ([]NamedTensor, map[string]string, error) {
	tensors, meta, err := ReadSafetensors(r)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	want, signed := meta[checksumKey]
	delete(meta, checksumKey)
	if !signed {
		return nil, nil, fmt.Errorf("%w: it has no checksum, so it is no checkpoint", ErrDamaged)
	}
	if got := checksum(tensors, meta); got != want {
		return nil, nil, fmt.Errorf("%w: its SHA-256 is %s, and it says %s", ErrDamaged, got, want)
	}
	return tensors, meta, nil
}

// checksum is the SHA-256, in hex, of everything in a checkpoint but itself.
func checksum(tensors []NamedTensor, meta map[string]string) string {
	h := sha256.New()
	for _, key := range slices.Sorted(maps.Keys(meta)) {
		sign(h, key)
		sign(h, meta[key])
	}
	buf := make([]byte, 0, 4*chunk)
	for _, t := range tensors {
		sign(h, t.Name)
		sign(h, t.Role)
		sign(h, fmt.Sprint(t.Dims))
		for part := range slices.Chunk(t.Data, chunk) {
			buf = littleEndian(buf[:0], part)
			h.Write(buf)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// sign adds a text with its length, so that no two lists of texts are alike.
func sign(h io.Writer, text string) {
	_, _ = h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(text)))) // a hash takes everything
	_, _ = io.WriteString(h, text)
}

// CheckpointFile is one file of a folder of checkpoints.
type CheckpointFile struct {
	Path string
	Step int
}

var checkpointName = regexp.MustCompile(`^step-([0-9]{1,18})\.safetensors$`)

// CheckpointName is the file name of the checkpoint after a step.
func CheckpointName(step int) string { return fmt.Sprintf("step-%d.safetensors", step) }

// Checkpoints lists the checkpoints of a folder, the newest first; none if there
// is no such folder. What has another name is left out.
func Checkpoints(dir string) ([]CheckpointFile, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var files []CheckpointFile
	for _, e := range entries {
		m := checkpointName.FindStringSubmatch(e.Name())
		if m == nil {
			continue
		}
		if step, err := strconv.Atoi(m[1]); err == nil && e.Name() == CheckpointName(step) {
			files = append(files, CheckpointFile{filepath.Join(dir, e.Name()), step})
		}
	}
	slices.SortFunc(files, func(a, b CheckpointFile) int { return b.Step - a.Step })
	return files, nil
}

// Read reads and verifies the file.
func (c CheckpointFile) Read() ([]NamedTensor, map[string]string, error) {
	f, err := os.Open(c.Path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	tensors, meta, err := ReadCheckpoint(f)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", c.Path, err)
	}
	return tensors, meta, nil
}
