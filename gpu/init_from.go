package gpu

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"sluice/net"
	"sluice/pipeline"
	"sluice/pipeline/config"
)

// InitFrom are the options of training that begins with weights of an earlier run
// (fine-tuning). Its YAML is the file, or both fields:
//
//	init_from: runs/pretrain/weights.safetensors
//	init_from: {file: runs/pretrain/weights.safetensors, layers: {"conv*": freeze, fc6: {lr: 0.1}, fc8: fresh}}
//
// A layer that Layers does not name is taken if the file has all its parameters in
// their shapes, and is fresh (initialised as ever) if not; the last layer is fresh too
// if the file's classes are others. Momentum is never taken.
//
// A frozen layer keeps its weights: no gradient of them is computed, and below the
// lowest layer that learns nothing goes backward. Dropout drops as in all training, also
// below that.
type InitFrom struct {
	File   string                `yaml:"file" config:"required" doc:"a safetensors file with parameters named as the network's: of a run, or imported"`
	Layers map[string]LayerStart `yaml:"layers,omitempty" doc:"layers by name or pattern (conv*), each with take, freeze or fresh, or {start, lr}"`
}

// LayerStart is how one layer begins, and how fast it learns.
type LayerStart struct {
	Start string  `yaml:"start" doc:"take: must come from the file; freeze: so too, and learns nothing; fresh: initialised as ever"`
	LR    float32 `yaml:"lr" doc:"multiplies the layer's learning rate, on top of its own multipliers; 0 freezes it"`
}

// Values of LayerStart.Start.
const (
	takeLayer   = "take"
	freezeLayer = "freeze"
	freshLayer  = "fresh"
)

// UnmarshalConfig reads a file's name, or the fields.
func (o *InitFrom) UnmarshalConfig(d *config.Decoder, n *yaml.Node) {
	if n.Kind == yaml.ScalarNode {
		d.Decode(n, &o.File)
		return
	}
	type fields InitFrom // without this method
	d.Decode(n, (*fields)(o))
}

// ConfigType says what the YAML takes.
func (InitFrom) ConfigType() string { return "a file, or {file, layers}" }

// UnmarshalConfig reads a word, or the fields.
func (l *LayerStart) UnmarshalConfig(d *config.Decoder, n *yaml.Node) {
	*l = LayerStart{Start: takeLayer, LR: 1}
	if n.Kind == yaml.ScalarNode {
		if word, ok := d.Word(n, takeLayer, freezeLayer, freshLayer); ok {
			l.Start = word
		}
		return
	}
	type fields LayerStart // without this method
	d.Decode(n, (*fields)(l))
}

// ConfigType says what the YAML takes.
func (LayerStart) ConfigType() string { return "take, freeze or fresh, or {start, lr}" }

// check holds the options to what can be said without the network.
func (o InitFrom) check() error {
	var errs []error
	if o.File == "" && o.Layers != nil {
		errs = append(errs, config.Fieldf("init_from", "names no file: give it one"))
	}
	for _, name := range slices.Sorted(maps.Keys(o.Layers)) {
		l := o.Layers[name]
		if _, err := path.Match(name, ""); err != nil {
			errs = append(errs, config.Fieldf("init_from", "layers: %q is no pattern: %w", name, err))
		}
		if !slices.Contains([]string{takeLayer, freezeLayer, freshLayer}, l.Start) {
			errs = append(errs, config.Fieldf("init_from", "layers: the start of %s must be take, freeze or fresh, is %q", name, l.Start))
		}
		if !(l.LR >= 0) {
			errs = append(errs, config.Fieldf("init_from", "layers: the lr of %s must not be negative, is %g", name, l.LR))
		}
	}
	return errors.Join(errs...)
}

// start is what becomes of each layer of a network that begins with a file.
type start struct {
	file   string
	layers []startLayer
	unused []string // tensors of the file
	inputs string   // how the file's input differs; empty if it does not, or is not known
}

// startLayer is one layer with parameters.
type startLayer struct {
	name   string
	taken  bool
	frozen bool
	lr     float32
	why    string // it is fresh
}

