package stages

import (
	"bytes"
	"compress/zlib"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/color/palette"
	"image/draw"
	"image/gif"
	"image/png"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/disintegration/imaging"
	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"

	"sluice/augment"
	"sluice/pipeline"
	"sluice/stages/internal/jpegenc"
)

func newDecode(t testing.TB) *Decode {
	return must[*Decode](t)(NewDecode(DecodeOptions{Orientation: true, MaxPixels: 50e6, MaxBytes: 128 << 20}))
}

// decoded is data after the decode stage, rendered.
func decoded(t testing.TB, data []byte) *augment.RGB {
	t.Helper()
	s := pipeline.NewSample(1, "decode", pipeline.Key{})
	s.Bytes = data
	if err := newDecode(t).Process(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	p, err := s.Pixels()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func decodeError(t testing.TB, data []byte) error {
	t.Helper()
	s := pipeline.NewSample(1, "decode", pipeline.Key{})
	s.Bytes = data
	if err := newDecode(t).Process(t.Context(), s); err != nil {
		return err
	}
	_, err := s.Pixels()
	return err
}

func difference(a, b *augment.RGB) float64 {
	if a.W != b.W || a.H != b.H {
		return math.Inf(1)
	}
	var sum float64
	for y := range a.H {
		p, q := a.Row(y), b.Row(y)
		for i := range p {
			sum += math.Abs(float64(p[i]) - float64(q[i]))
		}
	}
	return sum / float64(3*a.W*a.H)
}

func encoded(t testing.TB, encode func(*bytes.Buffer) error) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := encode(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func pngOf(t testing.TB, img image.Image) []byte {
	return encoded(t, func(b *bytes.Buffer) error { return png.Encode(b, img) })
}

// drawn is img as another kind of picture.
func drawn[I draw.Image](dst I, img image.Image) I {
	draw.Draw(dst, dst.Bounds(), img, image.Point{}, draw.Src)
	return dst
}

// orange is a lossless WebP of 1 x 1 pixel, (255, 128, 0): the VP8L header, no transform, no colour cache,
// and five prefix codes of one symbol each (green, red, blue, alpha, distance).
var orange = webpOf("VP8L", vp8l(1, 1, 255, 128, 0, 255))

// vp8l is the data of a VP8L chunk of one colour.
func vp8l(w, h int, r, g, b, a byte) []byte {
	var out []byte
	used := 0
	put := func(v uint32, n int) {
		for ; n > 0; n-- {
			if used%8 == 0 {
				out = append(out, 0)
			}
			out[len(out)-1] |= byte(v&1) << (used % 8)
			v >>= 1
			used++
		}
	}
	put(0x2f, 8)
	put(uint32(w-1), 14)
	put(uint32(h-1), 14)
	put(1, 1) // alpha is used
	put(0, 3) // version
	put(0, 1) // no transform
	put(0, 1) // no colour cache
	put(0, 1) // no meta prefix codes
	for _, symbol := range []byte{g, r, b, a} {
		put(1, 1) // a simple code
		put(0, 1) // of one symbol
		put(1, 1) // of 8 bits
		put(uint32(symbol), 8)
	}
	put(1, 1) // distance: one symbol of 1 bit, 0
	put(0, 1)
	put(0, 1)
	put(0, 1)
	return out
}

// webpOf is a RIFF file of chunks: id, data, id, data.
func webpOf(chunks ...any) []byte {
	var body []byte
	for i := 0; i < len(chunks); i += 2 {
		data := chunks[i+1].([]byte)
		body = append(body, chunks[i].(string)...)
		body = binary.LittleEndian.AppendUint32(body, uint32(len(data)))
		body = append(body, data...)
		if len(data)%2 == 1 {
			body = append(body, 0)
		}
	}
	out := binary.LittleEndian.AppendUint32([]byte("RIFF"), uint32(4+len(body)))
	return append(append(out, "WEBP"...), body...)
}

func TestDecodeFormats(t *testing.T) {
	src := photo(60, 40, 1)
	quantised := drawn(image.NewPaletted(src.Bounds(), palette.Plan9), src)
	cases := map[string]struct {
		data []byte
		most float64 // mean difference from src, in levels
	}{
		"JPEG":           {jpegOf(t, src, 95), 8},
		"PNG":            {pngOf(t, src), 0},
		"PNG 16 bit":     {pngOf(t, drawn(image.NewRGBA64(src.Bounds()), src)), 0},
		"PNG palette":    {pngOf(t, quantised), 25},
		"GIF":            {encoded(t, func(b *bytes.Buffer) error { return gif.Encode(b, quantised, nil) }), 25},
		"BMP":            {encoded(t, func(b *bytes.Buffer) error { return bmp.Encode(b, src) }), 0},
		"TIFF":           {encoded(t, func(b *bytes.Buffer) error { return tiff.Encode(b, src, nil) }), 0},
		"TIFF deflate":   {encoded(t, func(b *bytes.Buffer) error { return tiff.Encode(b, src, &tiff.Options{Compression: tiff.Deflate}) }), 0},
		"TIFF 16 bit":    {encoded(t, func(b *bytes.Buffer) error { return tiff.Encode(b, drawn(image.NewRGBA64(src.Bounds()), src), nil) }), 0},
		"PNG by imaging": {encoded(t, func(b *bytes.Buffer) error { return imaging.Encode(b, src, imaging.PNG) }), 0},
	}
	for name, c := range cases {
		if d := difference(decoded(t, c.data), src); d > c.most {
			t.Errorf("%s: off by %.2f levels in the mean, more than %g", name, d, c.most)
		}
	}
	p := decoded(t, orange)
	if p.W != 1 || p.H != 1 || !bytes.Equal(p.Pix, []byte{255, 128, 0}) {
		t.Errorf("WebP: %+v", p)
	}
}

func TestDecodeGray(t *testing.T) {
	src := drawn(image.NewGray(image.Rect(0, 0, 33, 21)), photo(33, 21, 2))
	for name, data := range map[string][]byte{"PNG": pngOf(t, src), "JPEG": jpegOf(t, src, 100), "PNG 16": pngOf(t, drawn(image.NewGray16(src.Rect), src))} {
		p := decoded(t, data)
		for i, g := range src.Pix {
			if c := p.Pix[3*i : 3*i+3]; c[0] != c[1] || c[1] != c[2] || math.Abs(float64(c[0])-float64(g)) > 2 {
				t.Fatalf("%s: pixel %d is %v, want gray %d", name, i, c, g)
			}
		}
	}
}

// Transparent pixels show white, whatever colour they hide.
func TestDecodeAlphaOnWhite(t *testing.T) {
	img := image.NewNRGBA(image.Rect(0, 0, 3, 1))
	img.SetNRGBA(0, 0, color.NRGBA{200, 100, 0, 0})
	img.SetNRGBA(1, 0, color.NRGBA{200, 100, 0, 128})
	img.SetNRGBA(2, 0, color.NRGBA{200, 100, 0, 255})
	p := decoded(t, pngOf(t, img))
	want := []byte{255, 255, 255, 227, 177, 127, 200, 100, 0}
	for i := range want {
		if d := int(p.Pix[i]) - int(want[i]); d < -1 || d > 1 {
			t.Fatalf("got %v, want %v", p.Pix, want)
		}
	}
	if p := decoded(t, webpOf("VP8L", vp8l(2, 2, 10, 20, 30, 0))); p.Pix[0] != 255 || p.W != 2 {
		t.Errorf("a transparent WebP: %v", p.Pix)
	}
}

// A GIF's first frame stands on a canvas that it need not fill; later frames are not read.
func TestDecodeGIFFrameOnCanvas(t *testing.T) {
	frame := image.NewPaletted(image.Rect(2, 1, 4, 3), color.Palette{color.RGBA{255, 0, 0, 255}, color.Black})
	second := image.NewPaletted(image.Rect(0, 0, 6, 5), color.Palette{color.Black, color.White})
	data := encoded(t, func(b *bytes.Buffer) error {
		return gif.EncodeAll(b, &gif.GIF{Image: []*image.Paletted{frame, second}, Delay: []int{0, 0}, Config: image.Config{Width: 6, Height: 5}})
	})
	for _, d := range [][]byte{data, data[:len(data)-4]} {
		p := decoded(t, d)
		if p.W != 6 || p.H != 5 {
			t.Fatalf("%d x %d pixels, want the canvas of 6 x 5", p.W, p.H)
		}
		for y := range 5 {
			for x := range 6 {
				want := []byte{255, 255, 255}
				if image.Pt(x, y).In(frame.Rect) {
					want = []byte{255, 0, 0}
				}
				if got := p.Row(y)[3*x : 3*x+3]; !bytes.Equal(got, want) {
					t.Fatalf("(%d, %d): %v, want %v", x, y, got, want)
				}
			}
		}
	}
}

// withSegments puts marker segments behind the start of a JPEG.
func withSegments(jpg []byte, segments ...[]byte) []byte {
	out := append([]byte(nil), jpg[:2]...)
	for _, s := range segments {
		out = append(out, 0xff, s[0])
		out = binary.BigEndian.AppendUint16(out, uint16(len(s)+1))
		out = append(out, s[1:]...)
	}
	return append(out, jpg[2:]...)
}

// exifOf is an EXIF block with one tag, orientation, of the type 3 (16 bits) or 4 (32 bits).
func exifOf(order binary.AppendByteOrder, kind uint16, orient uint32) []byte {
	b := []byte("MM\x00*")
	if order == binary.AppendByteOrder(binary.LittleEndian) {
		b = []byte("II*\x00")
	}
	b = order.AppendUint32(b, 8)
	b = order.AppendUint16(b, 1)
	b = order.AppendUint16(b, 274)
	b = order.AppendUint16(b, kind)
	b = order.AppendUint32(b, 1)
	if kind == 3 {
		b = order.AppendUint16(b, uint16(orient))
		b = order.AppendUint16(b, 0)
	} else {
		b = order.AppendUint32(b, orient)
	}
	return order.AppendUint32(b, 0)
}

func app1(tiff []byte) []byte { return append([]byte("\xe1Exif\x00\x00"), tiff...) }

// quadrants is red, green over blue, white, so that each orientation is another picture.
func quadrants() *augment.RGB {
	p := augment.NewRGB(64, 32)
	for y := range 32 {
		for x := range 64 {
			c := [4][3]byte{{220, 30, 30}, {30, 220, 30}, {30, 30, 220}, {230, 230, 230}}[y/16*2+x/32]
			copy(p.Row(y)[3*x:], c[:])
		}
	}
	return p
}

// stored is how a camera that was held in another way stores the upright picture p.
func stored(p *augment.RGB, orient int) image.Image {
	switch orient {
	case 2:
		return imaging.FlipH(p)
	case 3:
		return imaging.Rotate180(p)
	case 4:
		return imaging.FlipV(p)
	case 5:
		return imaging.Transpose(p)
	case 6: // shown turned clockwise, so stored turned anticlockwise
		return imaging.Rotate90(p)
	case 7:
		return imaging.Transverse(p)
	case 8:
		return imaging.Rotate270(p)
	}
	return p
}

func TestDecodeOrientation(t *testing.T) {
	upright := quadrants()
	for orient := 1; orient <= 8; orient++ {
		img := stored(upright, orient)
		plain := jpegOf(t, img, 95)
		exif := map[string][]byte{
			"little-endian": app1(exifOf(binary.LittleEndian, 3, uint32(orient))),
			"big-endian":    app1(exifOf(binary.BigEndian, 3, uint32(orient))),
			"32 bits":       app1(exifOf(binary.BigEndian, 4, uint32(orient))),
		}
		for name, e := range exif {
			data := withSegments(plain, []byte("\xe1http://ns.adobe.com/xap/1.0/\x00<x/>"), e)
			if d := difference(decoded(t, data), upright); d > 3 {
				t.Errorf("JPEG %s, orientation %d: off by %.1f levels", name, orient, d)
			}
			// Folded into the View: the picture itself is as stored.
			s := pipeline.NewSample(1, "decode", pipeline.Key{})
			s.Bytes = data
			if err := newDecode(t).Process(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			if s.Image().Bounds() != img.Bounds() || s.View().Orient != orient || s.View().Bounds() != image.Pt(64, 32) {
				t.Errorf("orientation %d: image %v, view %+v", orient, s.Image().Bounds(), s.View())
			}
		}
		if d := difference(decoded(t, pngWith(pngOf(t, img), "eXIf", exifOf(binary.BigEndian, 3, uint32(orient)))), upright); d > 0 {
			t.Errorf("PNG, orientation %d: off by %.1f levels", orient, d)
		}
		ignore := must[*Decode](t)(NewDecode(DecodeOptions{MaxPixels: 1e6, MaxBytes: 1e6}))
		s := pipeline.NewSample(1, "decode", pipeline.Key{})
		s.Bytes = withSegments(plain, exif["big-endian"])
		if err := ignore.Process(t.Context(), s); err != nil || s.View().Orient != 1 {
			t.Errorf("orientation: false: %v, %+v", err, s.View())
		}
	}
}

// pngWith puts a chunk behind the header of a PNG.
func pngWith(data []byte, kind string, body []byte) []byte {
	const header = 8 + 12 + 13
	out := append([]byte(nil), data[:header]...)
	out = append(out, pngChunk(kind, body)...)
	return append(out, data[header:]...)
}

func pngChunk(kind string, body []byte) []byte {
	out := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	out = append(append(out, kind...), body...)
	return binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(out[4:]))
}

func TestDecodeOrientationOfTIFFAndWebP(t *testing.T) {
	data := encoded(t, func(b *bytes.Buffer) error { return tiff.Encode(b, stored(quadrants(), 6), nil) })
	if d := difference(decoded(t, tiffOriented(t, data, 6)), quadrants()); d > 0 {
		t.Errorf("TIFF: off by %.1f levels", d)
	}
	vp8x := []byte{1<<3 | 1<<4, 0, 0, 0, 2, 0, 0, 1, 0, 0} // EXIF and alpha, 3 x 2
	s := pipeline.NewSample(1, "decode", pipeline.Key{})
	s.Bytes = webpOf("VP8X", vp8x, "VP8L", vp8l(3, 2, 1, 2, 3, 255), "EXIF", exifOf(binary.LittleEndian, 3, 6))
	if err := newDecode(t).Process(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if s.View().Orient != 6 || s.View().Bounds() != image.Pt(2, 3) {
		t.Errorf("WebP: %+v", s.View())
	}
}

// tiffOriented writes the orientation over the tag 296 (resolution unit) of a TIFF, and moves the tags
// between to keep them sorted.
func tiffOriented(t *testing.T, data []byte, orient uint16) []byte {
	t.Helper()
	le := binary.LittleEndian
	ifd := data[le.Uint32(data[4:]):]
	n := int(le.Uint16(ifd))
	entry := func(i int) []byte { return ifd[2+12*i:][:12] }
	var tags []uint16
	for i := range n {
		tags = append(tags, le.Uint16(entry(i)))
	}
	at := -1
	for i, tag := range tags {
		if tag == 296 {
			at = i
		}
	}
	if at < 0 {
		t.Fatalf("the TIFF has no tag 296: %v", tags)
	}
	for ; at > 0 && tags[at-1] > 274; at-- {
		copy(entry(at), entry(at-1))
	}
	e := le.AppendUint16(nil, 274)
	e = le.AppendUint32(le.AppendUint16(e, 3), 1)
	e = le.AppendUint16(le.AppendUint16(e, orient), 0)
	copy(entry(at), e)
	return data
}

// What EXIF says wrongly costs nothing but the orientation.
func TestDecodeBadEXIF(t *testing.T) {
	upright := quadrants()
	plain := jpegOf(t, upright, 95)
	good := exifOf(binary.BigEndian, 3, 6)
	for name, block := range map[string][]byte{
		"orientation 0":     exifOf(binary.BigEndian, 3, 0),
		"orientation 9":     exifOf(binary.BigEndian, 3, 9),
		"orientation 65535": exifOf(binary.LittleEndian, 3, 65535),
		"32 bits, huge":     exifOf(binary.LittleEndian, 4, 1<<31+6),
		"text":              exifOf(binary.LittleEndian, 2, 6),
		"cut":               good[:12],
		"only the magic":    good[:4],
		"nothing":           nil,
		"offset past end":   append([]byte("MM\x00*\xff\xff\xff\xf0"), good[8:]...),
		"offset to itself":  append([]byte("MM\x00*\x00\x00\x00\x00"), good[8:]...),
		"65535 tags":        append([]byte("MM\x00*\x00\x00\x00\x08\xff\xff"), make([]byte, 100)...),
		"garbage":           bytes.Repeat([]byte{0xa5}, 500),
	} {
		if d := difference(decoded(t, withSegments(plain, app1(block))), upright); d > 3 {
			t.Errorf("%s: off by %.1f levels", name, d)
		}
	}
}

// cmykJPEG is a JPEG of 8 x 8 pixels and four components with Adobe's marker, each component one
// block of one DC code and an end of block. The samples are those given, as they stand in the file.
func cmykJPEG(ycck bool, c, m, y, k byte) []byte {
	var b []byte
	segment := func(marker byte, body ...byte) {
		b = append(b, 0xff, marker)
		b = binary.BigEndian.AppendUint16(b, uint16(len(body)+2))
		b = append(b, body...)
	}
	b = append(b, 0xff, 0xd8)
	transform := byte(0)
	if ycck {
		transform = 2
	}
	segment(0xee, append([]byte("Adobe\x00\x64\x00\x00\x00\x00"), transform)...)
	table := make([]byte, 65)
	for i := range table {
		table[i] = 1
	}
	table[0] = 0
	table[1] = 8 // the DC coefficient is 8 times the mean, so its code is the mean itself
	segment(0xdb, table...)
	segment(0xc0, 8, 0, 8, 0, 8, 4, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0, 4, 0x11, 0)
	// DC: codes of 4 bits for the sizes 0..8; AC: one code of 1 bit, end of block.
	segment(0xc4, append(append([]byte{0x00}, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), 0, 1, 2, 3, 4, 5, 6, 7, 8)...)
	segment(0xc4, append(append([]byte{0x10}, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), 0)...)
	segment(0xda, 4, 1, 0, 2, 0, 3, 0, 4, 0, 0, 63, 0)
	var bits []byte
	put := func(v uint32, n int) {
		for n--; n >= 0; n-- {
			bits = append(bits, byte(v>>n&1))
		}
	}
	for _, mean := range []byte{c, m, y, k} {
		v, size := int(mean)-128, 0
		for a := max(v, -v); a > 0; a >>= 1 {
			size++
		}
		if v < 0 {
			v += 1<<size - 1
		}
		put(uint32(size), 4)
		put(uint32(v), size)
		put(0, 1)
	}
	for len(bits)%8 != 0 {
		bits = append(bits, 1)
	}
	for i := 0; i < len(bits); i += 8 {
		v := byte(0)
		for _, bit := range bits[i : i+8] {
			v = v<<1 | bit
		}
		if b = append(b, v); v == 0xff {
			b = append(b, 0)
		}
	}
	return append(b, 0xff, 0xd9)
}

// Adobe's CMYK holds 255 minus the ink. Its YCCK takes 255 minus that for red, green and blue, which is
// the ink again, and transforms them to YCbCr.
func TestDecodeCMYK(t *testing.T) {
	for _, ink := range [][4]byte{{0, 0, 0, 0}, {255, 0, 0, 0}, {0, 200, 100, 0}, {20, 60, 200, 80}, {0, 0, 0, 255}} {
		var want [3]float64
		for i := range want {
			want[i] = (255 - float64(ink[i])) * (255 - float64(ink[3])) / 255
		}
		y, cb, cr := color.RGBToYCbCr(ink[0], ink[1], ink[2])
		for name, data := range map[string][]byte{
			"CMYK": cmykJPEG(false, 255-ink[0], 255-ink[1], 255-ink[2], 255-ink[3]),
			"YCCK": cmykJPEG(true, y, cb, cr, 255-ink[3]),
		} {
			p := decoded(t, data)
			for i, w := range want {
				if math.Abs(float64(p.Pix[i])-w) > 3 {
					t.Errorf("%s %v: got %v, want %v", name, ink, p.Pix[:3], want)
					break
				}
			}
		}
	}
}

func TestDecodeSubsampling(t *testing.T) {
	src := photo(50, 38, 4)
	for _, r := range []image.YCbCrSubsampleRatio{image.YCbCrSubsampleRatio444, image.YCbCrSubsampleRatio422, image.YCbCrSubsampleRatio420, image.YCbCrSubsampleRatio440} {
		img := image.NewYCbCr(src.Bounds(), r)
		for y := range src.H {
			for x := range src.W {
				c := src.Row(y)[3*x : 3*x+3]
				img.Y[img.YOffset(x, y)], img.Cb[img.COffset(x, y)], img.Cr[img.COffset(x, y)] = color.RGBToYCbCr(c[0], c[1], c[2])
			}
		}
		data, err := jpegenc.Append(nil, img, jpegenc.Options{Quality: 95, Restart: 3})
		if err != nil {
			t.Fatal(err)
		}
		if d := difference(decoded(t, data), src); d > 12 {
			t.Errorf("%v: off by %.1f levels", r, d)
		}
	}
}

// jpegHeader is a JPEG that claims a size and has next to no data.
func jpegHeader(t testing.TB, w, h int) []byte {
	data := jpegOf(t, image.NewGray(image.Rect(0, 0, 8, 8)), 90)
	at := bytes.Index(data, []byte{0xff, 0xc0})
	binary.BigEndian.PutUint16(data[at+5:], uint16(h))
	binary.BigEndian.PutUint16(data[at+7:], uint16(w))
	return data
}

func pngHeader(w, h int) []byte {
	ihdr := binary.BigEndian.AppendUint32(nil, uint32(w))
	ihdr = binary.BigEndian.AppendUint32(ihdr, uint32(h))
	ihdr = append(ihdr, 8, 6, 0, 0, 0)
	var z bytes.Buffer
	zw := zlib.NewWriter(&z)
	zw.Write(make([]byte, 1000))
	zw.Close()
	out := append([]byte("\x89PNG\r\n\x1a\n"), pngChunk("IHDR", ihdr)...)
	return append(append(out, pngChunk("IDAT", z.Bytes())...), pngChunk("IEND", nil)...)
}

func gifHeader(w, h int) []byte {
	b := []byte("GIF89a")
	b = binary.LittleEndian.AppendUint16(b, uint16(w))
	b = binary.LittleEndian.AppendUint16(b, uint16(h))
	b = append(b, 0x80, 0, 0, 0, 0, 0, 255, 255, 255, 0x2c, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(w))
	b = binary.LittleEndian.AppendUint16(b, uint16(h))
	return append(b, 0, 2, 1, 0x44, 0, 0x3b)
}

func bmpHeader(w, h int32) []byte {
	b := append([]byte("BM"), make([]byte, 12)...)
	binary.LittleEndian.PutUint32(b[10:], 54)
	b = binary.LittleEndian.AppendUint32(b, 40)
	b = binary.LittleEndian.AppendUint32(b, uint32(w))
	b = binary.LittleEndian.AppendUint32(b, uint32(h))
	b = append(b, 1, 0, 24, 0)
	return append(b, make([]byte, 24)...)
}

func tiffHeader(w, h uint32) []byte {
	le := binary.LittleEndian
	b := []byte("II*\x00\x08\x00\x00\x00")
	tags := [][2]uint32{{256, w}, {257, h}, {258, 8}, {259, 1}, {262, 1}, {273, 8}, {278, h}, {279, 4}}
	b = le.AppendUint16(b, uint16(len(tags)))
	for _, t := range tags {
		b = le.AppendUint32(le.AppendUint16(le.AppendUint16(b, uint16(t[0])), 4), 1)
		b = le.AppendUint32(b, t[1])
	}
	return le.AppendUint32(b, 0)
}

// scanBomb is a JPEG that repeats its scan thousands of times, which is no matter: the first has all of it.
func scanBomb(t testing.TB) []byte {
	data := jpegOf(t, image.NewGray(image.Rect(0, 0, 64, 64)), 90)
	scan := data[bytes.Index(data, []byte{0xff, 0xda}) : len(data)-2]
	out := append([]byte(nil), data[:len(data)-2]...)
	for range 3000 {
		out = append(out, scan...)
	}
	return append(out, 0xff, 0xd9)
}

// hostile is the generated twin of the torture files: what must be an error, and words of it.
func hostile(t testing.TB) map[string]struct {
	data []byte
	want string
} {
	jpg, pngs := jpegOf(t, photo(200, 150, 1), 90), pngOf(t, photo(200, 150, 1))
	tif := encoded(t, func(b *bytes.Buffer) error { return tiff.Encode(b, photo(60, 50, 1), nil) })
	bm := encoded(t, func(b *bytes.Buffer) error { return bmp.Encode(b, photo(60, 50, 1)) })
	gf := encoded(t, func(b *bytes.Buffer) error {
		return gif.Encode(b, drawn(image.NewPaletted(image.Rect(0, 0, 60, 50), palette.Plan9), photo(60, 50, 1)), nil)
	})
	flipped := append([]byte(nil), pngs...)
	flipped[len(flipped)/2] ^= 0x40
	return map[string]struct {
		data []byte
		want string
	}{
		"nothing":           {nil, "no bytes"},
		"one byte":          {[]byte{0xff}, "no JPEG, PNG"},
		"text":              {[]byte("hello, world"), "no JPEG, PNG"},
		"a web page":        {[]byte("<!doctype html><html>"), "no JPEG, PNG"},
		"JPEG start only":   {[]byte{0xff, 0xd8}, "ends without"},
		"JPEG cut in half":  {jpg[:len(jpg)/2], "JPEG"},
		"JPEG header only":  {jpg[:bytes.Index(jpg, []byte{0xff, 0xda})], "ends without"},
		"JPEG 0 x 0":        {jpegHeader(t, 0, 0), "width is 0"},
		"JPEG height 0":     {jpegHeader(t, 64, 0), "DNL"},
		"JPEG 65500":        {jpegHeader(t, 65500, 65500), "max_pixels"},
		"JPEG 6000":         {jpegHeader(t, 6000, 6000), "the data end"},
		"JPEG 300":          {jpegHeader(t, 300, 300), "damaged"},
		"JPEG segment past": {append(append([]byte(nil), jpg[:4]...), 0xff, 0xff), "JPEG"},
		"PNG cut in half":   {pngs[:len(pngs)/2], "not enough pixel data"},
		"PNG flipped bit":   {flipped, "PNG"},
		"PNG 0 x 0":         {pngHeader(0, 0), "PNG"},
		"PNG bomb":          {pngHeader(60000, 60000), "max_pixels"},
		"PNG 2 x 2^31":      {pngHeader(1<<31-1, 2), "max_pixels"},
		"PNG 7000":          {pngHeader(7000, 7000), "cannot be in"},
		"GIF cut in half":   {gf[:len(gf)/2], "not enough image data"},
		"GIF 0 x 0":         {gifHeader(0, 0), "0 x 0"},
		"GIF bomb":          {gifHeader(65535, 65535), "max_pixels"},
		"GIF 3000":          {gifHeader(3000, 3000), "GIF"},
		"BMP cut in half":   {bm[:len(bm)/2], "cut short"},
		"BMP bomb":          {bmpHeader(60000, 60000), "max_pixels"},
		"BMP 2^31":          {bmpHeader(1<<31-1, 1<<31-1), "BMP"},
		"BMP 5000":          {bmpHeader(5000, 5000), "cannot be in"},
		"BMP negative":      {bmpHeader(-5, 5), "BMP"},
		"BMP 0 x 0":         {bmpHeader(0, 0), "0 x 0"},
		"TIFF cut in half":  {tif[:len(tif)/2], "TIFF"},
		"TIFF bomb":         {tiffHeader(1<<31-1, 1<<31-1), "TIFF"},
		"TIFF 60000":        {tiffHeader(60000, 60000), "max_pixels"},
		"TIFF 0 x 0":        {tiffHeader(0, 0), "TIFF"},
		"TIFF no tags":      {[]byte("II*\x00\x08\x00\x00\x00\x00\x00"), "TIFF"},
		"WebP bomb":         {webpOf("VP8L", vp8l(16384, 16384, 1, 2, 3, 255)), "max_pixels"},
		"WebP lying":        {webpOf("VP8X", []byte{0, 0, 0, 0, 2, 0, 0, 2, 0, 0}, "VP8L", vp8l(16384, 16384, 1, 2, 3, 255)), "WebP"},
		"WebP cut":          {orange[:len(orange)-5], "WebP"},
		"WebP empty":        {webpOf(), "WebP"},
	}
}

// EXIF is found where it may stand, and only there.
func TestHasEXIF(t *testing.T) {
	plain := jpegOf(t, photo(24, 18, 1), 80)
	exif := app1(exifOf(binary.LittleEndian, 3, 6))
	with := withSegments(plain, exif)
	for name, c := range map[string]struct {
		data []byte
		want bool
	}{
		"none":               {plain, false},
		"first":              {with, true},
		"behind a comment":   {withSegments(plain, []byte("\xfe\xff\xda\x00\x01\x02\x03"), exif), true},
		"after fill bytes":   {slices.Insert(bytes.Clone(with), 2, 0xff, 0xff), true},
		"after junk":         {slices.Insert(bytes.Clone(with), 2, 0x11, 0x22), true},
		"behind the picture": {append(bytes.Clone(plain), with[2:]...), false},
		"cut":                {with[:3], false},
		"cut in it":          {with[:12], true},
		"a length of 0":      {[]byte("\xff\xd8\xff\xe0\x00\x00\xff\xd9"), false},
	} {
		if got := hasEXIF(c.data); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestDecodeHostile(t *testing.T) {
	for name, c := range hostile(t) {
		spent := measure(func() {
			err := decodeError(t, c.data)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: got %v, want an error with %q", name, err, c.want)
			}
		})
		if spent.bytes > 300<<20 || spent.seconds > 2 {
			t.Errorf("%s: took %.1f s and allocated %d MB", name, spent.seconds, spent.bytes>>20)
		}
	}
}

func TestDecodeScanBomb(t *testing.T) {
	spent := measure(func() {
		if err := decodeError(t, scanBomb(t)); err != nil {
			t.Error(err)
		}
	})
	if spent.seconds > 2 {
		t.Errorf("took %.1f s", spent.seconds)
	}
	f, _ := formatOf([]byte{0xff, 0xd8})
	d := newDecode(t)
	if err := d.checkScans(f, scanBomb(t), 8, 8); err == nil || !strings.Contains(err.Error(), "scans") {
		t.Errorf("for image/jpeg, which decodes them all: %v", err)
	}
	many := bytes.Repeat([]byte{0xff, 0xda}, 200)
	if err := d.checkScans(f, many, 5000, 5000); err == nil || !strings.Contains(err.Error(), "200 scans of 5000 x 5000") {
		t.Errorf("many scans of a large picture: %v", err)
	}
	if err := d.checkScans(f, many, 1000, 1000); err != nil {
		t.Errorf("many scans of a small picture: %v", err)
	}
}

// A file whose pixels are all there lacks nothing for its last two bytes.
func TestDecodeJPEGWithoutEnd(t *testing.T) {
	data := jpegOf(t, photo(200, 150, 1), 90)
	for _, data := range [][]byte{data, data[:len(data)-2]} {
		if err := decodeError(t, data); err != nil {
			t.Errorf("%d bytes: %v", len(data), err)
		}
	}
}

func TestDecodeLimits(t *testing.T) {
	data := pngOf(t, image.NewGray(image.Rect(0, 0, 100, 50)))
	for _, c := range []struct {
		o    DecodeOptions
		want string
	}{
		{DecodeOptions{MaxPixels: 5000, MaxBytes: int64(len(data))}, ""},
		{DecodeOptions{MaxPixels: 4999, MaxBytes: int64(len(data))}, "100 x 50 pixels, more than max_pixels: 4999"},
		{DecodeOptions{MaxPixels: 5000, MaxBytes: int64(len(data)) - 1}, "more than max_bytes"},
	} {
		s := pipeline.NewSample(1, "decode", pipeline.Key{})
		s.Bytes = data
		err := must[*Decode](t)(NewDecode(c.o)).Process(t.Context(), s)
		if fmt.Sprint(err) != "<nil>" && c.want == "" || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: got %v, want %q", c.o, err, c.want)
		}
	}
	for _, o := range []DecodeOptions{{MaxBytes: 1}, {MaxPixels: 1}, {MaxPixels: -1, MaxBytes: -1}, {MaxPixels: 1, MaxBytes: 1, Damaged: "skip"}} {
		if _, err := NewDecode(o); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
}

func TestDecodeStopsWhenCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := pipeline.NewSample(1, "decode", pipeline.Key{})
	s.Bytes = jpegOf(t, photo(64, 64, 1), 90)
	if err := newDecode(t).Process(ctx, s); err == nil || !strings.Contains(err.Error(), context.Canceled.Error()) {
		t.Errorf("got %v", err)
	}
}

// Another decoder registered with package image must not come into play, and nothing decodes by name.
func TestDecodeIgnoresNames(t *testing.T) {
	s := pipeline.NewSample(1, "decode", pipeline.Key{})
	s.Name, s.Bytes = "really.jpg", pngOf(t, quadrants())
	if err := newDecode(t).Process(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	p, err := s.Pixels()
	if err != nil || difference(p, quadrants()) != 0 {
		t.Errorf("a PNG named .jpg: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	src := photo(24, 18, 1)
	f.Add(jpegOf(f, src, 80))
	f.Add(withSegments(jpegOf(f, src, 80), app1(exifOf(binary.LittleEndian, 3, 6))))
	f.Add(pngOf(f, src))
	f.Add(encoded(f, func(b *bytes.Buffer) error { return tiff.Encode(b, src, &tiff.Options{Compression: tiff.Deflate}) }))
	f.Add(encoded(f, func(b *bytes.Buffer) error { return bmp.Encode(b, src) }))
	f.Add(orange)
	f.Add(cmykJPEG(true, 10, 20, 30, 40))
	for _, c := range hostile(f) {
		if len(c.data) < 4096 {
			f.Add(c.data)
		}
	}
	d := must[*Decode](f)(NewDecode(DecodeOptions{Orientation: true, MaxPixels: 1 << 20, MaxBytes: 1 << 20}))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := pipeline.NewSample(1, "decode", pipeline.Key{})
		s.Bytes = data
		if d.Process(t.Context(), s) != nil {
			return
		}
		if b := s.View().Bounds(); b.X < 1 || b.Y < 1 || b.X*b.Y > 1<<20 {
			t.Fatalf("%v pixels", b)
		}
		// Only a JPEG is decoded so late that it is found to be damaged here.
		if _, err := s.Pixels(); err != nil && (!begins(data, "\xff\xd8") || strings.Contains(err.Error(), "augment")) {
			t.Fatalf("what decodes must render: %v", err)
		}
	})
}
