package stages

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"sluice/augment"
	"sluice/pipeline"
	"sluice/stages/internal/photoset"
)

const standIn = "the generated files of TestDecodeHostile and TestDecodeFormats stand in for it"

// cost is what a call took: wall time, and bytes allocated (freed or not).
type cost struct {
	seconds float64
	bytes   uint64
}

// measure runs f, and again where it seems slow: on a busy machine one time says little.
func measure(f func()) cost {
	var best cost
	for i := range 3 {
		before, start := allocated(), time.Now()
		f()
		c := cost{time.Since(start).Seconds(), allocated() - before}
		if i == 0 || c.seconds < best.seconds {
			best = c
		}
		if best.seconds < 1 {
			break
		}
	}
	return best
}

func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// Every odd, broken and hostile file gives pixels or an error, in bounded time and memory; what the
// manifest says must be an error is one.
func TestTorture(t *testing.T) {
	dir := photoset.Shared(t, "torture", standIn)
	manifest, err := os.Open(filepath.Join(dir, "MANIFEST.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	defer manifest.Close()
	d := newDecode(t)
	keep := must[*Decode](t)(NewDecode(DecodeOptions{Orientation: true, Damaged: "keep", MaxPixels: 50e6, MaxBytes: 128 << 20}))
	var files, good, refused, kept int
	lines := bufio.NewScanner(manifest)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), "\t")
		if len(fields) < 3 || fields[0] == "file" {
			continue
		}
		name, expected := fields[0], fields[2]
		data, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		if err != nil {
			t.Error(err)
			continue
		}
		files++
		s := pipeline.NewSample(1, "decode", pipeline.Key{})
		s.Bytes = data
		spent := measure(func() {
			if err = d.Process(t.Context(), s); err == nil {
				_, err = s.Pixels()
			}
		})
		if spent.seconds > 2 || spent.bytes > 200<<20 {
			t.Errorf("%s: took %.2f s and allocated %d MB", name, spent.seconds, spent.bytes>>20)
		}
		switch {
		case err == nil:
			good++
			if strings.Contains(expected, "wrongly decodes") {
				t.Logf("%s (%s) decodes, which libjpeg refuses", name, fields[1])
			}
			// Some may also decode, such as a PNG named .jpg; that of the rest which image/jpeg takes is known.
			if strings.HasPrefix(expected, "error") && !strings.Contains(expected, "decode") || strings.Contains(expected, "0x0") {
				t.Errorf("%s (%s) decodes, and should be an error", name, fields[1])
			}
		case strings.HasPrefix(expected, "decodes") && !strings.Contains(expected, "or-error"):
			refused++
			t.Errorf("%s (%s): %v", name, fields[1], err)
		}
		if damagedKept(t, name, keep, data, s, err) {
			kept++
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if files < 500 {
		t.Errorf("only %d files in the manifest", files)
	}
	if kept < 50 {
		t.Errorf("of the damaged files only %d are kept", kept)
	}
	t.Logf("%d files, %d decode, %d that others decode are refused, %d more are kept", files, good, refused, kept)
}

// damagedKept decodes what gave the pixels of strict or its error, and keeps damaged files. What was whole has the
// same pixels, and what is damaged is never kept without a warning. It reports whether it kept one.
func damagedKept(t *testing.T, name string, keep *Decode, data []byte, strict *pipeline.Sample, failed error) bool {
	s := pipeline.NewSample(1, "decode", pipeline.Key{})
	s.Bytes = data
	var err error
	spent := measure(func() {
		if err = keep.Process(t.Context(), s); err == nil {
			_, err = s.Pixels()
		}
	})
	if spent.seconds > 2 || spent.bytes > 200<<20 {
		t.Errorf("%s: keeping it took %.2f s and allocated %d MB", name, spent.seconds, spent.bytes>>20)
	}
	switch warned := len(s.Warnings()) > 0; {
	case err != nil && failed == nil:
		t.Errorf("%s decodes, but not when damage is kept: %v", name, err)
	case err != nil:
		return false
	case warned != (failed != nil):
		t.Errorf("%s: kept with warnings %q, else %v", name, s.Warnings(), failed)
	case failed == nil && !bytes.Equal(pixels(t, s).Pix, pixels(t, strict).Pix):
		t.Errorf("%s has other pixels when damage is kept", name)
	}
	return failed != nil
}

// The orientation files all show the upright one.
func TestTortureOrientation(t *testing.T) {
	dir := photoset.Shared(t, "torture/exif", standIn)
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	upright := decoded(t, read("quad_upright.jpg"))
	files, err := filepath.Glob(filepath.Join(dir, "quad_o*.jpg"))
	if err != nil || len(files) != 16 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		if d := difference(decoded(t, read(filepath.Base(f))), upright); d > 4 {
			t.Errorf("%s: off by %.1f levels", filepath.Base(f), d)
		}
	}
}

// The same picture stored as RGB and as YCCK has the same colours; it is compressed differently, so
// the means are compared closely and the pixels loosely.
func TestTortureYCCK(t *testing.T) {
	dir := photoset.Shared(t, "torture/jpeg-decoder", standIn)
	var p [2]*augment.RGB
	var mean [2][3]float64
	for i, name := range []string{"rgb.jpg", "ycck.jpg"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		p[i] = decoded(t, data)
		for j, v := range p[i].Pix {
			mean[i][j%3] += float64(v) / float64(p[i].W*p[i].H)
		}
	}
	for c := range 3 {
		if d := mean[0][c] - mean[1][c]; d < -0.2 || d > 0.2 {
			t.Errorf("means %v and %v", mean[0], mean[1])
		}
	}
	if d := difference(p[0], p[1]); d > 8 {
		t.Errorf("off by %.1f levels", d)
	}
}
