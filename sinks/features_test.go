package sinks

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/float16"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet/file"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"

	"sluice/augment"
	"sluice/pipeline"
)

// testSchema has every type of column that extract makes.
var testSchema = func() *arrow.Schema {
	meta := arrow.NewMetadata([]string{"preprocessing", "weights_sha256"}, []string{"p", "w"})
	shape := arrow.NewMetadata([]string{"shape"}, []string{"[5,1,1]"})
	return arrow.NewSchema([]arrow.Field{
		{Name: "index", Type: arrow.PrimitiveTypes.Int64},
		{Name: "name", Type: arrow.BinaryTypes.String},
		{Name: "label", Type: arrow.PrimitiveTypes.Int32},
		{Name: "fc7", Type: arrow.FixedSizeListOf(5, arrow.PrimitiveTypes.Float32), Nullable: true, Metadata: shape},
		{Name: "logits", Type: arrow.FixedSizeListOf(3, arrow.FixedWidthTypes.Float16), Nullable: true},
		{Name: "top_labels", Type: arrow.FixedSizeListOf(2, arrow.PrimitiveTypes.Int32), Nullable: true},
	}, &meta)
}()

func testName(i int64) string { return fmt.Sprintf("folder %d/bild_ü_%0*d.jpg", i%3, 1+int(i%7), i) }

// featuresOf makes the rows of these images; the numbers say whose they are.
func featuresOf(indices ...int64) arrow.Record {
	b := array.NewRecordBuilder(memory.DefaultAllocator, testSchema)
	defer b.Release()
	for _, i := range indices {
		b.Field(0).(*array.Int64Builder).Append(i)
		b.Field(1).(*array.StringBuilder).Append(testName(i))
		b.Field(2).(*array.Int32Builder).Append(int32(i % 10))
		for f := 3; f < 6; f++ {
			list := b.Field(f).(*array.FixedSizeListBuilder)
			list.Append(true)
			for j := range int(list.Type().(*arrow.FixedSizeListType).Len()) {
				v := float32(i) + float32(j)/8
				switch to := list.ValueBuilder().(type) {
				case *array.Float32Builder:
					to.Append(v)
				case *array.Float16Builder:
					to.Append(float16.New(v))
				case *array.Int32Builder:
					to.Append(int32(i) + int32(j))
				}
			}
		}
	}
	return b.NewRecord()
}

// checkRows holds records to the images they are to be of.
func checkRows(t *testing.T, recs []arrow.Record, want []int64) {
	t.Helper()
	var got []int64
	for _, rec := range recs {
		index := rec.Column(0).(*array.Int64)
		expected := featuresOf(index.Int64Values()...)
		for i, f := range testSchema.Fields() {
			g := rec.Schema().Field(i)
			if g.Name != f.Name || !arrow.TypeEqual(g.Type, f.Type) {
				t.Fatalf("column %d is %s of %v, want %s of %v", i, g.Name, g.Type, f.Name, f.Type)
			}
			if rec.Column(i).NullN() != 0 || !array.Equal(rec.Column(i), expected.Column(i)) {
				t.Fatalf("column %s holds %v, want %v", f.Name, rec.Column(i), expected.Column(i))
			}
		}
		for _, key := range []string{"preprocessing", "weights_sha256"} {
			want, _ := testSchema.Metadata().GetValue(key)
			if v, ok := rec.Schema().Metadata().GetValue(key); ok && v != want {
				t.Errorf("metadata %s is %q", key, v)
			}
		}
		got = append(got, index.Int64Values()...)
		expected.Release()
	}
	if !slices.Equal(got, want) {
		t.Fatalf("the rows are of %v, want %v", got, want)
	}
}

