package net

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// A safetensors file is eight bytes of header length, a JSON header that names
// every tensor with its type, shape and place, and the tensors, little endian
// (https://github.com/huggingface/safetensors). Written here and not taken from a
// module: the only Go module has had no release, and the format is this page.

const (
	momentumSuffix = ".momentum" // of a tensor's name in the file, for its role
	metadataKey    = "__metadata__"
	// maxHeader is what a header may be at most; that of a network with ten
	// thousand tensors is 1 MiB.
	maxHeader = 16 << 20
	chunk     = 1 << 18 // floats that are converted at a time
)

// fileTensor is a tensor in the header.
type fileTensor struct {
	DType   string   `json:"dtype"`
	Shape   []int64  `json:"shape"`
	Offsets [2]int64 `json:"data_offsets"`
	name    string
}

// WriteSafetensors writes tensors as float32 under their names, in their order,
// those of the role momentum with ".momentum" after it, and meta as the file's
// metadata. It streams: no copy of the tensors is made.
func WriteSafetensors(w io.Writer, tensors []NamedTensor, meta map[string]string) error {
	var header bytes.Buffer
	member := func(key string, v any) error {
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		name, err := json.Marshal(key)
		if header.Len() > 0 {
			header.WriteByte(',')
		}
		header.Write(name)
		header.WriteByte(':')
		header.Write(text)
		return err
	}
	if len(meta) > 0 {
		if err := member(metadataKey, meta); err != nil {
			return err
		}
	}
	taken := map[string]bool{metadataKey: true}
	at := int64(0)
	for _, t := range tensors {
		f := fileTensor{DType: "F32", Shape: []int64{}, name: t.Name}
		if t.Role == RoleMomentum {
			f.name += momentumSuffix
		}
		if taken[f.name] {
			return fmt.Errorf("safetensors: two tensors are called %q", f.name)
		}
		taken[f.name] = true
		count := 1
		for _, d := range t.Dims {
			f.Shape = append(f.Shape, int64(d))
			count *= d
		}
		if count != len(t.Data) {
			return fmt.Errorf("safetensors: tensor %q has %d numbers, and its shape %v means %d", t.Name, len(t.Data), t.Dims, count)
		}
		f.Offsets = [2]int64{at, at + 4*int64(count)}
		at = f.Offsets[1]
		if err := member(f.name, f); err != nil {
			return err
		}
	}
	text := "{" + header.String() + "}"
	text += strings.Repeat(" ", (8-len(text)%8)%8)
	if len(text) > maxHeader {
		return fmt.Errorf("safetensors: the header would have %d bytes, more than the %d that are read again", len(text), maxHeader)
	}
	out := binary.LittleEndian.AppendUint64(nil, uint64(len(text)))
	if _, err := w.Write(append(out, text...)); err != nil {
		return err
	}
	var buf []byte
	for _, t := range tensors {
		for part := range slices.Chunk(t.Data, chunk) {
			buf = littleEndian(buf[:0], part)
			if _, err := w.Write(buf); err != nil {
				return err
			}
		}
	}
	return nil
}

// ReadSafetensors reads a file of float32 tensors, in the file's order, with its
// metadata (nil if it has none). It is strict: a file cut short, with something
// left over, or with a header that does not fit its tensors is an error. Memory
// grows with what is read, never with what a header claims.
func ReadSafetensors(r io.Reader) ([]NamedTensor, map[string]string, error) {
	files, meta, err := readHeader(r)
	if err != nil {
		return nil, nil, err
	}
	tensors := make([]NamedTensor, 0, len(files))
	buf := make([]byte, 4*chunk)
	for _, f := range files {
		t := f.named()
		for left := f.Offsets[1] - f.Offsets[0]; left > 0; {
			part := buf[:min(left, int64(len(buf)))]
			if _, err := io.ReadFull(r, part); err != nil {
				return nil, nil, cut(err, fmt.Sprintf("in tensor %q", f.name))
			}
			left -= int64(len(part))
			// Doubles as it is filled; the last time exactly to its size.
			if have, all := len(t.Data), int((f.Offsets[1]-f.Offsets[0])/4); cap(t.Data)-have < len(part)/4 {
				t.Data = slices.Grow(t.Data, min(max(have, len(part)/4), all-have))
			}
			t.Data = appendFloats(t.Data, part)
		}
		tensors = append(tensors, t)
	}
	switch n, err := io.ReadFull(r, buf[:1]); {
	case n > 0:
		return nil, nil, errors.New("safetensors: there are bytes after the last tensor")
	case err != io.EOF:
		return nil, nil, fmt.Errorf("safetensors: %w", err)
	}
	return tensors, meta, nil
}

