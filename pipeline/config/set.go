package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Set overrides one value of the document before it is decoded. The assignment
// is path=value; the value is YAML, and null (or nothing) takes the field or
// item out. A path goes through fields and through items of lists, which are
// named by their number from 0, their name ("resize", the second one "resize#2"),
// or the value of their own field `name`:
//
//	batches.train.epochs=3   samples.resize.shorter=64   samples.2={flip: {}}
//
// The number after the last adds an item. schema is any value of the struct that
// the document is for: where that has a Chooser, a path to another choice
// replaces the one in the file.
func (doc *Document) Set(assignment string, schema any) error {
	path, text, ok := strings.Cut(assignment, "=")
	s := setter{doc: doc, path: path}
	if !ok || path == "" {
		s.path = assignment
		return s.errorf("write it as path=value")
	}
	steps := strings.Split(path, ".")
	for _, step := range steps {
		if step == "" {
			return s.errorf("the path has an empty step")
		}
	}
	value := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Line: 1, Column: 1}
	parsed, err := Parse("value", []byte(text))
	switch {
	case err == nil:
		value = parsed.Root
		for _, e := range parsed.errs {
			doc.errs = append(doc.errs, &Error{File: doc.Name, Line: 1, Column: 1, Set: path, Msg: e.Msg})
		}
	case strings.TrimSpace(text) == "" || strings.TrimSpace(text) == "null" || strings.TrimSpace(text) == "~":
		err = nil
	}
	return s.set(doc.Root, reflect.TypeOf(schema), steps, value, text, err)
}

type setter struct {
	doc  *Document
	path string
}

func (s setter) errorf(format string, args ...any) error {
	return Errors{{File: s.doc.Name, Line: 1, Column: 1, Set: s.path, Msg: fmt.Sprintf(format, args...)}}
}

// set walks to the place that steps name, making what is missing on the way,
// and puts value there. t is the type that n is decoded into, nil if not known.
// badValue is the error of text as YAML, which does not matter to a text field.
func (s setter) set(n *yaml.Node, t reflect.Type, steps []string, value *yaml.Node, text string, badValue error) error {
	remove := func() {}
	for i, step := range steps {
		done := strings.Join(steps[:i], ".")
		t = deref(t)
		choice, chosen := chooser(t)
		if n.Kind == yaml.ScalarNode {
			switch {
			case isNull(n), chosen, n.ShortTag() == "!!str" && n.Value == step:
				// `decode` becomes `decode: {}`, and another choice takes its place.
				*n = yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: n.Line, Column: n.Column}
				s.mark(n)
			default:
				return s.errorf("%s is %s, so nothing can be set inside it", done, describe(n))
			}
		}
		if n.Kind == yaml.SequenceNode {
			at, err := s.index(n, done, step)
			if err != nil {
				return err
			}
			parent := n
			n = n.Content[at]
			remove = func() { parent.Content = append(parent.Content[:at:at], parent.Content[at+1:]...) }
			if t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) {
				t = t.Elem()
			} else {
				t = nil
			}
			if name := s.itemName(n); name == "" || step == strconv.Itoa(at) {
				continue
			}
			// The step named the item, so what follows is inside its options.
			if n.Kind == yaml.ScalarNode {
				key := *n
				*n = yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: n.Line, Column: n.Column,
					Content: []*yaml.Node{&key, {Kind: yaml.ScalarNode, Tag: "!!null", Line: n.Line, Column: n.Column}}}
				s.doc.sets[n] = s.path
			}
			if choice, chosen = chooser(deref(t)); chosen {
				t = typeOf(choice.Choice(n.Content[0].Value))
			} else {
				t = nil
			}
			n = n.Content[1]
			continue
		}
		child := lookup(n, step)
		switch {
		case child == nil && chosen:
			n.Content = nil
			fallthrough
		case child == nil:
			key := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: step, Line: n.Line, Column: n.Column}
			child = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Line: n.Line, Column: n.Column}
			s.mark(key)
			s.mark(child)
			n.Content = append(n.Content, key, child)
		}
		parent := n
		remove = func() {
			for i := 0; i+1 < len(parent.Content); i += 2 {
				if parent.Content[i].Value == step {
					parent.Content = append(parent.Content[:i:i], parent.Content[i+2:]...)
					return
				}
			}
		}
		switch {
		case chosen:
			t = typeOf(choice.Choice(step))
		case t != nil && t.Kind() == reflect.Struct:
			t = fieldType(t, step)
		case t != nil && t.Kind() == reflect.Map:
			t = t.Elem()
		default:
			t = nil
		}
		n = child
	}
	switch t = deref(t); {
	case t != nil && t.Kind() == reflect.String && !isUnmarshaler(t) &&
		(badValue != nil || value.Kind == yaml.ScalarNode && !isNull(value) && value.ShortTag() != "!!str"):
		// What is to be text needs no quotes: dir=2012, name=@home.
		value = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text, Style: yaml.DoubleQuotedStyle}
	case badValue != nil:
		remove() // of it there is one mistake to tell, not another
		return s.errorf("the value %q is no YAML: %s", shorten(text), badValue.(Errors)[0].Msg)
	case isNull(value):
		remove()
		return nil
	}
	*n = *value
	s.mark(n)
	return nil
}

