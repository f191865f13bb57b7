package sinks

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"go.yaml.in/yaml/v3"

	"sluice/pipeline"
	"sluice/pipeline/config"
)

func init() {
	pipeline.RegisterSink("features",
		"Writes features in numbered parts, part k holding the images k*rows_per_part and on, with a manifest beside them. A part appears whole or not at all; a run that was killed goes on at the first missing part (run --resume) and ends with the same bytes.",
		FeaturesOptions{Dir: "features", Format: "parquet", RowsPerPart: 50_000, Compression: "zstd"},
		func(o FeaturesOptions) (pipeline.Sink, error) { return NewFeatures(o) })
}

// FeaturesOptions are the options of the features sink.
type FeaturesOptions struct {
	Dir         string `yaml:"dir" doc:"folder of the parts and of manifest.json, in the run folder"`
	Format      string `yaml:"format" doc:"parquet; arrow (IPC files, which can be mapped into memory if not compressed); npy (a folder a part, with an array a column, for numpy.load)"`
	RowsPerPart int    `yaml:"rows_per_part" doc:"images a part; one that was left out is missing in its part and shifts no other"`
	Compression string `yaml:"compression" doc:"zstd or none; npy is never compressed"`
}

// maxParts keeps the manifest, which is written anew after every part, small.
const maxParts = 10_000

// FeaturesSink writes Features batches. Part k holds the rows of index k*R to
// (k+1)*R-1 that came, sorted by index; there are as many parts as the source's
// length asks for, also where a part has no rows. Parts are written under a
// temporary name, synced and renamed, and then named in manifest.json, which is
// replaced whole: what it names is there.
//
// No batch has rows of two parts (Border). A resumed run begins after the last batch
// of the parts that are there, so that batches, and with them all bytes, are those
// of a run that was never stopped. The same makes the parts of a shard those of the
// whole run; Merge joins them.
type FeaturesSink struct {
	opt FeaturesOptions
	dir string

	first    int // part of the run, or of its shard
	parts    int // after the last of it
	samples  int
	manifest Manifest
	schema   *arrow.Schema // nil before the first batch
	part     int           // is written, or comes next
	writer   *partFile     // nil if nothing has come for it
	last     int64         // index
	after    PlaceInRun    // the batch before the one that is written
	resumed  bool

	stopAfter int // steps of the run; 0 for no bound
	warn      func(string)
}

// Manifest is the content of manifest.json. Beside what the options say it holds
// what the features say of themselves, and the parts that are there.
type Manifest struct {
	Version     int    `json:"version"` // 1
	Format      string `json:"format"`
	Compression string `json:"compression"`
	RowsPerPart int    `json:"rows_per_part"`
	Images      int    `json:"images"` // in the source
	Source      string `json:"source"` // as the resolved YAML has it
	BatchSize   int    `json:"batch_size"`
	Seed        uint64 `json:"seed"`
	// Shard is there in that of a run of which others have the other parts.
	Shard    *ManifestShard `json:"shard,omitempty"`
	Rows     int            `json:"rows"` // of all parts
	Complete bool           `json:"complete"`
	// Columns and Metadata are those of the schema; empty before the first part.
	Columns  []ManifestColumn  `json:"columns"`
	Metadata map[string]string `json:"metadata"` // weights_sha256, preprocessing and more
	Parts    []ManifestPart    `json:"parts"`
}

// ManifestShard says which parts are to be in a manifest: First to End-1.
type ManifestShard struct {
	Index int `json:"index"` // from 0
	Of    int `json:"of"`
	First int `json:"first_part"`
	End   int `json:"end_part"`
}

// ManifestColumn is a column of every part.
type ManifestColumn struct {
	Name  string          `json:"name"`
	Type  string          `json:"type"`            // as Arrow writes it
	Shape json.RawMessage `json:"shape,omitempty"` // of a layer's output: channels, height, width
}

