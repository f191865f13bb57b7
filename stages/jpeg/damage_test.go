package jpeg

import (
	"bytes"
	"errors"
	"image"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"sluice/stages/internal/jpegenc"
)

// small are small files of each kind, by name.
func small(t testing.TB) map[string][]byte {
	t.Helper()
	rng := rand.New(rand.NewPCG(3, 3))
	s := newSheet(rng, 40, 30, [2]int{2, 2}, [2]int{1, 1}, [2]int{1, 1})
	gray := newSheet(rng, 33, 17, [2]int{1, 1})
	cmyk := newSheet(rng, 20, 20, [2]int{2, 1}, [2]int{1, 1}, [2]int{1, 1}, [2]int{2, 1})
	cmyk.adobe = 2
	odd := newSheet(rng, 30, 30, [2]int{3, 1}, [2]int{1, 2}, [2]int{2, 1})
	photo, err := jpegenc.Append(nil, photo(rng, 47, 35, image.YCbCrSubsampleRatio420), jpegenc.Options{Quality: 60, Restart: 2})
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		"baseline":                  s.file(rng, false, 0, s.baseline(true)...),
		"not interleaved":           s.file(rng, false, 3, s.baseline(false)...),
		"progressive":               s.file(rng, true, 0, s.script(rng)...),
		"progressive with restarts": s.file(rng, true, 5, s.script(rng)...),
		"gray":                      gray.file(rng, false, 0, gray.baseline(true)...),
		"gray progressive":          gray.file(rng, true, 2, gray.script(rng)...),
		"YCCK":                      cmyk.file(rng, false, 1, cmyk.baseline(true)...),
		"odd factors":               odd.file(rng, true, 0, odd.script(rng)...),
		"photo":                     photo,
	}
}

// A file that is cut anywhere is never taken for whole, unless all it lost is the end marker; kept, it
// gives the samples up to the cut.
func TestCutAnywhere(t *testing.T) {
	var d Decoder
	for name, data := range small(t) {
		whole := planes(decode(t, &d, data))
		progressive := strings.Contains(name, "progressive") || name == "odd factors"
		for n := range len(data) {
			// A copy at the end of its memory, so that a read behind it is a fault.
			cut := bytes.Clone(data[:n])[:n:n]
			_, err := d.Decode(cut, Options{})
			if n >= len(data)-2 {
				if err != nil {
					t.Fatalf("%s without the end marker: %v", name, err)
				}
				continue
			}
			if err == nil {
				t.Fatalf("%s cut to %d of %d bytes is taken for whole", name, n, len(data))
			}
			var damage *Damage
			if errors.As(err, &damage) && (damage.Offset > n || damage.MCU > damage.MCUs || damage.MCU < 0) {
				t.Fatalf("%s cut to %d: %+v", name, n, damage)
			}
			m, err := d.Decode(cut, Options{Keep: true})
			if err != nil {
				if damage != nil && damage.MCU > 0 {
					t.Fatalf("%s cut to %d: not kept: %v", name, n, err)
				}
				continue // before the first MCU there is nothing to keep
			}
			if m.Damage == nil {
				t.Fatalf("%s cut to %d: kept without a word", name, n)
			}
			if progressive {
				continue
			}
			// Of one component MCUs are blocks: all before the damage are right, the others gray.
			if name == "gray" {
				for b := range m.Damage.MCUs {
					for y := b / 5 * 8; y < min(b/5*8+8, 17); y++ {
						x, to := b%5*8, min(b%5*8+8, 33)
						want := whole[0][y*33:][x:to]
						if b >= m.Damage.MCU {
							want = bytes.Repeat([]byte{128}, to-x)
						}
						if !bytes.Equal(m.Planes[0].Pix[y*m.Planes[0].Stride:][x:to], want) {
							t.Fatalf("cut to %d, damage at block %d: block %d is wrong", n, m.Damage.MCU, b)
						}
					}
				}
			}
		}
	}
}

