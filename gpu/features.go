package gpu

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
)

// featureSchema is the schema of a Features batch, see Extract.
func featureSchema(columns []column, topK int, meta map[string]string) *arrow.Schema {
	fields := []arrow.Field{
		{Name: "index", Type: arrow.PrimitiveTypes.Int64},
		{Name: "name", Type: arrow.BinaryTypes.String},
		{Name: "label", Type: arrow.PrimitiveTypes.Int32},
	}
	list := func(name string, n int, of arrow.DataType, meta arrow.Metadata) {
		fields = append(fields, arrow.Field{Name: name, Type: arrow.FixedSizeListOf(int32(n), of), Nullable: true, Metadata: meta})
	}
	for _, c := range columns {
		of := arrow.PrimitiveTypes.Float32
		if c.half {
			of = arrow.FixedWidthTypes.Float16
		}
		shape := fmt.Sprintf("[%d,%d,%d]", c.shape[0], c.shape[1], c.shape[2])
		list(c.name, c.width(), of, arrow.NewMetadata([]string{"shape"}, []string{shape}))
	}
	if topK > 0 {
		list("top_labels", topK, arrow.PrimitiveTypes.Int32, arrow.Metadata{})
		list("top_scores", topK, arrow.PrimitiveTypes.Float32, arrow.Metadata{})
	}
	keys := slices.Sorted(maps.Keys(meta))
	values := make([]string, len(keys))
	for i, k := range keys {
		values[i] = meta[k]
	}
	about := arrow.NewMetadata(keys, values)
	return arrow.NewSchema(fields, &about)
}

// record makes the record of a batch just computed.
func (x *Extract) record(rows identity) (arrow.Record, error) {
	n := len(rows.index)
	columns := make([]arrow.Array, 0, x.schema.NumFields())
	defer func() {
		for _, c := range columns {
			c.Release()
		}
	}()
	add := func(d *array.Data) {
		columns = append(columns, array.MakeFromData(d))
		d.Release()
	}
	add(plain(arrow.PrimitiveTypes.Int64, n, arrow.Int64Traits.CastToBytes(rows.index)))
	offsets, length := make([]int32, 1, n+1), 0
	for _, name := range rows.name {
		length += len(name)
		offsets = append(offsets, int32(length))
	}
	text := make([]byte, 0, length)
	for _, name := range rows.name {
		text = append(text, name...)
	}
	add(array.NewData(arrow.BinaryTypes.String, n, []*memory.Buffer{
		nil, memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(offsets)), memory.NewBufferBytes(text),
	}, nil, 0, 0))
	add(plain(arrow.PrimitiveTypes.Int32, n, arrow.Int32Traits.CastToBytes(rows.label)))

	list := func(values []byte) {
		t := x.schema.Field(len(columns)).Type.(*arrow.FixedSizeListType)
		parts := &struct { // one allocation for both arrays
			none, values [2]*memory.Buffer
			elements     [1]arrow.ArrayData
		}{}
		parts.values[1] = memory.NewBufferBytes(values)
		elements := array.NewData(t.Elem(), n*int(t.Len()), parts.values[:], nil, 0, 0)
		parts.elements[0] = elements
		add(array.NewData(t, n, parts.none[:1], parts.elements[:], 0, 0))
		elements.Release()
	}
	for _, c := range x.columns {
		var values []float32
		if n > 0 {
			var err error
			if values, err = x.values(c, rows); err != nil {
				return nil, err
			}
		}
		if !c.half {
			list(arrow.Float32Traits.CastToBytes(slices.Clone(values)))
			continue
		}
		halves := make([]uint16, len(values))
		for i, v := range values {
			halves[i] = half(v)
			if halves[i]&0x7fff == 0x7c00 {
				return nil, x.bad(rows, i/c.width(), fmt.Errorf("layer %s gives %g, which float16 does not hold (at most 65504): set dtype: float32, or normalize: true", c.layer, v))
			}
		}
		list(arrow.Uint16Traits.CastToBytes(halves))
	}
	if k := x.opt.TopK; k > 0 {
		labels, scores, err := x.best(rows, k)
		if err != nil {
			return nil, err
		}
		list(arrow.Int32Traits.CastToBytes(labels))
		list(arrow.Float32Traits.CastToBytes(scores))
	}
	return array.NewRecord(x.schema, columns, int64(n)), nil
}

// plain is a column of fixed-width values without nulls.
func plain(t arrow.DataType, n int, values []byte) *array.Data {
	return array.NewData(t, n, []*memory.Buffer{nil, memory.NewBufferBytes(values)}, nil, 0, 0)
}

// half is the float16 nearest to v, ties to even, as IEEE 754 says; beyond the
// greatest it is infinite. (Arrow's own conversion cuts off, and knows no
// subnormal numbers.)
func half(v float32) uint16 {
	bits := math.Float32bits(v)
	sign, a := uint16(bits>>16&0x8000), bits&0x7fffffff
	switch {
	case a > 0x7f800000:
		return sign | 0x7e00 // no number
	case a >= 0x477ff000: // 65520, half way beyond the greatest
		return sign | 0x7c00
	case a < 0x38800000: // below 2^-14: in units of 2^-24
		return sign | uint16(math.RoundToEven(float64(math.Float32frombits(a))*(1<<24)))
	}
	// Nine bits of the exponent's bias less, thirteen of the fraction rounded away:
	// a carry goes into the exponent, as it should.
	a -= (127 - 15) << 23
	return sign | uint16((a+0xfff+a>>13&1)>>13)
}
