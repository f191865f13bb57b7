package pipeline

import (
	"encoding/json"
	"fmt"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
)

// Images is a typed look at a record of kind Samples. The slices are the
// record's own memory: valid while the record is held, not to be written.
type Images struct {
	N, H, W int
	Pixels  []byte    // N x H x W x 3, RGB, after crop and flip
	Shift   []float32 // N x 3, RGB, in levels
	Origin  []int32   // N x 2: x, y of the crop on its canvas
	Flip    []bool    // N
	View    []int32   // N; which of a sample's views, 0 for the only one
	Label   []int32   // N; below zero: none
	Index   []int64   // N; place in the dataset
	Name    []string  // N
}

// The metadata of the image column makes it a tensor to every reader of Arrow's
// canonical extension types; a reader that knows none sees the list of bytes.
const (
	extensionName     = "ARROW:extension:name"
	extensionMetadata = "ARROW:extension:metadata"
	fixedShapeTensor  = "arrow.fixed_shape_tensor"
)

type tensorShape struct {
	Shape    [3]int    `json:"shape"`
	DimNames [3]string `json:"dim_names"`
}

// imageSchema is the schema of a Samples record. The lists are nullable (and
// never null) because arrow v17 writes others to Parquet as nulls.
func imageSchema(f Frame, classes []string) *arrow.Schema {
	tensor, err := json.Marshal(tensorShape{[3]int{f.H, f.W, 3}, [3]string{"H", "W", "C"}})
	if err != nil {
		panic(err) // integers and constants always marshal
	}
	if f.CanvasW == 0 && f.views() == 1 { // nothing was cropped: the canvas is the image
		f.CanvasW, f.CanvasH = f.W, f.H
	}
	var names, values []string
	if f.CanvasW > 0 { // else it differs from image to image
		names, values = []string{"canvas"}, []string{fmt.Sprintf("%dx%d", f.CanvasW, f.CanvasH)}
	}
	if classes != nil {
		list, err := json.Marshal(classes)
		if err != nil {
			panic(err) // strings always marshal
		}
		names, values = append(names, "classes"), append(values, string(list))
	}
	meta := arrow.NewMetadata(names, values)
	return arrow.NewSchema([]arrow.Field{
		{Name: "image", Type: arrow.FixedSizeListOf(int32(f.H*f.W*3), arrow.PrimitiveTypes.Uint8), Nullable: true,
			Metadata: arrow.NewMetadata([]string{extensionName, extensionMetadata}, []string{fixedShapeTensor, string(tensor)})},
		{Name: "view", Type: arrow.PrimitiveTypes.Int32},
		{Name: "shift", Type: arrow.FixedSizeListOf(3, arrow.PrimitiveTypes.Float32), Nullable: true},
		{Name: "origin", Type: arrow.FixedSizeListOf(2, arrow.PrimitiveTypes.Int32), Nullable: true},
		{Name: "flip", Type: arrow.FixedWidthTypes.Boolean},
		{Name: "label", Type: arrow.PrimitiveTypes.Int32},
		{Name: "index", Type: arrow.PrimitiveTypes.Int64},
		{Name: "name", Type: arrow.BinaryTypes.String},
	}, &meta)
}