// ManifestPart is a part that is there.
type ManifestPart struct {
	Part  int            `json:"part"`
	First int            `json:"first"` // index
	End   int            `json:"end"`   // after the last index
	Rows  int            `json:"rows"`
	Files []ManifestFile `json:"files"`
	Next  PlaceInRun     `json:"next"` // where the run goes on that has the parts up to this one
}

// ManifestFile is a file of a part, named from the manifest's folder on.
type ManifestFile struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"` // hex
}

// PlaceInRun is between two batches of a run.
type PlaceInRun struct {
	Epoch   int `json:"epoch"`
	Pos     int `json:"position"`
	Skipped int `json:"skipped"`
	Failed  int `json:"failed"`
	Step    int `json:"step"` // batches before it
}

func (p PlaceInRun) cursor() pipeline.Cursor {
	return pipeline.Cursor{Epoch: p.Epoch, Pos: p.Pos, Skipped: p.Skipped, Failed: p.Failed}
}

func placeInRun(c pipeline.Cursor, step int) PlaceInRun {
	return PlaceInRun{Epoch: c.Epoch, Pos: c.Pos, Skipped: c.Skipped, Failed: c.Failed, Step: step}
}

// NewFeatures makes the features sink; mistakes in the options are errors.
func NewFeatures(o FeaturesOptions) (*FeaturesSink, error) {
	errs := []error{inRunFolder("dir", o.Dir)}
	if partFormats[o.Format] == nil {
		errs = append(errs, config.Fieldf("format", "must be %s, is %q", strings.Join(slices.Sorted(maps.Keys(partFormats)), " or "), o.Format))
	}
	if o.RowsPerPart < 1 {
		errs = append(errs, config.Fieldf("rows_per_part", "must be at least 1, is %d", o.RowsPerPart))
	}
	if o.Compression != "zstd" && o.Compression != "none" {
		errs = append(errs, config.Fieldf("compression", "must be zstd or none, is %q", o.Compression))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &FeaturesSink{opt: o, last: -1}, nil
}

// Border is the images a part.
func (s *FeaturesSink) Border() int { return s.opt.RowsPerPart }

// Outputs is the folder.
func (s *FeaturesSink) Outputs() []string { return []string{s.opt.Dir} }

// Accepts only features.
func (s *FeaturesSink) Accepts(k pipeline.Kind) bool { return k == pipeline.Features }

// Plan holds the line to an order in which parts can be written one by one.
func (s *FeaturesSink) Plan(env *pipeline.Env) (pipeline.Plan, error) {
	var errs []error
	if env.Shuffle {
		errs = append(errs, errors.New("features are written in the source's order: set batch.shuffle: false"))
	}
	if env.DropLast {
		errs = append(errs, errors.New("features are of every image: set batch.last: keep"))
	}
	parts := s.partsOf(env.Samples)
	if parts > maxParts {
		errs = append(errs, config.Fieldf("rows_per_part", "makes %d parts of %d images, and there may be %d parts: set it to %d or more",
			parts, env.Samples, maxParts, (env.Samples+maxParts-1)/maxParts))
	}
	return pipeline.Plan{
		Text:   fmt.Sprintf("%d parts of %d images in %s, as %s", parts, min(s.opt.RowsPerPart, env.Samples), s.opt.Dir, s.opt.Format),
		Memory: []pipeline.Memory{{Name: "rows to be written", Bytes: 2 * chunkBytes}},
	}, errors.Join(errs...)
}

func (s *FeaturesSink) partsOf(samples int) int {
	return (samples + s.opt.RowsPerPart - 1) / s.opt.RowsPerPart
}

// rangeOf settles which parts the run has.
func (s *FeaturesSink) rangeOf(env *pipeline.Env) {
	s.samples, s.first, s.parts = env.Samples, 0, s.partsOf(env.Samples)
	if env.Shard.Of > 1 {
		s.first, s.parts = env.First/s.opt.RowsPerPart, s.partsOf(env.End)
	}
	s.part, s.last = s.first, int64(s.first)*int64(s.opt.RowsPerPart)-1
}

func (s *FeaturesSink) path(name string) string { return filepath.Join(s.dir, name) }

// Resume finds the first part that is missing.
func (s *FeaturesSink) Resume(_ context.Context, env *pipeline.Env) (pipeline.Cursor, int, error) {
	fail := func(err error) (pipeline.Cursor, int, error) {
		return pipeline.Cursor{}, 0, fmt.Errorf("%w: %w", pipeline.ErrResume, err)
	}
	s.dir = filepath.Join(env.RunDir, s.opt.Dir)
	s.rangeOf(env)
	m, err := ReadManifest(s.dir)
	if err != nil {
		return fail(err)
	}
	fresh, err := s.newManifest(env)
	if err != nil {
		return pipeline.Cursor{}, 0, err
	}
	for _, of := range []struct {
		what     string
		was, now any
		forced   bool // may differ if the user says so
	}{
		{"version", m.Version, fresh.Version, false},
		{"format", m.Format, fresh.Format, false},
		{"compression", m.Compression, fresh.Compression, false},
		{"rows_per_part", m.RowsPerPart, fresh.RowsPerPart, false},
		{"images", m.Images, fresh.Images, false},
		{"source", strings.TrimSpace(m.Source), strings.TrimSpace(fresh.Source), true},
		{"batch_size", m.BatchSize, fresh.BatchSize, true},
		{"seed", m.Seed, fresh.Seed, true},
		{"shard", m.Shard.String(), fresh.Shard.String(), false},
	} {
		if of.was == of.now {
			continue
		}
		differs := fmt.Errorf("the parts in %s have %s %v, and this run has %v", s.dir, of.what, of.was, of.now)
		if of.forced && env.Force {
			env.Warn(differs.Error())
			continue
		}
		err = errors.Join(err, differs)
	}
	if err != nil {
		return fail(err)
	}
	have := 0
	for have < len(m.Parts) && s.there(m.Parts[have]) {
		have++
	}
	if lost := len(m.Parts) - have; lost > 0 {
		env.Warn(fmt.Sprintf("part %d in %s is missing or cut short, so it and the %d after it are computed again", s.first+have, s.dir, lost-1))
		m.Parts, m.Complete = m.Parts[:have], false
	}
	s.manifest, s.part, s.resumed = *m, s.first+have, true
	if have == 0 {
		return pipeline.Cursor{Pos: env.First}, 0, nil
	}
	next := m.Parts[have-1].Next
	return next.cursor(), next.Step, nil
}

// there looks for the files of a part. Their checksums are not computed: it would
// take as long as writing them did.
func (s *FeaturesSink) there(p ManifestPart) bool {
	for _, f := range p.Files {
		info, err := os.Stat(s.path(filepath.FromSlash(f.Name)))
		if err != nil || info.Size() != f.Bytes {
			return false
		}
	}
	return true
}

// ReadManifest reads the manifest of a folder of features.
func ReadManifest(dir string) (*Manifest, error) {
	path := filepath.Join(dir, manifestName)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	m := &Manifest{}
	if err := json.Unmarshal(data, m); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	first := 0
	if h := m.Shard; h != nil {
		if h.Index < 0 || h.Index >= h.Of || h.First < 0 || h.First > h.End {
			return nil, fmt.Errorf("%s: there is no shard %v of the parts %d to %d", path, h, h.First, h.End-1)
		}
		first = h.First
	}
	for i, p := range m.Parts {
		if p.Part != first+i || p.First != p.Part*m.RowsPerPart {
			return nil, fmt.Errorf("%s: its part %d is number %d, of images %d and on", path, first+i, p.Part, p.First)
		}
		for _, f := range p.Files {
			if !filepath.IsLocal(filepath.FromSlash(f.Name)) {
				return nil, fmt.Errorf("%s: part %d names the file %q, which lies elsewhere", path, i, f.Name)
			}
		}
	}
	if m.RowsPerPart < 1 || m.Images < 0 {
		return nil, fmt.Errorf("%s: there are no parts of %d rows of %d images", path, m.RowsPerPart, m.Images)
	}
	return m, nil
}

// String says it as the run command does, from 1.
func (s *ManifestShard) String() string {
	if s == nil {
		return "none"
	}
	return fmt.Sprintf("%d/%d", s.Index+1, s.Of)
}

const manifestName = "manifest.json"

func (s *FeaturesSink) newManifest(env *pipeline.Env) (Manifest, error) {
	m := Manifest{
		Version: 1, Format: s.opt.Format, Compression: s.opt.Compression, RowsPerPart: s.opt.RowsPerPart,
		Images: env.Samples, BatchSize: env.BatchSize, Seed: env.Seed,
		Columns: []ManifestColumn{}, Metadata: map[string]string{}, Parts: []ManifestPart{},
	}
	if env.Shard.Of > 1 {
		m.Shard = &ManifestShard{Index: env.Shard.Index, Of: env.Shard.Of, First: s.first, End: s.parts}
	}
	var run struct {
		Source yaml.Node `yaml:"source"`
	}
	if err := yaml.Unmarshal(env.Resolved, &run); err != nil {
		return m, fmt.Errorf("the resolved YAML: %w", err)
	}
	if run.Source.IsZero() {
		return m, nil // of a line that Go code made
	}
	text, err := yaml.Marshal(&run.Source)
	m.Source = string(text)
	return m, err
}

// Prepare makes the folder, without what an earlier run left in it unless this
// one goes on with it.
func (s *FeaturesSink) Prepare(_ context.Context, env *pipeline.Env) error {
	if env.Epochs > 1 {
		return fmt.Errorf("features are of one epoch, and the run has %d", env.Epochs)
	}
	s.dir = filepath.Join(env.RunDir, s.opt.Dir)
	if !s.resumed {
		s.rangeOf(env)
	}
	s.after = placeInRun(env.Start, env.StartStep)
	s.stopAfter, s.warn = env.StopAfter, env.Warn
	if err := os.MkdirAll(s.dir, 0o777); err != nil {
		return fileError(s.dir, err)
	}
	stale := []string{".part-*", "." + manifestName + "*"} // of a run that was killed
	if !s.resumed {
		var err error
		if s.manifest, err = s.newManifest(env); err != nil {
			return err
		}
		stale = append(stale, manifestName, "part-*")
	}
	for _, pattern := range stale {
		names, err := filepath.Glob(filepath.Join(escapeGlob(s.dir), pattern))
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := os.RemoveAll(name); err != nil {
				return fileError(name, err)
			}
		}
	}
	return s.writeManifest()
}

