package config

import (
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// field is a field of a struct that the YAML can set.
type field struct {
	name, doc string
	required  bool
	value     reflect.Value
}

// fieldsOf lists the fields of a struct that have a yaml tag, those of inlined
// structs among them.
func fieldsOf(v reflect.Value) []field {
	var fields []field
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, flags, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case !f.IsExported() || name == "-":
		case flags == "inline":
			fields = append(fields, fieldsOf(v.Field(i))...)
		default:
			fields = append(fields, field{name, f.Tag.Get("doc"), f.Tag.Get("config") == "required", v.Field(i)})
		}
	}
	return fields
}

// Field describes one option for the catalogue.
type Field struct {
	Name     string
	Type     string // in words: "whole number", "list of text"
	Default  string // as YAML in one line; empty if required
	Doc      string
	Required bool
	Fields   []Field // of a nested mapping
}

// Typer is an Unmarshaler that says in words what it takes, for the catalogue:
// "auto or a whole number".
type Typer interface{ ConfigType() string }

// FieldsOf describes the fields of a struct whose values are the defaults.
func FieldsOf(defaults any) []Field {
	v := reflect.New(reflect.TypeOf(defaults)).Elem()
	v.Set(reflect.ValueOf(defaults))
	var out []Field
	for _, f := range fieldsOf(v) {
		d := Field{Name: f.name, Type: typeName(f.value), Doc: f.doc, Required: f.required}
		if e := elem(f.value); e.Kind() == reflect.Struct && !isUnmarshaler(e.Type()) {
			d.Fields = FieldsOf(e.Interface())
		} else if !f.required {
			d.Default = oneLine(f.value.Interface())
		}
		out = append(out, d)
	}
	return out
}

// elem is what a pointer points to, or would.
func elem(v reflect.Value) reflect.Value {
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return elem(reflect.New(v.Type().Elem()).Elem())
		}
		v = v.Elem()
	}
	return v
}

func isUnmarshaler(t reflect.Type) bool { return reflect.PointerTo(t).Implements(unmarshalerType) }

func typeName(v reflect.Value) string {
	v = elem(v)
	t := v.Type()
	if typer, ok := reflect.New(t).Interface().(Typer); ok {
		return typer.ConfigType()
	}
	switch {
	case isUnmarshaler(t):
		return "see its doc"
	case t == durationType:
		return "duration"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Float32, reflect.Float64:
		return "number"
	case reflect.String:
		return "text"
	case reflect.Slice:
		return "list of " + typeName(reflect.New(t.Elem()))
	case reflect.Array:
		return fmt.Sprintf("list of %d x %s", t.Len(), typeName(reflect.New(t.Elem())))
	case reflect.Map:
		return "mapping of name to " + typeName(reflect.New(t.Elem()))
	case reflect.Struct:
		return "mapping"
	default:
		return "whole number"
	}
}

// oneLine is v as YAML in flow style.
func oneLine(v any) string {
	var n yaml.Node
	if err := n.Encode(v); err != nil {
		return fmt.Sprint(v)
	}
	n.Style |= yaml.FlowStyle
	text, err := yaml.Marshal(&n)
	if err != nil {
		return fmt.Sprint(v)
	}
	return strings.Join(strings.Fields(string(text)), " ")
}

// check panics if the YAML could not fill a struct: a mistake of whoever wrote
// it, found when the program starts.
func check(t reflect.Type, what string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, flags, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case !f.IsExported() || name == "-":
		case flags == "inline":
			check(f.Type, what)
		case name == "" || f.Tag.Get("doc") == "":
			panic(fmt.Sprintf("config: field %s of %s needs the tags yaml and doc", f.Name, what))
		default:
			checkType(f.Type, fmt.Sprintf("field %s of %s", f.Name, what))
		}
	}
}

func checkType(t reflect.Type, what string) {
	if isUnmarshaler(t) {
		return
	}
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array:
		checkType(t.Elem(), what)
	case reflect.Map:
		if t.Key().Kind() != reflect.String {
			panic(fmt.Sprintf("config: %s has keys that are no strings", what))
		}
		checkType(t.Elem(), what)
	case reflect.Struct:
		check(t, what)
	case reflect.Interface, reflect.Func, reflect.Chan, reflect.Complex64, reflect.Complex128, reflect.Uintptr, reflect.UnsafePointer:
		panic(fmt.Sprintf("config: %s is a %s, which no YAML can fill", what, t))
	}
}
