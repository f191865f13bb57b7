package pipeline

import (
	"bytes"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet/file"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"
)

// imageRecord is a record of n pictures of 4x3 in a buffer with room for more.
func imageRecord(t *testing.T, n int) (arrow.Record, Images) {
	t.Helper()
	l := newLayout(Frame{W: 4, H: 3, CanvasW: 9, CanvasH: 8}, n+2, []string{"cat", `"dog"`})
	buf := memory.NewBufferWithAllocator(bytes.Repeat([]byte{0xFF}, l.size), memory.NewGoAllocator())
	want := Images{N: n, H: 3, W: 4}
	names := make([]string, n)
	for i := range n {
		s := NewSample(1, "x", Key{Index: 1<<40 + i})
		s.SetImage(picture(9, 8, i))
		s.SetView(s.View().Crop(0, 0, 9, 8).Crop(i%6, i%5, 4, 3))
		if i%3 == 0 {
			s.SetView(s.View().Mirror())
		}
		s.Label, s.Shift = int32(i-1), [3]float32{float32(i), -0.5, 1e-3}
		rendered, err := s.render()
		if err != nil {
			t.Fatal(err)
		}
		rgb := rendered[0].rgb
		l.put(buf.Buf(), i, s, 0)
		names[i] = fmt.Sprintf("ß%d.jpg", i)
		want.Pixels = append(want.Pixels, rgb.Pix[:36]...)
		want.Shift = append(want.Shift, s.Shift[:]...)
		want.Origin = append(want.Origin, int32(i%6), int32(i%5))
		want.Flip = append(want.Flip, i%3 == 0)
		want.View = append(want.View, 0)
		want.Label = append(want.Label, s.Label)
		want.Index = append(want.Index, int64(s.Index))
	}
	want.Name = slices.Clone(names)
	return l.record(buf, names), want
}

func TestAnImageThatWasNotCroppedIsItsOwnCanvas(t *testing.T) {
	meta := imageSchema(Frame{W: 9, H: 8}, nil).Metadata()
	if v, _ := meta.GetValue("canvas"); v != "9x8" {
		t.Errorf("canvas is %s, want 9x8", v)
	}
}

func TestImages(t *testing.T) {
	rec, want := imageRecord(t, 11)
	defer rec.Release()
	got, err := ImagesOf(rec)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}

	meta := rec.Schema().Metadata()
	if v, _ := meta.GetValue("classes"); v != `["cat","\"dog\""]` {
		t.Errorf("classes are %s", v)
	}
	if v, _ := meta.GetValue("canvas"); v != "9x8" {
		t.Errorf("canvas is %s", v)
	}
	field := rec.Schema().Field(0).Metadata
	if v, _ := field.GetValue("ARROW:extension:name"); v != "arrow.fixed_shape_tensor" {
		t.Errorf("the extension is %s", v)
	}
	if v, _ := field.GetValue("ARROW:extension:metadata"); v != `{"shape":[3,4,3],"dim_names":["H","W","C"]}` {
		t.Errorf("the tensor is %s", v)
	}
}