// mark remembers that n and all below it came from this override.
func (s setter) mark(n *yaml.Node) {
	s.doc.sets[n] = s.path
	for _, c := range n.Content {
		s.mark(c)
	}
}

// index finds the item of a list that step names, appending one if it is the
// number after the last.
func (s setter) index(n *yaml.Node, done, step string) (int, error) {
	if at, err := strconv.Atoi(step); err == nil {
		if at == len(n.Content) {
			item := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Line: n.Line, Column: n.Column}
			s.mark(item)
			n.Content = append(n.Content, item)
		}
		if at < 0 || at >= len(n.Content) {
			return 0, s.errorf("%s has no item %d: it has %d, counted from 0", done, at, len(n.Content))
		}
		return at, nil
	}
	base, nth := step, 1
	if name, number, ok := strings.Cut(step, "#"); ok {
		if k, err := strconv.Atoi(number); err == nil && k > 0 {
			base, nth = name, k
		}
	}
	var names []string
	for at, item := range n.Content {
		name := s.itemName(item)
		if name == "" {
			continue
		}
		names = append(names, name)
		if name == base {
			if nth--; nth == 0 {
				return at, nil
			}
		}
	}
	for at, item := range n.Content {
		if s.itemName(item) != "" && item.Kind == yaml.MappingNode {
			if own := lookup(item.Content[1], "name"); own != nil && own.Value == step {
				return at, nil
			}
		}
	}
	if found := count(names, base); found > 0 {
		return 0, s.errorf("%s has no item %q: %d of that name", done, step, found)
	}
	return 0, s.errorf("%s has no item %q%s", done, step, hint(base, names))
}

// itemName is the name of `name` and `name: {options}`, empty for another form.
func (setter) itemName(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str":
		return n.Value
	case n.Kind == yaml.MappingNode && len(n.Content) == 2:
		return n.Content[0].Value
	}
	return ""
}

func count(words []string, word string) (n int) {
	for _, w := range words {
		if w == word {
			n++
		}
	}
	return n
}

func deref(t reflect.Type) reflect.Type {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

func typeOf(v any) reflect.Type {
	if v == nil {
		return nil
	}
	return deref(reflect.TypeOf(v))
}

func chooser(t reflect.Type) (Chooser, bool) {
	if t == nil {
		return nil, false
	}
	c, ok := reflect.New(t).Interface().(Chooser)
	return c, ok
}

func fieldType(t reflect.Type, name string) reflect.Type {
	for _, f := range fieldsOf(reflect.New(t).Elem()) {
		if f.name == name {
			return f.value.Type()
		}
	}
	return nil
}
