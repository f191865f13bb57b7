package config

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Unmarshaler is a field with a form of its own. UnmarshalConfig reads n into
// the receiver, which holds the default, and reports mistakes to d. A type that
// is one also implements yaml.Marshaler, so that the resolved YAML loads again.
type Unmarshaler interface {
	UnmarshalConfig(d *Decoder, n *yaml.Node)
}

// Chooser is a field of which the YAML names one of several things, `name` or
// `name: {options}`. Setting an option of another one replaces what the file
// chose. Choice gives any value of the options' type, nil if it has none or the
// name is not known.
type Chooser interface {
	Choice(name string) any
}

// Decoder turns nodes into values and collects every mistake.
type Decoder struct {
	file    string
	sets    map[*yaml.Node]string
	errs    Errors
	subject string // what messages call the value at hand
}

// Decoder makes a decoder for the document's nodes.
func (doc *Document) Decoder() *Decoder {
	return &Decoder{file: doc.Name, sets: doc.sets, errs: slices.Clone(doc.errs)}
}

// Decode reads the whole document into the struct that v points to, which holds
// the defaults. The error is an Errors.
func (doc *Document) Decode(v any) error {
	d := doc.Decoder()
	d.Decode(doc.Root, v)
	return d.Err()
}

// Err is every mistake so far as an Errors, nil if there is none.
func (d *Decoder) Err() error {
	if len(d.errs) == 0 {
		return nil
	}
	return d.errs.sorted()
}

// Errorf reports a mistake at n.
func (d *Decoder) Errorf(n *yaml.Node, format string, args ...any) {
	e := &Error{File: d.file, Msg: fmt.Sprintf(format, args...)}
	if n != nil {
		e.Line, e.Column, e.Set = max(1, n.Line), max(1, n.Column), d.sets[n]
	} else {
		e.Line, e.Column = 1, 1
	}
	d.errs = append(d.errs, e)
}

// Report reports err at n, or at the field of the mapping n that it names
// (Fieldf). Errors joined are reported one by one; an Errors keeps its places.
func (d *Decoder) Report(n *yaml.Node, err error) { d.report(n, n, "", err) }

// Subject is what messages call the value at hand: the name of its field. An
// Unmarshaler begins its own messages with it.
func (d *Decoder) Subject() string { return d.subject }

// Decode reads n into the variable that v points to, whose value is the
// default, and reports whether that went without a mistake.
func (d *Decoder) Decode(n *yaml.Node, v any) bool {
	before := len(d.errs)
	d.value(n, reflect.ValueOf(v).Elem())
	return len(d.errs) == before
}

// Word reads one of several words, and reports any other.
func (d *Decoder) Word(n *yaml.Node, words ...string) (string, bool) {
	if n.Kind == yaml.ScalarNode && slices.Contains(words, n.Value) {
		return n.Value, true
	}
	msg := fmt.Sprintf("%s must be %s, is %s", d.name(), list(words), describe(n))
	if n.Kind == yaml.ScalarNode {
		if k, ok := Nearest(n.Value, words); ok {
			msg += fmt.Sprintf("; did you mean %q?", k)
		}
	}
	d.Errorf(n, "%s", msg)
	return "", false
}

// Choice is one of the things that OneOf reads: a name, and a pointer to the
// struct of its options (nil for none), which holds the defaults.
type Choice struct {
	Name    string
	Options any
}

// OneOf reads `name`, `name:` or `name: {options}`, decodes the options of the
// one that is named, and gives its name.
func (d *Decoder) OneOf(n *yaml.Node, choices ...Choice) (string, bool) {
	names := make([]string, len(choices))
	for i, c := range choices {
		names[i] = c.Name
	}
	key, options, ok := d.item(n, list(names)+", or one of these with its options")
	if !ok {
		return "", false
	}
	at := slices.Index(names, key.Value)
	if at < 0 {
		_, ok := d.Word(key, names...)
		return "", ok
	}
	if choices[at].Options == nil {
		if options != nil && !(options.Kind == yaml.MappingNode && len(options.Content) == 0) {
			d.Errorf(options, "%s has no options", key.Value)
			return "", false
		}
		return key.Value, true
	}
	return key.Value, d.optionFields(key, options, fieldsOf(reflect.ValueOf(choices[at].Options).Elem()))
}

