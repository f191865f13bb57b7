package stages

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/bitutil"
)

// An agreement is what a program answers with to batches of a schema.
type agreement struct {
	in, out *arrow.Schema
	// The columns of the emitted record: those of the input, in its order and with its
	// metadata, then those that the program adds. from is where each is in an answer.
	schema *arrow.Schema
	from   []int
	added  []arrow.Field
}

// agree compares a program's schema with that of the batches that come.
func agree(in, out *arrow.Schema) (*agreement, error) {
	a := &agreement{in: in, out: out}
	if !out.IsNativeEndian() {
		return nil, errors.New("its answers have the byte order of another machine")
	}
	var errs []error
	fields := slices.Clone(in.Fields())
	for _, f := range fields {
		at := out.FieldIndices(f.Name)
		switch {
		case len(at) == 0:
			errs = append(errs, fmt.Errorf("its answer lacks the column %q: a program must give back every column that comes", f.Name))
			continue
		case !arrow.TypeEqual(out.Field(at[0]).Type, f.Type):
			errs = append(errs, fmt.Errorf("its answer has the column %q as %v, it comes as %v", f.Name, out.Field(at[0]).Type, f.Type))
		}
		a.from = append(a.from, at[0])
	}
	for i, f := range out.Fields() {
		switch {
		case len(out.FieldIndices(f.Name)) > 1:
			errs = append(errs, fmt.Errorf("its answer has more than one column %q", f.Name))
		case in.HasField(f.Name):
		case !plainType(f.Type):
			errs = append(errs, fmt.Errorf("its answer has the column %q as %v; numbers, booleans, times, strings, bytes, and lists and structs of these can be taken", f.Name, f.Type))
		default:
			fields, a.from, a.added = append(fields, f), append(a.from, i), append(a.added, f)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	meta := in.Metadata()
	a.schema = arrow.NewSchema(fields, &meta)
	return a, nil
}

// String lists what is added.
func (a *agreement) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "gives back %d columns", len(a.in.Fields()))
	for _, f := range a.added {
		fmt.Fprintf(&b, "\nadds column %s: %v", f.Name, f.Type)
	}
	return b.String()
}

// plainType says whether sound knows a type.
func plainType(t arrow.DataType) bool {
	switch t := t.(type) {
	case *arrow.DictionaryType, arrow.ExtensionType, *arrow.NullType:
		return false
	case *arrow.FixedSizeBinaryType:
		return t.ByteWidth >= 0 && t.ByteWidth <= maxMessage
	case arrow.FixedWidthDataType, *arrow.StringType, *arrow.BinaryType, *arrow.LargeStringType, *arrow.LargeBinaryType:
		if l, ok := t.(*arrow.FixedSizeListType); ok {
			return plainType(l.Elem())
		}
		return true
	case *arrow.FixedSizeListType:
		return plainType(t.Elem())
	case *arrow.ListType:
		return plainType(t.Elem())
	case *arrow.LargeListType:
		return plainType(t.Elem())
	case *arrow.StructType:
		return !slices.ContainsFunc(t.Fields(), func(f arrow.Field) bool { return !plainType(f.Type) })
	}
	return false
}

// identity is what says which row is which sample: a program may not change it.
type identity map[string][]byte

// identityOf copies the columns index and view.
func identityOf(rec arrow.Record) identity {
	id := identity{}
	for _, name := range []string{"index", "view"} {
		for _, at := range rec.Schema().FieldIndices(name) {
			id[name] = slices.Clone(valuesOf(rec.Column(at)))
		}
	}
	return id
}

// valuesOf is the memory of a column of numbers.
func valuesOf(a arrow.Array) []byte {
	d, width := a.Data(), a.DataType().(arrow.FixedWidthDataType).Bytes()
	if d.Len() == 0 {
		return nil
	}
	return d.Buffers()[1].Bytes()[d.Offset()*width : (d.Offset()+d.Len())*width]
}

