// Package config turns YAML into Go structs, strictly, and finds every mistake
// of a file at once.
//
//	bytes ──Parse──▶ Document ──Set──▶ Document ──Decoder──▶ struct, items built by a Registry
//
// Options are plain structs: a field's `yaml:"name"` tag is its name, `doc:"..."`
// says what it is, `config:"required"` that it has no default. The same tags give
// decoding, the catalogue (Entry.Fields) and messages, which carry file, line,
// column and the nearest known name.
//
// A field with a form of its own (`workers: auto`, `on_error: {skip: {max: 3}}`)
// implements Unmarshaler, and yaml.Marshaler for the way back.
//
// The package imports no sibling, so that both the engine and the networks can
// use it.
package config
