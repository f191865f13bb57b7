package config

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write the expected errors of testdata anew")

// tool is what the test registry builds.
type tool struct{ options any }

var tools = NewRegistry[*tool]("tool")

type sawOptions struct {
	Teeth int      `yaml:"teeth" config:"required" doc:"number of teeth"`
	Grade *grade   `yaml:"grade" doc:"how good it is"`
	Words []string `yaml:"words" doc:"what is written on it"`
}

type grade struct {
	Steel string  `yaml:"steel" doc:"kind of steel"`
	Price float64 `yaml:"price" doc:"in coins"`
}

type hammerOptions struct {
	Weight float32 `yaml:"weight" doc:"in kilograms"`
}

func init() {
	Add(tools, "saw", "cuts", sawOptions{Grade: &grade{Steel: "plain"}}, func(o sawOptions) (*tool, error) {
		var errs []error
		if o.Teeth < 3 {
			errs = append(errs, Fieldf("teeth", "must be at least 3, is %d", o.Teeth))
		}
		if o.Grade != nil && o.Grade.Price < 0 {
			errs = append(errs, Fieldf("grade.price", "must not be negative"))
		}
		return &tool{o}, errors.Join(errs...)
	})
	Add(tools, "hammer", "hits", hammerOptions{Weight: 1}, func(o hammerOptions) (*tool, error) {
		switch {
		case o.Weight > 100:
			panic("too heavy")
		case o.Weight > 50:
			return nil, nil
		case o.Weight > 20:
			return nil, fmt.Errorf("lifting it: %w", Fieldf("weight", "is more than one can lift"))
		case o.Weight > 10:
			return nil, errors.New("no such hammer is made")
		}
		return &tool{o}, nil
	})
	Add(tools, "pliers", "grips", struct{}{}, func(struct{}) (*tool, error) { return &tool{}, nil })
}

// toolItem is a field that holds a tool, with a place that every tool has.
type toolItem struct{ Item[*tool] }

type shelf struct {
	Name  string `yaml:"name,omitempty" doc:"what it is called"`
	Shelf int    `yaml:"shelf,omitempty" doc:"where it lies"`
}

func (t *toolItem) UnmarshalConfig(d *Decoder, n *yaml.Node) {
	t.Item, _ = tools.DecodeWith(d, n, &shelf{})
}
func (*toolItem) Choice(name string) any { return tools.Choice(name) }

// policy is a field of several forms.
type policy struct {
	Word  string
	Limit limit
}

type limit struct {
	Max int `yaml:"max" doc:"how many"`
}

func (p *policy) UnmarshalConfig(d *Decoder, n *yaml.Node) {
	p.Word, _ = d.OneOf(n, Choice{Name: "fail"}, Choice{Name: "skip", Options: &p.Limit})
}
func (*policy) Choice(name string) any {
	if name == "skip" {
		return limit{}
	}
	return nil
}
func (p policy) MarshalYAML() (any, error) {
	if p.Word == "skip" {
		return map[string]limit{"skip": p.Limit}, nil
	}
	return p.Word, nil
}
func (policy) ConfigType() string { return "fail or skip" }

type paint string

func (p *paint) UnmarshalConfig(d *Decoder, n *yaml.Node) {
	if w, ok := d.Word(n, "red", "green", "blue"); ok {
		*p = paint(w)
	}
}

type common struct {
	Note string `yaml:"note" doc:"anything"`
}

type box struct {
	Name    string             `yaml:"name" config:"required" doc:"of the box"`
	Open    bool               `yaml:"open" doc:"whether it is open"`
	Count   int                `yaml:"count" doc:"things in it"`
	Byte    uint8              `yaml:"byte" doc:"a small number"`
	Small   int8               `yaml:"small" doc:"a small number with a sign"`
	Seed    uint64             `yaml:"seed" doc:"a large number"`
	Ratio   float64            `yaml:"ratio" doc:"a number"`
	Single  float32            `yaml:"single" doc:"a 32-bit number"`
	Wait    time.Duration      `yaml:"wait" doc:"how long"`
	RGB     [3]float32         `yaml:"rgb" doc:"a colour"`
	Words   []string           `yaml:"words" doc:"a list"`
	Weights map[string]float64 `yaml:"weights" doc:"a mapping"`
	Inner   grade              `yaml:"inner" doc:"a struct"`
	Maybe   *grade             `yaml:"maybe" doc:"a struct that may be absent"`
	Tool    toolItem           `yaml:"tool" doc:"the tool on top"`
	Tools   []toolItem         `yaml:"tools" doc:"the others"`
	Policy  policy             `yaml:"policy" doc:"what to do"`
	Paint   paint              `yaml:"paint" doc:"its colour"`
	Hidden  int                `yaml:"-"`
	common  `yaml:"-"`
	Common  common `yaml:",inline"`
	private int
}

