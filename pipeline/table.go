package pipeline

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
)

// columnTypes are the Arrow types of a row's fields.
var columnTypes = map[reflect.Kind]arrow.DataType{
	reflect.String:  arrow.BinaryTypes.String,
	reflect.Int:     arrow.PrimitiveTypes.Int64,
	reflect.Int64:   arrow.PrimitiveTypes.Int64,
	reflect.Int32:   arrow.PrimitiveTypes.Int32,
	reflect.Float64: arrow.PrimitiveTypes.Float64,
}

// columnName is a field's name in JSON.
func columnName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// tableOf makes a record of rows: a column for each field, named as in its json tag.
// The row types are this package's own, so a type it does not know is a bug.
func tableOf[T any](rows []T) arrow.Record {
	t := reflect.TypeFor[T]()
	fields := make([]arrow.Field, t.NumField())
	for i := range fields {
		fields[i] = arrow.Field{Name: columnName(t.Field(i)), Type: columnTypes[t.Field(i).Type.Kind()]}
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(fields, nil))
	defer b.Release()
	for _, row := range rows {
		v := reflect.ValueOf(row)
		for i := range fields {
			switch col := b.Field(i).(type) {
			case *array.StringBuilder:
				col.Append(v.Field(i).String())
			case *array.Int64Builder:
				col.Append(v.Field(i).Int())
			case *array.Int32Builder:
				col.Append(int32(v.Field(i).Int()))
			case *array.Float64Builder:
				col.Append(v.Field(i).Float())
			}
		}
	}
	return b.NewRecord()
}

// rowsOf reads a record of tableOf by the names of its columns.
func rowsOf[T any](rec arrow.Record) ([]T, error) {
	rows := make([]T, rec.NumRows())
	t := reflect.TypeFor[T]()
	for f := range t.NumField() {
		name := columnName(t.Field(f))
		col, err := column(rec, name)
		if err != nil {
			return nil, err
		}
		if want := columnTypes[t.Field(f).Type.Kind()]; !arrow.TypeEqual(col.DataType(), want) {
			return nil, wrongType(name, col.DataType(), want)
		}
		for i := range rows {
			v := reflect.ValueOf(&rows[i]).Elem().Field(f)
			switch col := col.(type) {
			case *array.String:
				v.SetString(col.Value(i))
			case *array.Int64:
				v.SetInt(col.Value(i))
			case *array.Int32:
				v.SetInt(int64(col.Value(i)))
			case *array.Float64:
				v.SetFloat(col.Value(i))
			}
		}
	}
	return rows, nil
}

// column finds the one column of that name; it has no nulls.
func column(rec arrow.Record, name string) (arrow.Array, error) {
	at := rec.Schema().FieldIndices(name)
	if len(at) != 1 {
		return nil, fmt.Errorf("record: %d columns named %q, want 1", len(at), name)
	}
	col := rec.Column(at[0])
	if n := col.NullN(); n > 0 {
		return nil, fmt.Errorf("record: column %q has %d nulls, want none", name, n)
	}
	return col, nil
}

func wrongType(name string, got, want arrow.DataType) error {
	return fmt.Errorf("record: column %q is %v, want %v", name, got, want)
}
