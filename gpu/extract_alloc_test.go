package gpu

import (
	"testing"

	"github.com/apache/arrow/go/v17/arrow/memory"
)

// What extract allocates for a record of up to three layers is little, and does not grow
// with its rows; each further column is a few more.
func TestExtractAllocatesLittle(t *testing.T) {
	weights := someWeights(t)
	for _, tt := range []struct {
		layers []string
		topK   int
		most   float64
	}{
		{[]string{"fc2"}, 0, 48},
		{[]string{"fc2", "conv1", "pool1"}, 0, 64},
		{[]string{"fc2"}, 3, 64},
	} {
		var counts []float64
		for _, rows := range []int{8, 64} {
			x := extractStage(t, weights, func(o *ExtractOptions) { o.Layers, o.TopK, o.LogEvery = tt.layers, tt.topK, 1<<30 })
			prepare(t, x, env(rows))
			b := batch(memory.DefaultAllocator, 0, 0, 0, rows, nil)
			one := func() {
				if err := x.Process(t.Context(), b, discard); err != nil {
					t.Fatal(err)
				}
			}
			one()
			one()
			counts = append(counts, testing.AllocsPerRun(50, one))
			if err := x.Close(); err != nil {
				t.Fatal(err)
			}
			b.Record.Release()
		}
		t.Logf("%v, top %d: %v allocations a record of 8 and of 64 rows", tt.layers, tt.topK, counts)
		if counts[1] > tt.most || counts[1] > counts[0]+2 {
			t.Errorf("%v, top %d: %v allocations a record of 8 and of 64 rows, want at most %g, and as many", tt.layers, tt.topK, counts, tt.most)
		}
	}
}