// optionFields reads the options of an item, which may be nil.
func (d *Decoder) optionFields(key, options *yaml.Node, fields []field) bool {
	before := len(d.errs)
	if options == nil {
		// An empty mapping at the name's place finds the fields that are missing.
		options = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: key.Line, Column: key.Column}
		if set := d.sets[key]; set != "" {
			d.sets[options] = set
		}
	}
	d.as(key.Value, func() { d.fields(options, fields) })
	return len(d.errs) == before
}

// item takes `name`, `name:` or `name: {options}` apart; options is nil if
// there are none. want is what it must be, for messages.
func (d *Decoder) item(n *yaml.Node, want string) (key, options *yaml.Node, ok bool) {
	switch {
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str":
		return n, nil, true
	case n.Kind == yaml.MappingNode && len(n.Content) == 2:
		if options = n.Content[1]; isNull(options) {
			options = nil
		}
		return n.Content[0], options, true
	case n.Kind == yaml.MappingNode && len(n.Content) > 2:
		// Often the options have slid out of their item's indentation.
		d.Errorf(n.Content[2], "%s must be one name with its options, name: {options}, but has %q and %q side by side (are the options indented deeper than the name?)",
			d.name(), n.Content[0].Value, n.Content[2].Value)
	default:
		d.Wrong(n, want)
	}
	return nil, nil, false
}

// as runs f with values called by another name.
func (d *Decoder) as(subject string, f func()) {
	defer func(old string) { d.subject = old }(d.subject)
	d.subject = subject
	f()
}

func (d *Decoder) name() string {
	if d.subject == "" {
		return "this"
	}
	return d.subject
}

// guard makes an error of a panic in code that was registered.
func guard(what string, f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%s panicked: %v", what, r)
		}
	}()
	return f()
}

var (
	durationType    = reflect.TypeFor[time.Duration]()
	unmarshalerType = reflect.TypeFor[Unmarshaler]()
)

func (d *Decoder) value(n *yaml.Node, v reflect.Value) {
	if u, ok := v.Addr().Interface().(Unmarshaler); ok {
		if err := guard("reading "+d.name(), func() error { u.UnmarshalConfig(d, n); return nil }); err != nil {
			d.Errorf(n, "%s", err)
		}
		return
	}
	if v.Kind() == reflect.Pointer {
		if isNull(n) {
			v.SetZero()
			return
		}
		// A new variable: the default must stay as it is for the next one.
		p := reflect.New(v.Type().Elem())
		if !v.IsNil() {
			p.Elem().Set(v.Elem())
		}
		d.value(n, p.Elem())
		v.Set(p)
		return
	}
	if isNull(n) {
		d.Errorf(n, "%s has no value; give it one, or leave it out", d.name())
		return
	}
	if v.Type() == durationType {
		d.duration(n, v)
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		d.bool(n, v)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		d.int(n, v)
	case reflect.Float32, reflect.Float64:
		d.float(n, v)
	case reflect.String:
		d.string(n, v)
	case reflect.Slice, reflect.Array:
		d.list(n, v)
	case reflect.Map:
		d.mapping(n, v)
	case reflect.Struct:
		d.fields(n, fieldsOf(v))
	default:
		panic(fmt.Sprintf("config: a field cannot be a %s", v.Type()))
	}
}

// Wrong reports that n must be something else: "size must be WANT, is ...".
func (d *Decoder) Wrong(n *yaml.Node, want string) {
	msg := fmt.Sprintf("%s must be %s, is %s", d.name(), want, describe(n))
	if n.Kind == yaml.ScalarNode && n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
		msg += " in quotes"
	}
	d.Errorf(n, "%s", msg)
}

func (d *Decoder) bool(n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" {
		d.Wrong(n, "true or false")
		return
	}
	v.SetBool(strings.EqualFold(n.Value, "true"))
}

func (d *Decoder) int(n *yaml.Node, v reflect.Value) {
	tag := n.ShortTag()
	if n.Kind != yaml.ScalarNode || tag != "!!int" && tag != "!!float" {
		d.Wrong(n, "a whole number")
		return
	}
	text := strings.TrimPrefix(strings.ReplaceAll(n.Value, "_", ""), "+")
	bits := v.Type().Bits()
	var err error
	if v.CanInt() {
		var i int64
		if i, err = strconv.ParseInt(text, 0, bits); err == nil {
			v.SetInt(i)
			return
		}
		if errors.Is(err, strconv.ErrRange) {
			d.Wrong(n, fmt.Sprintf("a whole number from %d to %d", int64(-1)<<(bits-1), int64(1)<<(bits-1)-1))
			return
		}
	} else {
		var u uint64
		if u, err = strconv.ParseUint(text, 0, bits); err == nil {
			v.SetUint(u)
			return
		}
		if errors.Is(err, strconv.ErrRange) || strings.HasPrefix(text, "-") {
			d.Wrong(n, fmt.Sprintf("a whole number from 0 to %d", uint64(1)<<(bits-1)<<1-1))
			return
		}
	}
	d.Wrong(n, "a whole number")
}

