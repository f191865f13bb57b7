package sinks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/pipeline"
)

// stopping is featureStage, which fails at a batch.
type stopping struct {
	featureStage
	at, seen int
}

func (s *stopping) Process(ctx context.Context, b *pipeline.Batch, emit pipeline.Emit) error {
	if s.seen++; s.seen == s.at {
		return errors.New("stopped")
	}
	return s.featureStage.Process(ctx, b, emit)
}

// shardRun writes a shard of the features of dots, stopped at a batch if at is not 0.
func shardRun(t *testing.T, dir, format string, shard pipeline.Shard, resume bool, at int, edit func(*pipeline.Line)) {
	t.Helper()
	l := killedLine(dir, resume)
	sink, err := NewFeatures(FeaturesOptions{Dir: "features", Format: format, RowsPerPart: 130, Compression: "zstd"})
	if err != nil {
		t.Fatal(err)
	}
	l.Source = quickDots{}
	l.Stages = []pipeline.NamedStage{{Name: "stage", Stage: &stopping{at: at}}}
	l.Sinks, l.Shard = []pipeline.NamedSink{{Name: "features", Sink: sink}}, shard
	if edit != nil {
		edit(l)
	}
	if err := l.Run(t.Context()); (err != nil) != (at > 0) {
		t.Fatalf("shard %+v, stopped at %d: %v", shard, at, err)
	}
}

// quickDots is dots without the time to be killed in. Whole batches of it fail, and
// the end of a part.
type quickDots struct{ dots }

func (quickDots) Read(ctx context.Context, i int, s *pipeline.Sample) error {
	if i%16 == 0 {
		i++
	}
	return dots{}.Read(ctx, i, s)
}

// However many shards a run is shared out to, and wherever they are stopped, they
// merge into the bytes of one run.
func TestShardsMergeToTheWhole(t *testing.T) {
	for format, counts := range map[string][]int{"parquet": {2, 20}, "npy": {3}} {
		whole := t.TempDir()
		shardRun(t, whole, format, pipeline.Shard{}, false, 0, nil)
		want := tree(t, filepath.Join(whole, "features"))
		for _, n := range counts {
			var dirs []string
			for i := range n {
				dir := filepath.Join(t.TempDir(), fmt.Sprint(i))
				shard := pipeline.Shard{Index: n - 1 - i, Of: n}
				if n == 3 {
					shardRun(t, dir, format, shard, false, 12+10*i, nil)
					shardRun(t, dir, format, shard, true, 4, nil)
					shardRun(t, dir, format, shard, true, 0, nil)
				} else {
					shardRun(t, dir, format, shard, false, 0, nil)
				}
				dirs = append(dirs, dir)
			}
			to := filepath.Join(t.TempDir(), "merged")
			m, err := MergeFeatures(dirs, to)
			if err != nil {
				t.Fatal(err)
			}
			sameTree(t, fmt.Sprintf("%s of %d shards", format, n), tree(t, to), want)
			if !m.Complete || m.Shard != nil {
				t.Errorf("the manifest is %+v", m)
			}
			if _, err := MergeFeatures(dirs, to); err == nil || !strings.Contains(err.Error(), "has features in it already") {
				t.Errorf("a second merge gives %v", err)
			}
		}
	}
}

