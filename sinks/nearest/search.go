package nearest

import (
	"cmp"
	"container/heap"
	"context"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"sync/atomic"

	"github.com/sourcegraph/conc/pool"

	"sluice/gpu/host/simd"
)

// Neighbour is a row that was found.
type Neighbour struct {
	Row      int
	Distance float64 // Euclidean
}

// chunkBytes is how much of a set one goroutine looks at before it asks for more.
const chunkBytes = 1 << 20

// Search finds the k rows nearest to query, the nearest first, and among rows that
// are equally near the first. query has Width numbers. threads bounds the
// goroutines; 0 is one a core. The result is the same for any number.
//
// All distances are computed in float32 first; those that its rounding cannot tell
// from the k-th are computed once more in float64, so that the search is exact. A row
// of NaN or infinities is an error.
func (s *Set) Search(ctx context.Context, query []float32, k, threads int) ([]Neighbour, error) {
	level, err := simd.Choose(os.Getenv("SLUICE_CPU"))
	if err != nil {
		return nil, fmt.Errorf("the environment's SLUICE_CPU: %w", err)
	}
	return s.search(ctx, query, k, threads, level)
}

func (s *Set) search(ctx context.Context, query []float32, k, threads int, level simd.Level) ([]Neighbour, error) {
	if len(query) != s.Width {
		return nil, fmt.Errorf("the query has %d numbers, and rows have %d", len(query), s.Width)
	}
	for i, v := range query {
		if v-v != 0 { // true of NaN and of the infinities only
			return nil, fmt.Errorf("number %d of the query is %g", i, v)
		}
	}
	if k = min(k, s.Rows); k < 1 {
		return nil, nil
	}
	squares, err := s.squares(ctx, query, threads, level)
	if err != nil {
		return nil, err
	}
	// A sum of n squares, in whatever order, is off by less than (n+2)/2^24 of it:
	// twice that here, and what is too small for a float32.
	slack := 1 + float64(s.Width+2)/(1<<23)
	bound := float64(smallest(squares, k))*slack*slack + float64(s.Width)*math.SmallestNonzeroFloat32
	var near []Neighbour
	first := 0
	for _, b := range s.blocks {
		err := readable(b.file, func() {
			for i, d := range squares[first:][:len(b.index)] {
				if float64(d) <= bound {
					near = append(near, Neighbour{first + i, exact(b.vector(i, s.Width), query)})
				}
			}
		})
		if err != nil {
			return nil, err
		}
		first += len(b.index)
	}
	slices.SortFunc(near, func(a, b Neighbour) int {
		return cmp.Or(cmp.Compare(a.Distance, b.Distance), cmp.Compare(a.Row, b.Row))
	})
	return near[:k], nil
}

// smallest is the k-th smallest of values, which are k at least.
func smallest(values []float32, k int) float32 {
	h := floats(slices.Clone(values[:k]))
	heap.Init(&h)
	for _, v := range values[k:] {
		if v < h[0] {
			h[0] = v
			heap.Fix(&h, 0)
		}
	}
	return h[0]
}

// floats is a heap with the greatest at its top.
type floats []float32

func (h floats) Len() int           { return len(h) }
func (h floats) Less(i, j int) bool { return h[i] > h[j] }
func (h floats) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *floats) Push(v any)        { *h = append(*h, v.(float32)) }
func (h *floats) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

func exact(row, query []float32) float64 {
	sum := 0.
	for i, v := range row {
		d := float64(v) - float64(query[i])
		sum += d * d
	}
	return math.Sqrt(sum)
}

// squares is the squared distance of every row.
func (s *Set) squares(ctx context.Context, query []float32, threads int, level simd.Level) ([]float32, error) {
	if threads < 1 {
		threads = runtime.GOMAXPROCS(0)
	}
	type chunk struct {
		rows
		from, to int
		dst      []float32
	}
	loop := distancesOf(level)
	out := make([]float32, s.Rows)
	per := max(1, chunkBytes/(4*s.Width))
	var chunks []chunk
	rest := out
	for _, b := range s.blocks {
		for from := 0; from < len(b.index); from += per {
			to := min(from+per, len(b.index))
			chunks = append(chunks, chunk{b, from, to, rest[:to-from]})
			rest = rest[to-from:]
		}
	}
	var next atomic.Int64
	workers := pool.New().WithContext(ctx).WithCancelOnError().WithFirstError()
	for range min(threads, len(chunks)) {
		workers.Go(func(ctx context.Context) (err error) {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(chunks) {
					return nil
				}
				c := chunks[i]
				if err := readable(c.file, func() { loop(c.dst, c.vectors[c.from*s.Width:c.to*s.Width], query) }); err != nil {
					return err
				}
				for j, d := range c.dst {
					if d-d != 0 {
						return fmt.Errorf("%s: row %d of it is at a distance of %g, for it holds numbers that are none, or too great: extract the features again with weights whose loss was a number", c.file, c.from+j, d)
					}
				}
			}
			return context.Cause(ctx)
		})
	}
	return out, workers.Wait()
}

// readable does f, which reads a mapped file. If that is cut short or its disk
// fails meanwhile, the memory is gone, and that is an error.
func readable(file string, f func()) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			if _, fault := p.(interface{ Addr() uintptr }); !fault {
				panic(p)
			}
			err = fmt.Errorf("%s cannot be read any more: it was cut short, or its disk failed", file)
		}
	}()
	f()
	return nil
}
