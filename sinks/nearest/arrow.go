package nearest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	flatbuffers "github.com/google/flatbuffers/go"

	"sluice/sinks"
)

// Arrow's own reader copies what it reads, and takes a damaged schema at its word
// for how much memory it needs. So the columns are those of the manifest, which the
// same sink has written, and where the buffers of a record lie is read from the
// file's flatbuffers here (https://arrow.apache.org/docs/format/Columnar.html, File.fbs and
// Message.fbs).

// record is a record of a file: its rows, and its columns' buffers as they lie in
// the file, in the order of the schema.
type record struct {
	rows    int
	buffers [][]byte
}

// Fields of the tables, as flatbuffers number them.
const (
	footerRecords    = 3
	messageType      = 1
	messageHeader    = 2
	typeRecordBatch  = 3 // of messageType
	batchLength      = 0
	batchBuffers     = 2
	batchCompression = 3
	arrowMagic       = "ARROW1"
	continuation     = 0xFFFFFFFF
	blockSize        = 24 // offset int64, metadata int32, padding, body int64
	bufferSize       = 16 // offset, length
	fieldOffset      = 4  // of field 0 in a table's list; two bytes each
)

// readArrow finds the records of a mapped file.
func readArrow(data []byte) (records []record, err error) {
	// What a damaged file says leads out of it, and then this panics.
	defer func() {
		if p := recover(); p != nil {
			records, err = nil, fmt.Errorf("is damaged: %v", p)
		}
	}()
	if !bytes.HasPrefix(data, []byte(arrowMagic)) || !bytes.HasSuffix(data, []byte(arrowMagic)) || len(data) < 3*len(arrowMagic) {
		return nil, errors.New("is no file of Arrow, or is cut short")
	}
	tail := len(data) - len(arrowMagic) - 4
	length := int(binary.LittleEndian.Uint32(data[tail:]))
	footer := root(data[tail-length : tail])
	at := footer.Offset(fieldOffset + 2*footerRecords)
	if at == 0 {
		return nil, nil
	}
	first := footer.Vector(flatbuffers.UOffsetT(at))
	for i := range footer.VectorLen(flatbuffers.UOffsetT(at)) {
		b := footer.Bytes[int(first)+i*blockSize:][:blockSize]
		offset := int(binary.LittleEndian.Uint64(b))
		meta, body := int(binary.LittleEndian.Uint32(b[8:])), int(binary.LittleEndian.Uint64(b[16:]))
		rec, err := readRecord(data[offset:][:meta], data[offset+meta:][:body])
		if err != nil {
			return nil, fmt.Errorf("record %d: %w", i, err)
		}
		records = append(records, rec)
	}
	return records, nil
}

func root(b []byte) flatbuffers.Table {
	return flatbuffers.Table{Bytes: b, Pos: flatbuffers.GetUOffsetT(b)}
}

func readRecord(meta, body []byte) (record, error) {
	if binary.LittleEndian.Uint32(meta) == continuation { // left out before Arrow 0.15
		meta = meta[4:]
	}
	message := root(meta[4:])
	kind := message.Offset(fieldOffset + 2*messageType)
	at := message.Offset(fieldOffset + 2*messageHeader)
	if kind == 0 || message.GetByte(message.Pos+flatbuffers.UOffsetT(kind)) != typeRecordBatch || at == 0 {
		return record{}, errors.New("is no record")
	}
	var batch flatbuffers.Table
	message.Union(&batch, flatbuffers.UOffsetT(at))
	if batch.Offset(fieldOffset+2*batchCompression) != 0 {
		return record{}, errCompressed
	}
	var rec record
	if o := batch.Offset(fieldOffset + 2*batchLength); o != 0 {
		rec.rows = int(batch.GetInt64(batch.Pos + flatbuffers.UOffsetT(o)))
	}
	o := batch.Offset(fieldOffset + 2*batchBuffers)
	if o == 0 {
		return record{}, errors.New("has no buffers")
	}
	first := batch.Vector(flatbuffers.UOffsetT(o))
	for i := range batch.VectorLen(flatbuffers.UOffsetT(o)) {
		b := batch.Bytes[int(first)+i*bufferSize:][:bufferSize]
		offset, length := int(binary.LittleEndian.Uint64(b)), int(binary.LittleEndian.Uint64(b[8:]))
		rec.buffers = append(rec.buffers, body[offset:][:length])
	}
	return rec, nil
}

var errCompressed = errors.New("is compressed, so it cannot be mapped into memory")

// buffersOf is how many buffers a column has, by its type as the manifest has it.
func buffersOf(c sinks.ManifestColumn) int {
	switch {
	case c.Type == "utf8":
		return 3 // validity, offsets, text
	case strings.HasPrefix(c.Type, "fixed_size_list"):
		return 3 // validity, and validity and numbers of the elements
	}
	return 2
}

// place is the first buffer of a column.
func place(columns []sinks.ManifestColumn, name string) (int, error) {
	at := 0
	for _, c := range columns {
		if c.Name == name {
			return at, nil
		}
		at += buffersOf(c)
	}
	return 0, fmt.Errorf("there is no column %q", name)
}