func readParquetPart(t *testing.T, path string) []arrow.Record {
	t.Helper()
	pf, err := file.OpenParquetFile(path, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pf.Close() })
	r, err := pqarrow.NewFileReader(pf, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
	if err != nil {
		t.Fatal(err)
	}
	table, err := r.ReadTable(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if table.NumRows() == 0 {
		return nil
	}
	reader := array.NewTableReader(table, table.NumRows())
	var out []arrow.Record
	for reader.Next() {
		rec := reader.Record()
		rec.Retain()
		out = append(out, rec)
	}
	return out
}

func readArrowPart(t *testing.T, path string) (out []arrow.Record) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	r, err := ipc.NewFileReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if meta, _ := r.Schema().Metadata().GetValue("weights_sha256"); meta != "w" {
		t.Errorf("the schema's metadata is %v", r.Schema().Metadata())
	}
	for i := range r.NumRecords() {
		rec, err := r.RecordAt(i)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, rec)
	}
	return out
}

// readNumpyPart reads a folder of arrays as numpy.load would.
func readNumpyPart(t *testing.T, dir string) []arrow.Record {
	t.Helper()
	b := array.NewRecordBuilder(memory.DefaultAllocator, testSchema)
	defer b.Release()
	rows := 0
	for i, f := range testSchema.Fields() {
		data := []byte(read(t, filepath.Join(dir, f.Name+".npy")))
		n := 10 + int(binary.LittleEndian.Uint16(data[8:]))
		if string(data[:8]) != "\x93NUMPY\x01\x00" || n%64 != 0 || data[n-1] != '\n' {
			t.Fatalf("%s begins with %q", f.Name, data[:min(n, 140)])
		}
		var descr string
		width := 0
		header := string(data[10:n])
		_, shape, _ := strings.Cut(header, "'shape': (")
		if k, _ := fmt.Sscanf(shape, "%d, %d)", &rows, &width); k < 1 {
			t.Fatalf("header %s", header)
		}
		if _, err := fmt.Sscanf(header, "{'descr': '<%s", &descr); err != nil {
			t.Fatal(header)
		}
		descr = strings.TrimSuffix(descr, "',")
		rest := data[n:]
		for range rows {
			switch to := b.Field(i).(type) {
			case *array.Int64Builder:
				to.Append(int64(binary.LittleEndian.Uint64(rest)))
				rest = rest[8:]
			case *array.Int32Builder:
				to.Append(int32(binary.LittleEndian.Uint32(rest)))
				rest = rest[4:]
			case *array.StringBuilder:
				var chars int
				fmt.Sscanf(descr, "U%d", &chars)
				var text []rune
				for range chars {
					if r := rune(binary.LittleEndian.Uint32(rest)); r != 0 {
						text = append(text, r)
					}
					rest = rest[4:]
				}
				to.Append(string(text))
			case *array.FixedSizeListBuilder:
				to.Append(true)
				for range width {
					switch to := to.ValueBuilder().(type) {
					case *array.Float32Builder:
						to.Append(math.Float32frombits(binary.LittleEndian.Uint32(rest)))
						rest = rest[4:]
					case *array.Float16Builder:
						num, err := float16FromBits(binary.LittleEndian.Uint16(rest))
						if err != nil {
							t.Fatal(err)
						}
						to.Append(num)
						rest = rest[2:]
					case *array.Int32Builder:
						to.Append(int32(binary.LittleEndian.Uint32(rest)))
						rest = rest[4:]
					}
				}
			}
		}
		if len(rest) != 0 {
			t.Fatalf("%s: %d bytes are left over", f.Name, len(rest))
		}
	}
	if rows == 0 {
		return nil
	}
	return []arrow.Record{b.NewRecord()}
}

func float16FromBits(bits uint16) (float16.Num, error) {
	var b [2]byte
	binary.LittleEndian.PutUint16(b[:], bits)
	return arrow.Float16Traits.CastFromBytes(b[:])[0], nil
}

var partReaders = map[string]func(*testing.T, string) []arrow.Record{
	"parquet": readParquetPart, "arrow": readArrowPart, "npy": readNumpyPart,
}