func (d *Decoder) float(n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.ScalarNode {
		d.Wrong(n, "a number")
		return
	}
	tag := n.ShortTag()
	if tag != "!!int" && tag != "!!float" {
		// The yaml package takes a number that no float64 holds for text.
		if _, err := strconv.ParseFloat(n.Value, 64); n.Style == 0 && errors.Is(err, strconv.ErrRange) {
			d.Wrong(n, "a number of ordinary size")
		} else {
			d.Wrong(n, "a number")
		}
		return
	}
	var f float64
	if err := n.Decode(&f); err != nil {
		d.Wrong(n, "a number")
		return
	}
	if math.IsNaN(f) || math.IsInf(f, 0) {
		d.Wrong(n, "a finite number")
		return
	}
	if v.OverflowFloat(f) {
		d.Wrong(n, "a number of ordinary size (32-bit)")
		return
	}
	v.SetFloat(f)
}

func (d *Decoder) string(n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.ScalarNode {
		d.Wrong(n, "text")
		return
	}
	if n.ShortTag() != "!!str" {
		d.Errorf(n, "%s must be text, is %s; if that is meant, put it in quotes", d.name(), describe(n))
		return
	}
	v.SetString(n.Value)
}

func (d *Decoder) duration(n *yaml.Node, v reflect.Value) {
	t, err := time.ParseDuration(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil {
		d.Wrong(n, "a duration such as 90s or 1h30m")
		return
	}
	v.SetInt(int64(t))
}

func (d *Decoder) list(n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.SequenceNode {
		d.Wrong(n, "a list")
		return
	}
	if v.Kind() == reflect.Array {
		if len(n.Content) != v.Len() {
			d.Errorf(n, "%s must have %d values, has %d", d.name(), v.Len(), len(n.Content))
			return
		}
	} else if len(n.Content) == 0 {
		v.SetZero() // nil and [] are one, so that what was not given resolves and loads as such
	} else {
		v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	}
	for i, c := range n.Content {
		d.as(fmt.Sprintf("%s[%d]", d.subject, i), func() { d.value(c, v.Index(i)) })
	}
}

func (d *Decoder) mapping(n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		d.Wrong(n, "a mapping")
		return
	}
	if len(n.Content) == 0 {
		v.SetZero()
		return
	}
	m := reflect.MakeMapWithSize(v.Type(), len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		e := reflect.New(v.Type().Elem()).Elem()
		d.as(n.Content[i].Value, func() { d.value(n.Content[i+1], e) })
		m.SetMapIndex(reflect.ValueOf(n.Content[i].Value).Convert(v.Type().Key()), e)
	}
	v.Set(m)
}

// fields reads a mapping into fields.
func (d *Decoder) fields(n *yaml.Node, fields []field) {
	if n.Kind != yaml.MappingNode {
		d.Wrong(n, "a mapping of fields")
		return
	}
	given := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		at := slices.IndexFunc(fields, func(f field) bool { return f.name == k.Value })
		if at < 0 {
			names := make([]string, len(fields))
			for i, f := range fields {
				names[i] = f.name
			}
			if d.subject == "" {
				d.Errorf(k, "unknown field %q%s", shorten(k.Value), hint(k.Value, names))
			} else {
				d.Errorf(k, "%s has no field %q%s", d.subject, shorten(k.Value), hint(k.Value, names))
			}
			continue
		}
		given[k.Value] = true
		d.as(k.Value, func() { d.value(n.Content[i+1], fields[at].value) })
	}
	for _, f := range fields {
		if f.required && !given[f.name] {
			prefix := ""
			if d.subject != "" {
				prefix = d.subject + ": "
			}
			d.Errorf(n, "%smissing field %q: %s", prefix, f.name, f.doc)
		}
	}
}

// list joins words for a sentence: "a, b or c".
func list(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}
