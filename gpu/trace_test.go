package gpu

import (
	"strings"
	"sync"
	"testing"
	"time"
)

// A run that is traced tells of each pass of each layer, inside its step, and of each load;
// a card tells by itself, of its kernels and copies. The numbers are those of one that is not.
func TestTrace(t *testing.T) {
	const steps = 3
	type span struct {
		track, name string
		from, to    time.Time
	}
	var mu sync.Mutex
	var spans []span
	train := func(trace func(track, name string, from, to time.Time)) []float32 {
		var out outbox
		e := env(6)
		e.Trace = trace
		s := trainStage(t, smallNet+"epochs: 1", nil)
		run(t, s, e, steps, 1, out.emit)
		var all []float32
		for _, w := range out.weights {
			all = append(all, w.Data...)
		}
		return all
	}
	plain := train(nil)
	seen := train(func(track, name string, from, to time.Time) {
		mu.Lock()
		defer mu.Unlock()
		spans = append(spans, span{track, name, from, to})
	})
	if len(plain) == 0 || len(plain) != len(seen) {
		t.Fatalf("there are %d weights, traced %d", len(plain), len(seen))
	}
	for i := range plain {
		if plain[i] != seen[i] {
			t.Fatalf("weight %d is %v, and %v if the run is traced", i, plain[i], seen[i])
		}
	}
	count := map[string]int{}
	var step []span
	for _, s := range spans {
		if s.to.Before(s.from) {
			t.Errorf("%s on %s ends before it begins", s.name, s.track)
		}
		count[s.track]++
		if s.track == "train" {
			step = append(step, s)
		}
	}
	if len(step) != steps {
		t.Fatalf("there are %d steps: %v", len(step), count)
	}
	if testDevice() == CUDA {
		if count["card: compute"] == 0 || count["card: copies"] == 0 || count["cpu: layers"] > 0 {
			t.Errorf("a card's tracks are %v", count)
		}
		return
	}
	if count["cpu: loads"] != steps {
		t.Errorf("%d loads were told, of %d", count["cpu: loads"], steps)
	}
	passes := map[string]int{}
	for _, s := range spans {
		if s.track != "cpu: layers" {
			continue
		}
		layer, pass, _ := strings.Cut(s.name, " ")
		passes[pass]++
		inside := false
		for _, st := range step {
			inside = inside || !s.from.Before(st.from) && !s.to.After(st.to)
		}
		if !inside || layer == "" {
			t.Errorf("%s is in no step", s.name)
		}
	}
	if passes["forward"] == 0 || passes["forward"] != passes["backward"] || passes["update"] == 0 || len(passes) != 3 {
		t.Errorf("the passes are %v", passes)
	}
}