func TestImagesOfASlice(t *testing.T) {
	rec, whole := imageRecord(t, 11)
	defer rec.Release()
	part := rec.NewSlice(3, 8)
	defer part.Release()
	got, err := ImagesOf(part)
	if err != nil {
		t.Fatal(err)
	}
	want := Images{N: 5, H: 3, W: 4, Pixels: whole.Pixels[3*36 : 8*36], Shift: whole.Shift[9:24], Origin: whole.Origin[6:16],
		Flip: whole.Flip[3:8], View: whole.View[3:8], Label: whole.Label[3:8], Index: whole.Index[3:8], Name: whole.Name[3:8]}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// What is written to Arrow's and Parquet's files reads back the same.
func TestImagesThroughFiles(t *testing.T) {
	rec, want := imageRecord(t, 11)
	defer rec.Release()
	check := func(what string, back arrow.Record) {
		t.Helper()
		got, err := ImagesOf(back)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got  %v\nwant %v", what, got, want)
		}
	}

	var stream bytes.Buffer
	w := ipc.NewWriter(&stream, ipc.WithSchema(rec.Schema()))
	if err := w.Write(rec); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := ipc.NewReader(&stream)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Release()
	if !r.Next() {
		t.Fatal("the Arrow stream is empty")
	}
	check("Arrow", r.Record())
	meta := r.Schema().Metadata()
	if v, _ := meta.GetValue("canvas"); v != "9x8" {
		t.Errorf("canvas is %q", v)
	}

	var parquet bytes.Buffer
	pw, err := pqarrow.NewFileWriter(rec.Schema(), &parquet, nil, pqarrow.NewArrowWriterProperties(pqarrow.WithStoreSchema()))
	if err != nil {
		t.Fatal(err)
	}
	if err := pw.Write(rec); err != nil {
		t.Fatal(err)
	}
	if err := pw.Close(); err != nil {
		t.Fatal(err)
	}
	pf, err := file.NewParquetReader(bytes.NewReader(parquet.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	defer pf.Close()
	pr, err := pqarrow.NewFileReader(pf, pqarrow.ArrowReadProperties{BatchSize: 64}, memory.NewGoAllocator())
	if err != nil {
		t.Fatal(err)
	}
	rr, err := pr.GetRecordReader(t.Context(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer rr.Release()
	if !rr.Next() {
		t.Fatal("the Parquet file is empty")
	}
	check("Parquet", rr.Record())
}

func TestImagesOfForeignRecords(t *testing.T) {
	rec, _ := imageRecord(t, 3)
	defer rec.Release()
	with := func(i int, f arrow.Field, col arrow.Array) arrow.Record {
		fields, cols := slices.Clone(rec.Schema().Fields()), slices.Clone(rec.Columns())
		fields[i], cols[i] = f, col
		return array.NewRecord(arrow.NewSchema(fields, nil), cols, 3)
	}
	image, label, shift := rec.Schema().Field(0), rec.Schema().Field(5), rec.Schema().Field(2)
	noShape, badShape, otherShape := image, image, image
	noShape.Metadata = arrow.Metadata{}
	badShape.Metadata = arrow.NewMetadata([]string{extensionMetadata}, []string{`{"shape":[0,4,3]}`})
	otherShape.Metadata = arrow.NewMetadata([]string{extensionMetadata}, []string{`{"shape":[5,4,3]}`})
	renamed := label
	renamed.Name = "class"
	wide := label
	wide.Type = arrow.PrimitiveTypes.Int64
	for want, r := range map[string]arrow.Record{
		`0 columns named "label"`:       with(5, renamed, rec.Column(5)),
		`column "label" is int64`:       with(5, wide, rec.Column(6)),
		`is no tensor shape`:            with(0, noShape, rec.Column(0)),
		`has the shape [0 4 3]`:         with(0, badShape, rec.Column(0)),
		`has lists of 36, want 60`:      with(0, otherShape, rec.Column(0)),
		`column "shift" has lists of 2`: with(2, arrow.Field{Name: "shift", Type: rec.Schema().Field(3).Type}, rec.Column(3)),
		`0 columns named "image"`:       MetricsRecord(),
		`want lists of *array.Float32`:  with(2, arrow.Field{Name: shift.Name, Type: arrow.FixedSizeListOf(3, arrow.PrimitiveTypes.Int32)}, threeInts(t)),
	} {
		_, err := ImagesOf(r)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want %s", err, want)
		}
		r.Release()
	}
}

func threeInts(t *testing.T) arrow.Array {
	t.Helper()
	b := array.NewFixedSizeListBuilder(memory.NewGoAllocator(), 3, arrow.PrimitiveTypes.Int32)
	defer b.Release()
	for range 3 {
		b.Append(true)
		b.ValueBuilder().(*array.Int32Builder).AppendValues([]int32{1, 2, 3}, nil)
	}
	return b.NewArray()
}

func TestMetricsRecord(t *testing.T) {
	rows := []Metric{
		{Event: "step", Epoch: 1, Step: 2, Loss: 3, Top1: 4, Top5: 5, LR: 6, ImagesPerSecond: 7, InputWait: 8, SinkWait: 9, Seconds: 10},
		{Event: "done", Loss: math.Inf(1)},
	}
	rec := MetricsRecord(rows...)
	defer rec.Release()
	got, err := MetricsOf(rec)
	if err != nil || !slices.Equal(got, rows) {
		t.Errorf("got %v (%v), want %v", got, err, rows)
	}
	if _, err := QuarantineOf(rec); err == nil || !strings.Contains(err.Error(), `0 columns named "name"`) {
		t.Errorf("a metrics record is taken for bad samples: %v", err)
	}
	var names []string
	for _, f := range rec.Schema().Fields() {
		names = append(names, f.Name)
	}
	if got := strings.Join(names, " "); got != "event epoch step loss top1 top5 lr images_per_second input_wait sink_wait seconds grad_norm layer update_ratio dead text" {
		t.Errorf("columns are %s", got)
	}
}

func TestQuarantineRecord(t *testing.T) {
	rows := []BadSample{{Name: "a.jpg", Index: 1 << 40, Epoch: 2, Stage: "decode", Reason: "no", SHA256: "ab"}, {}}
	rec := QuarantineRecord(rows...)
	defer rec.Release()
	got, err := QuarantineOf(rec)
	if err != nil || !slices.Equal(got, rows) {
		t.Errorf("got %v (%v), want %v", got, err, rows)
	}
}

// A column of another type than its name says is an error, not a zero.
func TestRowsOfAnotherType(t *testing.T) {
	rec := QuarantineRecord(BadSample{Epoch: 7})
	defer rec.Release()
	fields := slices.Clone(rec.Schema().Fields())
	cols := slices.Clone(rec.Columns())
	fields[2].Type, cols[2] = fields[1].Type, cols[1]
	other := array.NewRecord(arrow.NewSchema(fields, nil), cols, 1)
	defer other.Release()
	if _, err := QuarantineOf(other); err == nil || !strings.Contains(err.Error(), `column "epoch" is int64, want int32`) {
		t.Errorf("error is %v", err)
	}
}

func TestErrorText(t *testing.T) {
	err := &Error{Stage: "decode", Name: "flowers/a.jpg", Key: Key{0, 12}, Err: fmt.Errorf("unexpected EOF"), Stack: []byte("goroutine 1")}
	if got, want := err.Error(), "decode: flowers/a.jpg (epoch 1, sample 12): unexpected EOF"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := fmt.Sprintf("%v", err); got != err.Error() {
		t.Errorf("%%v gives %s", got)
	}
	if got := fmt.Sprintf("%q", err); got != fmt.Sprintf("%q", err.Error()) {
		t.Errorf("%%q gives %s", got)
	}
	if got, want := fmt.Sprintf("%+v", err), err.Error()+"\n\ngoroutine 1"; got != want {
		t.Errorf("%%+v gives %s, want %s", got, want)
	}
	err.Name = ""
	if got, want := err.Error(), "decode: epoch 1, sample 12: unexpected EOF"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