// ReadSafetensorsMetadata reads only the header of a file, and gives its
// metadata (nil if it has none).
func ReadSafetensorsMetadata(r io.Reader) (map[string]string, error) {
	_, meta, err := readHeader(r)
	return meta, err
}

// ReadSafetensorsHeader reads only the header of a file: its tensors, without their
// data, and its metadata (nil if it has none).
func ReadSafetensorsHeader(r io.Reader) ([]NamedTensor, map[string]string, error) {
	files, meta, err := readHeader(r)
	if err != nil {
		return nil, nil, err
	}
	tensors := make([]NamedTensor, len(files))
	for i := range files {
		tensors[i] = files[i].named()
	}
	return tensors, meta, nil
}

// named is the tensor without its data.
func (t *fileTensor) named() NamedTensor {
	n := NamedTensor{Name: t.name, Role: RoleWeight, Dims: make([]int, len(t.Shape))}
	if name, ok := strings.CutSuffix(t.name, momentumSuffix); ok {
		n.Name, n.Role = name, RoleMomentum
	}
	for i, d := range t.Shape {
		n.Dims[i] = int(d)
	}
	return n
}

func cut(err error, where string) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("safetensors: the file ends %s: it was cut short, or is no file of weights", where)
	}
	return fmt.Errorf("safetensors: %w", err)
}

// readHeader reads and checks the header: its tensors follow each other without
// a gap, in the order returned.
func readHeader(r io.Reader) ([]fileTensor, map[string]string, error) {
	var length [8]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, nil, cut(err, "before its header")
	}
	size := binary.LittleEndian.Uint64(length[:])
	if size < 2 || size > maxHeader {
		return nil, nil, fmt.Errorf("safetensors: a header of %d bytes (2 to %d are read); is this a safetensors file?", size, maxHeader)
	}
	var text bytes.Buffer // grows with what is there
	if n, err := io.CopyN(&text, r, int64(size)); err != nil {
		return nil, nil, cut(err, fmt.Sprintf("after %d of the header's %d bytes", n, size))
	}
	tensors, meta, err := parseHeader(text.Bytes())
	if err != nil {
		return nil, nil, fmt.Errorf("safetensors: header: %w", err)
	}
	slices.SortStableFunc(tensors, func(a, b fileTensor) int {
		return slices.Compare(a.Offsets[:], b.Offsets[:])
	})
	at := int64(0)
	for _, t := range tensors {
		if err := t.check(at); err != nil {
			return nil, nil, fmt.Errorf("safetensors: tensor %q: %w", t.name, err)
		}
		at = t.Offsets[1]
	}
	return tensors, meta, nil
}

// parseHeader reads the JSON member by member, since encoding/json would keep
// only the last of two of one name.
func parseHeader(text []byte) (tensors []fileTensor, meta map[string]string, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, nil, errors.New("is no JSON object")
	}
	seen := map[string]bool{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, nil, err
		}
		name := key.(string) // the decoder takes no other key
		if seen[name] {
			return nil, nil, fmt.Errorf("%q is there twice", name)
		}
		seen[name] = true
		if name == metadataKey {
			if err := d.Decode(&meta); err != nil {
				return nil, nil, fmt.Errorf("%s: %w", metadataKey, err)
			}
			continue
		}
		f := fileTensor{name: name, Offsets: [2]int64{-1, -1}}
		if err := d.Decode(&f); err != nil {
			return nil, nil, fmt.Errorf("%q: %w", name, err)
		}
		tensors = append(tensors, f)
	}
	if _, err := d.Token(); err != nil {
		return nil, nil, err
	}
	if rest := bytes.TrimRight(text[d.InputOffset():], " "); len(rest) > 0 {
		return nil, nil, errors.New("something follows the JSON object")
	}
	return tensors, meta, nil
}

// check holds a tensor to begin at and to be as long as its shape says.
func (t *fileTensor) check(at int64) error {
	if t.DType != "F32" {
		return fmt.Errorf("its type is %q; only F32 is read", t.DType)
	}
	if len(t.Shape) > 8 {
		return fmt.Errorf("it has %d dimensions", len(t.Shape))
	}
	count := int64(1)
	for _, d := range t.Shape {
		if d < 0 || d > 0 && count > maxElements/d {
			return fmt.Errorf("its shape %v is impossible", t.Shape)
		}
		count *= d
	}
	if t.Offsets[0] != at || t.Offsets[1] != at+4*count {
		return fmt.Errorf("it lies at %v, and must lie at [%d %d]: tensors follow each other without a gap", t.Offsets, at, at+4*count)
	}
	return nil
}
