package torch

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/nlpodyssey/gopickle/pickle"
	"github.com/nlpodyssey/gopickle/types"
)

// storage is a row of numbers that tensors are views of.
type storage struct {
	kind  *storageKind
	key   string
	count int
	data  []float32 // nil until it has been read
}

// storageKind is the type of a storage's numbers.
type storageKind struct {
	name string // as PyTorch calls the class
	size int    // bytes of a number
	// read appends numbers, little endian; nil if they are no floats.
	read func(dst []float32, src []byte) []float32
}

// view is a tensor: the place and the strides, in numbers, of its elements in a
// storage.
type view struct {
	of           *storage
	offset       int
	size, stride []int
}

// unpickler reads Python objects of the few kinds that state dicts are made of.
// Nothing of the file is executed: a class that is not known here is an error.
type unpickler struct {
	in       *guard
	storages map[string]*storage
}

func newUnpickler(r io.Reader, size int64) *unpickler {
	return &unpickler{in: &guard{r: bufio.NewReader(r), left: size, spare: maxPickle}, storages: map[string]*storage{}}
}

// load reads the next object. The library panics on some damaged files.
func (u *unpickler) load() (v any, err error) {
	defer func() {
		if p := recover(); p != nil {
			v, err = nil, fmt.Errorf("the pickled object is damaged: %v", p)
		}
	}()
	p := pickle.NewUnpickler(u.in)
	p.FindClass, p.PersistentLoad = findClass, u.storage
	v, err = p.Load()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the file ends within a pickled object")
	}
	if err != nil && len(err.Error()) > maxError { // the library quotes what it cannot use, whatever its length
		err = fmt.Errorf("the pickled object cannot be read (%s...)", strings.ToValidUTF8(err.Error()[:maxError], ""))
	}
	return v, err
}

// maxError is the longest error that is told in full.
const maxError = 500

// call is a function of Python.
type call func(args ...any) (any, error)

func (c call) Call(args ...any) (any, error) { return c(args...) }

func findClass(module, name string) (any, error) {
	switch {
	case module == "torch._utils" && name == "_rebuild_tensor_v2":
		return call(rebuildTensor), nil
	case module == "torch._utils" && name == "_rebuild_parameter":
		return call(func(args ...any) (any, error) {
			if len(args) == 0 {
				return nil, errors.New("a parameter without a tensor")
			}
			return args[0], nil
		}), nil
	case module == "torch" && strings.HasSuffix(name, "Storage"):
		for _, k := range storageKinds {
			if k.name == name {
				return k, nil
			}
		}
		return &storageKind{name: name}, nil
	}
	return nil, fmt.Errorf("it holds an object of the class %s.%s, and only state dicts are read: save model.state_dict(), not the model", module, name)
}

// storage is what a persistent id stands for: ("storage", type, key, device,
// count), and in files before PyTorch 1.6 a view on it.
func (u *unpickler) storage(id any) (any, error) {
	tuple, ok := id.(*types.Tuple)
	if !ok || tuple.Len() < 5 || tuple.Get(0) != "storage" {
		return nil, errors.New("a reference to something that is no storage")
	}
	kind, ok1 := tuple.Get(1).(*storageKind)
	key, ok2 := tuple.Get(2).(string)
	count, ok3 := tuple.Get(4).(int)
	if !ok1 || !ok2 || !ok3 || count < 0 || count > maxNumbers {
		return nil, errors.New("a reference to a storage that makes no sense")
	}
	if tuple.Len() > 5 && tuple.Get(5) != nil {
		return nil, fmt.Errorf("storage %s is a view of another, as PyTorch before 0.4 wrote them: load the file there and save it anew", key)
	}
	s, ok := u.storages[key]
	if !ok {
		s = &storage{kind: kind, key: key, count: count}
		u.storages[key] = s
	}
	if s.kind.name != kind.name || s.count != count {
		return nil, fmt.Errorf("storage %s is described in two ways", key)
	}
	return s, nil
}

// maxNumbers bounds a tensor, far beyond any memory, so that sizes never
// overflow.
const maxNumbers = 1 << 40

// rebuildTensor is PyTorch's function of that name: storage, offset, size,
// stride, and what only training needs.
func rebuildTensor(args ...any) (any, error) {
	if len(args) < 4 {
		return nil, errors.New("a tensor without a storage or a shape")
	}
	s, ok1 := args[0].(*storage)
	offset, ok2 := args[1].(int)
	size, ok3 := ints(args[2])
	stride, ok4 := ints(args[3])
	if !ok1 || !ok2 || !ok3 || !ok4 || offset < 0 || offset > s.count || len(size) != len(stride) || len(size) > 8 {
		return nil, errors.New("a tensor whose storage or shape makes no sense")
	}
	count, last := 1, offset
	for i, n := range size {
		if n < 0 || n > 0 && count > maxNumbers/n || stride[i] < 0 || n > 1 && stride[i] > maxNumbers/n {
			return nil, fmt.Errorf("a tensor of the impossible shape %v with strides %v", size, stride)
		}
		count *= n
		last += max(n-1, 0) * stride[i]
	}
	// Strides of 0 would make of little a tensor larger than any memory.
	if count > 0 && (last >= s.count || count > s.count) {
		return nil, fmt.Errorf("a tensor of shape %v that reaches beyond the %d numbers of storage %s", size, s.count, s.key)
	}
	return &view{of: s, offset: offset, size: size, stride: stride}, nil
}

