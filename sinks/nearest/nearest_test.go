package nearest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"sluice/gpu/host/simd"
	"sluice/pipeline"
	"sluice/sinks"
)

// write writes features of the rows that vector gives, a part every per rows,
// image 2*i for row i: every other one was left out.
func write(t testing.TB, o sinks.FeaturesOptions, count, per, width int, vector func(i int) []float32) string {
	t.Helper()
	run := t.TempDir()
	o.Dir, o.RowsPerPart = "features", 2*per
	s, err := sinks.NewFeatures(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Prepare(t.Context(), &pipeline.Env{RunDir: run, Samples: max(1, 2*count), Epochs: 1, Warn: func(string) {}}); err != nil {
		t.Fatal(err)
	}
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "index", Type: arrow.PrimitiveTypes.Int64},
		{Name: "name", Type: arrow.BinaryTypes.String},
		{Name: "label", Type: arrow.PrimitiveTypes.Int32},
		{Name: "half", Type: arrow.FixedSizeListOf(1, arrow.FixedWidthTypes.Float16), Nullable: true},
		{Name: "fc7", Type: arrow.FixedSizeListOf(int32(width), arrow.PrimitiveTypes.Float32), Nullable: true},
	}, nil)
	for from := 0; from < max(count, 1); from += 100 {
		b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
		for i := from; i < min(from+100, count); i++ {
			b.Field(0).(*array.Int64Builder).Append(int64(2 * i))
			b.Field(1).(*array.StringBuilder).Append(nameOf(i))
			b.Field(2).(*array.Int32Builder).Append(int32(i % 7))
			half, list := b.Field(3).(*array.FixedSizeListBuilder), b.Field(4).(*array.FixedSizeListBuilder)
			half.Append(true)
			half.ValueBuilder().(*array.Float16Builder).AppendNull()
			list.Append(true)
			list.ValueBuilder().(*array.Float32Builder).AppendValues(vector(i), nil)
		}
		rec := b.NewRecord()
		if err := s.Write(t.Context(), &pipeline.Batch{Kind: pipeline.Features, Record: rec}); err != nil {
			t.Fatal(err)
		}
		rec.Release()
		b.Release()
	}
	if err := s.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(run, "features")
}

func nameOf(i int) string { return fmt.Sprintf("dir/bild ü %d.jpg", i) }

func random(r *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return v
}

var mapped = []sinks.FeaturesOptions{
	{Format: "npy", Compression: "zstd"}, // which npy never is
	{Format: "arrow", Compression: "none"},
}

// The search finds what a plain one finds, in every format, at every level and any
// number of threads.
func TestSearch(t *testing.T) {
	for _, o := range mapped {
		for _, width := range []int{1, 5, 64, 100, 200} {
			t.Run(fmt.Sprintf("%s/%d", o.Format, width), func(t *testing.T) {
				r := rand.New(rand.NewPCG(1, uint64(width)))
				const count = 333
				all := make([][]float32, count)
				for i := range all {
					all[i] = random(r, width)
				}
				copy(all[200], all[17]) // equally near, whatever the query
				s, err := Open(write(t, o, count, 120, width, func(i int) []float32 { return all[i] }), "fc7")
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				if s.Rows != count || s.Width != width || s.Column != "fc7" {
					t.Fatalf("%d rows of %d in %s", s.Rows, s.Width, s.Column)
				}
				for i := range count {
					got, err := s.Row(i)
					if want := (Row{int64(2 * i), nameOf(i), int32(i % 7)}); got != want || err != nil {
						t.Fatalf("row %d is %v, want %v (error %v)", i, got, want, err)
					}
				}
				if row, ok, err := s.Find(nameOf(250)); row != 250 || !ok || err != nil {
					t.Errorf("image 250 is row %d, %v", row, ok)
				}
				if _, ok, err := s.Find("dir/bild ü"); ok || err != nil {
					t.Error("a name that is not there was found")
				}
				for _, query := range [][]float32{random(r, width), all[17], make([]float32, width)} {
					var want []Neighbour
					for i, row := range all {
						want = append(want, Neighbour{i, exact(row, query)})
					}
					slices.SortStableFunc(want, func(a, b Neighbour) int { return cmp.Compare(a.Distance, b.Distance) })
					for _, level := range simd.Levels() {
						for _, threads := range []int{0, 1, 3} {
							for _, k := range []int{1, 6, count, count + 5} {
								got, err := s.search(t.Context(), query, k, threads, level)
								if err != nil {
									t.Fatal(err)
								}
								if !slices.Equal(got, want[:min(k, count)]) {
									t.Fatalf("level %v, %d threads: the %d nearest are %v, want %v", level, threads, k, got, want[:min(k, count)])
								}
							}
						}
					}
				}
			})
		}
	}
}