// escapeGlob makes a pattern of a name that stands for itself.
func escapeGlob(name string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(name)
}

func (s *FeaturesSink) writeManifest() error { return s.manifest.write(s.dir) }

func (m *Manifest) write(dir string) error {
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(dir, manifestName), func(w io.Writer) error {
		_, err := w.Write(append(data, '\n'))
		return err
	})
}

// Write appends the rows of b to their parts.
func (s *FeaturesSink) Write(_ context.Context, b *pipeline.Batch) error {
	if err := s.meet(b.Record.Schema()); err != nil {
		return err
	}
	index := b.Record.Column(0).(*array.Int64).Int64Values()
	// The rows of a resumed run's first batch may lie in the part before.
	from := int64(s.part) * int64(s.opt.RowsPerPart)
	for lo := 0; lo < len(index); {
		i := index[lo]
		if limit := min(s.samples, s.parts*s.opt.RowsPerPart); i <= s.last || i >= int64(limit) {
			return fmt.Errorf("image %d comes after image %d of %d: features must come in the source's order, each once", i, s.last, limit)
		}
		if i < from {
			s.last = i
			lo++
			continue
		}
		for i >= s.end() {
			if err := s.endPart(s.after); err != nil {
				return err
			}
		}
		hi := lo
		for ; hi < len(index) && index[hi] < s.end() && index[hi] > s.last; hi++ {
			s.last = index[hi]
		}
		if err := s.append(b.Record, lo, hi); err != nil {
			return err
		}
		lo = hi
	}
	if len(index) > 0 { // one without rows only ends a run
		s.after = placeInRun(b.Cursor, b.Step+1)
	}
	return nil
}

