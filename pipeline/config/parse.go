package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// What a configuration may be at most: far beyond any that a person writes, and
// small enough that aliases of aliases end soon.
const (
	MaxBytes = 1 << 20
	maxNodes = 100_000
)

// A Document is a YAML file as a tree of nodes, aliases written out.
type Document struct {
	Name string
	Root *yaml.Node // a mapping, unless the file has another form

	sets map[*yaml.Node]string // nodes that came from Set, with its path
	errs Errors                // mistakes of form that do not hinder decoding
}

// Parse reads one YAML document. name is the file's, for messages. The error is
// an Errors: the text is no YAML, is empty, or has more than one document.
func Parse(name string, data []byte) (*Document, error) {
	fail := func(line, column int, format string, args ...any) (*Document, error) {
		return nil, Errors{{File: name, Line: line, Column: column, Msg: fmt.Sprintf(format, args...)}}
	}
	if len(data) > MaxBytes {
		return fail(1, 1, "the file has %d bytes, more than the %d that a configuration may have", len(data), MaxBytes)
	}
	if at := badByte(data); at >= 0 {
		line, column := place(data, at)
		return fail(line, column, "byte 0x%02x is not text (UTF-8 without control characters)", data[at])
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var top, more yaml.Node
	switch err := dec.Decode(&top); {
	case errors.Is(err, io.EOF):
		return fail(1, 1, "the file is empty")
	case err != nil:
		return nil, Errors{syntaxError(name, data, err)}
	}
	switch err := dec.Decode(&more); {
	case err == nil:
		return fail(more.Line, more.Column, "a second document begins here; a file holds one")
	case !errors.Is(err, io.EOF):
		return nil, Errors{syntaxError(name, data, err)}
	}
	root := top.Content[0]
	if isNull(root) {
		return fail(1, 1, "the file is empty")
	}
	doc := &Document{Name: name, Root: root, sets: map[*yaml.Node]string{}}
	x := expander{doc: doc, open: map[*yaml.Node]bool{}}
	x.expand(root)
	if x.fatal != nil {
		return nil, Errors{x.fatal}
	}
	return doc, nil
}

// badByte is the place of the first byte that no YAML text may have, -1 if
// there is none.
func badByte(data []byte) int {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 || r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0x7f {
			return i
		}
		i += n
	}
	return -1
}

// place turns an offset into line and column, from 1.
func place(data []byte, at int) (line, column int) {
	before := data[:at]
	return 1 + bytes.Count(before, []byte("\n")), 1 + utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:])
}

var (
	yamlLine   = regexp.MustCompile(`^line (\d+): `)
	yamlAnchor = regexp.MustCompile(`^unknown anchor '(.*)' referenced`)
	tabIndent  = regexp.MustCompile(`(?m)^ *\t`)
)

// syntaxError gives the yaml package's own error a file, a line and a column.
// That package counts its lines unevenly, so known mistakes are looked up in the
// text.
func syntaxError(name string, data []byte, err error) *Error {
	e := &Error{File: name, Line: 1, Column: 1, Msg: strings.TrimPrefix(err.Error(), "yaml: ")}
	tabbed := strings.Contains(e.Msg, "tab") || strings.Contains(e.Msg, "cannot start any token")
	if m := tabIndent.FindIndex(data); m != nil && tabbed {
		e.Line, e.Column = place(data, m[1]-1)
		e.Msg = "a tab in the indentation; YAML is indented with spaces"
		return e
	}
	if m := yamlAnchor.FindStringSubmatch(e.Msg); m != nil {
		if at := bytes.Index(data, []byte("*"+m[1])); at >= 0 {
			e.Line, e.Column = place(data, at)
		}
		e.Msg = fmt.Sprintf("alias *%s has no anchor &%s before it", m[1], m[1])
		return e
	}
	if m := yamlLine.FindStringSubmatch(e.Msg); m != nil {
		e.Line, _ = strconv.Atoi(m[1])
		e.Msg = e.Msg[len(m[0]):]
		if strings.HasPrefix(e.Msg, "did not find expected") {
			e.Line++ // the parser's lines count from 0, the scanner's from 1
		}
	}
	// The column is where the text of the line begins: the closest that is known.
	lines := strings.Split(string(data), "\n")
	e.Line = min(e.Line, len(lines))
	text := lines[e.Line-1]
	e.Column = 1 + len(text) - len(strings.TrimLeft(text, " "))
	e.Msg = "no valid YAML: " + e.Msg
	return e
}