// A run of features for tests: which images came, in batches of what size.
type featureRun struct {
	source         string
	samples, batch int
	skipped        map[int64]bool
	opt            FeaturesOptions
}

func (r featureRun) indices() (all []int64) {
	for i := range int64(r.samples) {
		if !r.skipped[i] {
			all = append(all, i)
		}
	}
	return all
}

func (r featureRun) env(dir string) *pipeline.Env {
	return &pipeline.Env{
		RunDir: dir, Samples: r.samples, BatchSize: r.batch, Epochs: 1, Warn: func(string) {},
		Resolved: fmt.Appendf(nil, "source: {image_folder: {dir: %q}}\n", r.source),
	}
}

// batches are those of a run from a place on, as the engine makes them.
func (r featureRun) batches(start pipeline.Cursor, step int) (out []*pipeline.Batch) {
	if start.Epoch > 0 {
		return nil
	}
	cursor := start
	var rows []int64
	flush := func() {
		if len(rows) > 0 {
			out = append(out, &pipeline.Batch{Kind: pipeline.Features, Step: step, Cursor: cursor, Record: featuresOf(rows...)})
			rows = nil
			step++
		}
	}
	for i := start.Pos; i < r.samples; i++ {
		cursor.Pos++
		if r.skipped[int64(i)] {
			cursor.Skipped++
			continue
		}
		if rows = append(rows, int64(i)); len(rows) == r.batch {
			flush()
		}
	}
	flush()
	return out
}