// end is the index after the last of the part.
func (s *FeaturesSink) end() int64 { return int64(s.part+1) * int64(s.opt.RowsPerPart) }

// meet learns the schema from the first batch, or holds the batch to that of the
// parts that are there.
func (s *FeaturesSink) meet(schema *arrow.Schema) error {
	if s.schema == schema {
		return nil
	}
	if s.schema != nil {
		return errors.New("the columns of the features change from batch to batch")
	}
	if schema.NumFields() == 0 || schema.Field(0).Name != "index" || schema.Field(0).Type.ID() != arrow.INT64 {
		return errors.New(`the first column of features must be "index" of int64, the image's place in the source`)
	}
	columns := make([]ManifestColumn, schema.NumFields())
	for i, f := range schema.Fields() {
		columns[i] = ManifestColumn{Name: f.Name, Type: f.Type.String()}
		if shape, ok := f.Metadata.GetValue("shape"); ok && json.Valid([]byte(shape)) {
			columns[i].Shape = json.RawMessage(shape)
		}
	}
	meta := schema.Metadata().ToMap()
	if len(s.manifest.Parts) > 0 {
		differ := differing(meta, s.manifest.Metadata)
		if !sameColumns(columns, s.manifest.Columns) {
			differ = append(differ, "columns")
		}
		if len(differ) > 0 {
			return fmt.Errorf("the parts in %s are not of this run, they differ in: %s; run without resuming, or under another name", s.dir, strings.Join(differ, ", "))
		}
	}
	s.manifest.Columns, s.manifest.Metadata = columns, meta
	s.schema = schema
	return nil
}

