package sinks

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet/file"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"
)

// FeaturesDescription is what features hold: a part, or all parts of a manifest.
type FeaturesDescription struct {
	Path    string            `json:"path"`
	Kind    string            `json:"kind"` // "part", or "features" of a manifest
	Format  string            `json:"format"`
	Rows    int               `json:"rows"`
	First   int64             `json:"first_index"` // of the rows that are there; -1 without any
	Last    int64             `json:"last_index"`
	Columns []DescribedColumn `json:"columns"`
	// Metadata says where the numbers are from: weights_sha256, preprocessing and
	// more; not there in a part of NumPy arrays.
	Metadata map[string]string `json:"metadata,omitempty"`
	Manifest *Manifest         `json:"manifest,omitempty"`
	// Problems are what is not as the manifest says, a sentence each.
	Problems []string `json:"problems,omitempty"`
}

// DescribedColumn is a column with a checksum of what it holds in all rows, which
// no format and no compression changes: the SHA-256 of the numbers, little endian,
// or of the texts in UTF-8 with a zero byte after each.
type DescribedColumn struct {
	ManifestColumn
	SHA256 string `json:"sha256"` // hex
}

// InspectFeatures reads a part (a Parquet or Arrow file, or a folder of NumPy
// arrays), a manifest, or the folder of one, to its end.
func InspectFeatures(path string) (*FeaturesDescription, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if filepath.Base(path) == manifestName {
		path = filepath.Dir(path)
	}
	r := &partReader{last: -1, first: -1}
	d := &FeaturesDescription{Path: path, Kind: "part"}
	switch {
	case fileExists(filepath.Join(path, manifestName)):
		d.Kind = "features"
		err = d.readAll(r)
	case info.IsDir():
		d.Format = "npy"
		err = r.read(path, d.Format)
	default:
		if d.Format, err = formatOf(path); err == nil {
			err = r.read(path, d.Format)
		}
	}
	if err != nil {
		return nil, err
	}
	d.Rows, d.First, d.Last, d.Columns = r.rows, r.first, r.last, r.described()
	if d.Metadata == nil {
		d.Metadata = r.metadata
	}
	return d, nil
}

func fileExists(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// formatOf looks at how a file begins.
func formatOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	head := make([]byte, 6)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return "", err
	}
	switch head = head[:n]; {
	case n >= 4 && string(head[:4]) == "PAR1":
		return "parquet", nil
	case string(head) == "ARROW1":
		return "arrow", nil
	}
	return "", fmt.Errorf("%s is no part of features: neither Parquet nor Arrow", path)
}

// readAll reads the parts that a manifest names, and holds them to it.
func (d *FeaturesDescription) readAll(r *partReader) error {
	m, err := ReadManifest(d.Path)
	if err != nil {
		return err
	}
	d.Manifest, d.Format, d.Metadata = m, m.Format, m.Metadata
	if partFormats[m.Format] == nil {
		return fmt.Errorf("%s: its format is %q, which is not known", filepath.Join(d.Path, manifestName), m.Format)
	}
	wrong := func(format string, args ...any) { d.Problems = append(d.Problems, fmt.Sprintf(format, args...)) }
	for _, p := range m.Parts {
		if bad := verifyPart(d.Path, p); bad != nil {
			wrong("part %d: %v", p.Part, bad)
			continue
		}
		before := r.rows
		r.from, r.end = int64(p.First), int64(p.End)
		if err := r.read(filepath.Join(d.Path, partName(m.Format, p.Part)), m.Format); err != nil {
			wrong("part %d: %v", p.Part, err)
			continue
		}
		if got := r.rows - before; got != p.Rows {
			wrong("part %d has %d rows, and the manifest says %d", p.Part, got, p.Rows)
		}
	}
	if !m.Complete {
		wrong("it is not complete: it has %d parts, of images up to %d of %d", len(m.Parts), m.end(), m.Images)
	}
	return nil
}

// partName is the file or folder of part k.
func partName(format string, k int) string {
	return fmt.Sprintf("part-%05d%s", k, partFormats[format].ext)
}

// end is the index after the last that its parts are to hold.
func (m *Manifest) end() int {
	if len(m.Parts) == 0 {
		return 0
	}
	return m.Parts[len(m.Parts)-1].End
}

// verifyPart holds the files of a part to their sizes and checksums.
func verifyPart(dir string, p ManifestPart) error {
	for _, f := range p.Files {
		path := filepath.Join(dir, filepath.FromSlash(f.Name))
		n, sum, err := hashFile(path)
		switch {
		case err != nil:
			return err
		case n != f.Bytes:
			return fmt.Errorf("%s has %d bytes, and the manifest says %d", path, n, f.Bytes)
		case sum != f.SHA256:
			return fmt.Errorf("%s has the SHA-256 %s, and the manifest says %s", path, sum, f.SHA256)
		}
	}
	return nil
}

// partReader reads parts one after the other, and sums up what is in them.
type partReader struct {
	columns     []ManifestColumn
	sums        []hash.Hash
	metadata    map[string]string
	rows        int
	first, last int64 // indices
	from, end   int64 // that the part may have; 0, 0 for any
}

