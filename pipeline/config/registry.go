package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"

	"go.yaml.in/yaml/v3"
)

// A Registry knows the things of one kind that a YAML can name. It is written
// only in init.
type Registry[T any] struct {
	kind    string
	entries map[string]*Entry[T]
}

// Entry is one thing a YAML can name: its doc, its options and how it is built.
type Entry[T any] struct {
	Name, Doc string
	defaults  any // a value of the options struct
	build     func(options any) (T, error)
}

// NewRegistry makes an empty registry of things called kind in messages.
func NewRegistry[T any](kind string) *Registry[T] {
	return &Registry[T]{kind: kind, entries: map[string]*Entry[T]{}}
}

// Add makes a name known. The options type C is a struct (struct{} for none)
// whose fields carry `yaml:"name"` and `doc:"..."` tags, and `config:"required"`
// where there is no default. A mistake in an option is Fieldf's error from build.
// Add panics if the name is taken or C cannot be filled from YAML.
func Add[C, T any](r *Registry[T], name, doc string, defaults C, build func(C) (T, error)) {
	if _, dup := r.entries[name]; dup {
		panic(fmt.Sprintf("config: %s %q registered twice", r.kind, name))
	}
	if reflect.TypeFor[C]().Kind() != reflect.Struct {
		panic(fmt.Sprintf("config: the options of %s %q are no struct", r.kind, name))
	}
	check(reflect.TypeFor[C](), fmt.Sprintf("%s %q", r.kind, name))
	r.entries[name] = &Entry[T]{
		Name: name, Doc: doc, defaults: defaults,
		build: func(o any) (T, error) { return build(o.(C)) },
	}
}

// Check is what options say of themselves, if they can.
func Check(options any) error {
	if c, ok := options.(interface{ Check() error }); ok {
		return c.Check()
	}
	return nil
}

// Kind is what messages call the things in the registry.
func (r *Registry[T]) Kind() string { return r.kind }

// Names lists the known names, sorted.
func (r *Registry[T]) Names() []string {
	names := make([]string, 0, len(r.entries))
	for n := range r.entries {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// Lookup finds an entry by name.
func (r *Registry[T]) Lookup(name string) (*Entry[T], bool) {
	e, ok := r.entries[name]
	return e, ok
}

// Choice is a value of the options struct of name, nil if that is not known: a
// field that holds an item of r implements Chooser with it.
func (r *Registry[T]) Choice(name string) any {
	if e, ok := r.entries[name]; ok {
		return e.defaults
	}
	return nil
}

// Fields describes the options of an entry.
func (e *Entry[T]) Fields() []Field { return FieldsOf(e.defaults) }

// Item is one entry of a YAML, decoded and built: `name` or `name: {options}`.
type Item[T any] struct {
	Name    string
	Options any // the decoded options struct, defaults filled in
	Common  any // what DecodeWith split off, nil without it
	Value   T
	Node    *yaml.Node // where it stands, for messages

	fields *yaml.Node // the options in the YAML, nil if there are none
}

// Decode reads `name`, `name:` or `name: {options}` and builds it. Mistakes are
// reported to d, those of build and its panics too; ok is false after one, and
// the item has no Value then.
func (r *Registry[T]) Decode(d *Decoder, n *yaml.Node) (item Item[T], ok bool) {
	return r.DecodeWith(d, n, nil)
}

// DecodeWith is Decode for items that share some fields whatever their name:
// those of the struct that common points to are split off the options.
func (r *Registry[T]) DecodeWith(d *Decoder, n *yaml.Node, common any) (item Item[T], ok bool) {
	item = Item[T]{Common: common, Node: n}
	if isNull(n) {
		d.Errorf(n, "the name of a %s is missing", r.kind)
		return item, false
	}
	var key *yaml.Node
	d.as("a "+r.kind, func() { key, item.fields, ok = d.item(n, "a name, or name: {options}") })
	if !ok {
		return item, false
	}
	item.Name = key.Value
	e, ok := r.entries[key.Value]
	if !ok {
		d.Errorf(key, "unknown %s %q%s", r.kind, shorten(key.Value), hint(key.Value, r.Names()))
		return item, false
	}
	v := reflect.New(reflect.TypeOf(e.defaults))
	v.Elem().Set(reflect.ValueOf(e.defaults))
	fields := fieldsOf(v.Elem())
	if common != nil {
		fields = append(fieldsOf(reflect.ValueOf(common).Elem()), fields...)
	}
	if !d.optionFields(key, item.fields, fields) {
		return item, false
	}
	item.Options = v.Elem().Interface()
	if err := guard("building it", func() (err error) { item.Value, err = e.build(item.Options); return err }); err != nil {
		var none T
		item.Value = none
		item.Report(d, err)
		return item, false
	}
	if any(item.Value) == nil {
		item.Report(d, errors.New("its build function gave nothing"))
		return item, false
	}
	return item, true
}

// New builds an entry from its defaults alone.
func (r *Registry[T]) New(name string) (Item[T], error) {
	d := &Decoder{file: name, sets: map[*yaml.Node]string{}}
	item, _ := r.Decode(d, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: name})
	return item, d.Err()
}

// Report reports an error of the item's value (of Plan or Frame, say) at its
// line, or at the line of the field that it names (Fieldf).
func (i Item[T]) Report(d *Decoder, err error) { d.report(i.Node, i.fields, i.Name, err) }

// MarshalYAML gives the resolved form, `name: {options}`, common fields first.
func (i Item[T]) MarshalYAML() (any, error) {
	var options yaml.Node
	if err := options.Encode(i.Options); err != nil {
		return nil, err
	}
	if i.Common != nil {
		var common yaml.Node
		if err := common.Encode(i.Common); err != nil {
			return nil, err
		}
		options.Content = append(common.Content, options.Content...)
	}
	if len(options.Content) == 0 {
		options.Style = yaml.FlowStyle // {} and not a line of its own
	}
	return map[string]*yaml.Node{i.Name: &options}, nil
}
