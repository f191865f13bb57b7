package enginetest

import (
	"testing"

	"sluice/net"
)

// Shapes checks count ops of random geometries, the same each time; those of Run
// are not among them.
func Shapes(t *testing.T, newEngine func() net.Engine, count int) {
	e := open(t, newEngine)
	for seed := range uint64(count) {
		checkSeed(t, e, randomShapes+seed)
	}
}

// randomShapes is how many random geometries Run checks.
const randomShapes = 300

// A dial is one number of a geometry: a fuzzer's byte turns it from least to most.
type dial struct{ least, most int }

func (d dial) at(b byte) int { return d.least + int(b)%(d.most-d.least+1) }

// mostMACs bounds what the truth computes for one geometry.
const mostMACs = 3 << 20

// fuzz has the fuzzer turn dials, from seeds of their values on, and checks the
// case that of makes of them. A last byte sets the halo and whether memory is
// shared.
func fuzz(f *testing.F, newEngine func() net.Engine, dials []dial, seeds [][]int, of func(v []int) (opCase, bool)) {
	for i, values := range seeds {
		var b []byte
		for k, v := range values {
			b = append(b, byte(v-dials[k].least))
		}
		f.Add(append(b, byte(i)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) != len(dials)+1 {
			t.Skip("not one byte a dial")
		}
		values := make([]int, len(dials))
		for k, d := range dials {
			values[k] = d.at(b[k])
		}
		c, ok := of(values)
		if !ok || c.macs > mostMACs {
			t.Skip("no geometry, or a long one")
		}
		last := int(b[len(dials)])
		c.halo, c.cancels = last/2%4, true
		c.check(t, open(t, newEngine), last%2 == 1)
		if t.Failed() {
			t.Log(c.name)
		}
	})
}

// FuzzConv fuzzes convolutions: batch, channels a group, height, width, outputs a
// group, size, stride, padding, groups, activation.
func FuzzConv(f *testing.F, newEngine func() net.Engine) {
	dials := []dial{{1, 9}, {1, 70}, {1, 60}, {1, 60}, {1, 100}, {1, 11}, {1, 6}, {0, 11}, {1, 4}, {0, 2}}
	fuzz(f, newEngine, dials, [][]int{
		{1, 1, 1, 1, 1, 1, 1, 0, 1, 0},
		{2, 3, 7, 6, 5, 3, 1, 1, 1, 1},
		{1, 3, 31, 31, 8, 11, 4, 0, 1, 1}, // conv1, small
		{2, 4, 9, 9, 6, 5, 1, 2, 2, 2},    // conv2
		{2, 64, 13, 13, 40, 3, 1, 1, 1, 1},
		{1, 2, 1, 1, 3, 3, 2, 2, 1, 0},   // windows of padding alone
		{1, 4, 8, 8, 4, 2, 3, 0, 1, 0},   // pixels that no window sees
		{3, 1, 5, 6, 1, 3, 1, 1, 4, 1},   // depthwise
		{1, 5, 17, 3, 33, 3, 1, 2, 1, 0}, // a wide border, and a tail of lanes
		{9, 7, 2, 2, 97, 1, 1, 0, 2, 2},
	}, func(v []int) (opCase, bool) {
		n, c, h, w, o := v[0], v[1], v[2], v[3], v[4]
		g := net.Conv{Size: v[5], Stride: v[6], Pad: v[7], Groups: v[8], Act: net.Activation(v[9])}
		if g.Pad > g.Size || min(h, w)+2*g.Pad < g.Size {
			return opCase{}, false
		}
		return convCase(n, c*g.Groups, h, w, o*g.Groups, g), true
	})
}

// FuzzDense fuzzes dense layers: batch, channels, height, width, outputs,
// activation.
func FuzzDense(f *testing.F, newEngine func() net.Engine) {
	dials := []dial{{1, 70}, {1, 200}, {1, 8}, {1, 8}, {1, 200}, {0, 2}}
	fuzz(f, newEngine, dials, [][]int{
		{1, 1, 1, 1, 1, 0}, {3, 5, 2, 3, 7, 1}, {5, 16, 6, 6, 130, 1}, {2, 70, 1, 1, 200, 0}, {70, 3, 1, 1, 4, 2}, {33, 129, 1, 2, 65, 1},
	}, func(v []int) (opCase, bool) {
		return denseCase(v[0], v[1], v[2], v[3], v[4], net.Activation(v[5])), true
	})
}

// FuzzPool fuzzes poolings: batch, channels, height, width, size, stride, padding;
// then whether a last window may reach over the border, whether means count the
// padding, and whether it is a mean.
func FuzzPool(f *testing.F, newEngine func() net.Engine) {
	dials := []dial{{1, 4}, {1, 70}, {1, 40}, {1, 40}, {1, 16}, {1, 9}, {0, 15}, {0, 1}, {0, 1}, {0, 1}}
	fuzz(f, newEngine, dials, [][]int{
		{1, 1, 1, 1, 1, 1, 0, 0, 0, 0}, {2, 5, 13, 13, 3, 2, 0, 0, 0, 0}, {2, 3, 5, 4, 2, 3, 0, 1, 0, 0}, {1, 2, 9, 9, 9, 1, 0, 0, 0, 0}, {2, 3, 5, 5, 3, 2, 1, 1, 0, 0},
		{2, 5, 13, 13, 3, 2, 0, 0, 1, 1}, {1, 17, 6, 7, 4, 3, 2, 1, 1, 1}, {2, 33, 5, 6, 3, 2, 1, 1, 0, 1}, {1, 64, 7, 9, 9, 9, 0, 1, 0, 1}, {1, 1, 4, 4, 3, 1, 2, 0, 0, 1},
	}, func(v []int) (opCase, bool) {
		n, c, h, w := v[0], v[1], v[2], v[3]
		g := net.Pool{Size: v[4], Stride: v[5], Pad: v[6], Ceil: v[7] == 1, CountPad: v[8] == 1}
		if g.Pad >= g.Size || !g.Ceil && min(h, w)+2*g.Pad < g.Size {
			return opCase{}, false
		}
		if v[9] == 1 {
			return avgPoolCase(n, c, h, w, g), true
		}
		g.CountPad = false
		return poolCase(n, c, h, w, g), true
	})
}

// FuzzLRN fuzzes normalisations: batch, channels a group, height, width, size,
// groups; then k, alpha and beta in tenths and twentieths.
func FuzzLRN(f *testing.F, newEngine func() net.Engine) {
	dials := []dial{{1, 4}, {1, 100}, {1, 12}, {1, 12}, {1, 12}, {1, 3}, {5, 30}, {0, 20}, {5, 25}}
	fuzz(f, newEngine, dials, [][]int{
		{2, 12, 3, 4, 5, 1, 20, 1, 15}, {1, 6, 3, 4, 5, 2, 10, 10, 15}, {1, 8, 2, 2, 4, 1, 10, 10, 15}, {1, 3, 2, 2, 9, 1, 10, 10, 10}, {3, 1, 2, 1, 1, 1, 10, 20, 20}, {1, 97, 1, 3, 5, 1, 10, 5, 12},
	}, func(v []int) (opCase, bool) {
		g := net.LRN{Size: v[4], Groups: v[5], K: float32(v[6]) / 10, Alpha: float32(v[7]) / 20, Beta: float32(v[8]) / 20}
		return lrnCase(v[0], v[1]*g.Groups, v[2], v[3], g), true
	})
}