// Whatever bytes are changed, there is an answer, the same each time.
func TestChangedBytes(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	var d, e Decoder
	found := 0
	files := small(t)
	for name, data := range files {
		for range 300 {
			bad := bytes.Clone(data)
			for range 1 + rng.IntN(4) {
				bad[rng.IntN(len(bad))] = byte(rng.IntN(256))
			}
			m, err := d.Decode(bad, Options{Keep: true})
			again, err2 := e.Decode(bad, Options{Keep: true})
			if (err == nil) != (err2 == nil) {
				t.Fatalf("%s: %v, then %v", name, err, err2)
			}
			if err != nil {
				found++
				continue
			}
			if m.Damage != nil {
				found++
				if *m.Damage != *again.Damage {
					t.Fatalf("%s: %v, then %v", name, m.Damage, again.Damage)
				}
			}
			samePlanes(t, planes(m), planes(again))
			m.Image()
		}
	}
	if found < 300*len(files)/4 {
		t.Errorf("of %d changed files only %d are damaged", 300*len(files), found)
	}
}

// intervals splits a file at its restart markers: the head, what lies behind each, the end marker.
func intervals(data []byte) (parts [][]byte) {
	from := bytes.LastIndex(data, []byte{0xFF, 0xDA})
	begin := 0
	for i := from + 2; i+1 < len(data); i++ {
		if data[i] == 0xFF && data[i+1] >= 0xD0 && data[i+1] <= 0xD9 {
			parts = append(parts, data[begin:i])
			begin = i
		}
	}
	return append(parts, data[begin:])
}

// After damage, decoding goes on at the next restart marker that is in order.
func TestRestartsResynchronise(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	s := newSheet(rng, 80, 80, [2]int{1, 1}) // 100 blocks
	data := s.file(rng, false, 4, s.baseline(true)...)
	var d Decoder
	whole := planes(decode(t, &d, data))[0]
	parts := intervals(data) // head with interval 0, 24 more, EOI
	if len(parts) != 26 {
		t.Fatalf("%d parts", len(parts))
	}
	join := func(change func(p [][]byte) [][]byte) []byte {
		p := make([][]byte, len(parts))
		for i := range parts {
			p[i] = bytes.Clone(parts[i])
		}
		return bytes.Join(change(p), nil)
	}
	without := func(p [][]byte, i int) [][]byte { return append(p[:i:i], p[i+1:]...) }
	for name, c := range map[string]struct {
		data   []byte
		broken []int // intervals
	}{
		"an interval is lost": {join(func(p [][]byte) [][]byte { return without(p, 7) }), []int{7}},
		"two are lost":        {join(func(p [][]byte) [][]byte { return without(without(p, 7), 7) }), []int{7, 8}},
		"a marker is lost": {join(func(p [][]byte) [][]byte {
			p[7] = p[7][2:]
			return p
		}), []int{7}},
		"one is there twice": {join(func(p [][]byte) [][]byte {
			return append(append(p[:8:8], p[7]), p[8:]...)
		}), nil},
		"one is cut": {join(func(p [][]byte) [][]byte {
			p[7] = p[7][:4]
			return p
		}), []int{7}},
		"one is noise": {join(func(p [][]byte) [][]byte {
			p[7] = append(p[7][:2], bytes.Repeat([]byte{0x55, 0xAA, 0x13}, 30)...)
			return p
		}), []int{7}},
		"the last are lost": {join(func(p [][]byte) [][]byte { return append(p[:20:20], p[25]) }), []int{20, 21, 22, 23, 24}},
	} {
		t.Run(name, func(t *testing.T) {
			var damage *Damage
			if _, err := d.Decode(c.data, Options{}); !errors.As(err, &damage) {
				t.Fatalf("taken for whole: %v", err)
			}
			m, err := d.Decode(c.data, Options{Keep: true})
			if err != nil {
				t.Fatal(err)
			}
			if m.Damage == nil || m.Damage.Scan != 1 || m.Damage.MCUs != 100 {
				t.Errorf("damage %+v", m.Damage)
			}
			if m.Lost > 4*len(c.broken) {
				t.Errorf("lost %d blocks, want at most %d", m.Lost, 4*len(c.broken))
			}
			got := planes(m)[0]
			bad := map[int]bool{}
			for _, i := range c.broken {
				bad[i] = true
			}
			for b := range 100 {
				if bad[b/4] {
					continue
				}
				for y := b / 10 * 8; y < b/10*8+8; y++ {
					if at := y*80 + b%10*8; !bytes.Equal(got[at:at+8], whole[at:at+8]) {
						t.Fatalf("block %d of interval %d differs", b, b/4)
					}
				}
			}
		})
	}
}