func (r *partReader) read(path, format string) error {
	var err error
	switch format {
	case "parquet":
		err = r.readParquet(path)
	case "arrow":
		err = r.readArrow(path)
	default:
		err = r.readNumpy(path)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func (r *partReader) readParquet(path string) (err error) {
	defer recovered(&err)
	pf, err := file.OpenParquetFile(path, false)
	if err != nil {
		return err
	}
	defer pf.Close()
	in, err := pqarrow.NewFileReader(pf, pqarrow.ArrowReadProperties{BatchSize: 1024}, memory.DefaultAllocator)
	if err != nil {
		return err
	}
	schema, err := in.Schema()
	if err != nil {
		return err
	}
	if err := r.meet(schema); err != nil {
		return err
	}
	for g := range pf.NumRowGroups() {
		// A row group at a time, which is all of it that is in memory.
		records, err := in.GetRecordReader(context.Background(), nil, []int{g})
		if err != nil {
			return err
		}
		for records.Next() {
			if err := r.add(records.Record()); err != nil {
				records.Release()
				return err
			}
		}
		err = records.Err()
		records.Release()
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	return nil
}

func (r *partReader) readArrow(path string) (err error) {
	defer recovered(&err)
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	in, err := ipc.NewFileReader(f)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := r.meet(in.Schema()); err != nil {
		return err
	}
	for i := range in.NumRecords() {
		rec, err := in.RecordAt(i)
		if err != nil {
			return err
		}
		err = r.add(rec)
		rec.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

// recovered makes an error of a panic: arrow v17 panics over some damaged files.
func recovered(err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("it is damaged: %v", v)
	}
}

// meet holds a part's columns to those of the parts before.
func (r *partReader) meet(schema *arrow.Schema) error {
	var columns []ManifestColumn
	for _, f := range schema.Fields() {
		c := ManifestColumn{Name: f.Name, Type: f.Type.String()}
		if shape, ok := f.Metadata.GetValue("shape"); ok && json.Valid([]byte(shape)) {
			c.Shape = json.RawMessage(shape)
		}
		columns = append(columns, c)
	}
	if len(columns) == 0 || columns[0].Name != "index" || schema.Field(0).Type.ID() != arrow.INT64 {
		return errors.New(`it is no part of features: its first column is not "index" of int64`)
	}
	meta := schema.Metadata().ToMap()
	delete(meta, "ARROW:schema")
	if r.metadata == nil {
		r.metadata = meta
	}
	return r.columnsAre(columns)
}

func (r *partReader) columnsAre(columns []ManifestColumn) error {
	if r.columns == nil {
		r.columns = columns
		for range columns {
			r.sums = append(r.sums, sha256.New())
		}
		return nil
	}
	if !sameColumns(columns, r.columns) {
		return errors.New("it has other columns than the parts before it")
	}
	return nil
}

func (r *partReader) add(rec arrow.Record) error {
	if err := r.indices(rec.Column(0).(*array.Int64).Int64Values()); err != nil {
		return err
	}
	for i, col := range rec.Columns() {
		if col.NullN() > 0 {
			return fmt.Errorf("column %q has %d nulls, and features have none", rec.ColumnName(i), col.NullN())
		}
		if err := digest(r.sums[i], col); err != nil {
			return fmt.Errorf("column %q: %w", rec.ColumnName(i), err)
		}
	}
	return nil
}

// indices counts rows, which must come in order.
func (r *partReader) indices(index []int64) error {
	for _, i := range index {
		if i <= r.last || i < r.from || r.end > 0 && i >= r.end {
			return fmt.Errorf("image %d comes after image %d, in a part of images %d to %d", i, r.last, r.from, r.end-1)
		}
		if r.first < 0 {
			r.first = i
		}
		r.last = i
	}
	r.rows += len(index)
	return nil
}

// digest adds the values of a column to its checksum.
func digest(sum hash.Hash, col arrow.Array) error {
	data, from, n := col.Data(), col.Data().Offset(), col.Len()
	switch c := col.(type) {
	case *array.String:
		for i := range n {
			_, _ = io.WriteString(sum, c.Value(i)) // a hash takes everything
			_, _ = sum.Write([]byte{0})
		}
		return nil
	case *array.FixedSizeList:
		width := int(c.DataType().(*arrow.FixedSizeListType).Len())
		values := c.ListValues().Data()
		data, from, n = values, values.Offset()+from*width, n*width
	}
	t, ok := data.DataType().(arrow.FixedWidthDataType)
	if !ok || t.BitWidth()%8 != 0 {
		return fmt.Errorf("its type %v is none of features", col.DataType())
	}
	size := t.BitWidth() / 8
	if n > 0 {
		_, _ = sum.Write(littleEndian(data.Buffers()[1].Bytes()[from*size:(from+n)*size], size))
	}
	return nil
}

// littleEndian is values of so many bytes each as a little-endian machine has them.
func littleEndian(b []byte, size int) []byte {
	if size == 1 || binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return b
	}
	b = slices.Clone(b)
	for value := range slices.Chunk(b, size) {
		slices.Reverse(value)
	}
	return b
}

// numpyMagic and numpyHead are how the sink begins an array.
const numpyMagic = "\x93NUMPY\x01\x00"

var numpyHead = regexp.MustCompile(`^\{'descr': '([<>])([a-zA-Z])(\d+)', 'fortran_order': False, 'shape': \((\d+),(?: (\d+))?\), \} *\n$`)

var numpyTypes = map[string]arrow.DataType{
	"f4": arrow.PrimitiveTypes.Float32, "f2": arrow.FixedWidthTypes.Float16,
	"i4": arrow.PrimitiveTypes.Int32, "i8": arrow.PrimitiveTypes.Int64,
}

// readNumpy reads a folder of arrays. They do not say in which order they were
// columns: index, name and label come first, then the others by name.
func (r *partReader) readNumpy(dir string) error {
	paths, err := filepath.Glob(filepath.Join(escapeGlob(dir), "*.npy"))
	if err != nil {
		return err
	}
	if !fileExists(filepath.Join(dir, "index.npy")) {
		return errors.New("it is no part of features: there is no index.npy in it")
	}
	rank := func(path string) int {
		return slices.Index([]string{"label.npy", "name.npy", "index.npy"}, filepath.Base(path))
	}
	slices.SortStableFunc(paths, func(a, b string) int { return rank(b) - rank(a) })
	var columns []ManifestColumn
	var arrays []*numpyArray
	for _, path := range paths {
		a, err := openNumpyArray(path)
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(path), err)
		}
		defer a.file.Close()
		name := filepath.Base(path)
		columns, arrays = append(columns, ManifestColumn{Name: name[:len(name)-len(".npy")], Type: a.typ.String()}), append(arrays, a)
	}
	if err := r.columnsAre(columns); err != nil {
		return err
	}
	for i, a := range arrays {
		if a.rows != arrays[0].rows {
			return fmt.Errorf("%s.npy has %d rows, and index.npy %d", columns[i].Name, a.rows, arrays[0].rows)
		}
		if err := a.read(r.sums[i], i == 0, r); err != nil {
			return fmt.Errorf("%s.npy: %w", columns[i].Name, err)
		}
	}
	return nil
}

type numpyArray struct {
	file  *os.File
	typ   arrow.DataType
	rows  int
	width int // bytes a row
	size  int // bytes a number, or those of a character
	big   bool
}

func openNumpyArray(path string) (*numpyArray, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	head := make([]byte, numpyHeader)
	_, err = io.ReadFull(f, head)
	m := numpyHead.FindSubmatch(head[len(numpyMagic)+2:]) // after the length
	if err != nil || m == nil || string(head[:len(numpyMagic)]) != numpyMagic {
		return nil, errors.Join(errors.New("its header is not one that the sink features writes"), f.Close())
	}
	number := func(b []byte) int {
		n, _ := strconv.Atoi(string(b)) // digits; too many of them do not fit the file
		return n
	}
	a := &numpyArray{file: f, rows: number(m[4]), size: number(m[3]), big: string(m[1]) == ">"}
	numbers := 1
	if a.typ = numpyTypes[string(m[2])+string(m[3])]; string(m[2]) == "U" {
		a.typ, numbers, a.size = arrow.BinaryTypes.String, number(m[3]), 4
	}
	if a.typ == nil {
		return nil, errors.Join(fmt.Errorf("its type %s%s is none of features", m[2], m[3]), f.Close())
	}
	if len(m[5]) > 0 {
		numbers = number(m[5])
		a.typ = arrow.FixedSizeListOf(int32(numbers), a.typ)
	}
	a.width = numbers * a.size
	info, err := f.Stat()
	if err == nil && (a.width < 0 || a.rows < 0 || info.Size() != numpyHeader+int64(a.rows)*int64(a.width)) {
		err = fmt.Errorf("it has %d bytes, and its header means %d rows of %d", info.Size(), a.rows, a.width)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return a, nil
}

// read adds the values to a checksum, row by row.
func (a *numpyArray) read(sum hash.Hash, isIndex bool, r *partReader) error {
	in := bufio.NewReaderSize(a.file, 1<<20)
	row := make([]byte, a.width)
	for range a.rows {
		if _, err := io.ReadFull(in, row); err != nil {
			return err
		}
		if a.big {
			for value := range slices.Chunk(row, a.size) {
				slices.Reverse(value)
			}
		}
		if isIndex {
			if err := r.indices([]int64{int64(binary.LittleEndian.Uint64(row))}); err != nil {
				return err
			}
		}
		if a.typ.ID() != arrow.STRING {
			_, _ = sum.Write(row)
			continue
		}
		var text []rune
		for c := range slices.Chunk(row, 4) {
			if v := binary.LittleEndian.Uint32(c); v != 0 {
				text = append(text, rune(v))
			}
		}
		_, _ = io.WriteString(sum, string(text)+"\x00")
	}
	return nil
}

func (r *partReader) described() []DescribedColumn {
	out := make([]DescribedColumn, len(r.columns))
	for i, c := range r.columns {
		out[i] = DescribedColumn{c, hex.EncodeToString(r.sums[i].Sum(nil))}
	}
	return out
}
