package augment

import (
	"image"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestPCAShift(t *testing.T) {
	p := ImageNet()
	// The eigenvectors are orthonormal, to the four digits they are given in.
	for i := range 3 {
		for j := range 3 {
			dot := 0.0
			for c := range 3 {
				dot += p.Vectors[c][i] * p.Vectors[c][j]
			}
			want := 0.0
			if i == j {
				want = 1
			}
			if math.Abs(dot-want) > 1e-3 {
				t.Errorf("vectors %d and %d: dot product %g", i, j, dot)
			}
		}
	}
	got := p.Shift([3]float64{0.1, 0, 0})
	for c, want := range [3]float64{-0.5675, -0.5808, -0.5836} {
		if want *= 0.1 * 0.2175 * 255; math.Abs(float64(got[c])-want) > 1e-5 {
			t.Errorf("channel %d: shift %g, want %g", c, got[c], want)
		}
	}
	got = p.Shift([3]float64{0, 0.2, -0.1})
	if want := 255 * (0.7192*0.2*0.0188 - 0.4009*0.1*0.0045); math.Abs(float64(got[0])-want) > 1e-5 {
		t.Errorf("red: shift %g, want %g", got[0], want)
	}
	if p.Shift([3]float64{}) != [3]float32{} {
		t.Error("no alpha, no shift")
	}
}

// alpha of sigma 0.1 shifts by about 5 levels, by the authors' square roots about 12 (length of the shift).
func TestPCAShiftScales(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var linear, root float64
	const n = 20000
	for range n {
		alpha := [3]float64{0.1 * rng.NormFloat64(), 0.1 * rng.NormFloat64(), 0.1 * rng.NormFloat64()}
		for c, v := range ImageNet().Shift(alpha) {
			linear += float64(v * v)
			w := ImageNet().ShiftBySqrt(alpha)[c]
			root += float64(w * w)
		}
	}
	if s := math.Sqrt(linear / n); s < 5.3 || s > 5.8 {
		t.Errorf("the shift has sigma %.2f levels, want about 5.5", s)
	}
	if s := math.Sqrt(root / n); s < 12 || s > 13 {
		t.Errorf("by square roots it has sigma %.2f levels, want about 12.5", s)
	}
}

func TestShorterSide(t *testing.T) {
	// As torchvision.transforms.Resize(256) gives.
	for _, c := range [][4]int{{500, 375, 341, 256}, {375, 500, 256, 341}, {256, 256, 256, 256}, {1, 1, 256, 256}, {1024, 683, 383, 256}, {257, 512, 256, 510}, {3, 1000, 256, 85333}} {
		if w, h := ShorterSide(c[0], c[1], 256); w != c[2] || h != c[3] {
			t.Errorf("%d x %d: %d x %d, want %d x %d", c[0], c[1], w, h, c[2], c[3])
		}
	}
}

func TestCentre(t *testing.T) {
	// round((n - 256) / 2) in Python.
	for n, want := range map[int]int{256: 0, 257: 0, 258: 1, 259: 2, 260: 2, 261: 2, 263: 4, 341: 42, 383: 64} {
		if got := Centre(n, 256); got != want {
			t.Errorf("%d: %d, want %d", n, got, want)
		}
	}
}

func TestTenCrop(t *testing.T) {
	v := NewView(256, 256, 1)
	ten, err := TenCrop(v, 224, 224)
	if err != nil {
		t.Fatal(err)
	}
	want := []image.Point{{0, 0}, {32, 0}, {0, 32}, {32, 32}, {16, 16}}
	for i, c := range ten {
		if c.Origin() != want[i%5] || c.Bounds() != image.Pt(224, 224) || c.Flip != (i >= 5) {
			t.Errorf("crop %d: %+v", i, c)
		}
		if c.Canvas != image.Rect(0, 0, 256, 256) {
			t.Errorf("crop %d: canvas %v", i, c.Canvas)
		}
	}
	p := noise(256, 256, 1)
	mirrored := render(t, p, ten[2])
	flipEagerly(mirrored)
	same(t, "the mirror of crop 2", render(t, p, ten[7]), mirrored)

	if _, err := TenCrop(NewView(200, 300, 1), 224, 224); err == nil || !strings.Contains(err.Error(), "200 x 300") {
		t.Errorf("too small a picture: %v", err)
	}
}

func TestMirror(t *testing.T) {
	for _, w := range []int{1, 2, 5} {
		p := noise(w, 3, 1)
		q := &RGB{Pix: append([]byte(nil), p.Pix...), Stride: p.Stride, W: p.W, H: p.H}
		flipEagerly(q)
		for y := range 3 {
			for x := range w {
				if q.rgba(x, y) != p.rgba(w-1-x, y) {
					t.Fatalf("width %d: (%d, %d)", w, x, y)
				}
			}
		}
	}
}

func TestNewPCA(t *testing.T) {
	// ImageNet's covariance, made of its components, gives them again.
	want := ImageNet()
	var covariance [3][3]float64
	for a := range 3 {
		for b := range 3 {
			for i, v := range want.Values {
				covariance[a][b] += v * want.Vectors[a][i] * want.Vectors[b][i]
			}
		}
	}
	got, err := NewPCA(covariance)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if math.Abs(got.Values[i]-want.Values[i]) > 1e-4 {
			t.Errorf("value %d is %g, want %g", i, got.Values[i], want.Values[i])
		}
		sign, greatest, length := 1., 0., 0.
		for c := range 3 {
			length += got.Vectors[c][i] * got.Vectors[c][i]
			greatest = max(greatest, got.Vectors[c][i])
			if math.Abs(want.Vectors[c][i]) > 0.5 {
				sign = math.Copysign(1, want.Vectors[c][i]*got.Vectors[c][i])
			}
		}
		for c := range 3 {
			if d := sign*got.Vectors[c][i] - want.Vectors[c][i]; math.Abs(d) > 2e-3 {
				t.Errorf("vector %d, channel %d: %g, want %g", i, c, got.Vectors[c][i], want.Vectors[c][i])
			}
			if math.Abs(got.Vectors[c][i]) > greatest {
				t.Errorf("the greatest element of vector %d is negative: %v", i, got.Vectors)
			}
		}
		if math.Abs(length-1) > 1e-6 {
			t.Errorf("vector %d has the length %g", i, math.Sqrt(length))
		}
	}

	// Pixels of one colour vary in nothing.
	if got, err = NewPCA([3][3]float64{}); err != nil || got.Values != [3]float64{} {
		t.Errorf("no covariance gives %v, %v", got, err)
	}
}