// What is not decoded is refused by its name, before memory is taken for it.
func TestRefused(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 6))
	s := newSheet(rng, 16, 16, [2]int{1, 1})
	file := s.file(rng, false, 0, s.baseline(true)...)
	sof := bytes.Index(file, []byte{0xFF, 0xC1})
	with := func(at int, v ...byte) []byte {
		f := bytes.Clone(file)
		copy(f[at:], v)
		return f
	}
	for name, c := range map[string]struct {
		data []byte
		kind error
		says string
	}{
		"empty":                  {nil, ErrFormat, "ff d8"},
		"PNG":                    {[]byte("\x89PNG\r\n\x1a\n"), ErrFormat, "ff d8"},
		"start alone":            {file[:2], ErrFormat, "EOI"},
		"end at once":            {[]byte{0xFF, 0xD8, 0xFF, 0xD9}, ErrFormat, "before any picture"},
		"arithmetic":             {with(sof+1, 0xC9), ErrUnsupported, "arithmetic"},
		"progressive arithmetic": {with(sof+1, 0xCA), ErrUnsupported, "progressive arithmetic"},
		"lossless":               {with(sof+1, 0xC3), ErrUnsupported, "lossless"},
		"hierarchical":           {with(sof+1, 0xC5), ErrUnsupported, "hierarchical"},
		"12 bits":                {with(sof+4, 12), ErrUnsupported, "12 bits"},
		"9 bits":                 {with(sof+4, 9), ErrFormat, "9 bits"},
		"no height":              {with(sof+5, 0, 0), ErrUnsupported, "DNL"},
		"no width":               {with(sof+7, 0, 0), ErrFormat, "width"},
		"too large":              {with(sof+5, 0xFF, 0xFF, 0xFF, 0xFF), ErrTooLarge, "65535 x 65535"},
		"factors":                {with(sof+11, 0x51), ErrFormat, "sampling factors 5 x 1"},
		"table 9":                {with(sof+12, 9), ErrFormat, "quantisation table 9"},
		"missing quantiser":      {bytes.ReplaceAll(file, []byte{0xFF, 0xDB, 0, 67, 0}, []byte{0xFF, 0xDB, 0, 67, 1}), ErrFormat, "quantisation table 0 is missing"},
		"missing Huffman":        {bytes.ReplaceAll(file, []byte{0xFF, 0xC4}, []byte{0xFF, 0xFE}), ErrFormat, "Huffman table 0 is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			var d Decoder
			for _, keep := range []bool{false, true} {
				_, err := d.Decode(c.data, Options{Keep: keep})
				if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("keep %v: %v", keep, err)
				}
			}
		})
	}
	// More blocks than the bytes can hold.
	var d Decoder
	var damage *Damage
	if _, err := d.Decode(with(sof+5, 0x20, 0, 0x20, 0), Options{}); !errors.As(err, &damage) {
		t.Errorf("8192 x 8192 in %d bytes: %v", len(file), err)
	}
	if n := cap(d.frame.store[0].pix); n > 0 {
		t.Errorf("%d bytes were taken for it", n)
	}
	if _, err := d.Decode(file, Options{MaxPixels: 255}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a limit of 255 pixels: %v", err)
	}
	if _, err := d.Decode(file, Options{MaxPixels: 256}); err != nil {
		t.Errorf("a limit of 256 pixels: %v", err)
	}
}

