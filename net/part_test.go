package net_test

import (
	"slices"
	"strings"
	"testing"

	"sluice/net"
	"sluice/net/nettest"
)

// part builds the part of g that computes the layers, on an engine, with the
// weights of whole.
func part(t *testing.T, e net.Engine, g net.Graph, batch net.ImageBatch, n int, whole []net.NamedTensor, names ...string) *net.Network {
	t.Helper()
	plan, err := g.Def().Plan(n, 12, 12, 4)
	if err != nil {
		t.Fatal(err)
	}
	if plan, err = plan.Until(names...); err != nil {
		t.Fatal(err)
	}
	network, err := net.New(t.Context(), e, plan, 1, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := network.Load(whole); err != nil {
		t.Fatal(err)
	}
	in, err := network.NewInput()
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Load(batch); err != nil {
		t.Fatal(err)
	}
	if err := network.Forward(t.Context(), in, 0, false); err != nil {
		t.Fatal(err)
	}
	return network
}

// A part computes what the whole computes, whatever is named: every layer alone,
// some, and all together. What is named never shares its memory.
func TestUntilGivesTheActivationsOfTheWhole(t *testing.T) {
	const n, rows = 5, 3
	_, trained, _ := build(t, small(), n, 12, 4)
	weights, err := trained.Snapshot(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	batch := batchOf(rows, 12, 12, 4, 9) // a short one
	all := []string{"conv1", "norm1", "pool1", "conv2", "sum", "fc3", "drop3", "fc4", "softmax"}
	want := map[string][]float32{}
	whole := part(t, nettest.NewReference(), small(), batch, n, weights, all...)
	for _, name := range all {
		if want[name], err = whole.Activation(nil, name, rows); err != nil {
			t.Fatal(err)
		}
		shape, err := whole.Plan().Out(name)
		if err != nil || len(want[name]) != rows*shape.Image() {
			t.Fatalf("%s has %d numbers for %d rows of %v (%v)", name, len(want[name]), rows, shape, err)
		}
	}
	for _, names := range append([][]string{all, {"pool1", "fc3"}, {"softmax", "conv2"}}, single(all)...) {
		p := part(t, nettest.NewReference(), small(), batch, n, weights, names...)
		for _, s := range p.Plan().Specs(false) {
			if slices.Contains(names, s.Name) && s.To >= 0 {
				t.Errorf("%v: the memory of %s is given away after op %d", names, s.Name, s.To)
			}
		}
		for _, name := range names {
			got, err := p.Activation([]float32{7}, name, rows)
			if err != nil {
				t.Fatal(err)
			}
			if got[0] != 7 || !slices.Equal(got[1:], want[name]) {
				t.Errorf("%v: %s differs from the whole network's", names, name)
			}
		}
	}
}

func single(names []string) (lists [][]string) {
	for _, n := range names {
		lists = append(lists, []string{n})
	}
	return lists
}

// What no named layer needs costs nothing.
func TestUntilLeavesTheRestOut(t *testing.T) {
	whole, err := small().Def().Plan(4, 12, 12, 4)
	if err != nil {
		t.Fatal(err)
	}
	for names, want := range map[string]string{
		"conv1":         "conv1",
		"pool1":         "conv1 norm1 pool1",
		"conv2":         "conv1 norm1 pool1 conv2",
		"norm1 fc3":     "conv1 norm1 pool1 conv2 sum fc3",
		"softmax conv1": "conv1 norm1 pool1 conv2 sum fc3 drop3 fc4 softmax",
	} {
		p, err := whole.Until(strings.Fields(names)...)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		params, macs := 0, int64(0)
		for _, l := range p.Layers {
			got = append(got, l.Name)
			for _, s := range l.Plan.Params {
				params += s.Shape.Len()
			}
			macs += l.Plan.MACs / 4
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", names, got, want)
		}
		if p.Params != params || p.MACs != macs {
			t.Errorf("%s: %d parameters and %d MACs, want %d and %d", names, p.Params, p.MACs, params, macs)
		}
	}
	if logits, loss := whole.Logits(); logits != "fc4" || loss != "softmax" {
		t.Errorf("the logits are %q and the loss %q", logits, loss)
	}
	p, err := whole.Until("fc3")
	if err != nil {
		t.Fatal(err)
	}
	if logits, loss := p.Logits(); logits != "" || loss != "" {
		t.Errorf("a part without loss has the logits %q and the loss %q", logits, loss)
	}
	if len(whole.Layers) != 9 || whole.Specs(false)[0].To < 0 {
		t.Error("Until has changed the whole plan")
	}
}

func TestUntilAndActivationMistakes(t *testing.T) {
	plan, err := small().Def().Plan(4, 12, 12, 4)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"fc33":    `there is no layer "fc33"; did you mean "fc3"?`,
		"xyzzy":   `there is no layer "xyzzy"; the network has conv1, norm1,`,
		"input":   `there is no layer "input"`,
		"Softmax": `did you mean "softmax"?`,
	} {
		if _, err := plan.Until("conv1", name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", name, err, want)
		}
		if _, err := plan.Out(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", name, err, want)
		}
	}
	if _, err := plan.Until(); err == nil || !strings.Contains(err.Error(), "no layer is named; the network has conv1") {
		t.Errorf("error %v", err)
	}
	part, err := plan.Until("fc3")
	if err != nil {
		t.Fatal(err)
	}
	e := nettest.NewReference()
	if _, err := net.New(t.Context(), e, part, 1, true); err == nil || !strings.Contains(err.Error(), "cannot be trained") {
		t.Errorf("error %v", err)
	}
	n, err := net.New(t.Context(), e, part, 1, false)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"conv1": `"conv1" is not kept`, "fc4": `there is no layer "fc4"`} {
		if _, err := n.Activation(nil, name, 0); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", name, err, want)
		}
	}
	if _, err := n.Activation(nil, "fc3", 1); err == nil || !strings.Contains(err.Error(), "1 rows") {
		t.Errorf("before a Forward: error %v", err)
	}
	if _, err := n.Stats(); err == nil || !strings.Contains(err.Error(), "no loss") {
		t.Errorf("error %v", err)
	}
	// A weight of a layer that is left out need not be there, one that is used must.
	_, whole, _ := build(t, small(), 4, 12, 4)
	weights, err := whole.Snapshot(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	used := slices.DeleteFunc(slices.Clone(weights), func(w net.NamedTensor) bool { return strings.HasPrefix(w.Name, "fc4") })
	if err := n.Load(used); err != nil {
		t.Error(err)
	}
	if err := n.Load(used[1:]); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("error %v", err)
	}
}
