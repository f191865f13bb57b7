package nearest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sluice/pipeline/config"
	"sluice/sinks"
)

// Set is the rows of one column of a folder of features, mapped into memory. It
// may be searched by several goroutines at a time.
type Set struct {
	Manifest *sinks.Manifest
	Column   string
	Width    int // numbers a row
	Rows     int

	blocks []rows
	unmap  []func() error
}

// rows are rows that lie one after the other.
type rows struct {
	file    string // for messages
	vectors []float32
	index   []int64
	label   []int32
	name    func(i int) string
}

// Row is what a row says of itself.
type Row struct {
	Index int64 // the image's place in its source
	Name  string
	Label int32 // below zero: none
}

// Open maps the parts in dir, a folder that the sink features has written in the
// format npy, or arrow without compression. column is one of its columns of
// float32 lists; left out, it is the first of a layer. Close it when it is no
// longer needed.
func Open(dir, column string) (*Set, error) {
	m, err := sinks.ReadManifest(dir)
	if err != nil {
		return nil, err
	}
	s := &Set{Manifest: m}
	if err := s.open(dir, column); err != nil {
		return nil, errors.Join(fmt.Errorf("the features in %s: %w", dir, err), s.Close())
	}
	return s, nil
}

// Close unmaps the parts; the Set must not be used afterwards.
func (s *Set) Close() error {
	var errs []error
	for _, unmap := range s.unmap {
		errs = append(errs, unmap())
	}
	s.blocks, s.unmap = nil, nil
	return errors.Join(errs...)
}

func (s *Set) open(dir, column string) error {
	m := s.Manifest
	const advice = "extract them again with features: {format: npy}, or {format: arrow, compression: none}"
	switch {
	case m.Format == "parquet":
		return fmt.Errorf("they are parts of Parquet, which cannot be mapped into memory: %s", advice)
	case m.Format != "arrow" && m.Format != "npy":
		return fmt.Errorf("they are of the format %q, which is not known here", m.Format)
	case m.Format == "arrow" && m.Compression != "none":
		return fmt.Errorf("they are parts of Arrow that are compressed (%s), so they cannot be mapped into memory: %s", m.Compression, advice)
	case !m.Complete:
		return errors.New("they are not complete: go on with the run (run --resume)")
	}
	if err := s.choose(column); err != nil {
		return err
	}
	for _, p := range m.Parts {
		files := map[string][]byte{}
		for _, f := range p.Files {
			data, err := s.mapFile(filepath.Join(dir, filepath.FromSlash(f.Name)), f.Bytes)
			if err != nil {
				return err
			}
			files[f.Name] = data
		}
		before := s.Rows
		open := s.openArrow
		if m.Format == "npy" {
			open = s.openNpy
		}
		if err := open(files); err != nil {
			return err
		}
		if got := s.Rows - before; got != p.Rows {
			return fmt.Errorf("part %d has %d rows, and %d by the manifest", p.Part, got, p.Rows)
		}
	}
	return nil
}

// choose settles the column.
func (s *Set) choose(column string) error {
	var names []string
	for _, c := range s.Manifest.Columns {
		if strings.HasPrefix(c.Type, "fixed_size_list") && !strings.HasPrefix(c.Name, "top_") {
			names = append(names, c.Name)
		}
	}
	if len(names) == 0 {
		return errors.New("have no column of a layer, only logits and labels can be there: name one in the run's extract")
	}
	if column == "" {
		column = names[0]
	}
	if !slices.Contains(names, column) {
		if near, ok := config.Nearest(column, names); ok {
			return fmt.Errorf("they have no column %q of a layer; did you mean %q?", column, near)
		}
		return fmt.Errorf("they have no column %q of a layer, only %s", column, strings.Join(names, ", "))
	}
	s.Column = column
	i := slices.IndexFunc(s.Manifest.Columns, func(c sinks.ManifestColumn) bool { return c.Name == column })
	text := s.Manifest.Columns[i].Type
	if _, err := fmt.Sscanf(text, "fixed_size_list<item: float32, nullable>[%d]", &s.Width); err != nil || s.Width < 1 {
		return fmt.Errorf("they have the column %q of the type %s, and lists of float32 are searched: extract with dtype: float32", column, text)
	}
	return nil
}

