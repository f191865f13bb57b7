package stages

import (
	"errors"
	"fmt"
	"io"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
	flatbuffers "github.com/google/flatbuffers/go"
)

// Fields of the tables of a message (Message.fbs of Arrow's format), as flatbuffers
// give their offsets: 4 for the first, two bytes each.
const (
	messageHeader    = 8
	batchLength      = 4
	batchNodes       = 6
	batchBuffers     = 8
	batchCompression = 10
	pairSize         = 16 // of a node (length, nulls) and of a buffer (offset, length)

	schemaFields  = 6
	schemaKeys    = 8
	fieldType     = 8
	fieldChildren = 14
	fieldKeys     = 16
	typeUnion     = 14
)

// maxFields is how many columns a schema may have, those inside of others too.
const maxFields = 10_000

// checkSchema looks at a schema before Arrow's reader does, which allocates as much
// as a list says that it is long. It may panic where the metadata lead out of themselves.
func checkSchema(meta []byte) error {
	message := flatbuffers.Table{Bytes: meta, Pos: flatbuffers.GetUOffsetT(meta)}
	var schema flatbuffers.Table
	message.Union(&schema, flatbuffers.UOffsetT(message.Offset(messageHeader)))
	left := maxFields
	if err := checkList(schema, schemaKeys); err != nil {
		return err
	}
	return checkFields(schema, schemaFields, &left)
}

// checkFields checks the fields in a list of a table, and those in them.
func checkFields(t flatbuffers.Table, list flatbuffers.VOffsetT, left *int) error {
	if err := checkList(t, list); err != nil {
		return err
	}
	at := flatbuffers.UOffsetT(t.Offset(list))
	if at == 0 {
		return nil
	}
	for i := range t.VectorLen(at) {
		if *left--; *left < 0 {
			return fmt.Errorf("the schema of the Arrow IPC stream has more than %d columns", maxFields)
		}
		field := flatbuffers.Table{Bytes: t.Bytes, Pos: t.Indirect(t.Vector(at) + flatbuffers.UOffsetT(i)*4)}
		if kind := field.Offset(fieldType); kind != 0 && field.GetByte(field.Pos+flatbuffers.UOffsetT(kind)) == typeUnion {
			return errors.New("the schema of the Arrow IPC stream has a union, which cannot be taken")
		}
		if err := errors.Join(checkList(field, fieldKeys), checkFields(field, fieldChildren, left)); err != nil {
			return err
		}
	}
	return nil
}

// checkList checks that a list of tables lies in the metadata.
func checkList(t flatbuffers.Table, list flatbuffers.VOffsetT) error {
	at := flatbuffers.UOffsetT(t.Offset(list))
	if at == 0 {
		return nil
	}
	if n := t.VectorLen(at); n < 0 || int64(t.Vector(at))+4*int64(n) > int64(len(t.Bytes)) {
		return fmt.Errorf("the schema of the Arrow IPC stream is broken: a list of %d in metadata of %d bytes", n, len(t.Bytes))
	}
	return nil
}

// A recordReader reads the schema of a stream, and then its records. Arrow's own
// reader copies each buffer of a record; here they lie in the body of the message,
// which was read once.
type recordReader struct {
	messages *messageReader
	schema   *arrow.Schema
}

func newReader(r io.Reader, mem memory.Allocator) (*recordReader, error) {
	m := &messageReader{r: r, mem: mem}
	defer m.Release()
	first, err := ipc.NewReaderFromMessageReader(m)
	if err != nil {
		return nil, err
	}
	defer first.Release()
	return &recordReader{m, first.Schema()}, nil
}

// Read gives the next record, which is the caller's to release, and io.EOF after the last.
func (r *recordReader) Read() (rec arrow.Record, err error) {
	// What the metadata say may lead out of them, and then this panics.
	defer func() {
		if p := recover(); p != nil {
			rec, err = nil, fmt.Errorf("a record of the Arrow IPC stream is broken: %v", p)
		}
	}()
	m, err := r.messages.Message()
	if err != nil {
		return nil, err
	}
	defer r.messages.Release()
	if m.Type() != ipc.MessageRecordBatch {
		return nil, fmt.Errorf("a message of the Arrow IPC stream is no record batch (type %d)", m.Type())
	}
	return r.record()
}

