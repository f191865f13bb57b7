package caffe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"sluice/net"
)

// message is the fields of a protocol buffer's message by their number.
type message map[protowire.Number][]value

// value is one value of a field: a number, or bytes.
type value struct {
	typ    protowire.Type
	number uint64
	bytes  []byte // of the file, not copied
}

// maxFields bounds the fields of one message: the numbers of a blob are one.
const maxFields = 1 << 16

func parse(b []byte) (message, error) {
	m := message{}
	for count := 0; len(b) > 0; count++ {
		if count == maxFields {
			return nil, fmt.Errorf("a message of more than %d fields; is this a file of Caffe?", maxFields)
		}
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, damaged(n)
		}
		b = b[n:]
		v := value{typ: typ}
		switch typ {
		case protowire.VarintType:
			v.number, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var bits uint32
			bits, n = protowire.ConsumeFixed32(b)
			v.number = uint64(bits)
		case protowire.Fixed64Type:
			v.number, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			v.bytes, n = protowire.ConsumeBytes(b)
		default: // groups are skipped
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return nil, damaged(n)
		}
		b = b[n:]
		m[num] = append(m[num], v)
	}
	return m, nil
}

func damaged(n int) error {
	return fmt.Errorf("is no message of a protocol buffer, or is cut short: %w", protowire.ParseError(n))
}

// last is the field's last value, which is the one that counts.
func (m message) last(num protowire.Number) (value, bool) {
	all := m[num]
	if len(all) == 0 {
		return value{}, false
	}
	return all[len(all)-1], true
}

func (m message) int(num protowire.Number, otherwise int) int {
	v, ok := m.last(num)
	if !ok || v.typ != protowire.VarintType {
		return otherwise
	}
	return int(int32(v.number))
}

func (m message) bool(num protowire.Number, otherwise bool) bool {
	v, ok := m.last(num)
	if !ok || v.typ != protowire.VarintType {
		return otherwise
	}
	return v.number != 0
}

func (m message) float(num protowire.Number, otherwise float32) float32 {
	v, ok := m.last(num)
	if !ok || v.typ != protowire.Fixed32Type {
		return otherwise
	}
	return math.Float32frombits(uint32(v.number))
}

func (m message) text(num protowire.Number) string {
	v, _ := m.last(num)
	return string(v.bytes)
}

func (m message) texts(num protowire.Number) (out []string) {
	for _, v := range m[num] {
		out = append(out, string(v.bytes))
	}
	return out
}

// message is a field that is a message itself; empty if it is not there.
func (m message) message(num protowire.Number) (message, error) {
	v, _ := m.last(num)
	return parse(v.bytes)
}

// ints is a repeated number, packed or not.
func (m message) ints(num protowire.Number) (out []int, err error) {
	for _, v := range m[num] {
		if v.typ != protowire.BytesType {
			out = append(out, int(v.number))
			continue
		}
		for b := v.bytes; len(b) > 0; {
			x, n := protowire.ConsumeVarint(b)
			if n < 0 {
				return nil, damaged(n)
			}
			out, b = append(out, int(x)), b[n:]
		}
	}
	return out, nil
}

// floats is a repeated float, packed or not.
func (m message) floats(num protowire.Number) (out []float32, err error) {
	for _, v := range m[num] {
		if v.typ == protowire.Fixed32Type {
			out = append(out, math.Float32frombits(uint32(v.number)))
			continue
		}
		if len(v.bytes)%4 != 0 {
			return nil, errors.New("numbers that are no whole float32s")
		}
		for b := v.bytes; len(b) > 0; b = b[4:] {
			out = append(out, math.Float32frombits(binary.LittleEndian.Uint32(b)))
		}
	}
	return out, nil
}

// Fields of a BlobProto.
const (
	blobNum    = 1 // and channels, height and width after it
	blobData   = 5
	blobShape  = 7
	blobDouble = 8

	shapeDim = 1
)

// blob reads a BlobProto.
func blob(b []byte) (net.NamedTensor, error) {
	m, err := parse(b)
	if err != nil {
		return net.NamedTensor{}, err
	}
	t := net.NamedTensor{Role: net.RoleWeight}
	if _, ok := m.last(blobShape); ok {
		shape, err := m.message(blobShape)
		if err != nil {
			return t, err
		}
		if t.Dims, err = shape.ints(shapeDim); err != nil {
			return t, err
		}
	} else {
		for i := range protowire.Number(4) {
			t.Dims = append(t.Dims, m.int(blobNum+i, 0))
		}
	}
	if t.Data, err = m.floats(blobData); err != nil {
		return t, err
	}
	for _, v := range m[blobDouble] { // packed
		if len(v.bytes)%8 != 0 {
			return t, errors.New("numbers that are no whole float64s")
		}
		for b := v.bytes; len(b) > 0; b = b[8:] {
			t.Data = append(t.Data, float32(math.Float64frombits(binary.LittleEndian.Uint64(b))))
		}
	}
	count := 1
	for _, d := range t.Dims {
		if d < 0 || d > 0 && count > len(t.Data)/d {
			return t, fmt.Errorf("the shape %v means another number of floats than the %d that are there", t.Dims, len(t.Data))
		}
		count *= d
	}
	if count != len(t.Data) {
		return t, fmt.Errorf("the shape %v means %d floats, and %d are there", t.Dims, count, len(t.Data))
	}
	return t, nil
}