// ImagesOf reads a record of kind Samples by the names of its columns. Flip and
// Name are copies, the rest is the record's memory.
func ImagesOf(rec arrow.Record) (Images, error) {
	m := Images{N: int(rec.NumRows())}
	at := rec.Schema().FieldIndices("image")
	if len(at) != 1 {
		return m, fmt.Errorf("record: %d columns named %q, want 1", len(at), "image")
	}
	var shape tensorShape
	text, _ := rec.Schema().Field(at[0]).Metadata.GetValue(extensionMetadata)
	if err := json.Unmarshal([]byte(text), &shape); err != nil {
		return m, fmt.Errorf("record: column %q: its %s is no tensor shape: %w", "image", extensionMetadata, err)
	}
	m.H, m.W = shape.Shape[0], shape.Shape[1]
	if m.H < 1 || m.W < 1 || shape.Shape[2] != 3 {
		return m, fmt.Errorf("record: column %q has the shape %v, want [H,W,3]", "image", shape.Shape)
	}

	var err error
	size := m.H * m.W * 3
	pixels, p := lists[*array.Uint8](rec, "image", size, &err)
	shift, s := lists[*array.Float32](rec, "shift", 3, &err)
	origin, o := lists[*array.Int32](rec, "origin", 2, &err)
	flip := plain[*array.Boolean](rec, "flip", &err)
	view := plain[*array.Int32](rec, "view", &err)
	label := plain[*array.Int32](rec, "label", &err)
	index := plain[*array.Int64](rec, "index", &err)
	name := plain[*array.String](rec, "name", &err)
	if err != nil {
		return m, err
	}
	m.Pixels = pixels.Uint8Values()[p*size : (p+m.N)*size]
	m.Shift = shift.Float32Values()[s*3 : (s+m.N)*3]
	m.Origin = origin.Int32Values()[o*2 : (o+m.N)*2]
	m.View, m.Label, m.Index = view.Int32Values(), label.Int32Values(), index.Int64Values()
	m.Flip, m.Name = make([]bool, m.N), make([]string, m.N)
	// A copy, because names are what an error or a table keeps after the record; one
	// for all of them.
	names := string(name.ValueBytes())
	for i := range m.N {
		m.Flip[i] = flip.Value(i)
		n := len(name.Value(i))
		m.Name[i], names = names[:n], names[n:]
	}
	return m, nil
}

// plain finds a column and its type. The first error stays in err.
func plain[A arrow.Array](rec arrow.Record, name string, err *error) (a A) {
	if *err != nil {
		return a
	}
	col, e := column(rec, name)
	if e != nil {
		*err = e
		return a
	}
	a, ok := col.(A)
	if !ok {
		*err = fmt.Errorf("record: column %q is %v, want %T", name, col.DataType(), a)
	}
	return a
}

// lists finds a column of lists of one width: all their values, and which list
// is the record's first (a record may be a slice of a longer one).
func lists[A arrow.Array](rec arrow.Record, name string, width int, err *error) (values A, first int) {
	col := plain[*array.FixedSizeList](rec, name, err)
	if *err != nil {
		return values, 0
	}
	if n := int(col.DataType().(*arrow.FixedSizeListType).Len()); n != width {
		*err = fmt.Errorf("record: column %q has lists of %d, want %d", name, n, width)
		return values, 0
	}
	values, ok := col.ListValues().(A)
	if !ok {
		*err = fmt.Errorf("record: column %q is %v, want lists of %T", name, col.DataType(), values)
	}
	return values, col.Data().Offset()
}

// MetricsRecord makes the record of a Metrics batch; the columns are named as
// in Metric's JSON.
func MetricsRecord(rows ...Metric) arrow.Record { return tableOf(rows) }

// MetricsOf reads a record made by MetricsRecord.
func MetricsOf(rec arrow.Record) ([]Metric, error) { return rowsOf[Metric](rec) }

// BadSample is a row of a Quarantine batch: a sample that was left out or, where
// Reason begins with "used all the same", one that a stage has warned of.
type BadSample struct {
	Name   string `json:"name"`
	Index  int64  `json:"index"`
	Epoch  int32  `json:"epoch"`
	Pos    int64  `json:"pos"` // place in the epoch's order, from 0
	Stage  string `json:"stage"`
	Reason string `json:"reason"`
	SHA256 string `json:"sha256"` // of the encoded bytes, hex; empty if they could not be read
}

// QuarantineRecord makes the record of a Quarantine batch; the columns are
// named as in BadSample's JSON.
func QuarantineRecord(rows ...BadSample) arrow.Record { return tableOf(rows) }

// QuarantineOf reads a record made by QuarantineRecord.
func QuarantineOf(rec arrow.Record) ([]BadSample, error) { return rowsOf[BadSample](rec) }
