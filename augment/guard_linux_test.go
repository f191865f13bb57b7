package augment

import (
	"fmt"
	"image"
	"math/rand/v2"
	"syscall"
	"testing"
	"unsafe"
)

// guarded gives memory that ends, or begins, at a page that nobody may touch: a byte read or written
// beyond it ends the test.
type guarded struct {
	t     *testing.T
	pages [][]byte
	front bool
}

func (g *guarded) alloc(n int) []byte {
	page := syscall.Getpagesize()
	size := (n + page - 1) / page * page
	m, err := syscall.Mmap(-1, 0, size+2*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		g.t.Fatal(err)
	}
	g.pages = append(g.pages, m)
	for _, at := range []int{0, page + size} {
		if err := syscall.Mprotect(m[at:at+page], syscall.PROT_NONE); err != nil {
			g.t.Fatal(err)
		}
	}
	if g.front {
		return m[page:][:n:n]
	}
	return m[page+size-n:][:n:n]
}

func (g *guarded) int16s(n int) []int16 {
	return unsafe.Slice((*int16)(unsafe.Pointer(unsafe.SliceData(g.alloc(2*n)))), n)
}

func (g *guarded) free() {
	for _, m := range g.pages {
		if err := syscall.Munmap(m); err != nil {
			g.t.Error(err)
		}
	}
	g.pages = nil
}

func guardedBothWays(t *testing.T, test func(t *testing.T, g *guarded)) {
	for _, front := range []bool{false, true} {
		t.Run(fmt.Sprintf("front=%v", front), func(t *testing.T) {
			g := &guarded{t: t, front: front}
			defer g.free()
			test(t, g)
		})
	}
}

func TestKernelsStayInside(t *testing.T) {
	guardedBothWays(t, func(t *testing.T, g *guarded) { testKernels(t, g.alloc) })
}

// The pass across stays in the samples and the overrun it is promised.
func TestSqueezeStaysInside(t *testing.T) {
	guardedBothWays(t, func(t *testing.T, g *guarded) {
		for _, in := range []int{30, 100, 199, 200, 201, 250, 1000, 1605} {
			var a axis
			a.build(sampling{n: in, every: 1}, span{in, 100, 3, 90}, order{mirrored: in%2 > 0}, Bilinear)
			src := g.int16s(a.hi - a.lo + overrun)
			for _, l := range levels() {
				l.squeeze(g.int16s(len(a.first))[:90], src, &a, levelBias)
			}
			g.free()
		}
	})
}

// Rendering reads no byte outside the picture's slices, nor writes one outside the rendered picture's.
func TestRenderStaysInside(t *testing.T) {
	guardedBothWays(t, func(t *testing.T, g *guarded) {
		rng := rand.New(rand.NewPCG(8, 8))
		for range 150 {
			w, h := 1+rng.IntN(120), 1+rng.IntN(120)
			img, v := anyPicture(rng, w, h), anyView(rng, w, h)
			move := func(pix *[]byte) {
				m := g.alloc(len(*pix))
				copy(m, *pix)
				*pix = m
			}
			switch img := img.(type) {
			case *RGB:
				move(&img.Pix)
			case *image.Gray:
				move(&img.Pix)
			case *image.NRGBA:
				move(&img.Pix)
			case *image.YCbCr:
				move(&img.Y)
				move(&img.Cb)
				move(&img.Cr)
			}
			for _, l := range levels() {
				var r Renderer
				r.level = l
				dst := &RGB{Pix: g.alloc(3 * v.Window.Dx() * v.Window.Dy())}
				if err := r.Render(dst, img, v); err != nil {
					t.Fatal(err)
				}
			}
			g.free()
		}
	})
}
