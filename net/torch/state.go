package torch

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"os"
	"path"
	"strings"

	"github.com/nlpodyssey/gopickle/types"

	"sluice/net"
)

// ReadState reads the tensors of a state dict, in the file's order and under
// PyTorch's names: a safetensors file, or what torch.save wrote, in its zip format
// (PyTorch 1.6 and later) or the one before. A dict of a training run that has the
// weights under "state_dict", and names that begin with "module." as
// DataParallel's do, are taken too. Half, bfloat16 and double become float32. The
// errors name the file and the tensor.
func ReadState(file string) ([]net.NamedTensor, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	tensors, err := readState(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return tensors, nil
}

// file is what state dicts are read from.
type file interface {
	io.Reader
	io.ReaderAt
}

func readState(f file, size int64) ([]net.NamedTensor, error) {
	head := make([]byte, 16)
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch head = head[:n]; {
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		return readZip(f, size)
	case bytes.HasPrefix(head, []byte("\x80\x02\x8a\x0a")): // a pickle of protocol 2 whose first object is a long number
		return readLegacy(f, size)
	case len(head) > 8 && head[8] == '{':
		tensors, _, err := net.ReadSafetensors(f)
		return tensors, err
	}
	return nil, errors.New("is neither a file of torch.save nor safetensors")
}

// readZip reads the format of PyTorch 1.6 and later: NAME/data.pkl is the dict,
// NAME/data/KEY are the storages, none of them compressed.
func readZip(f io.ReaderAt, size int64) ([]net.NamedTensor, error) {
	archive, err := zip.NewReader(f, size)
	if err != nil {
		return nil, err
	}
	members := map[string]*zip.File{}
	for _, m := range archive.File {
		_, inside, _ := strings.Cut(m.Name, "/")
		members[inside] = m
	}
	// open gives a member that has so many bytes; less than 0 is any number.
	open := func(name string, want int64) (io.ReadCloser, int64, error) {
		m := members[name]
		if m == nil {
			return nil, 0, fmt.Errorf("the archive has no %s", name)
		}
		got := int64(m.UncompressedSize64)
		switch {
		case m.Method != zip.Store:
			return nil, 0, fmt.Errorf("%s is compressed, and torch.save compresses nothing", name)
		case got > size || got < 0:
			return nil, 0, fmt.Errorf("%s is larger than the whole file", name)
		case want >= 0 && got != want:
			return nil, 0, fmt.Errorf("%s has %d bytes, and must have %d", name, got, want)
		}
		r, err := m.Open()
		return r, got, err
	}
	if members["constants.pkl"] != nil {
		return nil, errors.New("is a TorchScript program; save model.state_dict() with torch.save")
	}
	if members["byteorder"] != nil {
		r, n, err := open("byteorder", -1)
		if err != nil {
			return nil, err
		}
		order, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			return nil, err
		}
		if n > 0 && string(order) != "little" {
			return nil, fmt.Errorf("was saved on a machine of byte order %.20q; only little is read", order)
		}
	}
	r, n, err := open("data.pkl", -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if n > maxPickle {
		return nil, fmt.Errorf("data.pkl has %d bytes, more than the %d that are read", n, int64(maxPickle))
	}
	u := newUnpickler(r, n)
	object, err := u.load()
	if err != nil {
		return nil, err
	}
	return tensorsOf(object, size, func(s *storage) error {
		name := path.Join("data", s.key)
		r, _, err := open(name, int64(s.count)*int64(s.kind.size))
		if err != nil {
			return err
		}
		defer r.Close()
		if err := s.fill(r); err != nil {
			return err
		}
		// The archive looks at a member's checksum when its end is read.
		if _, err := io.Copy(io.Discard, r); err != nil {
			return fmt.Errorf("storage %s: its checksum is wrong, so it is damaged, or was saved without (%w)", s.key, err)
		}
		return nil
	})
}

// readLegacy reads the format before: pickled one after the other a magic number,
// the version of the protocol, the machine's properties, the dict, and the keys of
// the storages; then each storage's length and numbers.
func readLegacy(f io.Reader, size int64) ([]net.NamedTensor, error) {
	u := newUnpickler(f, size)
	magic, err := u.load()
	if err != nil {
		return nil, err
	}
	if n, ok := magic.(*big.Int); !ok || n.Text(16) != "1950a86a20f9469cfc6c" {
		return nil, errors.New("is a pickle, and no file of torch.save")
	}
	version, err := u.load()
	if err != nil {
		return nil, err
	}
	if version != 1001 {
		return nil, fmt.Errorf("is of version %v of torch.save's first format; 1001 is read", version)
	}
	system, err := u.load()
	if err != nil {
		return nil, err
	}
	if d, ok := system.(*types.Dict); ok {
		if little, ok := d.Get("little_endian"); ok && little != true {
			return nil, errors.New("was saved on a big-endian machine; only little endian is read")
		}
	}
	object, err := u.load()
	if err != nil {
		return nil, err
	}
	keys, err := u.load()
	if err != nil {
		return nil, err
	}
	list, ok := keys.(*types.List)
	if !ok {
		return nil, errors.New("does not list its storages")
	}
	for _, key := range *list {
		name, _ := key.(string)
		s := u.storages[name]
		if s == nil || s.data != nil {
			return nil, fmt.Errorf("lists a storage %q that no tensor has, or lists it twice", name)
		}
		var length [8]byte
		if _, err := io.ReadFull(u.in.r, length[:]); err != nil {
			return nil, fmt.Errorf("the file ends before storage %s", name)
		}
		if n := binary.LittleEndian.Uint64(length[:]); n != uint64(s.count) {
			return nil, fmt.Errorf("storage %s has %d numbers, and its tensors say %d", name, n, s.count)
		}
		if err := s.fill(u.in.r); err != nil {
			return nil, err
		}
	}
	return tensorsOf(object, size, func(s *storage) error {
		return fmt.Errorf("storage %s is not there", s.key)
	})
}

// tensorsOf finds the tensors of a state dict, in a file of so many bytes. fill reads
// a storage that has not been read.
func tensorsOf(object any, size int64, fill func(*storage) error) ([]net.NamedTensor, error) {
	entries, err := entriesOf(object)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Key == "state_dict" {
			if entries, err = entriesOf(e.Value); err != nil {
				return nil, fmt.Errorf("state_dict: %w", err)
			}
		}
	}
	parallel := len(entries) > 0
	for _, e := range entries {
		name, ok := e.Key.(string)
		if !ok {
			return nil, fmt.Errorf("is no state dict: one of its keys is a %T, not a name", e.Key)
		}
		parallel = parallel && strings.HasPrefix(name, "module.")
	}
	var tensors []net.NamedTensor
	var numbers int64
	for _, e := range entries {
		name := e.Key.(string)
		v, ok := e.Value.(*view)
		if !ok {
			return nil, fmt.Errorf("is no state dict: its %q is a %T, not a tensor", name, e.Value)
		}
		if v.of.kind.read == nil {
			return nil, fmt.Errorf("tensor %q: its numbers are of a %s; floats are read (Float, Double, Half and BFloat16Storage)", name, v.of.kind.name)
		}
		// A number has two bytes or more. Tensors may share theirs, but not so many times
		// that a copy of each would take much more than the file.
		if numbers += v.count(); numbers > size {
			return nil, fmt.Errorf("tensor %q: the tensors up to it have more numbers than the file has bytes", name)
		}
		if v.of.data == nil && v.of.count > 0 {
			if err := fill(v.of); err != nil {
				return nil, fmt.Errorf("tensor %q: %w", name, err)
			}
		}
		if parallel {
			name = strings.TrimPrefix(name, "module.")
		}
		tensors = append(tensors, net.NamedTensor{Name: name, Role: net.RoleWeight, Dims: v.size, Data: v.numbers()})
	}
	if len(tensors) == 0 {
		return nil, errors.New("is a state dict without tensors")
	}
	return tensors, nil
}