func newBox() box {
	return box{Count: 7, Words: []string{"default"}, Maybe: &grade{Steel: "default"}, Policy: policy{Word: "fail"}, private: 1}
}

func decode(text string, sets ...string) (box, error) {
	b := newBox()
	doc, err := Parse("box.yaml", []byte(text))
	if err != nil {
		return b, err
	}
	var errs Errors
	for _, s := range sets {
		if err := doc.Set(s, box{}); err != nil {
			errs = append(errs, err.(Errors)...)
		}
	}
	d := doc.Decoder()
	d.Report(doc.Root, errs)
	d.Decode(doc.Root, &b)
	return b, d.Err()
}

// TestMistakes reads testdata/*.txt: cases of "=== name", the input (lines of
// --set first, if any), "----" and the errors. An empty list of errors fails.
func TestMistakes(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		for _, c := range strings.Split("\n"+string(data), "\n=== ")[1:] {
			name, rest, _ := strings.Cut(c, "\n")
			input, want, ok := strings.Cut(rest, "\n----\n")
			if !ok {
				input, ok = strings.CutSuffix(rest, "\n----")
			}
			if !ok {
				t.Fatalf("%s: case %q has no ----", file, name)
			}
			text, sets := input, []string(nil)
			for strings.HasPrefix(text, "--set ") {
				var line string
				line, text, _ = strings.Cut(text, "\n")
				sets = append(sets, strings.TrimPrefix(line, "--set "))
			}
			_, err := decode(text+"\n", sets...)
			got := fmt.Sprint(err)
			fmt.Fprintf(&out, "=== %s\n%s\n----\n%s\n", name, input, got)
			t.Run(name, func(t *testing.T) {
				if err == nil {
					t.Error("no mistake found")
				}
				if !*update && got != strings.TrimRight(want, "\n") {
					t.Errorf("got\n%s\nwant\n%s", got, want)
				}
			})
		}
		if *update {
			if err := os.WriteFile(file, []byte(out.String()), 0o666); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestDecodeEveryKind(t *testing.T) {
	got, err := decode(`
name: "a b"
open: true
count: -3
byte: 255
small: -128
seed: 18446744073709551615
ratio: 1e-3
single: .5
wait: 1m30s
rgb: [1, 2.5, 3]
words: []
weights: {a: 1, b: 2}
inner: {price: 2}
maybe: {price: 3}
tool: pliers
tools:
  - hammer:
  - hammer: {weight: 2, shelf: 4}
  - saw: {teeth: 5, grade: null, words: [x]}
policy: {skip: {max: 3}}
paint: green
note: inlined
`)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Tools) != 3 || got.Tool.Name != "pliers" || got.Tool.Value == nil {
		t.Fatalf("tools: %+v", got.Tools)
	}
	if o := got.Tools[0].Value.options; o != (hammerOptions{1}) {
		t.Errorf("hammer has %+v, want the defaults", o)
	}
	if o := got.Tools[1].Options; o != (hammerOptions{2}) || *got.Tools[1].Common.(*shelf) != (shelf{Shelf: 4}) {
		t.Errorf("hammer has %+v and %+v", o, got.Tools[1].Common)
	}
	if o := got.Tools[2].Options.(sawOptions); o.Teeth != 5 || o.Grade != nil || len(o.Words) != 1 {
		t.Errorf("saw has %+v", o)
	}
	got.Tool, got.Tools = toolItem{}, nil
	want := box{
		Name: "a b", Open: true, Count: -3, Byte: 255, Small: -128, Seed: 1<<64 - 1, Ratio: 1e-3, Single: .5, Wait: 90 * time.Second,
		RGB: [3]float32{1, 2.5, 3}, Words: nil, Weights: map[string]float64{"a": 1, "b": 2},
		Inner: grade{Price: 2}, Maybe: &grade{Steel: "default", Price: 3}, Policy: policy{"skip", limit{3}}, Paint: "green",
		Common: common{"inlined"}, private: 1,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

func TestDefaultsStay(t *testing.T) {
	for range 2 {
		b, err := decode("name: x\ntool: {saw: {teeth: 9}}")
		if err != nil {
			t.Fatal(err)
		}
		if o := b.Tool.Options.(sawOptions); o.Grade.Steel != "plain" || o.Grade.Price != 0 {
			t.Errorf("another decoding changed the default: %+v", *o.Grade)
		}
		if _, err = decode("name: x\ntool: {saw: {teeth: 9, grade: {steel: fine, price: 4}}}"); err != nil {
			t.Fatal(err)
		}
		if b.Count != 7 || b.Words[0] != "default" {
			t.Errorf("defaults lost: %+v", b)
		}
	}
}

func TestSet(t *testing.T) {
	const text = `
name: x
inner: {price: 1}
tool: pliers
policy: fail
words: [a, b, c]
tools:
  - pliers
  - hammer: {weight: 3}
  - hammer: {weight: 4, name: heavy}
  - saw: {teeth: 10}
`
	for _, c := range []struct {
		sets []string
		got  func(b box) any
		want any
	}{
		{[]string{"name=y"}, func(b box) any { return b.Name }, "y"},
		{[]string{"name=2012"}, func(b box) any { return b.Name }, "2012"},
		{[]string{"name=@home: {"}, func(b box) any { return b.Name }, "@home: {"},
		{[]string{"name='q'"}, func(b box) any { return b.Name }, "q"},
		{[]string{"name=a=b"}, func(b box) any { return b.Name }, "a=b"},
		{[]string{"inner.price=5"}, func(b box) any { return b.Inner.Price }, 5.0},
		{[]string{"inner.steel=true"}, func(b box) any { return b.Inner.Steel }, "true"},
		{[]string{"inner={price: 6, steel: s}"}, func(b box) any { return b.Inner }, grade{"s", 6}},
		{[]string{"maybe.price=8"}, func(b box) any { return *b.Maybe }, grade{"default", 8}},
		{[]string{"maybe=null"}, func(b box) any { return b.Maybe.Steel }, "default"}, // taken out: as if not given
		{[]string{"weights.k=3"}, func(b box) any { return b.Weights["k"] }, 3.0},
		{[]string{"words.1=B"}, func(b box) any { return strings.Join(b.Words, "") }, "aBc"},
		{[]string{"words.3=d"}, func(b box) any { return strings.Join(b.Words, "") }, "abcd"},
		{[]string{"words.0="}, func(b box) any { return strings.Join(b.Words, "") }, "bc"},
		{[]string{"tool.hammer.weight=9"}, func(b box) any { return b.Tool.Options }, hammerOptions{9}},
		{[]string{"tool=hammer"}, func(b box) any { return b.Tool.Options }, hammerOptions{1}},
		{[]string{"tool={hammer: {weight: 2}}", "tool.hammer.weight=4"}, func(b box) any { return b.Tool.Options }, hammerOptions{4}},
		{[]string{"tool.hammer.weight=4", "tool.saw.teeth=4"}, func(b box) any { return b.Tool.Name }, "saw"},
		{[]string{"tools.0.hammer.weight=5"}, func(b box) any { return b.Tools[0].Options }, hammerOptions{5}},
		{[]string{"tools.pliers.shelf=5"}, func(b box) any { return b.Tools[0].Common.(*shelf).Shelf }, 5},
		{[]string{"tools.hammer.weight=5"}, func(b box) any { return b.Tools[1].Options }, hammerOptions{5}},
		{[]string{"tools.hammer#2.weight=5"}, func(b box) any { return b.Tools[2].Options }, hammerOptions{5}},
		{[]string{"tools.heavy.weight=5"}, func(b box) any { return b.Tools[2].Options }, hammerOptions{5}},
		{[]string{"tools.saw.grade.steel=007"}, func(b box) any { return b.Tools[3].Options.(sawOptions).Grade.Steel }, "007"},
		{[]string{"tools.hammer=null"}, func(b box) any { return len(b.Tools) }, 3},
		{[]string{"tools.4=pliers"}, func(b box) any { return b.Tools[4].Name }, "pliers"},
		{[]string{"tools=[pliers]"}, func(b box) any { return len(b.Tools) }, 1},
		{[]string{"policy.skip.max=4"}, func(b box) any { return b.Policy }, policy{"skip", limit{4}}},
		{[]string{"count="}, func(b box) any { return b.Count }, 7},
	} {
		b, err := decode(text, c.sets...)
		if err != nil {
			t.Errorf("%q: %v", c.sets, err)
		} else if got := c.got(b); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: got %+v, want %+v", c.sets, got, c.want)
		}
	}
}

func TestAliases(t *testing.T) {
	b, err := decode("name: x\ntools: &all [pliers, &h {hammer: {weight: 2}}, *h]\ninner: &i {price: 3}\nmaybe: *i")
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Tools) != 3 || b.Tools[2].Options != (hammerOptions{2}) || b.Maybe.Price != 3 {
		t.Errorf("got %+v", b)
	}
	// What is set at an alias does not change what it is an alias of.
	b, err = decode("name: x\ninner: &i {price: 3}\nmaybe: *i", "maybe.price=4")
	if err != nil || b.Inner.Price != 3 || b.Maybe.Price != 4 {
		t.Errorf("got %+v, %v", b, err)
	}
}

func TestAliasBomb(t *testing.T) {
	var text strings.Builder
	text.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 30; i++ {
		fmt.Fprintf(&text, "a%d: &a%d [%s*a%d]\n", i, i, strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 9), i-1)
	}
	_, err := Parse("bomb.yaml", []byte(text.String()))
	if err == nil || !strings.Contains(err.Error(), "more than 100000 values") {
		t.Errorf("got %v", err)
	}
}

