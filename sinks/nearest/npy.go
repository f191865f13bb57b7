package nearest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"regexp"
	"strconv"
	"unsafe"
)

// npyArray is an array of NumPy's format (see sinks), mapped.
type npyArray struct {
	descr string // as "<f4"
	shape []int
	data  []byte
}

// header is what the sink writes; numbers lie in rows.
var header = regexp.MustCompile(`^\{'descr': '([<>|][a-zA-Z]\d+)', 'fortran_order': False, 'shape': \((\d+),(?: (\d+))?\), \} *\n$`)

func readNpy(data []byte) (npyArray, error) {
	if !bytes.HasPrefix(data, []byte("\x93NUMPY\x01\x00")) || len(data) < 10 {
		return npyArray{}, fmt.Errorf("is no array of NumPy's format 1.0")
	}
	end := 10 + int(binary.LittleEndian.Uint16(data[8:]))
	if end > len(data) {
		return npyArray{}, fmt.Errorf("ends within its header")
	}
	m := header.FindSubmatch(data[10:end])
	if m == nil {
		return npyArray{}, fmt.Errorf("has the header %.100q, which is not as the sink features writes it", data[10:end])
	}
	a := npyArray{descr: string(m[1]), data: data[end:]}
	size, err := strconv.Atoi(a.descr[2:])
	if a.descr[1] == 'U' {
		size *= 4
	}
	count := size
	for _, text := range m[2:] {
		if len(text) == 0 {
			continue
		}
		n, err2 := strconv.Atoi(string(text))
		if err == nil {
			err = err2
		}
		a.shape = append(a.shape, n)
		if n > 0 && count > (1<<48)/n {
			err = fmt.Errorf("of the impossible shape %v", a.shape)
		}
		count *= n
	}
	if err != nil {
		return a, err
	}
	if count != len(a.data) {
		return a, fmt.Errorf("has %d bytes of numbers, and its header says %d", len(a.data), count)
	}
	return a, nil
}

// text is row i of an array of texts, four bytes a character, zeros after them.
func (a npyArray) text(i int) string {
	width := len(a.data) / a.shape[0]
	var out []rune
	for b := a.data[i*width:][:width]; len(b) > 0; b = b[4:] {
		c := binary.LittleEndian.Uint32(b)
		if c == 0 {
			break
		}
		out = append(out, rune(c))
	}
	return string(out)
}

// column checks an array's type and shape.
func (a npyArray) column(descr string, shape ...int) error {
	if descr != "" && a.descr != descr || len(a.shape) != len(shape) {
		return fmt.Errorf("is of type %s and shape %v, not %s and %v", a.descr, a.shape, descr, shape)
	}
	for i, n := range shape {
		if a.shape[i] != n {
			return fmt.Errorf("is of shape %v, not %v", a.shape, shape)
		}
	}
	return nil
}

// number is a type that columns are made of.
type number interface{ float32 | int32 | int64 }

// numbers are mapped bytes as what they hold, little endian.
func numbers[T number](b []byte) ([]T, error) {
	var none T
	size := int(unsafe.Sizeof(none))
	switch {
	case binary.NativeEndian.Uint16([]byte{1, 0}) != 1:
		return nil, fmt.Errorf("the numbers are little endian, and this machine is not")
	case len(b)%size != 0:
		return nil, fmt.Errorf("%d bytes are no whole numbers of %d", len(b), size)
	case len(b) == 0:
		return nil, nil
	case uintptr(unsafe.Pointer(&b[0]))%uintptr(size) != 0:
		return nil, fmt.Errorf("the numbers do not begin at a multiple of %d bytes", size)
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&b[0])), len(b)/size), nil
}