// append hands rows lo to hi-1 to the part.
func (s *FeaturesSink) append(rec arrow.Record, lo, hi int) error {
	if err := s.open(); err != nil {
		return err
	}
	rows := rec.NewSlice(int64(lo), int64(hi))
	defer rows.Release()
	return s.writer.write(rows)
}

func (s *FeaturesSink) open() (err error) {
	if s.writer == nil {
		s.writer, err = createPart(s.dir, s.part, s.opt, s.schema)
	}
	return err
}

// endPart gives the part its name, and names it in the manifest.
func (s *FeaturesSink) endPart(next PlaceInRun) error {
	if err := s.open(); err != nil {
		return err
	}
	rows := s.writer.rows
	files, err := s.writer.finish()
	s.writer = nil
	if err != nil {
		return err
	}
	first := s.part * s.opt.RowsPerPart
	s.manifest.Parts = append(s.manifest.Parts, ManifestPart{
		Part: s.part, First: first, End: min(first+s.opt.RowsPerPart, s.samples), Rows: rows, Files: files, Next: next,
	})
	s.part++
	s.manifest.Rows = 0
	for _, p := range s.manifest.Parts {
		s.manifest.Rows += p.Rows
	}
	return s.writeManifest()
}

// Finish writes the parts that no later row has ended, as if one came. A run that was
// ended after so many steps has parts whose images it has not read to the end: they are
// missing, and a resumed run makes them.
func (s *FeaturesSink) Finish(context.Context) error {
	if s.schema == nil {
		return errors.New("no features came: a stage that computes them, as extract, must be under batches")
	}
	end := s.parts
	if s.stopAfter > 0 && s.after.Step >= s.stopAfter && s.after.Pos < min(s.samples, s.parts*s.opt.RowsPerPart) {
		end = s.after.Pos / s.opt.RowsPerPart
	}
	for s.part < end {
		if err := s.endPart(s.after); err != nil {
			return err
		}
	}
	if left := s.parts - s.part; left > 0 {
		s.warn(fmt.Sprintf("the run was ended after %d steps, so the last %d of the %d parts in %s are missing: go on with --resume", s.after.Step, left, s.parts-s.first, s.dir))
		return nil
	}
	s.manifest.Complete = true
	return s.writeManifest()
}

