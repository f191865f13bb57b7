package net

import (
	"context"
	"hash/fnv"
	"math"
	"runtime"

	"github.com/sourcegraph/conc/pool"
)

// initStep keeps the words of initial weights apart from those of dropout: no
// run has so many steps.
const initStep = math.MaxUint64

// fill writes the initial values of the parameter called name ("conv1.weight").
// Value i is a function of seed, name and i alone, so neither the order of layers
// nor the engine matters. Four words make four values (Box and Muller). It ends
// early when ctx does: the paper's net takes seconds.
func (p Init) fill(ctx context.Context, dst []float32, seed uint64, name string) error {
	if p.Std == 0 && p.Range == 0 {
		for i := range dst {
			dst[i] = p.Value
		}
		return context.Cause(ctx)
	}
	key := RandomKey{Seed: seed, Step: initStep, Layer: hash(name)}
	const part = 1 << 16 // a multiple of four
	workers := pool.New().WithMaxGoroutines(runtime.GOMAXPROCS(0))
	for from := 0; from < len(dst) && ctx.Err() == nil; from += part {
		workers.Go(func() {
			for i := from; i < min(from+part, len(dst)); i += 4 {
				w := key.Block(uint32(i / 4))
				if p.Range != 0 {
					for j := range min(4, len(dst)-i) {
						even := (float64(w[j])+0.5)/(1<<31) - 1 // between -1 and 1
						dst[i+j] = float32(float64(p.Value) + float64(p.Range)*even)
					}
					continue
				}
				var normal [4]float64
				normal[0], normal[1] = gauss(w[0], w[1])
				normal[2], normal[3] = gauss(w[2], w[3])
				for j := range min(4, len(dst)-i) {
					dst[i+j] = float32(float64(p.Value) + float64(p.Std)*normal[j])
				}
			}
		})
	}
	workers.Wait()
	return context.Cause(ctx)
}

// gauss makes two independent standard normal numbers of two random words.
func gauss(a, b uint32) (float64, float64) {
	radius := math.Sqrt(-2 * math.Log((float64(a)+1)/(1<<32)))
	sin, cos := math.Sincos(2 * math.Pi * float64(b) / (1 << 32))
	return radius * cos, radius * sin
}

// hash turns a name into a number for a RandomKey (32-bit FNV-1a).
func hash(name string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(name))
	return h.Sum32()
}