// entriesOf lists what a dict holds.
func entriesOf(object any) ([]types.DictEntry, error) {
	switch d := object.(type) {
	case *types.Dict:
		return *d, nil
	case *types.OrderedDict:
		var entries []types.DictEntry
		for e := d.List.Front(); e != nil; e = e.Next() {
			entry := e.Value.(*types.OrderedDictEntry)
			entries = append(entries, types.DictEntry{Key: entry.Key, Value: entry.Value})
		}
		return entries, nil
	}
	return nil, fmt.Errorf("holds a %T, and no state dict: save model.state_dict()", object)
}

// fill reads the storage's numbers. Memory grows with what is read.
func (s *storage) fill(r io.Reader) error {
	if s.kind.read == nil {
		return fmt.Errorf("storage %s is a %s; floats are read (Float, Double, Half and BFloat16Storage)", s.key, s.kind.name)
	}
	buf := make([]byte, min(s.count, 1<<18)*s.kind.size)
	for left := s.count; left > 0; {
		part := buf[:min(left*s.kind.size, len(buf))]
		if _, err := io.ReadFull(r, part); err != nil {
			return fmt.Errorf("storage %s ends before its %d numbers: %w", s.key, s.count, err)
		}
		s.data = s.kind.read(s.data, part)
		left -= len(part) / s.kind.size
	}
	return nil
}