// Close leaves out a part that did not come to its end.
func (s *FeaturesSink) Close() error {
	if s.writer == nil {
		return nil
	}
	err := s.writer.abandon()
	s.writer = nil
	return err
}

// partFile is a part in the making, under a temporary name.
type partFile struct {
	name      string // in the end, in dir
	dir, temp string
	rows      int
	format    partFormat
}

// A partFormat writes the rows of a part into files of its own.
type partFormat interface {
	write(rec arrow.Record) error
	// close ends the files and syncs them.
	close() error
	// abandon only closes them.
	abandon()
}

// partFormats make the files of a part at a path, which ends in ext.
var partFormats = map[string]*struct {
	ext  string
	open func(path string, schema *arrow.Schema, compression string) (partFormat, error)
}{
	"parquet": {".parquet", openParquetPart},
	"arrow":   {".arrow", openArrowPart},
	"npy":     {"", openNumpyPart},
}

func createPart(dir string, k int, o FeaturesOptions, schema *arrow.Schema) (*partFile, error) {
	f := partFormats[o.Format]
	name := partName(o.Format, k)
	p := &partFile{name: name, dir: dir, temp: filepath.Join(dir, "."+name)}
	var err error
	if p.format, err = f.open(p.temp, schema, o.Compression); err != nil {
		return nil, errors.Join(fileError(p.final(), err), os.RemoveAll(p.temp))
	}
	return p, nil
}

func (p *partFile) final() string { return filepath.Join(p.dir, p.name) }

func (p *partFile) write(rec arrow.Record) error {
	p.rows += int(rec.NumRows())
	if err := p.format.write(rec); err != nil {
		return fileError(p.final(), err)
	}
	return nil
}

// finish puts the part in its place and gives its files.
func (p *partFile) finish() ([]ManifestFile, error) {
	files, err := p.place()
	if err != nil {
		return nil, errors.Join(fileError(p.final(), err), os.RemoveAll(p.temp))
	}
	return files, syncFolder(p.dir, p.final())
}

func (p *partFile) place() ([]ManifestFile, error) {
	if err := p.format.close(); err != nil {
		return nil, err
	}
	files, err := p.list()
	if err != nil {
		return nil, err
	}
	// One that an earlier run left without naming it in the manifest.
	if err := os.RemoveAll(p.final()); err != nil {
		return nil, err
	}
	return files, os.Rename(p.temp, p.final())
}

// list reads the part's files again, for their checksums.
func (p *partFile) list() (files []ManifestFile, err error) {
	err = filepath.WalkDir(p.temp, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		n, sum, err := hashFile(path)
		if err != nil {
			return err
		}
		inside, err := filepath.Rel(p.temp, path)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(filepath.Join(p.name, inside))
		files = append(files, ManifestFile{Name: name, Bytes: n, SHA256: sum})
		return nil
	})
	return files, err
}

// hashFile gives the length and the SHA-256 of a file, in hex.
func hashFile(path string) (n int64, sum string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	h := sha256.New()
	n, err = io.Copy(h, f)
	return n, hex.EncodeToString(h.Sum(nil)), err
}

// abandon removes the part.
func (p *partFile) abandon() error {
	p.format.abandon()
	if err := os.RemoveAll(p.temp); err != nil {
		return fileError(p.temp, err)
	}
	return nil
}