func TestTooLarge(t *testing.T) {
	if _, err := Parse("large.yaml", make([]byte, MaxBytes+1)); err == nil || !strings.Contains(err.Error(), "large.yaml:1:1: the file has 1048577 bytes") {
		t.Errorf("got %v", err)
	}
}

func TestResolvedRoundTrip(t *testing.T) {
	const text = "name: x\nwait: 90s\nwords: []\nweights: {a: 1}\ntool: {saw: {teeth: 5}}\ntools: [{hammer: {shelf: 3}}, pliers]\npolicy: {skip: {max: 3}}\npaint: red"
	b, err := decode(text)
	if err != nil {
		t.Fatal(err)
	}
	once, err := yaml.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	again, err := decode(string(once))
	if err != nil {
		t.Fatalf("%v\n%s", err, once)
	}
	twice, err := yaml.Marshal(again)
	if err != nil {
		t.Fatal(err)
	}
	if string(once) != string(twice) {
		t.Errorf("first\n%s\nthen\n%s", once, twice)
	}
	if again.Words != nil {
		t.Error("a list that was not given is given after a round trip")
	}
	for _, want := range []string{"words: []", "wait: 1m30s", "shelf: 3", "weight: 1", "pliers: {}", "steel: plain"} {
		if !strings.Contains(string(once), want) {
			t.Errorf("no %q in\n%s", want, once)
		}
	}
}