func TestMergeRefuses(t *testing.T) {
	root := t.TempDir()
	dir := func(i int) string { return filepath.Join(root, fmt.Sprint(i)) }
	for i := range 3 {
		shardRun(t, dir(i), "parquet", pipeline.Shard{Index: i, Of: 3}, false, 0, nil)
	}
	whole := filepath.Join(root, "whole")
	shardRun(t, whole, "parquet", pipeline.Shard{}, false, 0, nil)
	cut := filepath.Join(root, "cut")
	shardRun(t, cut, "parquet", pipeline.Shard{Index: 1, Of: 3}, false, 20, nil)
	four := filepath.Join(root, "four")
	shardRun(t, four, "parquet", pipeline.Shard{Index: 1, Of: 4}, false, 0, func(l *pipeline.Line) { l.BatchSize, l.Env.BatchSize, l.Env.Seed = 8, 8, 3 })
	edited := func(name string, edit func(*Manifest)) string {
		to := filepath.Join(root, name)
		if err := os.CopyFS(to, os.DirFS(filepath.Join(dir(1), "features"))); err != nil {
			t.Fatal(err)
		}
		m, err := ReadManifest(to)
		if err != nil {
			t.Fatal(err)
		}
		edit(m)
		if err := m.write(to); err != nil {
			t.Fatal(err)
		}
		return to
	}
	weights := edited("weights", func(m *Manifest) { m.Metadata["weights_sha256"] = "x" })
	columns := edited("columns", func(m *Manifest) { m.Columns[3].Type = "float64" })
	gap := edited("gap", func(m *Manifest) {
		m.Shard.First++
		m.Parts = m.Parts[1:]
	})
	overlap := edited("overlap", func(m *Manifest) {
		m.Shard.End--
		m.Parts = m.Parts[:len(m.Parts)-1]
	})
	damaged := edited("damaged", func(*Manifest) {})
	part := filepath.Join(damaged, "part-00006.parquet")
	data, err := os.ReadFile(part)
	if err != nil {
		t.Fatal(err)
	}
	data[100] ^= 1
	if err := os.WriteFile(part, data, 0o644); err != nil {
		t.Fatal(err)
	}
	elsewhere := edited("elsewhere", func(m *Manifest) { m.Parts[0].Files[0].Name = "manifest.json" })
	empty := edited("empty", func(m *Manifest) {
		*m = Manifest{Format: "parquet", Complete: true, Shard: &ManifestShard{Of: 1}}
	})
	many := edited("many", func(m *Manifest) { m.Shard.Of = 1e12 })
	beyond := edited("beyond", func(m *Manifest) { m.Shard.Index = 4 })
	for _, tt := range []struct {
		dirs []string
		want string
	}{
		{nil, "nothing to merge"},
		{[]string{dir(0), dir(2)}, "shard 2/3 is missing"},
		{[]string{dir(0)}, "shard 2/3 is missing\nshard 3/3 is missing"},
		{[]string{dir(0), dir(1), dir(1), dir(2)}, "shard 2/3 is there twice"},
		{[]string{dir(0), whole}, "holds no shard of a run: it was made without --shard"},
		{[]string{dir(0), cut, dir(2)}, "is not complete, it has"},
		{[]string{dir(0), four, dir(2)}, "number of shards is 3 and 4"},
		{[]string{dir(0), four, dir(2)}, "seed is 0 and 3"},
		{[]string{dir(0), weights, dir(2)}, "they differ in weights_sha256"},
		{[]string{dir(0), columns, dir(2)}, "they have other columns"},
		{[]string{dir(0), gap, dir(2)}, "begins with part 6, and part 5 is the next"},
		{[]string{dir(0), overlap, dir(2)}, "begins with part 10, and part 9 is the next"},
		{[]string{dir(0), damaged, dir(2)}, "shard 2/3, part 6: "},
		{[]string{dir(0), elsewhere, dir(2)}, "shard 2/3, part 5: "},
		{[]string{dir(0), filepath.Join(root, "nowhere")}, "no such file"},
		{[]string{empty}, "there are no parts of 0 rows of 0 images"},
		{[]string{many}, "shard 6/1000000000000 is missing\nso are 999999999994 more"},
		{[]string{beyond}, "there is no shard 5/3 of the parts 5 to 9"},
	} {
		to := filepath.Join(t.TempDir(), "merged")
		_, err := MergeFeatures(tt.dirs, to)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: error %v, want %q", tt.dirs, err, tt.want)
		}
		if fileExists(filepath.Join(to, manifestName)) {
			t.Errorf("%v: there is a manifest", tt.dirs)
		}
	}
}

// A run that is ended after so many steps leaves out the parts that it has not read to
// their end, and says so; gone on with, it ends with the bytes of one that ran through.
func TestFeaturesOfSoManySteps(t *testing.T) {
	for _, shard := range []pipeline.Shard{{}, {Index: 1, Of: 3}} {
		whole := t.TempDir()
		shardRun(t, whole, "parquet", shard, false, 0, nil)
		dir := t.TempDir()
		for i, end := range []struct{ steps, parts int }{{2, 0}, {11, 1}, {11, 1}, {0, -1}, {11, -1}} {
			var told string
			shardRun(t, dir, "parquet", shard, i > 0, 0, func(l *pipeline.Line) {
				l.StopAfter = end.steps
				l.Env.Warn = func(text string) { told += text }
			})
			m, err := ReadManifest(filepath.Join(dir, "features"))
			if err != nil {
				t.Fatal(err)
			}
			if all := end.parts < 0; m.Complete != all || !all && len(m.Parts) != end.parts || strings.Contains(told, "are missing: go on with --resume") == all {
				t.Errorf("shard %+v, run %d, to step %d: complete %v, %d parts, %q", shard, i, end.steps, m.Complete, len(m.Parts), told)
			}
		}
		sameTree(t, fmt.Sprintf("shard %+v in steps", shard), tree(t, dir), tree(t, whole))
	}
}

// A shard goes on as itself only.
func TestShardsResumeAsThemselves(t *testing.T) {
	dir := t.TempDir()
	shardRun(t, dir, "parquet", pipeline.Shard{Index: 1, Of: 3}, false, 20, nil)
	l := killedLine(dir, true)
	sink, err := NewFeatures(FeaturesOptions{Dir: "features", Format: "parquet", RowsPerPart: 130, Compression: "zstd"})
	if err != nil {
		t.Fatal(err)
	}
	l.Sinks, l.Shard = []pipeline.NamedSink{{Name: "features", Sink: sink}}, pipeline.Shard{Index: 2, Of: 3}
	if err := l.Run(t.Context()); !errors.Is(err, pipeline.ErrResume) || !strings.Contains(err.Error(), "have shard 2/3, and this run has 3/3") {
		t.Errorf("error %v", err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "features", manifestName))
	if err != nil {
		t.Fatal(err)
	}
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil || *m.Shard != (ManifestShard{Index: 1, Of: 3, First: 5, End: 10}) || m.Parts[0].Part != 5 {
		t.Errorf("the manifest is %s (%v)", data, err)
	}
}