// However many scans a file has, it is given up after as many as no honest one needs.
func TestTooManyScans(t *testing.T) {
	rng := rand.New(rand.NewPCG(13, 13))
	s := newSheet(rng, 40, 40, [2]int{2, 2}, [2]int{1, 1}, [2]int{1, 1})
	for name, data := range map[string][]byte{
		"sequential":  s.file(rng, false, 0, slices.Repeat(s.baseline(false)[:1], 3*MaxScans)...),
		"progressive": s.file(rng, true, 0, slices.Repeat(s.script(rng)[:1], 3*MaxScans)...),
	} {
		var d Decoder
		if _, err := d.Decode(data, Options{Keep: true}); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "more than 500 scans") {
			t.Errorf("%s: %v", name, err)
		}
		if d.scans != MaxScans {
			t.Errorf("%s: %d scans were decoded", name, d.scans)
		}
		if _, err := d.Decode(data, Options{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// The time for a file is bounded by what all its scans go over together.
func TestTooManyPasses(t *testing.T) {
	rng := rand.New(rand.NewPCG(17, 13))
	s := newSheet(rng, 40, 40, [2]int{2, 2}, [2]int{1, 1}, [2]int{1, 1})
	data := s.file(rng, true, 0, slices.Repeat(s.script(rng)[:1], 3*MaxPasses)...)
	var d Decoder
	if _, err := d.Decode(data, Options{MaxPixels: 1600, Keep: true}); !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "65 scans of 40 x 40") {
		t.Errorf("%v", err)
	}
	if d.scans != MaxPasses {
		t.Errorf("%d scans were decoded", d.scans)
	}
	if _, err := d.Decode(data, Options{MaxPixels: 4800, Keep: true}); err != nil {
		t.Errorf("a limit that allows them: %v", err)
	}
}

// A picture is the same with what other software leaves around its segments.
func TestTolerates(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	s := newSheet(rng, 40, 24, [2]int{2, 1}, [2]int{1, 1}, [2]int{1, 1})
	file := s.file(rng, false, 2, s.baseline(true)...)
	var d Decoder
	want := planes(decode(t, &d, file))
	app := []byte{0xFF, 0xEE, 0, 4, 1, 2, 0xFF, 0xE2, 0, 2, 0xFF, 0xFE, 0, 5, 'h', 'o', 'i'}
	for name, data := range map[string][]byte{
		"comments and short APPn": bytes.Join([][]byte{file[:2], app, file[2:]}, nil),
		"fill bytes":              bytes.ReplaceAll(file, []byte{0xFF, 0xC1}, []byte{0xFF, 0xFF, 0xFF, 0xC1}),
		"a fill byte at restarts": bytes.ReplaceAll(file, []byte{0xFF, 0xD1}, []byte{0xFF, 0xFF, 0xD1}),
		"some bytes too many":     append(append(bytes.Clone(file[:len(file)-2]), bytes.Repeat([]byte{0x5A}, slack)...), 0xFF, 0xD9),
		"fill bytes at restarts":  bytes.ReplaceAll(file, []byte{0xFF, 0xD0}, []byte{0xFF, 0xFF, 0xFF, 0xD0}),
		"junk before a marker":    bytes.ReplaceAll(file, []byte{0xFF, 0xC1}, []byte{1, 2, 0, 0xFF, 0xC1}),
		"trailing garbage":        append(bytes.Clone(file), "and then\xff\xd8 more\xff\xc0"...),
		"no end marker":           file[:len(file)-2],
		"padded data":             append(append(bytes.Clone(file[:len(file)-2]), make([]byte, 100)...), 0xFF, 0xD9),
		"a table twice":           bytes.Join([][]byte{file[:2], file[2 : 2+69], file[2:]}, nil),
	} {
		m, err := d.Decode(data, Options{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		samePlanes(t, planes(m), want)
	}
	// More bytes than any padding are a sign of damage.
	more := append(append(bytes.Clone(file[:len(file)-2]), bytes.Repeat([]byte{0x5A}, slack+2)...), 0xFF, 0xD9)
	var damage *Damage
	if _, err := d.Decode(more, Options{}); !errors.As(err, &damage) || !strings.Contains(damage.Reason, "go on") {
		t.Errorf("%d bytes too many: %v", slack+2, err)
	}
}

// A component of which there is no scan is gray, whatever its memory held before.
func TestMissingScan(t *testing.T) {
	rng := rand.New(rand.NewPCG(12, 12))
	s := newSheet(rng, 50, 40, [2]int{2, 2}, [2]int{1, 1}, [2]int{1, 1})
	for _, progressive := range []bool{false, true} {
		scans := s.baseline(false)
		if progressive {
			scans = s.script(rng)
			for scans[len(scans)-1].comps[0] == 2 {
				scans = scans[:len(scans)-1]
			}
		}
		var d Decoder
		whole := planes(decode(t, &d, s.file(rng, false, 0, s.baseline(false)...)))
		part := s.file(rng, progressive, 0, scans[:len(scans)-1]...)
		if progressive {
			part = part[:len(part)-2]
		}
		var damage *Damage
		if _, err := d.Decode(part, Options{}); !errors.As(err, &damage) {
			t.Errorf("progressive %v: %v", progressive, err)
		}
		m, err := d.Decode(part, Options{Keep: true})
		if err != nil {
			t.Fatal(err)
		}
		got := planes(m)
		samePlanes(t, got[:1], whole[:1])
		if want := bytes.Repeat([]byte{128}, len(got[2])); !progressive && !bytes.Equal(got[2], want) {
			t.Error("what is missing is not gray")
		}
	}
}

// Within the region samples are those of the whole picture.
func TestRegion(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	var d, e Decoder
	for name, data := range small(t) {
		whole := decode(t, &d, data)
		w, h := whole.Width, whole.Height
		for range 30 {
			r := image.Rect(rng.IntN(w+5)-2, rng.IntN(h+5)-2, rng.IntN(w+5)-2, rng.IntN(h+5)-2)
			m, err := e.Decode(data, Options{Region: r})
			if err != nil {
				t.Fatal(err)
			}
			if want := image.Rect(0, 0, w, h); r.Empty() && m.Region != want || !r.Empty() && m.Region != r.Intersect(want) {
				t.Fatalf("%s: region %v of %v", name, m.Region, r)
			}
			a, b := m.Image(), whole.Image()
			for y := m.Region.Min.Y; y < m.Region.Max.Y; y++ {
				for x := m.Region.Min.X; x < m.Region.Max.X; x++ {
					if a.At(x, y) != b.At(x, y) {
						t.Fatalf("%s: region %v differs at (%d, %d)", name, r, x, y)
					}
				}
			}
			for i := range m.Planes {
				poison(m.Planes[i].Pix)
			}
		}
	}
}

func poison(b []byte) {
	for i := range b {
		b[i] = 0xA5
	}
}

// Once a decoder has seen pictures of the size it allocates nothing.
func TestNoAllocations(t *testing.T) {
	for name, data := range small(t) {
		var d Decoder
		n := testing.AllocsPerRun(20, func() {
			m, err := d.Decode(data, Options{})
			if err != nil {
				t.Fatal(err)
			}
			m.Image()
		})
		if n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestDecodeConfig(t *testing.T) {
	for name, data := range small(t) {
		var d Decoder
		m := decode(t, &d, data)
		c, err := DecodeConfig(data)
		if err != nil {
			t.Fatal(err)
		}
		if c.Width != m.Width || c.Height != m.Height || c.Model != m.Model || len(c.Sampling) != len(m.Planes) || c.Progressive != d.frame.progressive {
			t.Errorf("%s: %+v", name, c)
		}
		for i, p := range m.Planes {
			if c.Sampling[i] != image.Pt(p.H, p.V) {
				t.Errorf("%s: sampling %v", name, c.Sampling)
			}
		}
	}
	if _, err := DecodeConfig([]byte("\xff\xd8\xff\xd9")); !errors.Is(err, ErrFormat) {
		t.Errorf("no frame: %v", err)
	}
}

// Codes that take the most bits there can be, beyond the end of the data, are not read from memory that is not
// there: what is behind the data is padding.
func TestLongestCodes(t *testing.T) {
	// Every bit string from 0 on is a code of 16 bits, of a symbol with 15 value bits and no zeros before.
	table := func(class byte) []byte {
		p := append([]byte{class}, make([]byte, 16)...)
		p[16] = 1
		value := byte(0x0F)
		return append(p, value)
	}
	for _, blocks := range []int{1, 16, 64} {
		w := &writer{}
		w.out = append(w.out, 0xFF, 0xD8)
		w.segment(0xDB, append([]byte{0}, bytes.Repeat([]byte{1}, 64)...)...)
		if blocks == 64 {
			w.segment(0xC0, 8, 0, 32, 0, 32, 4, 1, 0x44, 0, 2, 0x44, 0, 3, 0x44, 0, 4, 0x44, 0)
		} else {
			w.segment(0xC0, 8, 0, 32, 0, 32, 1, 1, 0x11, 0)
		}
		w.segment(0xC4, table(0)...)
		w.segment(0xC4, table(0x10)...)
		if blocks == 64 {
			w.segment(0xDA, 4, 1, 0, 2, 0, 3, 0, 4, 0, 0, 63, 0)
		} else {
			w.segment(0xDA, 1, 1, 0, 0, 63, 0)
		}
		w.out = append(w.out, make([]byte, 40)...)
		for _, l := range levels() {
			d := Decoder{level: l}
			_, err := d.Decode(append(w.out, 0xFF, 0xD9), Options{Keep: true})
			// Of a picture without a single MCU there is nothing to keep.
			if damage := (*Damage)(nil); !errors.As(err, &damage) || damage.MCU != 0 || damage.Reason != "the data end" {
				t.Errorf("%v: %v", l, err)
			}
			if d.bits.p+8 > len(d.bits.data) {
				t.Errorf("%v read at %d of %d bytes", l, d.bits.p, len(d.bits.data))
			}
		}
	}
}
