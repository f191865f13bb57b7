package net_test

import (
	"bytes"
	"maps"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"sluice/net"
	"sluice/net/nettest"
)

func newReference() net.Engine { return nettest.NewReference() }

func TestTensorsRecord(t *testing.T) {
	meta := map[string]string{"classes": "[]", "net": "x"}
	tensors := someTensors()
	rec := net.TensorsRecord(tensors, meta)
	defer rec.Release()
	tensors[0].Data[0] = 99 // the record has a copy
	check := func(what string, rec arrow.Record) {
		t.Helper()
		got, gotMeta, err := net.TensorsOf(rec)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if !sameTensors(got, someTensors()) || !maps.Equal(gotMeta, meta) {
			t.Errorf("%s: %d tensors, %v", what, len(got), gotMeta)
		}
	}
	check("record", rec)

	// Through Arrow's own format, where bytes may lie anywhere.
	var file bytes.Buffer
	w := ipc.NewWriter(&file, ipc.WithSchema(rec.Schema()))
	if err := w.Write(rec); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, offset := range []int{0, 1, 3} {
		r, err := ipc.NewReader(bytes.NewReader(append(make([]byte, offset), file.Bytes()...)[offset:]))
		if err != nil {
			t.Fatal(err)
		}
		read, err := r.Read()
		if err != nil {
			t.Fatal(err)
		}
		check("read", read)
		r.Release()
	}

	// A slice of the record is its rows.
	part := rec.NewSlice(1, 3)
	defer part.Release()
	got, _, err := net.TensorsOf(part)
	if err != nil || !sameTensors(got, someTensors()[1:3]) {
		t.Errorf("a slice gives %d tensors, %v", len(got), err)
	}
}

func TestTensorsOfMistakes(t *testing.T) {
	good := net.TensorsRecord(someTensors()[:1], nil)
	defer good.Release()
	b := array.NewRecordBuilder(memory.DefaultAllocator, good.Schema())
	defer b.Release()
	row := func(dtype string, dim int64, data string) arrow.Record {
		b.Field(0).(*array.StringBuilder).Append("w")
		b.Field(1).(*array.StringBuilder).Append("weight")
		b.Field(2).(*array.StringBuilder).Append(dtype)
		b.Field(3).(*array.ListBuilder).Append(true)
		b.Field(3).(*array.ListBuilder).ValueBuilder().(*array.Int64Builder).Append(dim)
		b.Field(4).(*array.BinaryBuilder).Append([]byte(data))
		return b.NewRecord()
	}
	other := array.NewRecord(arrow.NewSchema([]arrow.Field{{Name: "name", Type: arrow.BinaryTypes.String}}, nil), []arrow.Array{good.Column(0)}, 1)
	renamed := arrow.NewSchema(append([]arrow.Field{{Name: "title", Type: arrow.BinaryTypes.String}}, good.Schema().Fields()[1:]...), nil)
	for want, rec := range map[string]arrow.Record{
		`of type "F16"`: row("F16", 2, "1234"),
		"has 4 bytes":   row("F32", 2, "1234"),
		"1 columns":     other,
		"column 0 is title of utf8, not name of utf8": array.NewRecord(renamed, good.Columns(), 1),
	} {
		if _, _, err := net.TensorsOf(rec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
		rec.Release()
	}
}