// Rows that differ by less than float32 sums show are in the right order: many of
// them lie at nearly one distance, far from zero.
func TestSearchIsExact(t *testing.T) {
	const width, count = 512, 400
	r := rand.New(rand.NewPCG(3, 4))
	base, query := random(r, width), random(r, width)
	vector := func(i int) []float32 {
		v := slices.Clone(base)
		v[i] += 1e-6 * float32(i%5)
		return v
	}
	s, err := Open(write(t, mapped[0], count, 400, width, vector), "fc7")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	want := make([]Neighbour, count)
	for i := range want {
		want[i] = Neighbour{i, exact(vector(i), query)}
	}
	slices.SortStableFunc(want, func(a, b Neighbour) int { return cmp.Compare(a.Distance, b.Distance) })
	for _, level := range simd.Levels() {
		got, err := s.search(t.Context(), query, 25, 2, level)
		if err != nil || !slices.Equal(got, want[:25]) {
			t.Errorf("level %v: %v, want %v (%v)", level, got, want[:25], err)
		}
	}
}

// Every level computes what the plain loop does, at any width and alignment, and
// reads nothing else: beside the rows lie numbers that would show.
func TestDistances(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	nan := float32(math.NaN())
	for _, level := range simd.Levels() {
		loop := distancesOf(level)
		for range 300 {
			width, count, from := 1+r.IntN(300), r.IntN(6), r.IntN(20)
			fenced := func(n int) []float32 {
				all := slices.Repeat([]float32{nan}, from+n+70)
				copy(all[from:], random(r, n))
				return all[from : from+n : from+n]
			}
			rows, query := fenced(width*count), fenced(width)
			got, want := slices.Repeat([]float32{nan}, count+2), make([]float32, count)
			loop(got[:count], rows, query)
			distances(want, rows, query)
			for i := range want {
				if d := math.Abs(float64(got[i] - want[i])); !(d <= 1e-5*float64(want[i])) {
					t.Fatalf("level %v, %d rows of %d: distance %d is %g, want %g", level, count, width, i, got[i], want[i])
				}
			}
			if v := got[count]; v == v {
				t.Fatalf("level %v wrote a distance too many", level)
			}
		}
	}
}