func TestFields(t *testing.T) {
	e, ok := tools.Lookup("saw")
	if !ok {
		t.Fatal("no saw")
	}
	want := []Field{
		{Name: "teeth", Type: "whole number", Doc: "number of teeth", Required: true},
		{Name: "grade", Type: "mapping", Doc: "how good it is", Fields: []Field{
			{Name: "steel", Type: "text", Default: "plain", Doc: "kind of steel"},
			{Name: "price", Type: "number", Default: "0", Doc: "in coins"},
		}},
		{Name: "words", Type: "list of text", Default: "[]", Doc: "what is written on it"},
	}
	if got := e.Fields(); !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
	types := map[string]string{}
	defaults := map[string]string{}
	for _, f := range FieldsOf(newBox()) {
		types[f.Name], defaults[f.Name] = f.Type, f.Default
	}
	for name, want := range map[string]string{
		"open": "true or false", "byte": "whole number", "wait": "duration", "rgb": "list of 3 x number",
		"weights": "mapping of name to number", "policy": "fail or skip", "note": "text", "maybe": "mapping",
	} {
		if types[name] != want {
			t.Errorf("%s is a %q, want %q", name, types[name], want)
		}
	}
	if defaults["words"] != "[default]" || defaults["policy"] != "fail" || defaults["wait"] != "0s" {
		t.Errorf("defaults: %q", defaults)
	}
}

func TestAddPanics(t *testing.T) {
	r := NewRegistry[*tool]("tool")
	for name, add := range map[string]func(){
		"registered twice": func() {
			for range 2 {
				Add(r, "x", "", struct{}{}, func(struct{}) (*tool, error) { return nil, nil })
			}
		},
		"no struct": func() { Add(r, "y", "", 0, func(int) (*tool, error) { return nil, nil }) },
		"needs the tags yaml and doc": func() {
			type o struct {
				A int `yaml:"a"`
			}
			Add(r, "z", "", o{}, func(o) (*tool, error) { return nil, nil })
		},
		"which no YAML can fill": func() {
			type o struct {
				A []any `yaml:"a" doc:"a"`
			}
			Add(r, "u", "", o{}, func(o) (*tool, error) { return nil, nil })
		},
		"keys that are no strings": func() {
			type o struct {
				A map[int]int `yaml:"a" doc:"a"`
			}
			Add(r, "v", "", o{}, func(o) (*tool, error) { return nil, nil })
		},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if v := recover(); v == nil || !strings.Contains(fmt.Sprint(v), name) {
					t.Errorf("panicked with %v", v)
				}
			}()
			add()
		})
	}
}

