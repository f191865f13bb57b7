package pipeline

import (
	"encoding/binary"
	"math"
	"strings"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/bitutil"
	"github.com/apache/arrow/go/v17/arrow/memory"
)

// A layout is where the columns of a Samples record lie in one batch buffer:
// all but the names, one after the other, each at a multiple of 64 bytes as
// Arrow asks. One buffer a batch means one copy to a device and one owner.
type layout struct {
	schema *arrow.Schema
	frame  Frame
	rows   int // at most
	pixels int // bytes a picture
	// Where each column begins.
	image, view, shift, origin, flip, label, index, size int
}

func newLayout(f Frame, rows int, classes []string) *layout {
	l := &layout{schema: imageSchema(f, classes), frame: f, rows: rows, pixels: f.W * f.H * 3}
	at := 0
	column := func(bytes int) (start int) {
		start = at
		at += (bytes + 63) / 64 * 64
		return start
	}
	l.image = column(rows * l.pixels)
	l.view = column(rows * 4)
	l.shift = column(rows * 12)
	l.origin = column(rows * 8)
	l.flip = column((rows + 7) / 8)
	l.label = column(rows * 4)
	l.index = column(rows * 8)
	l.size = at
	return l
}

// put writes a sample's picture, the view-th of them, to row i.
func (l *layout) put(buf []byte, i int, s *Sample, view int) {
	g := s.pictures[view]
	copy(buf[l.image+i*l.pixels:][:l.pixels], g.rgb.Pix)
	ne := binary.NativeEndian
	ne.PutUint32(buf[l.view+i*4:], uint32(view))
	for c, v := range s.Shift {
		ne.PutUint32(buf[l.shift+i*12+c*4:], math.Float32bits(v))
	}
	ne.PutUint32(buf[l.origin+i*8:], uint32(int32(g.origin.X)))
	ne.PutUint32(buf[l.origin+i*8+4:], uint32(int32(g.origin.Y)))
	bitutil.SetBitTo(buf[l.flip:], i, g.flip)
	ne.PutUint32(buf[l.label+i*4:], uint32(s.Label))
	ne.PutUint64(buf[l.index+i*8:], uint64(s.Index))
}

// record makes a record of the first rows of buf. It takes over the caller's
// reference to buf, whose last release comes with the record's.
func (l *layout) record(buf *memory.Buffer, names []string) arrow.Record {
	defer buf.Release()
	n := len(names)
	column := func(t arrow.DataType, bufs []*memory.Buffer, children ...arrow.ArrayData) *array.Data {
		d := array.NewData(t, n, bufs, children, 0, 0)
		for _, b := range bufs {
			if b != nil {
				b.Release()
			}
		}
		for _, c := range children {
			c.Release()
		}
		return d
	}
	plain := func(t arrow.DataType, at, bytes int) *array.Data {
		return column(t, []*memory.Buffer{nil, memory.SliceBuffer(buf, at, bytes)})
	}
	list := func(field, at, bytes int) *array.Data {
		t := l.schema.Field(field).Type.(*arrow.FixedSizeListType)
		values := array.NewData(t.Elem(), n*int(t.Len()), []*memory.Buffer{nil, memory.SliceBuffer(buf, at, bytes)}, nil, 0, 0)
		values.Buffers()[1].Release()
		return column(t, []*memory.Buffer{nil}, values)
	}
	offsets, text := make([]byte, 0, 4*(n+1)), []byte{}
	for _, name := range names {
		offsets = binary.NativeEndian.AppendUint32(offsets, uint32(len(text)))
		text = append(text, strings.ToValidUTF8(name, "\uFFFD")...) // file names need not be UTF-8, Arrow's strings do
	}
	offsets = binary.NativeEndian.AppendUint32(offsets, uint32(len(text)))

	data := []*array.Data{
		list(0, l.image, n*l.pixels),
		plain(arrow.PrimitiveTypes.Int32, l.view, n*4),
		list(2, l.shift, n*12),
		list(3, l.origin, n*8),
		plain(arrow.FixedWidthTypes.Boolean, l.flip, (n+7)/8),
		plain(arrow.PrimitiveTypes.Int32, l.label, n*4),
		plain(arrow.PrimitiveTypes.Int64, l.index, n*8),
		column(arrow.BinaryTypes.String, []*memory.Buffer{nil, memory.NewBufferBytes(offsets), memory.NewBufferBytes(text)}),
	}
	columns := make([]arrow.Array, len(data))
	for i, d := range data {
		columns[i] = array.MakeFromData(d)
		d.Release()
	}
	rec := array.NewRecord(l.schema, columns, int64(n))
	for _, c := range columns {
		c.Release()
	}
	return rec
}
