package net_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"sluice/net"
)

// Every pass of every layer is told, in the order in which it happens.
func TestWatch(t *testing.T) {
	_, n, in := build(t, small(), 4, 12, 3)
	layers := n.Plan().Layers
	type event struct {
		layer string
		pass  net.Pass
	}
	var got, want []event
	last := time.Now()
	n.Watch(func(layer int, p net.Pass, began time.Time) {
		got = append(got, event{layers[layer].Name, p})
		if now := time.Now(); began.Before(last) || now.Before(began) {
			t.Errorf("%s %s began %v after the pass before it ended, %v before its own end", layers[layer].Name, p, began.Sub(last), now.Sub(began))
		}
		last = time.Now()
	})
	step(t, n, in, 0)
	for _, l := range layers {
		want = append(want, event{l.Name, net.ForwardPass})
	}
	for _, l := range slices.Backward(layers) {
		want = append(want, event{l.Name, net.BackwardPass})
	}
	for _, l := range layers {
		for range l.Plan.Params {
			want = append(want, event{l.Name, net.UpdatePass})
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("watched\n%v, want\n%v", got, want)
	}

	got = nil
	n.Watch(nil)
	step(t, n, in, 1)
	if len(got) > 0 {
		t.Errorf("nobody watches, and is told %v", got)
	}
	n.Watch(func(int, net.Pass, time.Time) { t.Error("a pass of a step that was cancelled was told") })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.Forward(ctx, in, 2, true); err != nil {
		t.Fatal(err)
	}
}

func TestWork(t *testing.T) {
	g := small()
	plan, err := g.Def().Plan(2, 12, 12, 3)
	if err != nil {
		t.Fatal(err)
	}
	for _, train := range []bool{true, false} {
		for i, w := range plan.Work(train) {
			l := plan.Layers[i]
			factor := int64(2)
			switch {
			case !train:
				factor = 0
			case i == 0: // no gradient of the batch
				factor = 1
			}
			if want := (net.Work{Forward: l.Plan.MACs, Backward: factor * l.Plan.MACs}); w != want {
				t.Errorf("train %v: %s takes %+v, want %+v", train, l.Name, w, want)
			}
		}
	}
	// A frozen layer at the bottom has no backward pass at all, and the one after
	// it none of its input.
	frozen := g.Layers[0].Layer.(net.ConvLayer)
	frozen.LR, frozen.BiasLR = 0, 0
	g.Layers[0].Layer = frozen
	if plan, err = g.Def().Plan(2, 12, 12, 3); err != nil {
		t.Fatal(err)
	}
	work := plan.Work(true)
	if work[0].Backward != 0 || work[3].Backward != plan.Layers[3].Plan.MACs {
		t.Errorf("below a frozen layer: %+v and %+v", work[0], work[3])
	}
}