// What cannot be searched says why, and what to do.
func TestMistakes(t *testing.T) {
	vector := func(int) []float32 { return make([]float32, 3) }
	change := func(dir, file string, f func([]byte) []byte) string {
		t.Helper()
		path := filepath.Join(dir, file)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f(data), 0o666); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	npy := func() string { return write(t, mapped[0], 10, 5, 3, vector) }
	for want, c := range map[string]struct{ dir, column string }{
		"are parts of Parquet, which cannot be mapped into memory: extract them again with features: {format: npy}": {
			write(t, sinks.FeaturesOptions{Format: "parquet", Compression: "none"}, 10, 5, 3, vector), "",
		},
		"are parts of Arrow that are compressed (zstd)":                    {write(t, sinks.FeaturesOptions{Format: "arrow", Compression: "zstd"}, 10, 5, 3, vector), ""},
		`have no column "fc77" of a layer; did you mean "fc7"?`:            {npy(), "fc77"},
		`have the column "half" of the type fixed_size_list<item: float16`: {npy(), ""},
		"no such file": {t.TempDir(), "fc7"},
		"are not complete: go on with the run": {change(npy(), "manifest.json", func(b []byte) []byte {
			return bytes.Replace(b, []byte(`"complete": true`), []byte(`"complete": false`), 1)
		}), "fc7"},
		"by the manifest: resume the run that wrote it":        {change(npy(), "part-00001/fc7.npy", func(b []byte) []byte { return b[:len(b)-4] }), "fc7"},
		"part-00001/fc7.npy is no array of NumPy's format 1.0": {change(npy(), "part-00001/fc7.npy", func(b []byte) []byte { b[1] = 'X'; return b }), "fc7"},
		"has the header": {change(npy(), "part-00001/index.npy", func(b []byte) []byte { b[20] = 'X'; return b }), "fc7"},
		"fc7.npy is of type <i4 and shape [5 3], not <f4 and [5 3]": {change(npy(), "part-00001/fc7.npy", func(b []byte) []byte {
			return bytes.Replace(b, []byte("<f4"), []byte("<i4"), 1)
		}), "fc7"},
		"bytes of numbers, and its header says 48": {change(npy(), "part-00001/fc7.npy", func(b []byte) []byte {
			return bytes.Replace(b, []byte("(5, 3)"), []byte("(4, 3)"), 1)
		}), "fc7"},
	} {
		s, err := Open(c.dir, c.column)
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}

	s, err := Open(npy(), "fc7")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for want, query := range map[string][]float32{
		"the query has 2 numbers, and rows have 3": {1, 2}, "number 1 of the query is NaN": {0, float32(math.NaN()), 0},
	} {
		if _, err := s.Search(t.Context(), query, 3, 1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Search(ended, make([]float32, 3), 3, 1); err == nil {
		t.Error("a search that was cancelled gave a result")
	}
}

// Folders without rows, and without any row in a part, are searched too.
func TestFewRows(t *testing.T) {
	for _, o := range mapped {
		for _, count := range []int{0, 1} {
			s, err := Open(write(t, o, count, 1, 3, func(int) []float32 { return []float32{1, 2, 3} }), "fc7")
			if err != nil {
				t.Fatal(err)
			}
			got, err := s.Search(t.Context(), []float32{1, 2, 3}, 6, 0)
			if err != nil || len(got) != count {
				t.Errorf("%s: of %d rows %v were found, %v", o.Format, count, got, err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// A file that is cut short while it is mapped is an error, not a crash.
func TestCutWhileMapped(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only on Linux is it known that reading a mapped file that was cut short is a fault that can be caught")
	}
	dir := write(t, mapped[0], 1000, 2000, 64, func(int) []float32 { return make([]float32, 64) })
	s, err := Open(dir, "fc7")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := os.Truncate(filepath.Join(dir, "part-00000", "fc7.npy"), 128); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Search(t.Context(), make([]float32, 64), 3, 2); err == nil || !strings.Contains(err.Error(), "fc7.npy cannot be read any more") {
		t.Errorf("error %v", err)
	}
	if _, err := s.Vector(900); err == nil || !strings.Contains(err.Error(), "fc7.npy cannot be read any more") {
		t.Errorf("a vector: error %v", err)
	}
	if err := os.Truncate(filepath.Join(dir, "part-00000", "name.npy"), 0); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Find("nobody"); err == nil || !strings.Contains(err.Error(), "cannot be read any more") {
		t.Errorf("a name: error %v", err)
	}
	if _, err := s.Row(900); err == nil || !strings.Contains(err.Error(), "cannot be read any more") {
		t.Errorf("a row: error %v", err)
	}
}

// Weights that were lost give features that are no numbers.
func TestNotANumber(t *testing.T) {
	for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(-1))} {
		dir := write(t, mapped[0], 10, 10, 4, func(i int) []float32 {
			if i == 1 {
				return []float32{0, bad, 0, 0}
			}
			return []float32{float32(i), 0, 0, 0}
		})
		s, err := Open(dir, "fc7")
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for _, k := range []int{3, 10} {
			if _, err := s.Search(t.Context(), make([]float32, 4), k, 1); err == nil || !strings.Contains(err.Error(), "fc7.npy: row 1 ") {
				t.Errorf("%v: error %v", bad, err)
			}
		}
	}
}

// FuzzArrow: whatever a file holds, looking for its records ends with them or an
// error.
func FuzzArrow(f *testing.F) {
	dir := write(f, mapped[1], 20, 30, 3, func(i int) []float32 { return []float32{1, 2, float32(i)} })
	data, err := os.ReadFile(filepath.Join(dir, "part-00000.arrow"))
	if err != nil {
		f.Fatal(err)
	}
	manifest, err := sinks.ReadManifest(dir)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		s := Set{Column: "fc7", Width: 3, Manifest: manifest}
		if err := s.openArrow(map[string][]byte{"x": data}); err != nil {
			return
		}
		for i := range s.Rows {
			if _, err := s.Row(i); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func FuzzNpy(f *testing.F) {
	dir := write(f, mapped[0], 20, 30, 3, func(i int) []float32 { return []float32{1, 2, float32(i)} })
	for _, column := range []string{"name", "fc7", "index"} {
		data, err := os.ReadFile(filepath.Join(dir, "part-00000", column+".npy"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := readNpy(data)
		if err != nil || len(a.shape) != 1 || a.descr[1] != 'U' {
			return
		}
		for i := range min(a.shape[0], 100) {
			a.text(i)
		}
	})
}

// BenchmarkSearch searches 100,000 rows of 4096 numbers, 1.6 GB, that are mapped
// and in the system's memory, and beside it reads the same bytes and does nothing
// else (bytes.Count), on all cores in the same way. Searches and reads take turns, and
// the fastest of each counts:
//
//	go test ./sinks/nearest -run xxx -bench Search -benchtime 20x
func BenchmarkSearch(b *testing.B) {
	const count, width = 100_000, 4096
	for _, o := range mapped {
		b.Run(o.Format, func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 2))
			v := random(r, width)
			s, err := Open(write(b, o, count, 25_000, width, func(i int) []float32 { v[i%width]++; return v }), "fc7")
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			query, err := s.Vector(count / 2)
			if err != nil {
				b.Fatal(err)
			}
			bestSearch, bestRead := time.Duration(math.MaxInt64), time.Duration(math.MaxInt64)
			for b.Loop() {
				began := time.Now()
				if _, err := s.Search(b.Context(), query, 6, 0); err != nil {
					b.Fatal(err)
				}
				found := time.Now()
				s.read()
				bestSearch, bestRead = min(bestSearch, found.Sub(began)), min(bestRead, time.Since(found))
			}
			speed := func(d time.Duration) float64 { return 4 * count * width / d.Seconds() / 1e9 }
			b.ReportMetric(speed(bestSearch), "search-GB/s")
			b.ReportMetric(speed(bestRead), "read-GB/s")
			b.ReportMetric(100*bestRead.Seconds()/bestSearch.Seconds(), "%-of-read")
		})
	}
}

// read reads every byte of the vectors on all cores.
func (s *Set) read() {
	var wg sync.WaitGroup
	threads := runtime.GOMAXPROCS(0)
	for i := range threads {
		wg.Go(func() {
			for _, b := range s.blocks {
				data := arrow.Float32Traits.CastToBytes(b.vectors)
				n := len(data) / threads
				for part := range slices.Chunk(data[i*n:(i+1)*n], 1<<20) {
					bytes.Count(part, []byte{255})
				}
			}
		})
	}
	wg.Wait()
}