// write runs the sink until it has got stop batches (all if below zero).
func (r featureRun) write(t *testing.T, dir string, resume bool, stop int) {
	t.Helper()
	s, err := NewFeatures(r.opt)
	if err != nil {
		t.Fatal(err)
	}
	env := r.env(dir)
	if resume {
		if env.Start, env.StartStep, err = s.Resume(t.Context(), env); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Prepare(t.Context(), env); err != nil {
		t.Fatal(err)
	}
	batches := r.batches(env.Start, env.StartStep)
	whole := stop < 0
	if whole { // as extract ends a run
		last := &pipeline.Batch{Kind: pipeline.Features, Cursor: env.Start, Step: env.StartStep, Record: featuresOf()}
		if n := len(batches); n > 0 {
			last.Cursor, last.Step = batches[n-1].Cursor, batches[n-1].Step
		}
		batches = append(batches, last)
		stop = len(batches)
	}
	for _, b := range batches[:min(stop, len(batches))] {
		if err := s.Write(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	if whole {
		if err := s.Finish(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// tree is the content of every file of a folder.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		out[filepath.ToSlash(name)] = read(t, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func sameTree(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if text, ok := got[name]; !ok {
			t.Errorf("%s: %s is missing", what, name)
		} else if text != want[name] {
			t.Errorf("%s: %s differs", what, name)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s: there is %s too", what, name)
		}
	}
}

func testRun(format, compression string) featureRun {
	skipped := map[int64]bool{0: true, 13: true, 19: true, 20: true, 21: true}
	for i := int64(40); i < 53; i++ {
		skipped[i] = true // a part, and more, with no row
	}
	skipped[67], skipped[68] = true, true // the last ones
	return featureRun{samples: 69, batch: 7, skipped: skipped,
		opt: FeaturesOptions{Dir: "features", Format: format, RowsPerPart: 10, Compression: compression}}
}

// Every format gives back every column, in the part that the index says.
func TestFeaturesReadBack(t *testing.T) {
	for format, reader := range partReaders {
		for _, compression := range []string{"zstd", "none"} {
			r := testRun(format, compression)
			dir := t.TempDir()
			r.write(t, dir, false, -1)
			m, err := ReadManifest(filepath.Join(dir, "features"))
			if err != nil {
				t.Fatal(err)
			}
			if len(m.Parts) != 7 || !m.Complete || m.Rows != len(r.indices()) || m.Metadata["weights_sha256"] != "w" || m.Columns[3].Name != "fc7" {
				t.Fatalf("the manifest is %+v", m)
			}
			for _, p := range m.Parts {
				var want []int64
				for _, i := range r.indices() {
					if i >= int64(p.First) && i < int64(p.End) {
						want = append(want, i)
					}
				}
				if p.First != 10*p.Part || p.End != min(10*p.Part+10, 69) || p.Rows != len(want) {
					t.Errorf("part %+v, want %d rows", p, len(want))
				}
				path := filepath.Join(dir, "features", strings.Split(p.Files[0].Name, "/")[0])
				checkRows(t, reader(t, path), want)
				for _, f := range p.Files {
					text := read(t, filepath.Join(dir, "features", f.Name))
					if f.Bytes != int64(len(text)) || f.SHA256 != sha(text) {
						t.Errorf("file %+v has %d bytes of %s", f, len(text), sha(text))
					}
				}
			}
		}
	}
}

// A row group is as large as chunkBytes says, whatever the batches were.
func TestFeaturesAreCutByRows(t *testing.T) {
	var sizes []int64
	c := &chunks{size: 10, write: func(r arrow.Record) error {
		sizes = append(sizes, r.NumRows())
		checkRows(t, []arrow.Record{r}, r.Column(0).(*array.Int64).Int64Values())
		return nil
	}}
	at := int64(0)
	for _, n := range []int64{3, 4, 9, 25, 1, 0, 2} {
		var rows []int64
		for range n {
			rows = append(rows, at)
			at++
		}
		if err := c.add(featuresOf(rows...)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.flush(); err != nil {
		t.Fatal(err)
	}
	if want := []int64{10, 10, 10, 10, 4}; !slices.Equal(sizes, want) {
		t.Errorf("chunks of %v rows, want %v", sizes, want)
	}
	if c := newChunks(testSchema, nil); c.size != chunkBytes/(8+32+4+20+6+8) {
		t.Errorf("a chunk has %d rows", c.size)
	}
}

// Stopped after any batch, and then once more, a run ends with the bytes of one
// that was not; nothing else is left.
func TestFeaturesGoOn(t *testing.T) {
	for _, format := range []string{"parquet", "arrow", "npy"} {
		r := testRun(format, "zstd")
		whole := t.TempDir()
		r.write(t, whole, false, -1)
		want := tree(t, whole)
		for stop := range len(r.batches(pipeline.Cursor{}, 0)) + 2 {
			if format != "parquet" && stop%3 != 2 {
				continue // every file is synced, which takes time
			}
			dir, again := t.TempDir(), stop%2*3
			r.write(t, dir, false, stop)
			r.write(t, dir, true, again)
			r.write(t, dir, true, -1)
			sameTree(t, fmt.Sprintf("%s stopped after %d and %d", format, stop, again), tree(t, dir), want)
			if t.Failed() {
				return
			}
		}
	}
}

// A part that is lost or cut short is made again, and all after it; what lies
// there without being named is of no account.
func TestFeaturesMakeLostPartsAgain(t *testing.T) {
	for _, format := range []string{"parquet", "npy"} {
		r := testRun(format, "none")
		whole := t.TempDir()
		r.write(t, whole, false, -1)
		want := tree(t, whole)
		for _, part := range []int{0, 4} {
			for _, spoil := range []func(path string) error{
				os.RemoveAll,
				func(path string) error {
					if format == "npy" {
						path = filepath.Join(path, "fc7.npy")
					}
					return os.Truncate(path, 100)
				},
			} {
				dir := t.TempDir()
				r.write(t, dir, false, -1)
				name := fmt.Sprintf("part-%05d", part)
				if format == "parquet" {
					name += ".parquet"
				}
				if err := spoil(filepath.Join(dir, "features", name)); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, "features", ".part-00003"), []byte("left by a kill"), 0o644); err != nil {
					t.Fatal(err)
				}
				r.write(t, dir, true, -1)
				sameTree(t, fmt.Sprintf("%s without part %d", format, part), tree(t, dir), want)
			}
		}
	}
}

// A run that does not go on begins anew.
func TestFeaturesStartAfresh(t *testing.T) {
	dir := t.TempDir()
	first := testRun("parquet", "none")
	first.write(t, dir, false, -1)
	second := testRun("npy", "none")
	second.samples = 25
	second.write(t, dir, false, -1)
	whole := t.TempDir()
	second.write(t, whole, false, -1)
	sameTree(t, "a second run", tree(t, dir), tree(t, whole))
}

func TestFeaturesRefuseToGoOnWithOthers(t *testing.T) {
	r := testRun("parquet", "zstd")
	dir := t.TempDir()
	r.write(t, dir, false, 5)
	force := false
	resume := func(dir string, edit func(*featureRun)) error {
		other := r
		edit(&other)
		s, err := NewFeatures(other.opt)
		if err != nil {
			t.Fatal(err)
		}
		env := other.env(dir)
		env.Force = force
		_, _, err = s.Resume(t.Context(), env)
		return err
	}
	broken := t.TempDir()
	if err := os.MkdirAll(filepath.Join(broken, "features"), 0o777); err != nil {
		t.Fatal(err)
	}
	manifest := func(text string) {
		if err := os.WriteFile(filepath.Join(broken, "features", "manifest.json"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for want, err := range map[string]error{
		"rows_per_part 10, and this run has 11":      resume(dir, func(r *featureRun) { r.opt.RowsPerPart = 11 }),
		"format parquet, and this run has arrow":     resume(dir, func(r *featureRun) { r.opt.Format = "arrow" }),
		"compression zstd, and this run has none":    resume(dir, func(r *featureRun) { r.opt.Compression = "none" }),
		"batch_size 7, and this run has 8":           resume(dir, func(r *featureRun) { r.batch = 8 }),
		"dir: \"elsewhere\"}":                        resume(dir, func(r *featureRun) { r.source = "elsewhere" }),
		"images 69, and this run has 70":             resume(dir, func(r *featureRun) { r.samples = 70 }),
		"manifest.json: no such file":                resume(t.TempDir(), func(*featureRun) {}),
		"manifest.json: unexpected end of JSON":      func() error { manifest(""); return resume(broken, func(*featureRun) {}) }(),
		"its part 0 is number 3, of images 0 and on": func() error { manifest(`{"parts":[{"part":3}]}`); return resume(broken, func(*featureRun) {}) }(),
		`names the file "../x", which lies elsewhere`: func() error {
			manifest(`{"parts":[{"files":[{"name":"../x"}]}]}`)
			return resume(broken, func(*featureRun) {})
		}(),
	} {
		if err == nil || !errors.Is(err, pipeline.ErrResume) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}

	force = true
	if err := resume(dir, func(r *featureRun) { r.batch, r.source = 8, "elsewhere" }); err != nil {
		t.Errorf("the user wants it all the same: %v", err)
	}
	if err := resume(dir, func(r *featureRun) { r.opt.RowsPerPart = 11 }); !errors.Is(err, pipeline.ErrResume) {
		t.Errorf("parts of other lengths cannot be: %v", err)
	}

	// Other weights show with the first batch.
	s, err := NewFeatures(r.opt)
	if err != nil {
		t.Fatal(err)
	}
	env := r.env(dir)
	if env.Start, env.StartStep, err = s.Resume(t.Context(), env); err != nil {
		t.Fatal(err)
	}
	if err := s.Prepare(t.Context(), env); err != nil {
		t.Fatal(err)
	}
	rec := featuresOf(30)
	meta := arrow.NewMetadata([]string{"preprocessing", "weights_sha256"}, []string{"p", "other"})
	other := array.NewRecord(arrow.NewSchema(testSchema.Fields(), &meta), rec.Columns(), 1)
	err = s.Write(t.Context(), &pipeline.Batch{Kind: pipeline.Features, Record: other})
	if err == nil || !strings.Contains(err.Error(), "they differ in: weights_sha256; run without resuming") {
		t.Errorf("error %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestFeaturesMistakes(t *testing.T) {
	good := testRun("parquet", "zstd").opt
	for want, edit := range map[string]func(*FeaturesOptions){
		"dir must be a file inside the run folder": func(o *FeaturesOptions) { o.Dir = "../x" },
		`format must be arrow or npy or parquet`:   func(o *FeaturesOptions) { o.Format = "csv" },
		"rows_per_part must be at least 1":         func(o *FeaturesOptions) { o.RowsPerPart = 0 },
		"compression must be zstd or none":         func(o *FeaturesOptions) { o.Compression = "gzip" },
	} {
		o := good
		edit(&o)
		if _, err := NewFeatures(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	s, err := NewFeatures(good)
	if err != nil {
		t.Fatal(err)
	}
	for want, env := range map[string]*pipeline.Env{
		"set batch.shuffle: false":                         {Samples: 9, Shuffle: true},
		"set batch.last: keep":                             {Samples: 9, DropLast: true},
		"rows_per_part makes 10001 parts of 100001 images": {Samples: 100_001},
		"there may be 10000 parts: set it to 11 or more":   {Samples: 100_001},
	} {
		if _, err := s.Plan(env); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	if err := s.Prepare(t.Context(), &pipeline.Env{RunDir: t.TempDir(), Epochs: 2}); err == nil || !strings.Contains(err.Error(), "one epoch") {
		t.Errorf("error %v", err)
	}
	if s.Accepts(pipeline.Metrics) || !s.Accepts(pipeline.Features) {
		t.Error("features accepts the wrong kinds")
	}

	// What comes in the wrong order, twice, from beyond the end, or not at all.
	for name, rows := range map[string][][]int64{
		"image 4 comes after image 5 of 69":   {{3, 5, 4}},
		"image 5 comes after image 5 of 69":   {{3, 5}, {5}},
		"image 69 comes after image 5 of 69":  {{5, 69}},
		"image -1 comes after image -1 of 69": {{-1}},
	} {
		s, err := NewFeatures(good)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Prepare(t.Context(), testRun("parquet", "zstd").env(t.TempDir())); err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			err = s.Write(t.Context(), &pipeline.Batch{Kind: pipeline.Features, Record: featuresOf(r...)})
		}
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("error %v, want %q", err, name)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	s, err = NewFeatures(good)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Prepare(t.Context(), testRun("parquet", "zstd").env(t.TempDir())); err != nil {
		t.Fatal(err)
	}
	if err := s.Finish(t.Context()); err == nil || !strings.Contains(err.Error(), "no features came") {
		t.Errorf("error %v", err)
	}
}

// A failure leaves whole parts only, and the error names the part.
func TestFeaturesOnAFullDisk(t *testing.T) {
	for format := range partFormats {
		r := testRun(format, "none")
		dir := t.TempDir()
		s, err := NewFeatures(r.opt)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Prepare(t.Context(), r.env(dir)); err != nil {
			t.Fatal(err)
		}
		batches := r.batches(pipeline.Cursor{}, 0)
		for _, b := range batches[:3] { // part 2 is begun
			if err := s.Write(t.Context(), b); err != nil {
				t.Fatal(err)
			}
		}
		full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
		if err != nil {
			t.Skip("there is no /dev/full here; TestReplaceFileKeepsTheOldOneOnError injects the same error")
		}
		switch p := s.writer.format.(type) { // the disk is full from now on
		case *parquetPart:
			p.file.Close()
			p.file = full
			p.out.Reset(full)
		case *arrowPart:
			p.file.Close()
			*p.file = *full
		case *numpyPart:
			p.columns[3].file.Close()
			p.columns[3].file = full
			p.columns[3].out.Reset(full)
		}
		for _, b := range batches[3:] {
			if err = s.Write(t.Context(), b); err != nil {
				break
			}
		}
		if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "features", "part-00002")) || !strings.Contains(err.Error(), "free some space") {
			t.Errorf("%s: error %v", format, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		for name := range tree(t, dir) {
			if strings.HasPrefix(name, "features/.") || strings.HasPrefix(name, "features/part-00002") {
				t.Errorf("%s: %s is left", format, name)
			}
		}
		r.write(t, dir, true, -1) // after space was made
		whole := t.TempDir()
		r.write(t, whole, false, -1)
		sameTree(t, format, tree(t, dir), tree(t, whole))
	}
}

// The rest runs a whole line in a process of its own, which is killed.

const (
	killedDir   = "SLUICE_TEST_FEATURES_DIR"
	killedAfter = "SLUICE_TEST_FEATURES_READS" // it asks to be killed after so many
	nowKill     = "kill me"
)

// TestFeaturesChild is that process.
func TestFeaturesChild(t *testing.T) {
	dir := os.Getenv(killedDir)
	if dir == "" {
		t.Skip("this is the process that TestFeaturesSurviveKills starts and kills; it runs there")
	}
	_, err := os.Stat(filepath.Join(dir, "features", "manifest.json"))
	line := killedLine(dir, err == nil)
	if text := os.Getenv(killedAfter); text != "" {
		reads, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		line.Source = &ended{reads: reads}
	}
	if err := line.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// dots is a source of pictures of one pixel, some of which are bad.
type dots struct{}

func (dots) Len() int { return 2000 }
func (dots) Read(_ context.Context, i int, s *pipeline.Sample) error {
	s.Name, s.Label = testName(int64(i)), int32(i%10)
	if i%50 == 7 || i > 900 && i < 1100 {
		return pipeline.ErrSkip
	}
	s.SetImage(&augment.RGB{Pix: []byte{byte(i), 0, 0}, Stride: 3, W: 1, H: 1})
	return nil
}

// ended is dots until it has been read a number of times: then it says so on standard output,
// and waits to be killed while what was read goes on to the disk.
type ended struct {
	dots
	reads int64
	n     atomic.Int64
}

func (e *ended) Read(ctx context.Context, i int, s *pipeline.Sample) error {
	switch n := e.n.Add(1); {
	case n == e.reads:
		fmt.Println(nowKill)
		fallthrough
	case n > e.reads:
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return e.dots.Read(ctx, i, s)
}

// featureStage makes features of pictures, one batch late, as extract does.
type featureStage struct{ held, last *pipeline.Batch }

func (s *featureStage) Process(_ context.Context, b *pipeline.Batch, emit pipeline.Emit) error {
	images, err := pipeline.ImagesOf(b.Record)
	if err != nil {
		return err
	}
	held := s.held
	s.held = &pipeline.Batch{Kind: pipeline.Features, Epoch: b.Epoch, Step: b.Step, Cursor: b.Cursor, Record: featuresOf(images.Index...)}
	s.last = &pipeline.Batch{Kind: pipeline.Features, Epoch: b.Epoch, Step: b.Step, Cursor: b.Cursor, Record: featuresOf()}
	if held == nil {
		return nil
	}
	return emit(held)
}

func (s *featureStage) Flush(_ context.Context, emit pipeline.Emit) error {
	if s.held == nil {
		return emit(&pipeline.Batch{Kind: pipeline.Features, Record: featuresOf()})
	}
	if err := emit(s.held); err != nil {
		return err
	}
	return emit(s.last)
}

func killedLine(dir string, resume bool) *pipeline.Line {
	sink, err := NewFeatures(FeaturesOptions{Dir: "features", Format: "npy", RowsPerPart: 130, Compression: "none"})
	if err != nil {
		panic(err)
	}
	return &pipeline.Line{
		Source: dots{}, SourceName: "dots", Frame: pipeline.Frame{W: 1, H: 1, CanvasW: 1, CanvasH: 1},
		BatchSize: 16, Epochs: 1, Workers: 2,
		Stages: []pipeline.NamedStage{{Name: "stage", Stage: &featureStage{}}},
		Sinks:  []pipeline.NamedSink{{Name: "features", Sink: sink}},
		Env:    &pipeline.Env{RunDir: dir, Samples: 2000, Epochs: 1, Resume: resume},
	}
}

// Killed again and again, wherever it is, and started again, a run ends with the
// bytes of one that was left alone.
func TestFeaturesSurviveKills(t *testing.T) {
	whole := t.TempDir()
	if err := killedLine(whole, false).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := tree(t, whole)
	if len(want) != 16*6+1 {
		t.Fatalf("%d files", len(want))
	}
	dir := t.TempDir()
	// 19 kills, at most one of 16 parts after each of the longer ones, and a run that ends.
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 20 {
		var errs bytes.Buffer
		child := exec.Command(os.Args[0], "-test.run", "^TestFeaturesChild$")
		child.Env, child.Stderr = append(os.Environ(), killedDir+"="+dir), &errs
		if round < 19 {
			reads := 20 + rng.IntN(100) // no part
			if round%2 == 1 {
				reads += 130
			}
			child.Env = append(child.Env, fmt.Sprint(killedAfter, "=", reads))
		}
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		told := false
		for lines := bufio.NewScanner(out); !told && lines.Scan(); told = lines.Text() == nowKill {
		}
		if told {
			time.Sleep(time.Duration(rng.IntN(3000)) * time.Microsecond) // while it writes, or after it
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
		err = child.Wait()
		if told != (round < 19) || (err == nil) == told {
			t.Fatalf("round %d: to be killed %v, %v\n%s", round, told, err, errs.Bytes())
		}
	}
	sameTree(t, "killed 19 times", tree(t, dir), want)
}

func sha(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) }

// BenchmarkFeatures writes rows of 4096 numbers, half of them zero as after a
// ReLU: MB/s of numbers.
func BenchmarkFeatures(b *testing.B) {
	const rows, width = 128, 4096
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "index", Type: arrow.PrimitiveTypes.Int64},
		{Name: "name", Type: arrow.BinaryTypes.String},
		{Name: "label", Type: arrow.PrimitiveTypes.Int32},
		{Name: "fc7", Type: arrow.FixedSizeListOf(width, arrow.PrimitiveTypes.Float32), Nullable: true},
	}, nil)
	rng := rand.New(rand.NewPCG(1, 2))
	build := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	for i := range int64(rows) {
		build.Field(0).(*array.Int64Builder).Append(i)
		build.Field(1).(*array.StringBuilder).Append(testName(i))
		build.Field(2).(*array.Int32Builder).Append(0)
		list := build.Field(3).(*array.FixedSizeListBuilder)
		list.Append(true)
		for range width {
			list.ValueBuilder().(*array.Float32Builder).Append(float32(max(0, rng.NormFloat64())))
		}
	}
	rec := build.NewRecord()
	for format := range partFormats {
		for _, compression := range []string{"zstd", "none"} {
			if format == "npy" && compression == "zstd" {
				continue
			}
			b.Run(format+"/"+compression, func(b *testing.B) {
				part, err := createPart(b.TempDir(), 0, FeaturesOptions{Format: format, Compression: compression}, schema)
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(4 * rows * width)
				b.ReportAllocs()
				for b.Loop() {
					if err := part.write(rec); err != nil {
						b.Fatal(err)
					}
				}
				b.StopTimer()
				if err := part.abandon(); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}
