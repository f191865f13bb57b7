package sinks

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v17/arrow/array"
)

// What a folder of features holds has the same checksums in every format, and they
// are of the numbers.
func TestInspectFeatures(t *testing.T) {
	names := sha256.New()
	var indices []int64
	for i, run := 0, testRun("npy", "none"); i < run.samples; i++ {
		if !run.skipped[int64(i)] {
			indices = append(indices, int64(i))
			fmt.Fprintf(names, "%s\x00", testName(int64(i)))
		}
	}
	rec := featuresOf(indices...)
	defer rec.Release()
	fc7 := sha256.New()
	fc7.Write(rec.Column(3).(*array.FixedSizeList).ListValues().Data().Buffers()[1].Bytes()) // of a little-endian machine
	want := map[string]string{"name": fmt.Sprintf("%x", names.Sum(nil)), "fc7": fmt.Sprintf("%x", fc7.Sum(nil))}

	var logits string
	for _, format := range []struct{ format, compression string }{{"parquet", "zstd"}, {"parquet", "none"}, {"arrow", "zstd"}, {"arrow", "none"}, {"npy", "none"}} {
		r := testRun(format.format, format.compression)
		dir := t.TempDir()
		r.write(t, dir, false, -1)
		folder := filepath.Join(dir, "features")
		for _, path := range []string{folder, filepath.Join(folder, "manifest.json")} {
			d, err := InspectFeatures(path)
			if err != nil {
				t.Fatal(err)
			}
			if d.Kind != "features" || d.Format != format.format || d.Rows != len(indices) || d.First != indices[0] || d.Last != indices[len(indices)-1] || len(d.Problems) > 0 ||
				d.Metadata["weights_sha256"] != "w" || d.Manifest.Rows != d.Rows || len(d.Columns) != 6 {
				t.Errorf("%v: %+v", format, d)
			}
			for _, c := range d.Columns {
				if w := want[c.Name]; w != "" && w != c.SHA256 {
					t.Errorf("%v: column %s has the checksum %s, want %s", format, c.Name, c.SHA256, w)
				}
				if c.Name == "logits" {
					if logits == "" {
						logits = c.SHA256
					}
					if c.SHA256 != logits {
						t.Errorf("%v: column logits has another checksum than in other formats", format)
					}
				}
			}
		}
		one := filepath.Join(folder, partName(format.format, 1))
		d, err := InspectFeatures(one)
		if err != nil {
			t.Fatal(err)
		}
		if d.Kind != "part" || d.Format != format.format || d.First < int64(r.opt.RowsPerPart) || d.Last >= 2*int64(r.opt.RowsPerPart) || d.Rows < 1 {
			t.Errorf("%v: part 1 is %+v", format, d)
		}

		// A byte that changed, a part that is gone, a run that has not ended.
		victim := one
		if format.format == "npy" {
			victim = filepath.Join(one, "fc7.npy")
		}
		data, err := os.ReadFile(victim)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/2] ^= 1
		if err := os.WriteFile(victim, data, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(folder, partName(format.format, 2))); err != nil {
			t.Fatal(err)
		}
		d, err = InspectFeatures(folder)
		if err != nil {
			t.Fatal(err)
		}
		if len(d.Problems) != 2 || !strings.Contains(d.Problems[0], "part 1: "+victim+" has the SHA-256") || !strings.Contains(d.Problems[1], "part 2: ") {
			t.Errorf("%v: problems %q", format, d.Problems)
		}
		for cut := range 40 { // whatever is left of a part is an error and never a panic
			if err := os.WriteFile(victim, data[:len(data)*cut/40], 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := InspectFeatures(one); err == nil {
				t.Errorf("%v: %d/40 of a part is taken for one", format, cut)
			}
		}
	}
}

func TestInspectWhatIsNoFeatures(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text.parquet")
	if err := os.WriteFile(text, []byte("no Parquet at all"), 0o644); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		text:                          "neither Parquet nor Arrow",
		dir:                           "there is no index.npy in it",
		filepath.Join(dir, "missing"): "no such file",
	} {
		if _, err := InspectFeatures(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	r := testRun("parquet", "zstd")
	r.write(t, dir, false, 3)
	d, err := InspectFeatures(filepath.Join(dir, "features"))
	if err != nil || len(d.Problems) != 1 || !strings.Contains(d.Problems[0], "it is not complete") {
		t.Errorf("a run that was stopped: %+v (%v)", d, err)
	}
}
