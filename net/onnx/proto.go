package onnx

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"sluice/net"
)

// Numbers of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
const (
	modelIRVersion    = 1
	modelProducer     = 2
	modelProducerVers = 3
	modelGraph        = 7
	modelOpset        = 8
	modelMetadata     = 14

	opsetVersion = 2

	graphNode        = 1
	graphName        = 2
	graphInitializer = 5
	graphInput       = 11
	graphOutput      = 12

	nodeInput     = 1
	nodeOutput    = 2
	nodeName      = 3
	nodeOp        = 4
	nodeAttribute = 5

	attributeName  = 1
	attributeFloat = 2
	attributeInt   = 3
	attributeInts  = 8
	attributeType  = 20

	tensorDims = 1
	tensorType = 2
	tensorName = 8
	tensorRaw  = 9

	typeFloat = 1 // TensorProto.DataType
	typeInt64 = 7
)

// buffer is a message in the making.
type buffer []byte

func (b *buffer) int(num protowire.Number, v int) {
	*b = protowire.AppendVarint(protowire.AppendTag(*b, num, protowire.VarintType), uint64(v))
}

func (b *buffer) text(num protowire.Number, s string) {
	*b = protowire.AppendString(protowire.AppendTag(*b, num, protowire.BytesType), s)
}

func (b *buffer) message(num protowire.Number, m buffer) {
	*b = protowire.AppendBytes(protowire.AppendTag(*b, num, protowire.BytesType), m)
}

// attribute is an option of an operator: an int, a float32 or a list of ints.
type attribute struct {
	name  string
	value any
}

func (a attribute) message() buffer {
	var b buffer
	b.text(attributeName, a.name)
	switch v := a.value.(type) {
	case float32:
		b = protowire.AppendFixed32(protowire.AppendTag(b, attributeFloat, protowire.Fixed32Type), math.Float32bits(v))
		b.int(attributeType, 1)
	case int:
		b.int(attributeInt, v)
		b.int(attributeType, 2)
	case []int:
		for _, i := range v {
			b.int(attributeInts, i)
		}
		b.int(attributeType, 7)
	}
	return b
}

// valueInfo is the name and shape of an input or output of floats, the number of
// images left open.
func valueInfo(name string, dims ...int) buffer {
	var shape, n buffer
	n.text(2, "N")
	shape.message(1, n)
	for _, d := range dims {
		var dim buffer
		dim.int(1, d)
		shape.message(1, dim)
	}
	var tensor, kind, b buffer
	tensor.int(1, typeFloat)
	tensor.message(2, shape)
	kind.message(1, tensor)
	b.text(1, name)
	b.message(2, kind)
	return b
}

// initializer is a constant: numbers of a network, or a few of our own.
type initializer struct {
	name   string
	dims   []int
	floats []float32
	ints   []int64
}

// head is all of the tensor but its numbers, which follow.
func (t initializer) head() buffer {
	var b buffer
	for _, d := range t.dims {
		b.int(tensorDims, d)
	}
	if t.ints != nil {
		b.int(tensorType, typeInt64)
	} else {
		b.int(tensorType, typeFloat)
	}
	b.text(tensorName, t.name)
	b = protowire.AppendTag(b, tensorRaw, protowire.BytesType)
	return protowire.AppendVarint(b, uint64(t.bytes()))
}

func (t initializer) bytes() int { return 4*len(t.floats) + 8*len(t.ints) }

func (t initializer) write(w io.Writer) error {
	var buf []byte
	for _, v := range t.ints {
		buf = binary.LittleEndian.AppendUint64(buf, uint64(v))
	}
	if _, err := w.Write(buf); err != nil {
		return err
	}
	for part := range slices.Chunk(t.floats, 1<<16) {
		buf = buf[:0]
		for _, v := range part {
			buf = binary.LittleEndian.AppendUint32(buf, math.Float32bits(v))
		}
		if _, err := w.Write(buf); err != nil {
			return err
		}
	}
	return nil
}

// writeModel writes a model whose graph is a message without its constants, and
// the constants, which are not copied.
func writeModel(w io.Writer, model, graph buffer, constants []initializer) error {
	length := len(graph)
	heads := make([]buffer, len(constants))
	for i, t := range constants {
		head := t.head()
		size := len(head) + t.bytes()
		heads[i] = protowire.AppendVarint(protowire.AppendTag(nil, graphInitializer, protowire.BytesType), uint64(size))
		heads[i] = append(heads[i], head...)
		length += len(heads[i]) + t.bytes()
	}
	if length > math.MaxInt32-1<<16 {
		return fmt.Errorf("the model would have %d bytes, and a protocol buffer has at most 2 GiB", length)
	}
	model = protowire.AppendVarint(protowire.AppendTag(model, modelGraph, protowire.BytesType), uint64(length))
	for _, part := range [][]byte{model, graph} {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	for i, t := range constants {
		if _, err := w.Write(heads[i]); err != nil {
			return err
		}
		if err := t.write(w); err != nil {
			return err
		}
	}
	return nil
}

// find gives the data of a weight.
func find(tensors []net.NamedTensor, name string) ([]float32, error) {
	for _, t := range tensors {
		if t.Name == name && t.Role != net.RoleMomentum {
			return t.Data, nil
		}
	}
	return nil, fmt.Errorf("tensor %q is missing", name)
}
