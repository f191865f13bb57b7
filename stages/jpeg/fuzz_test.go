package jpeg

import (
	"bytes"
	"errors"
	"image"
	stdjpeg "image/jpeg"
	"math/rand/v2"
	"testing"
)

func addSeeds(f *testing.F) {
	for _, data := range small(f) {
		f.Add(data)
	}
	rng := rand.New(rand.NewPCG(11, 11))
	for _, factors := range [][][2]int{{{1, 1}}, {{2, 2}, {1, 1}, {1, 1}}, {{1, 1}, {1, 1}, {1, 1}}} {
		s := newSheet(rng, 9, 17, factors...)
		f.Add(s.file(rng, false, 1, s.baseline(true)...))
		f.Add(s.file(rng, true, 0, s.script(rng)...))
	}
}

// FuzzDecode holds any bytes to: no panic, no read outside of them, an error of a known kind, the same picture on
// every level of the CPU, and image/jpeg's picture if that has one too.
func FuzzDecode(f *testing.F) {
	addSeeds(f)
	end := endOfMemory(f, 1<<20)
	f.Fuzz(func(t *testing.T, data []byte) {
		data = end(data)
		opt := Options{MaxPixels: 1 << 18, Keep: true}
		var damage *Damage
		var first [][]byte
		tame := true
		for i, l := range levels() {
			d := Decoder{level: l}
			if i == 0 {
				d.seen = func(c *component, coefs []int16) { tame = tame && isTame(c, coefs) }
			}
			m, err := d.Decode(data, opt)
			if d.bits.p+8 > len(d.bits.data) && d.bits.p > 0 {
				t.Fatalf("read at %d of %d bytes", d.bits.p, len(d.bits.data))
			}
			if err != nil {
				if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrUnsupported) && !errors.Is(err, ErrTooLarge) && !errors.As(err, &damage) {
					t.Fatalf("an error of no kind: %v", err)
				}
				return
			}
			m.Image()
			if i == 0 {
				first = planes(m)
			}
			samePlanes(t, planes(m), first)
			damage = m.Damage
		}
		var d Decoder
		m, err := d.Decode(data, Options{MaxPixels: 1 << 18})
		if (err == nil) != (damage == nil) {
			t.Fatalf("kept with damage %v, else %v", damage, err)
		}
		if err != nil {
			return
		}
		samePlanes(t, planes(m), first)
		var part Decoder
		region := image.Rect(len(data)%m.Width, len(data)/3%m.Height, m.Width, m.Height)
		sameInRegion(t, decodeRegion(t, &part, data, region), m)
		if c, err := DecodeConfig(data); err != nil || c.Width != m.Width || c.Height != m.Height {
			t.Fatalf("config %+v, %v", c, err)
		}
		// Where the two may differ: coefficients that are no picture's, tables that change between scans, scans
		// behind the last that counts, and codes that only progressive files have, which image/jpeg takes in
		// others; in those it carries a run of bands on into the next scan. FuzzSheet holds progressive files.
		scan := bytes.Index(data, []byte{0xFF, 0xDA})
		if !tame || bytes.Count(data, []byte{0xFF, 0xDA}) != d.scans || bytes.LastIndex(data, []byte{0xFF, 0xDB}) > scan ||
			d.frame.progressive || endsBands(data) {
			return
		}
		img, err := stdjpeg.Decode(bytes.NewReader(data))
		if err != nil {
			return
		}
		if y, ok := img.(*image.YCbCr); ok {
			if ours, ok := m.Image().(*image.YCbCr); ok && ours.SubsampleRatio != y.SubsampleRatio {
				return // the factors have a common divisor, or no name
			}
		}
		sameAs(t, m.Image(), img)
	})
}

func decodeRegion(t *testing.T, d *Decoder, data []byte, region image.Rectangle) *Image {
	t.Helper()
	m, err := d.Decode(data, Options{Region: region})
	if err != nil {
		t.Fatalf("region %v: %v", region, err)
	}
	return m
}

