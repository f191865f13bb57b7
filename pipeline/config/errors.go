package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Error is one mistake in a YAML file, or in a value set from outside it.
type Error struct {
	File         string
	Line, Column int
	// Set is the path of the override that the mistake is in. File, Line and
	// Column say nothing then.
	Set string
	Msg string
}

func (e *Error) Error() string {
	if e.Set != "" {
		return fmt.Sprintf("--set %s: %s", e.Set, e.Msg)
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Msg)
}

// Errors is every mistake that was found, in the order of the file; those of
// overrides come last.
type Errors []*Error

// Error gives one line a mistake.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As look at each mistake.
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, err := range e {
		errs[i] = err
	}
	return errs
}

// sorted orders mistakes by place and drops repeated ones (an alias is decoded
// as often as it is used).
func (e Errors) sorted() Errors {
	e = slices.Clone(e)
	slices.SortStableFunc(e, func(a, b *Error) int {
		if (a.Set == "") != (b.Set == "") {
			if a.Set == "" {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	seen := map[Error]bool{}
	return slices.DeleteFunc(e, func(err *Error) bool {
		dup := seen[*err]
		seen[*err] = true
		return dup
	})
}

type fieldError struct {
	field string
	err   error
}

func (e *fieldError) Error() string { return e.field + " " + e.err.Error() }
func (e *fieldError) Unwrap() error { return errors.Unwrap(e.err) }

// Fieldf is an error that a build function (or Plan, or Frame) returns to point
// at the line of one of its own fields. The message goes on from the field's
// name: Fieldf("size", "must be at least 1, is %d", n). A field inside another is
// named by a path: "solver.lr". Several are joined by errors.Join.
func Fieldf(field, format string, args ...any) error {
	return &fieldError{field, fmt.Errorf(format, args...)}
}

// report adds err, which belongs to the thing called name at n whose options
// are in fields (nil if it has none). Errors that know their place keep it.
func (d *Decoder) report(n, fields *yaml.Node, name string, err error) {
	if name != "" {
		name += ": "
	}
	switch e := err.(type) {
	case Errors:
		d.errs = append(d.errs, e...)
	case *Error:
		d.errs = append(d.errs, e)
	case *fieldError:
		if at := find(fields, e.field); at != nil {
			n = at
		}
		d.Errorf(n, "%s%s", name, e)
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			d.report(n, fields, strings.TrimSuffix(name, ": "), err)
		}
	default:
		// A field error that was wrapped still says where it belongs.
		if fe, ok := errors.AsType[*fieldError](err); ok {
			if at := find(fields, fe.field); at != nil {
				n = at
			}
		}
		d.Errorf(n, "%s%s", name, err)
	}
}

// find is the value at a dotted path below n, or the last one on the way that
// there is; nil if not even the first step is there.
func find(n *yaml.Node, path string) *yaml.Node {
	var at *yaml.Node
	for step := range strings.SplitSeq(path, ".") {
		if n = lookup(n, step); n == nil {
			break
		}
		at = n
	}
	return at
}

// lookup is the value of a key in a mapping, or an item of a list by its number
// from 0; nil if there is none.
func lookup(n *yaml.Node, key string) *yaml.Node {
	if n == nil {
		return nil
	}
	if n.Kind == yaml.SequenceNode {
		if at, err := strconv.Atoi(key); err == nil && at >= 0 && at < len(n.Content) {
			return n.Content[at]
		}
		return nil
	}
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}
