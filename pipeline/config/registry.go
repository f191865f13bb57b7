package config

import (
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
// where there is no default. Add panics if the name is taken.
func Add[C, T any](r *Registry[T], name, doc string, defaults C, build func(C) (T, error)) {
	if _, dup := r.entries[name]; dup {
		panic(fmt.Sprintf("config: %s %q registered twice", r.kind, name))
	}
	if reflect.TypeFor[C]().Kind() != reflect.Struct {
		panic(fmt.Sprintf("config: the options of %s %q are no struct", r.kind, name))
	}
	r.entries[name] = &Entry[T]{
		Name: name, Doc: doc, defaults: defaults,
		build: func(o any) (T, error) { return build(o.(C)) },
	}
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

// Item is one entry of a YAML, decoded and built: `name` or `name: {options}`.
type Item[T any] struct {
	Name    string
	Options any // the decoded options struct, defaults filled in
	Value   T
	Node    *yaml.Node // where it stands, for messages
}

// MarshalYAML gives the resolved form, `name: {options}`.
func (i Item[T]) MarshalYAML() (any, error) {
	return map[string]any{i.Name: i.Options}, nil
}