func TestNew(t *testing.T) {
	if item, err := tools.New("hammer"); err != nil || item.Options != (hammerOptions{1}) {
		t.Errorf("got %+v, %v", item, err)
	}
	if _, err := tools.New("saw"); err == nil || !strings.Contains(err.Error(), `missing field "teeth"`) {
		t.Errorf("got %v", err)
	}
	if _, err := tools.New("chisel"); err == nil {
		t.Error("no error")
	}
}

func TestNearest(t *testing.T) {
	known := []string{"image_folder", "shapes", "resize", "flip"}
	for word, want := range map[string]string{
		"image_foldre": "image_folder", "imagefolder": "image_folder", "shape": "shapes", "Resize": "resize", "filp": "flip", "decode": "", "": "",
	} {
		if got, _ := Nearest(word, known); got != want {
			t.Errorf("%q: got %q, want %q", word, got, want)
		}
	}
	if d := distance("ab", "ba"); d != 1 {
		t.Errorf("a swap costs %d, want 1", d)
	}
	if d := distance("kitten", "sitting"); d != 3 {
		t.Errorf("got %d, want 3", d)
	}
}

func TestFieldPaths(t *testing.T) {
	const text = "inner:\n  price: 3\ntools:\n  - pliers\n  - hammer:\n      weight: 3\n"
	for _, c := range []struct {
		err  error
		want string
	}{
		{Fieldf("inner.price", "is %d", 3), "f:2:10: inner.price is 3"},
		{Fieldf("inner.steel", "is bad"), "f:2:3: inner.steel is bad"},
		{Fieldf("outer.steel", "is bad"), "f:1:1: outer.steel is bad"},
		{Fieldf("tools.1.hammer.weight", "is bad"), "f:6:15: tools.1.hammer.weight is bad"},
		{Fieldf("tools.2.hammer", "is bad"), "f:4:3: tools.2.hammer is bad"},
		{fmt.Errorf("so: %w", Fieldf("inner.price", "is bad")), "f:2:10: so: inner.price is bad"},
	} {
		doc, err := Parse("f", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		d := doc.Decoder()
		d.Report(doc.Root, c.err)
		if got := d.Err().Error(); got != c.want {
			t.Errorf("%v: got %q, want %q", c.err, got, c.want)
		}
	}
	if err := error(Fieldf("a", "of %w", os.ErrNotExist)); !errors.Is(err, os.ErrNotExist) {
		t.Error("Fieldf does not wrap")
	}
}

func TestErrorsUnwrap(t *testing.T) {
	_, err := decode("name: x\ncount: a\nopen: 3")
	var one *Error
	if !errors.As(err, &one) || one.Line != 2 || one.Column != 8 || one.File != "box.yaml" {
		t.Errorf("got %+v", one)
	}
	if all, ok := err.(Errors); !ok || len(all) != 2 {
		t.Errorf("got %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.txt")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for c := range strings.SplitSeq(string(data), "\n=== ") {
			_, rest, _ := strings.Cut(c, "\n")
			input, _, _ := strings.Cut(rest, "\n----\n")
			f.Add(input, "tools.hammer.weight=3")
		}
	}
	f.Add("name: x\ntools: [pliers, {hammer: {weight: 2}}]", "tools.0.saw.teeth=9")
	f.Add("name: x\ninner: &i {price: 3}\nmaybe: *i", "maybe.price=null")
	f.Fuzz(func(t *testing.T, text, set string) {
		b, err := decode(text, set)
		if err != nil {
			for _, e := range err.(Errors) {
				if e.Msg == "" || e.Set == "" && (e.Line < 1 || e.Column < 1) {
					t.Errorf("an error without place or message: %+v", e)
				}
			}
			return
		}
		// What loads, loads again from its resolved form.
		once, err := yaml.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		if b.Paint == "" || b.Tool.Name == "" {
			return // the zero values of this test's struct are no YAML
		}
		if _, err := decode(string(once)); err != nil {
			t.Errorf("%v\n%s", err, once)
		}
	})
}