func ints(v any) ([]int, bool) {
	tuple, ok := v.(*types.Tuple)
	if !ok {
		return nil, false
	}
	out := make([]int, tuple.Len())
	for i := range out {
		if out[i], ok = tuple.Get(i).(int); !ok {
			return nil, false
		}
	}
	return out, true
}

// guard is the pickle's bytes. The library makes room for as many bytes as an
// opcode says will follow, so the guard looks at such lengths as they go by, and
// ends the file where there are not as many. It makes objects of hundreds of times
// the bytes that describe them, and takes very long for long numbers, so the
// guard bounds what is described, and each line and number.
type guard struct {
	r     *bufio.Reader
	left  int64 // bytes of the file
	spare int64 // bytes that the pickles may still have
	err   error // that ended it

	op    byte // whose argument is read
	plain bool // the next byte is that argument
	lines int  // that the argument still has, each to its line feed
	line  int  // bytes of the one that is read
}

// Opcodes by the arguments after them
// (https://github.com/python/cpython/blob/main/Lib/pickletools.py).
const (
	lengths4 = "BXT\x8b"               // a length of four bytes: BINBYTES, BINUNICODE, BINSTRING, LONG4
	lengths8 = "\x8d\x8e\x96"          // one of eight: BINUNICODE8, BINBYTES8, BYTEARRAY8
	bytes1   = "KUhqC\x80\x82\x8a\x8c" // one byte, a number or a length
	lines1   = "FILPSVgp"              // a line: FLOAT, INT, LONG, PERSID, STRING, UNICODE, GET, PUT
	lines2   = "ci"                    // two: GLOBAL, INST
	opLong4  = 0x8b
	opFrame  = 0x95 // of protocol 4: what is in a frame would not come by the guard
)

const (
	// maxPickle is what the description of a state dict may be at most; that of a
	// network with ten thousand tensors is 2 MiB.
	maxPickle = 4 << 20
	maxLine   = 1 << 10 // bytes of a line, and of a number
)

// fail ends the file. The library reads on after an error of ReadByte, so it comes again.
func (g *guard) fail(err error) error {
	g.err = err
	return err
}

// take counts bytes that have been read.
func (g *guard) take(n int) error {
	g.left -= int64(n)
	if g.spare -= int64(n); g.spare < 0 {
		return g.fail(fmt.Errorf("its description has more than the %d that are read", maxPickle))
	}
	return nil
}

func (g *guard) ReadByte() (byte, error) {
	if g.err != nil {
		return 0, g.err
	}
	b, err := g.r.ReadByte()
	if err != nil {
		return 0, err
	}
	if err := g.take(1); err != nil {
		return 0, err
	}
	switch {
	case g.lines > 0:
		if g.line++; g.line > maxLine {
			return 0, g.fail(fmt.Errorf("it has a line of more than %d bytes", maxLine))
		}
		if b == '\n' {
			g.lines, g.line = g.lines-1, 0
		}
	case g.plain:
		g.plain = false
	default:
		g.op, g.plain = b, strings.IndexByte(bytes1, b) >= 0
		switch {
		case strings.IndexByte(lines1, b) >= 0:
			g.lines = 1
		case strings.IndexByte(lines2, b) >= 0:
			g.lines = 2
		}
	}
	return b, nil
}

// Read fills p, as the library wants it: a length never comes in two parts.
func (g *guard) Read(p []byte) (int, error) {
	if g.err != nil {
		return 0, g.err
	}
	n, err := io.ReadFull(g.r, p)
	if err := g.take(n); err != nil {
		return 0, err
	}
	if err != nil {
		return n, err
	}
	length := uint64(0)
	switch {
	case len(p) == 8 && g.op == opFrame:
		return 0, g.fail(errors.New("it is pickled by protocol 4 or later; state dicts are read in protocol 2, which torch.save writes if it is not told otherwise"))
	case len(p) == 4 && strings.IndexByte(lengths4, g.op) >= 0:
		length = uint64(binary.LittleEndian.Uint32(p))
	case len(p) == 8 && strings.IndexByte(lengths8, g.op) >= 0:
		length = binary.LittleEndian.Uint64(p)
	}
	if length > uint64(max(g.left, 0)) {
		return 0, g.fail(io.ErrUnexpectedEOF)
	}
	if g.op == opLong4 && length > maxLine {
		return 0, g.fail(fmt.Errorf("it has a number of %d bytes", length))
	}
	g.op = 0 // what follows a length is no length
	return n, nil
}
