package pipeline

import (
	"math"
	"testing"
)

func TestOrderIsAPermutation(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 5, 15, 16, 17, 255, 256, 257, 1000, 4096, 10007} {
		for epoch := range 3 {
			o := newOrder(42, epoch, n, true)
			seen := make([]bool, n)
			for pos := range n {
				i := o.at(pos)
				if i < 0 || i >= n || seen[i] {
					t.Fatalf("n=%d, epoch %d: place %d has index %d, out of range or twice", n, epoch, pos, i)
				}
				seen[i] = true
			}
		}
	}
}

func TestOrderOfTheSourceIfNotShuffled(t *testing.T) {
	o := newOrder(42, 3, 100, false)
	for pos := range 100 {
		if got := o.at(pos); got != pos {
			t.Fatalf("place %d has index %d", pos, got)
		}
	}
}

// Over many epochs, every sample must come to every place about equally often,
// and every sample must follow every other about equally often.
func TestOrderIsUniform(t *testing.T) {
	for _, n := range []int{2, 3, 5, 16, 40} {
		const epochs = 20000
		place := make([]int, n*n)
		follow := make([]int, n*n)
		for epoch := range epochs {
			o := newOrder(7, epoch, n, true)
			last := -1
			for pos := range n {
				i := o.at(pos)
				place[pos*n+i]++
				if last >= 0 {
					follow[last*n+i]++
				}
				last = i
			}
		}
		chi := func(counts []int, want float64, skip func(k int) bool) (sum float64, cells int) {
			for k, c := range counts {
				if skip(k) {
					continue
				}
				sum += (float64(c) - want) * (float64(c) - want) / want
				cells++
			}
			return sum, cells
		}
		none := func(int) bool { return false }
		diagonal := func(k int) bool { return k/n == k%n }
		sum, cells := chi(place, epochs/float64(n), none)
		// Chi-square has mean df and variance 2 df; 6 sigmas above is no accident.
		if limit := float64(cells) + 6*math.Sqrt(2*float64(cells)); sum > limit {
			t.Errorf("n=%d: places: chi-square %.0f, above %.0f", n, sum, limit)
		}
		sum, cells = chi(follow, epochs/float64(n), diagonal)
		if limit := float64(cells) + 6*math.Sqrt(2*float64(cells)); sum > limit {
			t.Errorf("n=%d: neighbours: chi-square %.0f, above %.0f", n, sum, limit)
		}
	}
}

func TestOrderDependsOnSeedAndEpoch(t *testing.T) {
	const n = 1000
	a := newOrder(1, 0, n, true)
	for name, b := range map[string]order{
		"another epoch": newOrder(1, 1, n, true),
		"another seed":  newOrder(2, 0, n, true),
		"seed bit 63":   newOrder(1|1<<63, 0, n, true),
	} {
		same := 0
		for pos := range n {
			if a.at(pos) == b.at(pos) {
				same++
			}
		}
		if same > 10 { // 1 is expected
			t.Errorf("%s: %d of %d places are the same", name, same, n)
		}
	}
}

// The order is part of what a checkpoint means: it must never change.
func TestOrderStaysWhatItIs(t *testing.T) {
	o := newOrder(42, 1, 10, true)
	var got [10]int
	for pos := range got {
		got[pos] = o.at(pos)
	}
	if want := [10]int{6, 4, 0, 9, 7, 3, 5, 1, 8, 2}; got != want {
		t.Errorf("the order of seed 42, epoch 1 is %v, was %v: checkpoints made before would resume wrongly", got, want)
	}
}

func BenchmarkOrder(b *testing.B) {
	o := newOrder(42, 0, 1281167, true)
	pos := 0
	for b.Loop() {
		o.at(pos)
		pos = (pos + 1) % o.n
	}
}