// expander writes aliases out and checks what has nothing to do with any
// struct: double keys, tags, merge keys.
type expander struct {
	doc   *Document
	open  map[*yaml.Node]bool // nodes around the one at hand
	nodes int
	fatal *Error
}

func (x *expander) stop(n *yaml.Node, format string, args ...any) {
	if x.fatal == nil {
		x.fatal = &Error{File: x.doc.Name, Line: n.Line, Column: n.Column, Msg: fmt.Sprintf(format, args...)}
	}
}

func (x *expander) mistake(n *yaml.Node, format string, args ...any) {
	x.doc.errs = append(x.doc.errs, &Error{File: x.doc.Name, Line: n.Line, Column: n.Column, Msg: fmt.Sprintf(format, args...)})
}

func (x *expander) count(n *yaml.Node) bool {
	if x.nodes++; x.nodes > maxNodes {
		x.stop(n, "more than %d values, aliases written out", maxNodes)
	}
	return x.fatal == nil
}

func (x *expander) expand(n *yaml.Node) {
	if !x.count(n) {
		return
	}
	if n.Kind == yaml.AliasNode {
		if x.open[n.Alias] {
			x.stop(n, "alias *%s stands inside its own anchor", n.Value)
			return
		}
		// The anchor stands before the alias, so it is written out already.
		if c := x.copy(n.Alias); c != nil {
			*n = *c
		}
		return
	}
	if !slices.Contains([]string{"!!map", "!!seq", "!!str", "!!int", "!!float", "!!bool", "!!null", "!!timestamp", "!!merge"}, n.ShortTag()) {
		x.mistake(n, "tag %s is not known here; leave it out", n.Tag)
	}
	x.open[n] = true
	defer delete(x.open, n)
	if n.Kind == yaml.MappingNode {
		x.keys(n)
	}
	for _, c := range n.Content {
		x.expand(c)
	}
}

// keys drops what cannot be a field, with a message.
func (x *expander) keys(n *yaml.Node) {
	seen := map[string]*yaml.Node{}
	kept := n.Content[:0:0]
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		switch first := seen[k.Value]; {
		case k.Kind == yaml.AliasNode:
			x.mistake(k, "a field's name is written out, not an alias")
		case k.Kind != yaml.ScalarNode:
			x.mistake(k, "a field's name is a word, not %s", describe(k))
		case k.ShortTag() == "!!merge":
			x.mistake(k, "merge keys (<<) are not supported; write the fields out, or alias the whole value")
		case first != nil:
			x.mistake(k, "%q is given twice; the first is on line %d", k.Value, first.Line)
		default:
			seen[k.Value] = k
			kept = append(kept, k, n.Content[i+1])
		}
	}
	n.Content = kept
}

func (x *expander) copy(n *yaml.Node) *yaml.Node {
	if !x.count(n) {
		return nil
	}
	c := *n
	c.Anchor = ""
	c.Content = make([]*yaml.Node, 0, len(n.Content))
	for _, m := range n.Content {
		k := x.copy(m)
		if k == nil {
			return nil
		}
		c.Content = append(c.Content, k)
	}
	return &c
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// describe says in a message what stands at n.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case isNull(n):
		return "empty"
	case n.ShortTag() == "!!str":
		return strconv.Quote(shorten(n.Value))
	default:
		return shorten(n.Value)
	}
}

func shorten(s string) string {
	if r := []rune(s); len(r) > 60 {
		return string(r[:57]) + "..."
	}
	return s
}
