package sinks

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// shardOf is the features of one shard.
type shardOf struct {
	dir      string
	manifest *Manifest
}

// MergeFeatures joins the features of all shards of a run in the folder to, which
// must have no manifest yet. dirs are folders of features, or run folders with
// "features" in them. The shards must be whole and together hold each part once,
// made alike by the same weights; every file is held to its checksum. Parts are
// linked where that is possible, else copied. The result is what one run would have
// written.
func MergeFeatures(dirs []string, to string) (*Manifest, error) {
	var shards []shardOf
	var errs []error
	for _, dir := range dirs {
		s, err := openShard(dir)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		shards = append(shards, s)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if err := oneRun(shards); err != nil {
		return nil, err
	}
	if fileExists(filepath.Join(to, manifestName)) {
		return nil, fmt.Errorf("%s has features in it already: name another folder, or remove it", to)
	}
	m := joined(shards)
	if err := os.MkdirAll(to, 0o777); err != nil {
		return nil, fileError(to, err)
	}
	for _, s := range shards {
		for _, p := range s.manifest.Parts {
			if err := verifyPart(s.dir, p); err != nil {
				return nil, fmt.Errorf("shard %v, part %d: %w", s.manifest.Shard, p.Part, err)
			}
			if err := takePart(s.dir, to, partName(m.Format, p.Part), p); err != nil {
				return nil, err
			}
		}
	}
	if err := syncFolder(to, to); err != nil {
		return nil, err
	}
	return m, m.write(to)
}

// openShard reads a manifest and holds it to be of a shard that has ended.
func openShard(dir string) (shardOf, error) {
	s := shardOf{dir: dir}
	if inner := filepath.Join(dir, "features"); !fileExists(filepath.Join(dir, manifestName)) && fileExists(filepath.Join(inner, manifestName)) {
		s.dir = inner
	}
	m, err := ReadManifest(s.dir)
	switch {
	case err != nil:
		return s, err
	case m.Shard == nil:
		return s, fmt.Errorf("%s holds no shard of a run: it was made without --shard", s.dir)
	case partFormats[m.Format] == nil:
		return s, fmt.Errorf("%s: its format is %q, which is not known", s.dir, m.Format)
	case !m.Complete || len(m.Parts) != m.Shard.End-m.Shard.First:
		return s, fmt.Errorf("shard %v in %s is not complete, it has %d of %d parts: go on with its run (--resume)", m.Shard, s.dir, len(m.Parts), m.Shard.End-m.Shard.First)
	}
	s.manifest = m
	return s, nil
}

// oneRun puts shards in order, and holds them to be all of one run's.
func oneRun(shards []shardOf) error {
	if len(shards) == 0 {
		return errors.New("there is nothing to merge")
	}
	slices.SortStableFunc(shards, func(a, b shardOf) int { return cmp.Compare(a.manifest.Shard.Index, b.manifest.Shard.Index) })
	first := shards[0]
	var errs []error
	for _, s := range shards[1:] {
		for _, of := range []struct {
			what     string
			one, two any
		}{
			{"number of shards", first.manifest.Shard.Of, s.manifest.Shard.Of},
			{"version", first.manifest.Version, s.manifest.Version},
			{"format", first.manifest.Format, s.manifest.Format},
			{"compression", first.manifest.Compression, s.manifest.Compression},
			{"rows_per_part", first.manifest.RowsPerPart, s.manifest.RowsPerPart},
			{"images", first.manifest.Images, s.manifest.Images},
			{"source", first.manifest.Source, s.manifest.Source},
			{"batch_size", first.manifest.BatchSize, s.manifest.BatchSize},
			{"seed", first.manifest.Seed, s.manifest.Seed},
		} {
			if of.one != of.two {
				errs = append(errs, fmt.Errorf("%s and %s are not of one run: %s is %v and %v", first.dir, s.dir, of.what, of.one, of.two))
			}
		}
		for _, key := range differing(first.manifest.Metadata, s.manifest.Metadata) {
			errs = append(errs, fmt.Errorf("%s and %s are not of one run: they differ in %s", first.dir, s.dir, key))
		}
		if !sameColumns(first.manifest.Columns, s.manifest.Columns) {
			errs = append(errs, fmt.Errorf("%s and %s are not of one run: they have other columns", first.dir, s.dir))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	of, at := first.manifest.Shard.Of, map[int]string{}
	for _, s := range shards {
		i := s.manifest.Shard.Index
		if there, twice := at[i]; twice {
			errs = append(errs, fmt.Errorf("shard %v is there twice: in %s and in %s", s.manifest.Shard, there, s.dir))
		}
		at[i] = s.dir
	}
	const most = 5 // to name
	for i, left := 0, of-len(at); i < of && left > 0 && len(errs) < most; i++ {
		if _, ok := at[i]; !ok {
			left--
			errs = append(errs, fmt.Errorf("shard %d/%d is missing", i+1, of))
			if len(errs) == most && left > 0 {
				errs = append(errs, fmt.Errorf("so are %d more", left))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	// What the shards say of their ranges must be one after the other, to the end.
	next := 0
	for _, s := range shards {
		if r := s.manifest.Shard; r.First != next {
			return fmt.Errorf("shard %v in %s begins with part %d, and part %d is the next", r, s.dir, r.First, next)
		}
		next = s.manifest.Shard.End
	}
	if m := first.manifest; next != (m.Images+m.RowsPerPart-1)/m.RowsPerPart {
		return fmt.Errorf("the shards have %d parts of %d rows, and there are %d images", next, m.RowsPerPart, m.Images)
	}
	return nil
}

func sameColumns(a, b []ManifestColumn) bool {
	return slices.EqualFunc(a, b, func(a, b ManifestColumn) bool { return a.Name == b.Name && a.Type == b.Type })
}

// differing are the keys of which two maps have not the same.
func differing(a, b map[string]string) (keys []string) {
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			keys = append(keys, k)
		}
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}

// joined is the manifest of the whole: that of a run that read the source through,
// with places that count from its beginning.
func joined(shards []shardOf) *Manifest {
	m := *shards[0].manifest
	m.Shard, m.Parts, m.Rows = nil, []ManifestPart{}, 0
	var before PlaceInRun // of the shards so far
	for _, s := range shards {
		images, rows := 0, 0
		var last PlaceInRun
		for _, p := range s.manifest.Parts {
			last = p.Next
			images, rows = images+p.End-p.First, rows+p.Rows
			p.Next.Skipped += before.Skipped
			p.Next.Failed += before.Failed
			p.Next.Step += before.Step
			m.Parts = append(m.Parts, p)
		}
		m.Rows += rows
		before.Skipped += images - rows
		before.Failed += last.Failed
		before.Step += last.Step
	}
	return &m
}

// takePart puts a part's files into another folder, whole or not at all.
func takePart(from, to, name string, p ManifestPart) error {
	temp, final := filepath.Join(to, "."+name), filepath.Join(to, name)
	if err := os.RemoveAll(temp); err != nil {
		return fileError(final, err)
	}
	for _, f := range p.Files {
		inside, err := filepath.Rel(name, filepath.FromSlash(f.Name))
		if err != nil || !filepath.IsLocal(inside) {
			return fmt.Errorf("%s: part %d has the file %q, and its name is %s", from, p.Part, f.Name, name)
		}
		target := filepath.Join(temp, inside)
		if err := os.MkdirAll(filepath.Dir(target), 0o777); err != nil {
			return fileError(final, err)
		}
		if err := linkOrCopy(filepath.Join(from, filepath.FromSlash(f.Name)), target); err != nil {
			return errors.Join(fileError(final, err), os.RemoveAll(temp))
		}
	}
	// One that an interrupted merge left.
	if err := os.RemoveAll(final); err != nil {
		return fileError(final, err)
	}
	if err := os.Rename(temp, final); err != nil {
		return fileError(final, err)
	}
	return nil
}

// linkOrCopy gives a file a second name, or where the file system does not, a copy
// of it.
func linkOrCopy(from, to string) (err error) {
	if err := os.Link(from, to); err == nil {
		return nil
	} else if errors.Is(err, fs.ErrExist) {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}