// count is how many numbers the view has.
func (v *view) count() int64 {
	n := int64(1)
	for _, d := range v.size {
		n *= int64(d)
	}
	return n
}

// numbers are the view's, in row order; the storage's own where it has them so.
func (v *view) numbers() []float32 {
	count, plain := 1, true
	for i := len(v.size) - 1; i >= 0; i-- {
		plain = plain && (v.size[i] <= 1 || v.stride[i] == count)
		count *= v.size[i]
	}
	if count == 0 {
		return nil
	}
	if plain {
		return v.of.data[v.offset:][:count:count]
	}
	out := make([]float32, 0, count)
	at := make([]int, len(v.size))
	for range count {
		place := v.offset
		for i, a := range at {
			place += a * v.stride[i]
		}
		out = append(out, v.of.data[place])
		for i := len(at) - 1; i >= 0; i-- {
			if at[i]++; at[i] < v.size[i] {
				break
			}
			at[i] = 0
		}
	}
	return out
}

// storageKinds are the storages of floats.
var storageKinds = []*storageKind{
	{"FloatStorage", 4, func(dst []float32, src []byte) []float32 {
		for ; len(src) >= 4; src = src[4:] {
			dst = append(dst, math.Float32frombits(binary.LittleEndian.Uint32(src)))
		}
		return dst
	}},
	{"DoubleStorage", 8, func(dst []float32, src []byte) []float32 {
		for ; len(src) >= 8; src = src[8:] {
			dst = append(dst, float32(math.Float64frombits(binary.LittleEndian.Uint64(src))))
		}
		return dst
	}},
	{"HalfStorage", 2, func(dst []float32, src []byte) []float32 {
		for ; len(src) >= 2; src = src[2:] {
			dst = append(dst, half(binary.LittleEndian.Uint16(src)))
		}
		return dst
	}},
	{"BFloat16Storage", 2, func(dst []float32, src []byte) []float32 {
		for ; len(src) >= 2; src = src[2:] {
			dst = append(dst, math.Float32frombits(uint32(binary.LittleEndian.Uint16(src))<<16))
		}
		return dst
	}},
}

// half is the number that a float16 of IEEE 754 stands for.
func half(h uint16) float32 {
	sign, exponent, fraction := uint32(h&0x8000)<<16, uint32(h>>10&31), uint32(h&1023)
	switch exponent {
	case 0: // subnormal, in units of 2^-24
		v := float32(fraction) / (1 << 24)
		if sign != 0 {
			v = -v
		}
		return v
	case 31:
		exponent = 255 - (127 - 15)
	}
	return math.Float32frombits(sign | (exponent+127-15)<<23 | fraction<<13)
}