// plan decides what becomes of every layer, multiplies the learning rates in p, and
// holds the file to have what must be taken.
func (o InitFrom) plan(p *net.NetPlan, env *pipeline.Env) (*start, error) {
	if o.File == "" {
		return nil, nil
	}
	rules, err := o.rules(p)
	if err != nil {
		return nil, err
	}
	for i := range p.Layers {
		l := &p.Layers[i]
		if rule, ok := rules[l.Name]; ok {
			for j := range l.Plan.Params {
				l.Plan.Params[j].LR *= rule.LR
				if rule.Start == freezeLayer {
					l.Plan.Params[j].LR = 0
				}
			}
		}
	}
	f, err := os.Open(o.File)
	if err != nil {
		return nil, config.Fieldf("init_from", "cannot be read: %w", err)
	}
	defer f.Close()
	tensors, meta, err := net.ReadSafetensorsHeader(f)
	if err != nil {
		return nil, config.Fieldf("init_from", "%s: %w", o.File, err)
	}
	return o.match(p, rules, tensors, meta, env.Classes)
}

// rules finds the rule of every layer that Layers names: its own name goes before a
// pattern, and two patterns must not say different things.
func (o InitFrom) rules(p *net.NetPlan) (map[string]LayerStart, error) {
	var names []string
	for _, l := range p.Layers {
		if len(l.Plan.Params) > 0 {
			names = append(names, l.Name)
		}
	}
	rules, by := map[string]LayerStart{}, map[string]string{}
	var errs []error
	for _, pattern := range slices.Sorted(maps.Keys(o.Layers)) {
		rule, matched := o.Layers[pattern], false
		for _, name := range names {
			if ok, err := path.Match(pattern, name); err != nil || !ok {
				continue // check has refused a bad pattern
			}
			matched = true
			before, taken := by[name]
			switch {
			case taken && before == name: // the layer's own
			case taken && pattern != name && rules[name] != rule:
				errs = append(errs, config.Fieldf("init_from", "layers: %q and %q both match %s, and say different things: name %s itself", before, pattern, name, name))
			default:
				rules[name], by[name] = rule, pattern
			}
		}
		if !matched {
			hint := "the layers with parameters are " + few(names)
			if near, ok := config.Nearest(pattern, names); ok {
				hint = fmt.Sprintf("did you mean %q?", near)
			}
			errs = append(errs, config.Fieldf("init_from", "layers: no layer with parameters is named %q; %s", pattern, hint))
		}
	}
	return rules, errors.Join(errs...)
}

// match compares the network with the file's tensors.
func (o InitFrom) match(p *net.NetPlan, rules map[string]LayerStart, tensors []net.NamedTensor, meta map[string]string, classes []string) (*start, error) {
	s := &start{file: o.File, inputs: otherInput(p, meta["input"])}
	have := map[string][]int{}
	for _, t := range tensors {
		if t.Role == net.RoleWeight {
			have[t.Name] = t.Dims
		}
	}
	used, wanted := map[string]bool{}, false
	last, _ := p.Logits()
	var errs []error
	for i := range p.Layers {
		l := &p.Layers[i]
		if len(l.Plan.Params) == 0 {
			continue
		}
		rule, named := rules[l.Name]
		sl := startLayer{name: l.Name, lr: 1, frozen: true}
		if named {
			sl.lr = rule.LR
		}
		for _, q := range l.Plan.Params {
			sl.frozen = sl.frozen && q.LR == 0
			name := l.Name + "." + q.Name
			switch dims, ok := have[name]; {
			case sl.why != "":
			case !ok:
				sl.why = "the file has no " + name
			case !slices.Equal(dims, q.Dims()):
				sl.why = fmt.Sprintf("%s is %s in the file and %s here", name, extent(dims), extent(q.Dims()))
			}
		}
		wanted = wanted || !named || rule.Start != freshLayer
		switch must := named && rule.Start != freshLayer; {
		case named && rule.Start == freshLayer:
			sl.why = "as it is told"
		case must && sl.why != "":
			errs = append(errs, config.Fieldf("init_from", "layers: %s cannot be taken from %s: %s", l.Name, o.File, sl.why))
		case !must && sl.why == "" && l.Name == last && otherClasses(meta["classes"], classes):
			sl.why = "the file's classes are others"
		}
		if sl.taken = sl.why == ""; sl.taken {
			for _, q := range l.Plan.Params {
				used[l.Name+"."+q.Name] = true
			}
		}
		s.layers = append(s.layers, sl)
	}
	for _, t := range tensors {
		if t.Role == net.RoleWeight && !used[t.Name] {
			s.unused = append(s.unused, t.Name)
		}
	}
	if len(errs) == 0 && wanted && len(used) == 0 {
		errs = append(errs, config.Fieldf("init_from", "nothing in %s matches the network: it has %s", o.File, few(slices.Sorted(maps.Keys(have)))))
	}
	return s, errors.Join(errs...)
}

