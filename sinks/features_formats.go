package sinks

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/compress"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"
)

// chunkBytes is how much of a part is a row group of Parquet or a record of
// Arrow. It is cut by rows, whatever batches they came in.
const chunkBytes = 8 << 20

// chunks gathers rows until there are enough for a chunk.
type chunks struct {
	size  int // rows
	have  int
	rows  []arrow.Record
	write func(arrow.Record) error
}

func newChunks(schema *arrow.Schema, write func(arrow.Record) error) *chunks {
	bytes := 0
	for _, f := range schema.Fields() {
		bytes += widthOf(f.Type)
	}
	return &chunks{size: max(1, chunkBytes/bytes), write: write}
}

// widthOf is the bytes of a value, that of a text as they mostly are.
func widthOf(t arrow.DataType) int {
	switch t := t.(type) {
	case *arrow.FixedSizeListType:
		return int(t.Len()) * widthOf(t.Elem())
	case arrow.FixedWidthDataType:
		return max(1, t.BitWidth()/8)
	}
	return 32
}

func (c *chunks) add(rec arrow.Record) error {
	for at := int64(0); at < rec.NumRows(); {
		to := min(rec.NumRows(), at+int64(c.size-c.have))
		c.rows = append(c.rows, rec.NewSlice(at, to))
		c.have += int(to - at)
		at = to
		if c.have == c.size {
			if err := c.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *chunks) flush() error {
	if c.have == 0 {
		return nil
	}
	defer c.drop()
	first := c.rows[0]
	columns := make([]arrow.Array, first.NumCols())
	defer func() {
		for _, col := range columns {
			if col != nil {
				col.Release()
			}
		}
	}()
	for i := range columns {
		pieces := make([]arrow.Array, len(c.rows))
		for j, r := range c.rows {
			pieces[j] = r.Column(i)
		}
		var err error
		if columns[i], err = array.Concatenate(pieces, memory.DefaultAllocator); err != nil {
			return err
		}
	}
	rec := array.NewRecord(first.Schema(), columns, int64(c.have))
	defer rec.Release()
	return c.write(rec)
}

func (c *chunks) drop() {
	for _, r := range c.rows {
		r.Release()
	}
	c.rows, c.have = c.rows[:0], 0
}

// parquetPart is a Parquet file.
type parquetPart struct {
	*chunks
	file *os.File
	out  *bufio.Writer
	enc  *pqarrow.FileWriter
}

func openParquetPart(path string, schema *arrow.Schema, compression string) (partFormat, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	codec := compress.Codecs.Uncompressed
	if compression == "zstd" {
		codec = compress.Codecs.Zstd
	}
	// Features repeat no value often enough for a dictionary, and nobody asks for
	// the greatest of them; the index says which row groups a reader needs.
	// Arrow makes a compressor a page, so pages are as large as a row group; a higher
	// level gains next to nothing with such numbers.
	props := parquet.NewWriterProperties(parquet.WithCompression(codec), parquet.WithCompressionLevel(1), parquet.WithDataPageSize(chunkBytes),
		parquet.WithDictionaryDefault(false), parquet.WithStats(false), parquet.WithStatsFor("index", true))
	p := &parquetPart{file: f, out: bufio.NewWriterSize(f, 1<<20)}
	// Only an io.Writer: the encoder must not close the file before it is synced.
	p.enc, err = pqarrow.NewFileWriter(schema, struct{ io.Writer }{p.out}, props, pqarrow.NewArrowWriterProperties(pqarrow.WithStoreSchema()))
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	p.chunks = newChunks(schema, p.enc.Write)
	return p, nil
}

func (p *parquetPart) write(rec arrow.Record) error { return p.add(rec) }

func (p *parquetPart) close() error {
	return errors.Join(p.flush(), p.enc.Close(), p.out.Flush(), p.file.Sync(), p.file.Close())
}

func (p *parquetPart) abandon() {
	p.drop()
	_ = p.enc.Close() // into a file that is thrown away
	_ = p.file.Close()
}

// arrowPart is a file of Arrow's IPC format.
type arrowPart struct {
	*chunks
	file *os.File
	enc  *ipc.FileWriter
}

func openArrowPart(path string, schema *arrow.Schema, compression string) (partFormat, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	options := []ipc.Option{ipc.WithSchema(schema)}
	if compression == "zstd" {
		options = append(options, ipc.WithZstd())
	}
	a := &arrowPart{file: f}
	if a.enc, err = ipc.NewFileWriter(struct{ io.WriteSeeker }{f}, options...); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	a.chunks = newChunks(schema, a.enc.Write)
	return a, nil
}

func (a *arrowPart) write(rec arrow.Record) error { return a.add(rec) }

func (a *arrowPart) close() error {
	return errors.Join(a.flush(), a.enc.Close(), a.file.Sync(), a.file.Close())
}

func (a *arrowPart) abandon() {
	a.drop()
	_ = a.enc.Close() // into a file that is thrown away
	_ = a.file.Close()
}

// numpyPart is a folder with an array a column, in NumPy's format 1.0
// (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html).
type numpyPart struct {
	dir     string
	columns []*numpyColumn
	rows    int
}

// numpyColumn is a file that grows by rows. How many there are is known only in
// the end, so its header, of fixed length, is written then.
type numpyColumn struct {
	file  *os.File
	out   *bufio.Writer
	descr string // NumPy's name of the type
	width int    // numbers a row; 0 for one that is no list
	texts []string
}

const numpyHeader = 128 // bytes, with what comes before it

func openNumpyPart(dir string, schema *arrow.Schema, _ string) (partFormat, error) {
	if err := os.Mkdir(dir, 0o777); err != nil {
		return nil, err
	}
	p := &numpyPart{dir: dir}
	for _, field := range schema.Fields() {
		c, err := openNumpyColumn(filepath.Join(dir, field.Name+".npy"), field)
		if err != nil {
			p.abandon()
			return nil, err
		}
		p.columns = append(p.columns, c)
	}
	return p, nil
}

func openNumpyColumn(path string, field arrow.Field) (*numpyColumn, error) {
	c := &numpyColumn{}
	t := field.Type
	if list, ok := t.(*arrow.FixedSizeListType); ok {
		c.width, t = int(list.Len()), list.Elem()
	}
	switch t.ID() {
	case arrow.STRING:
		c.descr = "U"
	case arrow.FLOAT32:
		c.descr = "f4"
	case arrow.FLOAT16:
		c.descr = "f2"
	case arrow.INT32:
		c.descr = "i4"
	case arrow.INT64:
		c.descr = "i8"
	}
	if c.descr == "" || c.descr == "U" && c.width > 0 || strings.ContainsAny(field.Name, `/\`) {
		return nil, fmt.Errorf("column %q of %v has no form as an array of NumPy; use format: parquet", field.Name, field.Type)
	}
	var err error
	if c.file, err = os.Create(path); err != nil {
		return nil, err
	}
	c.out = bufio.NewWriterSize(c.file, 1<<18)
	_, err = c.out.Write(make([]byte, numpyHeader))
	return c, err
}

func (p *numpyPart) write(rec arrow.Record) error {
	p.rows += int(rec.NumRows())
	for i, c := range p.columns {
		if err := c.write(rec.Column(i)); err != nil {
			return err
		}
	}
	return nil
}

func (c *numpyColumn) write(col arrow.Array) error {
	data, from, n := col.Data(), col.Data().Offset(), col.Len()
	switch col := col.(type) {
	case *array.String:
		for i := range n {
			c.texts = append(c.texts, strings.Clone(col.Value(i)))
		}
		return nil
	case *array.FixedSizeList:
		values := col.ListValues().Data()
		data, from, n = values, values.Offset()+from*c.width, n*c.width
	}
	size := data.DataType().(arrow.FixedWidthDataType).BitWidth() / 8
	_, err := c.out.Write(data.Buffers()[1].Bytes()[from*size : (from+n)*size])
	return err
}

func (p *numpyPart) close() error {
	var errs []error
	for _, c := range p.columns {
		errs = append(errs, c.close(p.rows))
	}
	d, err := os.Open(p.dir)
	if err == nil {
		err = errors.Join(d.Sync(), d.Close())
	}
	return errors.Join(append(errs, err)...)
}

func (c *numpyColumn) close(rows int) error {
	shape, descr := fmt.Sprintf("(%d,)", rows), c.descr
	switch {
	case c.descr == "U":
		descr = c.writeTexts()
	case c.width > 0:
		shape = fmt.Sprintf("(%d, %d)", rows, c.width)
	}
	order := "<"
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		order = ">"
	}
	text := fmt.Sprintf("{'descr': '%s%s', 'fortran_order': False, 'shape': %s, }", order, descr, shape)
	header := append([]byte(numpyMagic), numpyHeader-10, 0)
	header = append(header, text...)
	for len(header) < numpyHeader-1 {
		header = append(header, ' ')
	}
	err := c.out.Flush()
	_, err2 := c.file.WriteAt(append(header, '\n'), 0)
	return errors.Join(err, err2, c.file.Sync(), c.file.Close())
}

// writeTexts writes all texts at the width of the longest, four bytes a
// character, and gives the type's name.
func (c *numpyColumn) writeTexts() string {
	longest := 1 // NumPy knows no narrower one
	for _, t := range c.texts {
		longest = max(longest, len([]rune(t)))
	}
	var row []byte
	for _, t := range c.texts {
		row = row[:0]
		for _, r := range t {
			row = binary.NativeEndian.AppendUint32(row, uint32(r))
		}
		row = append(row, make([]byte, 4*longest-len(row))...)
		_, _ = c.out.Write(row) // an error stays in the writer, and Flush tells it
	}
	return fmt.Sprintf("U%d", longest)
}

func (p *numpyPart) abandon() {
	for _, c := range p.columns {
		_ = c.file.Close() // it is thrown away
	}
}
