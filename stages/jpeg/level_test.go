package jpeg

import (
	"math/rand/v2"
	"strings"
	"testing"
)

func TestChoose(t *testing.T) {
	if l, err := choose("generic"); err != nil || l != levelGeneric {
		t.Errorf("%v, %v", l, err)
	}
	if l, err := choose(""); err != nil || l != best() {
		t.Errorf("%v, %v", l, err)
	}
	if _, err := choose("mmx"); err == nil || !strings.Contains(err.Error(), `"mmx"`) || !strings.Contains(err.Error(), "generic") {
		t.Error(err)
	}
}

// Every level transforms any coefficients with any quantisers to the same bytes, and writes nothing else.
func TestLevelsTransformAlike(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 9))
	const stride = 24
	for i := range 20000 {
		var coefs [128]int16
		var quant [64]uint16
		limit := 1 << rng.IntN(17)
		for k := range quant {
			quant[k] = uint16(1 + rng.IntN(1<<rng.IntN(17)))
		}
		for range rng.IntN(129) {
			coefs[rng.IntN(128)] = int16(rng.IntN(limit) - limit/2)
		}
		if i%16 == 0 {
			for k := range coefs {
				coefs[k] = []int16{-32768, 32767}[rng.IntN(2)]
			}
			for k := range quant {
				quant[k] = 1
			}
		}
		var want [8 * stride]byte
		poison(want[:])
		idct2(levelGeneric, &coefs, &quant, want[:], stride)
		for _, l := range levels()[1:] {
			var got [8 * stride]byte
			poison(got[:])
			idct2(l, &coefs, &quant, got[:], stride)
			if got != want {
				t.Fatalf("%v differs from generic for %v * %v", l, coefs, quant)
			}
		}
	}
}

// Whole files are the same bytes on every level, and the same damage.
func TestLevelsDecodeAlike(t *testing.T) {
	rng := rand.New(rand.NewPCG(10, 10))
	for name, data := range small(t) {
		for i := range 100 {
			bad := append([]byte(nil), data...)
			for range i % 4 {
				bad[rng.IntN(len(bad))] = byte(rng.IntN(256))
			}
			g := Decoder{level: levelGeneric}
			want, err := g.Decode(bad, Options{Keep: true})
			for _, l := range levels()[1:] {
				d := Decoder{level: l}
				got, err2 := d.Decode(bad, Options{Keep: true})
				if (err == nil) != (err2 == nil) {
					t.Fatalf("%s: generic says %v, %v says %v", name, err, l, err2)
				}
				if err != nil {
					continue
				}
				samePlanes(t, planes(got), planes(want))
				if got.Lost != want.Lost || (got.Damage == nil) != (want.Damage == nil) || got.Damage != nil && *got.Damage != *want.Damage {
					t.Fatalf("%s: generic lost %d for %v, %v %d for %v", name, want.Lost, want.Damage, l, got.Lost, got.Damage)
				}
			}
		}
	}
}