// take checks an answer and gives the record to emit.
func (a *agreement) take(answer arrow.Record, rows int64, id identity) (arrow.Record, error) {
	if answer.NumRows() != rows {
		return nil, fmt.Errorf("the answer has %d rows, the batch %d", answer.NumRows(), rows)
	}
	columns := make([]arrow.Array, len(a.from))
	for i, at := range a.from {
		columns[i] = answer.Column(at)
		name := a.schema.Field(i).Name
		if i < a.in.NumFields() && columns[i].NullN() > 0 {
			return nil, fmt.Errorf("the answer's column %q has %d nulls, and may have none", name, columns[i].NullN())
		}
		if was, ok := id[name]; ok && !slices.Equal(valuesOf(columns[i]), was) {
			return nil, fmt.Errorf("the answer's column %q is not as it came: a program must keep the rows and their order", name)
		}
	}
	return array.NewRecord(a.schema, columns, rows), nil
}

// sound checks that the buffers of an array hold what its length promises. Arrow's
// reader does not, and who reads a value later would panic.
func sound(d arrow.ArrayData) error {
	buffers, n := d.Buffers(), d.Offset()+d.Len()
	size := func(i int) int {
		if i >= len(buffers) || buffers[i] == nil {
			return 0
		}
		return buffers[i].Len()
	}
	if len(buffers) > 0 && buffers[0] != nil && size(0) > 0 && int64(size(0)) < bitutil.BytesForBits(int64(n)) {
		return errors.New("its validity bitmap is too short")
	}
	if d.NullN() > 0 && size(0) == 0 {
		return errors.New("it counts nulls and has no validity bitmap")
	}
	child := func(i, need int) error {
		if c := d.Children()[i]; c.Len() < need {
			return fmt.Errorf("it has %d values, and needs %d", c.Len(), need)
		}
		return sound(d.Children()[i])
	}
	switch t := d.DataType().(type) {
	case *arrow.FixedSizeListType:
		return child(0, n*int(t.Len()))
	case *arrow.StructType:
		for i := range t.NumFields() {
			if err := child(i, n); err != nil {
				return err
			}
		}
		return nil
	case *arrow.ListType, *arrow.LargeListType:
		last, err := offsets(d, n)
		if err != nil {
			return err
		}
		return child(0, last)
	case *arrow.StringType, *arrow.BinaryType, *arrow.LargeStringType, *arrow.LargeBinaryType:
		last, err := offsets(d, n)
		if err == nil && last > size(2) {
			err = fmt.Errorf("it has %d bytes of text, and needs %d", size(2), last)
		}
		return err
	case arrow.FixedWidthDataType:
		if need := bitutil.BytesForBits(int64(n) * int64(t.BitWidth())); int64(size(1)) < need {
			return fmt.Errorf("it has %d bytes, and needs %d", size(1), need)
		}
		return nil
	}
	return fmt.Errorf("it is %v, which cannot be taken", d.DataType())
}

// offsets checks that the offsets of n lists or texts only grow, and gives the last.
func offsets(d arrow.ArrayData, n int) (last int, err error) {
	if n == 0 {
		return 0, nil
	}
	bytes := 0
	if b := d.Buffers()[1]; b != nil {
		bytes = b.Len()
	}
	width := d.DataType().(arrow.OffsetsDataType).OffsetTypeTraits().BytesRequired(1)
	if bytes < (n+1)*width {
		return 0, fmt.Errorf("it has %d bytes of offsets, and needs %d", bytes, (n+1)*width)
	}
	at := func(i int) int64 { return arrow.Int64Traits.CastFromBytes(d.Buffers()[1].Bytes())[i] }
	if width == 4 {
		at = func(i int) int64 { return int64(arrow.Int32Traits.CastFromBytes(d.Buffers()[1].Bytes())[i]) }
	}
	before := int64(0)
	for i := range n + 1 {
		if at(i) < before {
			return 0, fmt.Errorf("offset %d is %d, after %d", i, at(i), before)
		}
		before = at(i)
	}
	return int(before), nil
}
