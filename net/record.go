package net

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"unsafe"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
)

// weightsSchema is the columns of a record of weights. The bytes are a large
// binary, since a network's numbers may be more than 2 GiB.
var weightsFields = []arrow.Field{
	{Name: "name", Type: arrow.BinaryTypes.String},
	{Name: "role", Type: arrow.BinaryTypes.String},
	{Name: "dtype", Type: arrow.BinaryTypes.String},
	{Name: "shape", Type: arrow.ListOf(arrow.PrimitiveTypes.Int64)},
	{Name: "bytes", Type: arrow.BinaryTypes.LargeBinary},
}

const float32Type = "F32" // as in safetensors

// TensorsRecord makes the record of a Batch of kind weights: a row a tensor with
// the columns name, role, dtype (utf8; "F32"), shape (list of int64), bytes (large
// binary, little endian). meta becomes the schema's metadata. The tensors' data
// is copied.
func TensorsRecord(tensors []NamedTensor, meta map[string]string) arrow.Record {
	total := 0
	for _, t := range tensors {
		total += 4 * len(t.Data)
	}
	// The builder of binary columns would copy the numbers twice.
	data := make([]byte, 0, total)
	for _, t := range tensors {
		data = littleEndian(data, t.Data)
	}
	return tensorsRecord(tensors, memory.NewBufferBytes(data), meta)
}

// tensorsRecord makes the record over data, which has the tensors one after the
// other.
func tensorsRecord(tensors []NamedTensor, data *memory.Buffer, meta map[string]string) arrow.Record {
	mem := memory.DefaultAllocator
	names, roles, types := array.NewStringBuilder(mem), array.NewStringBuilder(mem), array.NewStringBuilder(mem)
	shapes := array.NewListBuilder(mem, arrow.PrimitiveTypes.Int64)
	sizes := shapes.ValueBuilder().(*array.Int64Builder)
	offsets := make([]int64, 1, len(tensors)+1)
	for i, t := range tensors {
		names.Append(t.Name)
		roles.Append(t.Role)
		types.Append(float32Type)
		shapes.Append(true)
		for _, d := range t.Dims {
			sizes.Append(int64(d))
		}
		offsets = append(offsets, offsets[i]+4*int64(len(t.Data)))
	}
	bytes := array.NewData(arrow.BinaryTypes.LargeBinary, len(tensors), []*memory.Buffer{
		nil, memory.NewBufferBytes(arrow.Int64Traits.CastToBytes(offsets)), data,
	}, nil, 0, 0)
	defer bytes.Release()
	columns := []arrow.Array{names.NewArray(), roles.NewArray(), types.NewArray(), shapes.NewArray(), array.NewLargeBinaryData(bytes)}
	keys := slices.Sorted(maps.Keys(meta))
	values := make([]string, len(keys))
	for i, k := range keys {
		values[i] = meta[k]
	}
	about := arrow.NewMetadata(keys, values)
	rec := array.NewRecord(arrow.NewSchema(weightsFields, &about), columns, int64(len(tensors)))
	for _, c := range columns {
		c.Release()
	}
	return rec
}

// TensorsOf reads a record made by TensorsRecord. The data is the record's own
// memory where the machine can read it as it lies: valid while the record is
// held, not to be written.
func TensorsOf(rec arrow.Record) ([]NamedTensor, map[string]string, error) {
	schema := rec.Schema()
	if len(schema.Fields()) != len(weightsFields) {
		return nil, nil, fmt.Errorf("no record of weights: it has %d columns, not %d", len(schema.Fields()), len(weightsFields))
	}
	for i, want := range weightsFields {
		if got := schema.Field(i); got.Name != want.Name || !arrow.TypeEqual(got.Type, want.Type) {
			return nil, nil, fmt.Errorf("no record of weights: column %d is %s of %s, not %s of %s", i, got.Name, got.Type, want.Name, want.Type)
		}
	}
	text := func(column, row int) string { return rec.Column(column).(*array.String).Value(row) }
	shapes, bytes := rec.Column(3).(*array.List), rec.Column(4).(*array.LargeBinary)
	dims := shapes.ListValues().(*array.Int64)
	tensors := make([]NamedTensor, rec.NumRows())
	for i := range tensors {
		t := NamedTensor{Name: text(0, i), Role: text(1, i)}
		if dtype := text(2, i); dtype != float32Type {
			return nil, nil, fmt.Errorf("tensor %q is of type %q, not %s", t.Name, dtype, float32Type)
		}
		count := 1
		from, to := shapes.ValueOffsets(i)
		for j := from; j < to; j++ {
			t.Dims = append(t.Dims, int(dims.Value(int(j))))
			count *= t.Dims[len(t.Dims)-1]
		}
		data := bytes.Value(i)
		if len(data) != 4*count {
			return nil, nil, fmt.Errorf("tensor %q has %d bytes, and its shape %v means %d", t.Name, len(data), t.Dims, 4*count)
		}
		t.Data = floats(data)
		tensors[i] = t
	}
	var meta map[string]string
	if schema.HasMetadata() {
		meta = schema.Metadata().ToMap()
	}
	return tensors, meta, nil
}

// littleEndian appends src to dst, four bytes a number.
func littleEndian(dst []byte, src []float32) []byte {
	if nativeLittle {
		return append(dst, arrow.Float32Traits.CastToBytes(src)...)
	}
	for _, v := range src {
		dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(v))
	}
	return dst
}

// floats reads little-endian numbers, in place where the machine allows it.
func floats(b []byte) []float32 {
	if nativeLittle && len(b) > 0 && uintptr(unsafe.Pointer(&b[0]))%4 == 0 {
		return arrow.Float32Traits.CastFromBytes(b)
	}
	return appendFloats(nil, b)
}

func appendFloats(dst []float32, b []byte) []float32 {
	for ; len(b) >= 4; b = b[4:] {
		dst = append(dst, math.Float32frombits(binary.LittleEndian.Uint32(b)))
	}
	return dst
}

var nativeLittle = binary.NativeEndian.Uint16([]byte{1, 0}) == 1
