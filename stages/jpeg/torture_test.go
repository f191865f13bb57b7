package jpeg

import (
	"bufio"
	"fmt"
	"image"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/stages/internal/photoset"
)

// Every odd, broken and hostile file has the outcome of its manifest, with the mean colour
// that libjpeg-turbo gives.
func TestTorture(t *testing.T) {
	dir := photoset.Shared(t, "torture", "the generated files of the other tests stand in for it")
	manifest, err := os.Open(filepath.Join(dir, "MANIFEST.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	defer manifest.Close()
	var d Decoder
	var files int
	lines := bufio.NewScanner(manifest)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), "\t")
		if len(fields) < 6 || fields[0] == "file" {
			continue
		}
		name, expected := fields[0], fields[2]
		data, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		if err != nil {
			t.Error(err)
			continue
		}
		files++
		for _, keep := range []bool{false, true} {
			begin := time.Now()
			img, err := d.Decode(data, Options{Keep: keep})
			if spent := time.Since(begin).Seconds(); spent > 2 {
				t.Errorf("%s: took %.2f s", name, spent)
			}
			if testing.Verbose() && err != nil && !keep {
				t.Logf("%s | %s | %s | %s: %v", name, expected, fields[5], fields[6], err)
			}
			if testing.Verbose() && err == nil && img.Damage != nil && !keep {
				t.Errorf("%v", img.Damage)
			}
			switch {
			case err != nil && expected == "decodes":
				t.Errorf("%s (%s): %v", name, fields[1], err)
			case err == nil && strings.HasPrefix(expected, "error") && !strings.Contains(expected, "decode") && !keep:
				t.Errorf("%s (%s) decodes, and should be an error: %s", name, fields[1], expected)
			}
			if err == nil && img.Damage == nil && fields[4] != "" && strings.HasPrefix(expected, "decodes") {
				compareMean(t, name, img, fields[4])
			}
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if files < 500 {
		t.Errorf("only %d files in the manifest", files)
	}
}

func compareMean(t *testing.T, name string, m *Image, want string) {
	t.Helper()
	var w, h int
	var mean string
	if n, err := fmt.Sscanf(want, "%dx%d %s", &w, &h, &mean); n < 3 {
		t.Errorf("%s: %q: %v", name, want, err)
		return
	}
	if m.Width != w || m.Height != h {
		t.Errorf("%s is %dx%d, want %s", name, m.Width, m.Height, want)
		return
	}
	img := m.Image()
	var sum [3]float64
	for y := range h {
		for x := range w {
			r, g, b, _ := img.(image.RGBA64Image).RGBA64At(x, y).RGBA()
			sum[0] += float64(r >> 8)
			sum[1] += float64(g >> 8)
			sum[2] += float64(b >> 8)
		}
	}
	for i, s := range strings.Split(mean, ",") {
		var v float64
		fmt.Sscan(s, &v)
		// It interpolates chroma, which shows in the smallest pictures.
		off := 1.0
		if w*h < 256 {
			off = 8
		}
		if got := sum[i] / float64(w*h); got < v-off || got > v+off {
			t.Errorf("%s (%v): mean %.2f of channel %d, want %s", name, m.Model, got, i, mean)
		}
	}
}