// extent writes a shape: 96 x 3 x 11 x 11.
func extent(dims []int) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(dims), " ", " x "), "[]")
}

// otherClasses reports whether a file says that its classes are not these.
func otherClasses(text string, classes []string) bool {
	var list []string
	return json.Unmarshal([]byte(text), &list) == nil && !slices.Equal(list, classes)
}

// otherInput says how the network of a file sees pixels, if that is not how this one
// does.
func otherInput(p *net.NetPlan, text string) string {
	var was inputAbout
	if json.Unmarshal([]byte(text), &was) != nil {
		return "" // it does not say
	}
	here := aboutInput(p.Input)
	var list []string
	differs := func(what string, a, b any) {
		if x, y := fmt.Sprint(a), fmt.Sprint(b); x != y {
			list = append(list, fmt.Sprintf("%s %s (%s here)", what, x, y))
		}
	}
	if p.MeanFrom == "" { // or it is known when training begins
		differs("mean", was.Mean, here.Mean)
	}
	differs("scale", was.Scale, here.Scale)
	differs("channels", cmp.Or(was.Channels, "rgb"), here.Channels)
	return strings.Join(list, ", ")
}

// text is for check.
func (s *start) text() string {
	if s == nil {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "begins with %s\n", s.file)
	for _, l := range s.layers {
		what := "taken"
		if !l.taken {
			what = "fresh: " + l.why
		}
		switch {
		case l.frozen:
			what += "; frozen"
		case l.lr != 1:
			what += fmt.Sprintf("; learning rate times %g", l.lr)
		}
		fmt.Fprintf(&b, "  %-10s  %s\n", l.name, what)
	}
	if len(s.unused) > 0 {
		fmt.Fprintf(&b, "  not used    %s\n", few(s.unused))
	}
	if s.inputs != "" {
		fmt.Fprintf(&b, "  its input had %s\n", s.inputs)
	}
	return b.String()
}

// sentence is the same for a run.
func (s *start) sentence() string {
	var taken, frozen, fresh []string
	for _, l := range s.layers {
		if l.taken {
			taken = append(taken, l.name)
		} else {
			fresh = append(fresh, fmt.Sprintf("%s (%s)", l.name, l.why))
		}
		if l.frozen {
			frozen = append(frozen, l.name)
		}
	}
	text := fmt.Sprintf("init_from: took %s from %s", cmp.Or(few(taken), "nothing"), s.file)
	for _, part := range []struct {
		what string
		list []string
	}{{"frozen", frozen}, {"fresh", fresh}, {"not used", s.unused}} {
		if len(part.list) > 0 {
			text += "; " + part.what + ": " + few(part.list)
		}
	}
	if s.inputs != "" {
		text += "; its input had " + s.inputs + ", so what was learnt may not fit the pixels"
	}
	return text
}

// load puts what is to be taken into the network. The file may have changed since
// plan has looked at it: it is held to the same shapes.
func (s *start) load(n *net.Network) (err error) {
	f, err := os.Open(s.file)
	if err != nil {
		return fmt.Errorf("init_from: %w", err)
	}
	defer f.Close()
	tensors, _, err := net.ReadSafetensors(f)
	if err != nil {
		return fmt.Errorf("init_from: %s: %w", s.file, err)
	}
	taken := map[string]bool{}
	for _, l := range s.layers {
		taken[l.name] = l.taken
	}
	byName := map[string]net.NamedTensor{}
	for _, t := range tensors {
		if t.Role == net.RoleWeight {
			byName[t.Name] = t
		}
	}
	all, err := n.Snapshot(nil, false)
	if err != nil {
		return err
	}
	for i := range all {
		layer, _, _ := strings.Cut(all[i].Name, ".")
		if !taken[layer] {
			continue
		}
		t, ok := byName[all[i].Name]
		if !ok {
			return fmt.Errorf("init_from: %s has no %s any more", s.file, all[i].Name)
		}
		for k, v := range t.Data {
			if v-v != 0 { // true of NaN and of the infinities only
				return fmt.Errorf("init_from: %s: number %d of %s is %g", s.file, k, t.Name, v)
			}
		}
		all[i].Dims, all[i].Data = t.Dims, t.Data
	}
	if err := n.Load(all); err != nil {
		return fmt.Errorf("init_from: %s: %w", s.file, err)
	}
	return nil
}