func (s *Set) mapFile(path string, size int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // the mapping stays
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() != size {
		return nil, fmt.Errorf("%s has %d bytes, and %d by the manifest: resume the run that wrote it", path, info.Size(), size)
	}
	data, unmap, err := mapFile(f, size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	s.unmap = append(s.unmap, unmap)
	return data, nil
}

// openArrow adds the records of a part's one file.
func (s *Set) openArrow(files map[string][]byte) error {
	for file, data := range files {
		records, err := readArrow(data)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		var at [4]int
		for i, name := range []string{"index", "name", "label", s.Column} {
			if at[i], err = place(s.Manifest.Columns, name); err != nil {
				return err
			}
		}
		for _, r := range records {
			if err := s.addRecord(file, r, at); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
		}
	}
	return nil
}

// addRecord takes the buffers after those of validity: the sink writes no nulls.
func (s *Set) addRecord(file string, r record, at [4]int) error {
	buffer := func(column, n int) []byte {
		if i := at[column] + n; i < len(r.buffers) {
			return r.buffers[i]
		}
		return nil // too short, which is found below
	}
	index, err1 := numbers[int64](buffer(0, 1))
	offsets, err2 := numbers[int32](buffer(1, 1))
	label, err3 := numbers[int32](buffer(2, 1))
	vectors, err4 := numbers[float32](buffer(3, 2))
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	n, text := r.rows, buffer(1, 2)
	if n < 0 || len(index) < n || len(label) < n || len(offsets) < n+1 || len(vectors)/s.Width < n {
		return errors.New("a record is shorter than it says")
	}
	for i := range n {
		if from, to := offsets[i], offsets[i+1]; from < 0 || to < from || int(to) > len(text) {
			return errors.New("a name lies outside of the names")
		}
	}
	s.add(rows{file, vectors[:n*s.Width], index[:n], label[:n], func(i int) string { return string(text[offsets[i]:offsets[i+1]]) }})
	return nil
}

// openNpy adds the arrays of a part.
func (s *Set) openNpy(files map[string][]byte) error {
	find := func(column string) (string, npyArray, error) {
		for file, data := range files {
			if filepath.Base(filepath.FromSlash(file)) == column+".npy" {
				a, err := readNpy(data)
				if err != nil {
					return file, a, fmt.Errorf("%s %w", file, err)
				}
				return file, a, nil
			}
		}
		return "", npyArray{}, fmt.Errorf("a part has no array %s.npy", column)
	}
	indexFile, index, err1 := find("index")
	nameFile, name, err2 := find("name")
	labelFile, label, err3 := find("label")
	file, vectors, err4 := find(s.Column)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	if len(index.shape) != 1 {
		return fmt.Errorf("%s is of the shape %v, not of one dimension", indexFile, index.shape)
	}
	n := index.shape[0]
	for _, c := range []struct {
		file string
		err  error
	}{
		{indexFile, index.column("<i8", n)}, {nameFile, name.column("", n)}, {labelFile, label.column("<i4", n)},
		{file, vectors.column("<f4", n, s.Width)},
	} {
		if c.err != nil {
			return fmt.Errorf("%s %w", c.file, c.err)
		}
	}
	if name.descr[:2] != "<U" {
		return fmt.Errorf("%s is of type %s, and texts are <U", nameFile, name.descr)
	}
	r := rows{file: file, name: name.text}
	if r.index, err1 = numbers[int64](index.data); err1 != nil {
		return err1
	}
	if r.label, err1 = numbers[int32](label.data); err1 != nil {
		return err1
	}
	if r.vectors, err1 = numbers[float32](vectors.data); err1 != nil {
		return err1
	}
	s.add(r)
	return nil
}

func (s *Set) add(r rows) {
	if len(r.index) > 0 {
		s.blocks = append(s.blocks, r)
		s.Rows += len(r.index)
	}
}

// at is the block of a row, and its place in it.
func (s *Set) at(row int) (rows, int) {
	for _, b := range s.blocks {
		if row < len(b.index) {
			return b, row
		}
		row -= len(b.index)
	}
	panic(fmt.Sprintf("nearest: row %d of %d", row, s.Rows))
}

// Row says what row i is of: 0 to Rows-1, in the order of the parts.
func (s *Set) Row(i int) (r Row, err error) {
	b, j := s.at(i)
	err = readable(b.file, func() { r = Row{Index: b.index[j], Name: b.name(j), Label: b.label[j]} })
	return r, err
}

// Vector is a copy of the numbers of row i.
func (s *Set) Vector(i int) (v []float32, err error) {
	b, j := s.at(i)
	err = readable(b.file, func() { v = slices.Clone(b.vector(j, s.Width)) })
	return v, err
}

// vector is mapped memory: it is read within readable.
func (b *rows) vector(i, width int) []float32 { return b.vectors[i*width:][:width] }

// Find is the row of an image by its name; ok is false if there is none. With a
// name that several images have, it is the first.
func (s *Set) Find(name string) (row int, ok bool, err error) {
	for _, b := range s.blocks {
		at := -1
		err := readable(b.file, func() {
			for i := range b.index {
				if b.name(i) == name {
					at = i
					return
				}
			}
		})
		if err != nil || at >= 0 {
			return row + at, err == nil, err
		}
		row += len(b.index)
	}
	return 0, false, nil
}