func (r *recordReader) record() (arrow.Record, error) {
	meta := r.messages.meta
	message := flatbuffers.Table{Bytes: meta, Pos: flatbuffers.GetUOffsetT(meta)}
	var batch flatbuffers.Table
	message.Union(&batch, flatbuffers.UOffsetT(message.Offset(messageHeader)))
	if batch.Offset(batchCompression) != 0 {
		return nil, errors.New("a record of the Arrow IPC stream is compressed, which gains nothing on a pipe: write it without")
	}
	l := &loader{batch: batch, body: r.messages.body}
	rows := int64(0)
	if at := batch.Offset(batchLength); at != 0 {
		rows = batch.GetInt64(batch.Pos + flatbuffers.UOffsetT(at))
	}
	columns := make([]arrow.Array, 0, r.schema.NumFields())
	defer func() {
		for _, c := range columns {
			c.Release()
		}
	}()
	for _, f := range r.schema.Fields() {
		data, err := l.load(f.Type)
		if err == nil {
			if int64(data.Len()) != rows {
				err = fmt.Errorf("it has %d rows, the record %d", data.Len(), rows)
			} else {
				err = sound(data)
			}
		}
		if err == nil {
			columns = append(columns, array.MakeFromData(data))
		}
		if data != nil {
			data.Release()
		}
		if err != nil {
			return nil, fmt.Errorf("column %q is broken: %w", f.Name, err)
		}
	}
	return array.NewRecord(r.schema, columns, rows), nil
}

// A loader finds the arrays of a record in its body, in the order of the schema.
type loader struct {
	batch         flatbuffers.Table
	body          *memory.Buffer
	nodes, places int // that were read
}

// pair is the i-th of a vector of two numbers each.
func (l *loader) pair(field flatbuffers.VOffsetT, i int) (a, b int64, err error) {
	at := flatbuffers.UOffsetT(l.batch.Offset(field))
	if at == 0 || i >= l.batch.VectorLen(at) {
		return 0, 0, errors.New("the record has too few arrays or buffers")
	}
	start := l.batch.Vector(at) + flatbuffers.UOffsetT(i)*pairSize
	return l.batch.GetInt64(start), l.batch.GetInt64(start + 8), nil
}

func (l *loader) load(t arrow.DataType) (*array.Data, error) {
	if !plainType(t) {
		return nil, fmt.Errorf("it is %v, which cannot be taken", t)
	}
	length, nulls, err := l.pair(batchNodes, l.nodes)
	if err != nil {
		return nil, err
	}
	if length < 0 || length > maxBody || nulls < 0 || nulls > length {
		return nil, fmt.Errorf("it has %d values and %d nulls", length, nulls)
	}
	l.nodes++
	count, inner := 2, []arrow.DataType(nil)
	switch t := t.(type) {
	case *arrow.FixedSizeListType:
		count, inner = 1, []arrow.DataType{t.Elem()}
	case *arrow.StructType:
		count = 1
		for _, f := range t.Fields() {
			inner = append(inner, f.Type)
		}
	case *arrow.ListType, *arrow.LargeListType:
		inner = []arrow.DataType{t.(arrow.ListLikeType).Elem()}
	case *arrow.StringType, *arrow.BinaryType, *arrow.LargeStringType, *arrow.LargeBinaryType:
		count = 3
	}
	buffers := make([]*memory.Buffer, count)
	var children []arrow.ArrayData
	defer func() {
		for _, b := range buffers {
			if b != nil {
				b.Release()
			}
		}
		for _, c := range children {
			c.Release()
		}
	}()
	for i := range buffers {
		from, size, err := l.pair(batchBuffers, l.places)
		if err != nil {
			return nil, err
		}
		l.places++
		if from < 0 || from%8 != 0 || size < 0 || from > int64(l.body.Len()) || size > int64(l.body.Len())-from {
			return nil, fmt.Errorf("a buffer of %d bytes from %d does not lie in the body of %d", size, from, l.body.Len())
		}
		if size > 0 {
			buffers[i] = memory.SliceBuffer(l.body, int(from), int(size))
		}
	}
	for _, t := range inner {
		c, err := l.load(t)
		if err != nil {
			return nil, err
		}
		children = append(children, c)
	}
	return array.NewData(t, int(length), buffers, children, int(nulls), 0), nil
}