// sameInRegion compares the samples that stand for pixels of the region of part.
func sameInRegion(t *testing.T, part, whole *Image) {
	t.Helper()
	hMax, vMax := 1, 1
	for _, p := range whole.Planes {
		hMax, vMax = max(hMax, p.H), max(vMax, p.V)
	}
	r := part.Region
	for i, p := range whole.Planes {
		q := part.Planes[i]
		x0, x1 := r.Min.X*p.H/hMax, ceilDiv(r.Max.X*p.H, hMax)
		for y := r.Min.Y * p.V / vMax; y < ceilDiv(r.Max.Y*p.V, vMax); y++ {
			if !bytes.Equal(q.Pix[y*q.Stride+x0:y*q.Stride+x1], p.Pix[y*p.Stride+x0:y*p.Stride+x1]) {
				t.Fatalf("plane %d of region %v differs in row %d", i, r, y)
			}
		}
	}
}

// isTame reports whether no block of a picture's kind would be far from these: they stay well within the 16
// bits of the transform.
func isTame(c *component, coefs []int16) bool {
	for at := 0; at < len(coefs); at += 64 {
		sum := 0
		for k, v := range coefs[at:][:64] {
			product := int(v) * int(c.quant[k])
			sum += max(product, -product)
		}
		if sum > 4000 {
			return false
		}
	}
	return true
}

// endsBands reports whether a Huffman table of a file has the end of a run of bands (EOB1 to EOB14).
func endsBands(data []byte) bool {
	h := header{data: data}
	for {
		code, err := h.marker()
		if err != nil {
			return false
		}
		if code != markerDHT {
			continue
		}
		p, err := h.payload()
		for err == nil && len(p) > 16 {
			class, n := p[0]>>4, 17
			for _, codes := range p[1:17] {
				n += int(codes)
			}
			n = min(n, len(p))
			for _, v := range p[17:n] {
				if class == 1 && v&15 == 0 && v != 0 && v != 0xF0 {
					return true
				}
			}
			p = p[n:]
		}
	}
}

// FuzzSheet draws a picture and writes it in two ways, which must decode to the same, and to what image/jpeg
// makes of them.
func FuzzSheet(f *testing.F) {
	f.Add(uint64(1), uint8(10), uint8(20), uint32(0x221111), uint8(0))
	f.Add(uint64(2), uint8(64), uint8(1), uint32(0x41), uint8(3))
	f.Fuzz(func(t *testing.T, seed uint64, w, h uint8, factors uint32, restart uint8) {
		rng := rand.New(rand.NewPCG(seed, 0))
		var fs [][2]int
		for range []int{1, 3, 3, 4}[seed&3] {
			fs = append(fs, [2]int{1 + int(factors&3), 1 + int(factors>>4&3)})
			factors >>= 8
		}
		s := newSheet(rng, 1+int(w), 1+int(h), fs...)
		var d Decoder
		baseline := s.file(rng, false, int(restart), s.baseline(seed&4 == 0)...)
		want := planes(decode(t, &d, baseline))
		if img, err := stdjpeg.Decode(bytes.NewReader(baseline)); err == nil { // it has not all factors
			if y, ok := img.(*image.YCbCr); ok && d.out.Image().(*image.YCbCr).SubsampleRatio != y.SubsampleRatio {
				img = nil // the factors have a common divisor, or no name
			}
			if img != nil {
				sameAs(t, d.out.Image(), img)
			}
		}
		samePlanes(t, planes(decode(t, &d, s.file(rng, true, int(restart/2), s.script(rng)...))), want)
		var part Decoder
		region := image.Rect(int(seed>>8)%(1+int(w)), int(seed>>16)%(1+int(h)), 1+int(w), 1+int(h))
		sameInRegion(t, decodeRegion(t, &part, baseline, region), decode(t, &d, baseline))
	})
}
