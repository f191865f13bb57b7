package stages

import (
	"bytes"
	"cmp"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"sluice/pipeline"
	"sluice/pipeline/config"
)

func init() {
	pipeline.RegisterSource("image_folder",
		"The files of a folder. Each sub-folder is a class, named and sorted by its name, with all files in it and below it; "+
			"a folder without sub-folders gives images without labels. Or the files of a list of path,label. "+
			"The content decides what is an image: every file counts, whatever its extension, but those whose name begins with a dot.",
		ImageFolderOptions{MaxBytes: 128 << 20, Timeout: time.Minute},
		func(o ImageFolderOptions) (pipeline.Source, error) { return NewImageFolder(o) })
}

// ImageFolderOptions are the options of the image_folder source.
type ImageFolderOptions struct {
	Dir      string        `yaml:"dir" doc:"the folder; with list, what its paths are relative to (default: the list's own folder)"`
	List     string        `yaml:"list" doc:"a CSV file of path,label instead of sub-folders, with or without that line as a header; a label is the name of a class, or its number where all are numbers"`
	MaxBytes int64         `yaml:"max_bytes" doc:"the most bytes a file may have; a larger one is an error of that sample"`
	Timeout  time.Duration `yaml:"timeout" doc:"the longest that reading a file may take, as on a network drive that hangs; a file that takes longer is an error of that sample; 0s: no limit"`
}

// ImageFolder is the source of that name. Samples are in the order of classes, and in each
// by path; those of a list are in the list's order. Symbolic links are followed, each real folder once a class;
// files beside class folders, which have no class, are left out, and so is what is no regular file.
type ImageFolder struct {
	opt     ImageFolderOptions
	dir     string
	names   []string // paths relative to dir
	labels  []int32
	classes []string // nil without labels
	numbers bool     // classes are the numbers of a list
	renamed []int32  // own label to that of the training source; nil: the same

	reads chan struct{} // holds one for each read under way that may be left behind
	read  func(path string, buf []byte, limit int64) ([]byte, error)
}

// maxReads is the most reads that are under way at a time, those included that were given up but hang on. It is what
// bounds their goroutines.
const maxReads = 64

// maxLabel bounds the numbers of a list, of which each up to the greatest is a class.
const maxLabel = 1<<20 - 1

// NewImageFolder lists the folder, or reads the list. It opens no image.
func NewImageFolder(o ImageFolderOptions) (*ImageFolder, error) {
	if o.MaxBytes < 1 {
		return nil, config.Fieldf("max_bytes", "must be at least 1, is %d", o.MaxBytes)
	}
	if o.Timeout < 0 {
		return nil, config.Fieldf("timeout", "must be 0s or more, is %v", o.Timeout)
	}
	f := &ImageFolder{opt: o, dir: o.Dir, reads: make(chan struct{}, maxReads), read: readBounded}
	switch {
	case o.List != "":
		if f.dir == "" {
			f.dir = filepath.Dir(o.List)
		} else if err := isFolder(f.dir); err != nil {
			return nil, err
		}
		return f, f.readList()
	case o.Dir == "":
		return nil, errors.New("say where the images are: {dir: FOLDER}, or {list: FILE.csv}")
	}
	return f, f.readDir()
}

// Len is the number of files.
func (f *ImageFolder) Len() int { return len(f.names) }

// Classes names the labels; nil if the images have none.
func (f *ImageFolder) Classes() []string { return slices.Clone(f.classes) }

// MapClasses renumbers the labels to those of the training source, whose label i is
// names[i]. It is called before the first Read. The numbers of a list that are no names there stand for themselves.
func (f *ImageFolder) MapClasses(names []string) error {
	if f.classes == nil {
		return nil
	}
	place := make(map[string]int32, len(names))
	for i, n := range names {
		place[n] = int32(i)
	}
	used := make([]bool, len(f.classes))
	for _, l := range f.labels {
		used[l] = true
	}
	renamed := make([]int32, len(f.classes))
	missing := -1
	for i, c := range f.classes {
		at, ok := place[c]
		if !ok && used[i] && missing < 0 {
			missing = i
		}
		renamed[i] = at
	}
	if missing >= 0 && f.numbers && !slices.ContainsFunc(f.classes, func(c string) bool { _, ok := place[c]; return ok }) {
		if len(f.classes) > len(names) {
			return fmt.Errorf("%s: label %d is beyond the %d classes of training", f.opt.List, len(f.classes)-1, len(names))
		}
		f.classes, f.renamed = slices.Clone(names), nil
		return nil
	}
	if missing >= 0 {
		hint := ""
		if near, ok := config.Nearest(f.classes[missing], names); ok {
			hint = fmt.Sprintf("; did you mean %q?", near)
		}
		return fmt.Errorf("%s: class %q is none of the %d that the training source has%s", cmp.Or(f.opt.List, f.dir), f.classes[missing], len(names), hint)
	}
	f.classes, f.renamed = slices.Clone(names), renamed
	return nil
}

// Fingerprint writes the name, label, size and time of change of every file. It
// implements pipeline.Fingerprinter.
func (f *ImageFolder) Fingerprint(w io.Writer) error {
	for i, name := range f.names {
		path := f.path(i)
		var size, changed int64 = -1, 0 // of a file that is gone, which fails when it is read
		if info, err := os.Stat(path); err == nil {
			size, changed = info.Size(), info.ModTime().UnixNano()
		}
		if _, err := fmt.Fprintf(w, "%q %d %d %d\n", filepath.ToSlash(name), f.labels[i], size, changed); err != nil {
			return err
		}
	}
	return nil
}

// path is where file i is.
func (f *ImageFolder) path(i int) string {
	if filepath.IsAbs(f.names[i]) {
		return f.names[i]
	}
	return filepath.Join(f.dir, f.names[i])
}

// Read gives the bytes of file i, its path relative to the folder as its name, and its label (-1: none).
func (f *ImageFolder) Read(ctx context.Context, i int, s *pipeline.Sample) error {
	s.Name, s.Label = filepath.ToSlash(f.names[i]), f.labels[i]
	if f.renamed != nil && s.Label >= 0 {
		s.Label = f.renamed[s.Label]
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	data, err := f.readInTime(ctx, f.path(i), s.Bytes[:0])
	if err != nil {
		data = data[:0] // half a file is not the sample's bytes
	}
	s.Bytes = data
	return err
}

// readInTime reads a file into buf, or gives it up, and buf with it, when the time is over or ctx ends. There is no
// other way to leave a system call that hangs than to leave its goroutine behind.
func (f *ImageFolder) readInTime(ctx context.Context, path string, buf []byte) ([]byte, error) {
	if f.opt.Timeout == 0 {
		return f.read(path, buf, f.opt.MaxBytes)
	}
	timer := time.NewTimer(f.opt.Timeout)
	defer timer.Stop()
	select {
	case f.reads <- struct{}{}:
	case <-ctx.Done():
		return buf, context.Cause(ctx)
	case <-timer.C:
		return buf, fmt.Errorf("%s was not read within timeout: %v, as %d earlier reads still hang", path, f.opt.Timeout, maxReads)
	}
	type result struct {
		data []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		data, err := f.read(path, buf, f.opt.MaxBytes)
		done <- result{data, err}
		<-f.reads
	}()
	select {
	case r := <-done:
		return r.data, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-timer.C:
		return nil, fmt.Errorf("%s was not read within timeout: %v; does its drive hang, or is it slow?", path, f.opt.Timeout)
	}
}

// readBounded appends a regular file of at most limit bytes to buf.
func readBounded(path string, buf []byte, limit int64) ([]byte, error) {
	// Asked before opening: opening a pipe would wait for its writer.
	info, err := os.Stat(path)
	if err != nil {
		return buf, err
	}
	if !info.Mode().IsRegular() {
		return buf, fmt.Errorf("%s is no regular file (%v)", path, info.Mode().Type())
	}
	if info.Size() > limit {
		return buf, fmt.Errorf("%s has %d bytes, more than max_bytes: %d", path, info.Size(), limit)
	}
	file, err := os.Open(path)
	if err != nil {
		return buf, err
	}
	defer file.Close()
	// One byte more than the file has, so that its end is seen without growing.
	buf = slices.Grow(buf, int(info.Size())+1)
	for {
		n, err := file.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case int64(len(buf)) > limit:
			return buf, fmt.Errorf("%s has grown beyond max_bytes: %d", path, limit)
		case err == io.EOF && len(buf) == 0:
			return buf, fmt.Errorf("%s is empty (0 bytes)", path)
		case err == io.EOF:
			return buf, nil
		case err != nil:
			return buf, err
		}
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, 512)
		}
	}
}

func isFolder(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return config.Fieldf("dir", "cannot be read: %w; it is a folder of images, with a sub-folder for each class, and its path counts from where the command runs", err)
	}
	if !info.IsDir() {
		return config.Fieldf("dir", "%s is a file; name the folder that holds the images", dir)
	}
	return nil
}

func (f *ImageFolder) readDir() error {
	if err := isFolder(f.dir); err != nil {
		return err
	}
	files, folders, err := entries(f.dir)
	if err != nil {
		return config.Fieldf("dir", "cannot be read: %w", err)
	}
	if len(folders) == 0 {
		if len(files) == 0 {
			return config.Fieldf("dir", "%s is empty; it needs images, or a sub-folder of images for each class", f.dir)
		}
		f.names, f.labels = files, make([]int32, len(files))
		for i := range f.labels {
			f.labels[i] = -1
		}
		return nil
	}
	for label, class := range folders {
		if !utf8.ValidString(class) {
			return config.Fieldf("dir", "%s has the class folder %q, whose name is not in UTF-8, as weights and tables have it: rename it", f.dir, class)
		}
		before := len(f.names)
		if err := f.addClass(class, int32(label), map[string]bool{}); err != nil {
			return config.Fieldf("dir", "cannot be read: %w", err)
		}
		if len(f.names) == before {
			return config.Fieldf("dir", "%s has no file in the class folder %q; remove the folder or fill it", f.dir, class)
		}
	}
	f.classes = folders
	return nil
}

// addClass adds the files below folder (relative to dir). seen holds the real paths of the folders of
// the class so far: a link back to one of them, perhaps in a circle, brings nothing new.
func (f *ImageFolder) addClass(folder string, label int32, seen map[string]bool) error {
	path := filepath.Join(f.dir, folder)
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	if target, err = filepath.Abs(target); err != nil {
		return err
	}
	if seen[target] {
		return nil
	}
	seen[target] = true
	files, folders, err := entries(path)
	if err != nil {
		return err
	}
	for _, name := range files {
		f.names, f.labels = append(f.names, filepath.Join(folder, name)), append(f.labels, label)
	}
	for _, name := range folders {
		if err := f.addClass(filepath.Join(folder, name), label, seen); err != nil {
			return err
		}
	}
	return nil
}

// entries lists the regular files and the folders of a folder, sorted, following symbolic links. A link that
// leads nowhere counts as a file: reading it says so, and the policy for bad samples decides.
func entries(dir string) (files, folders []string, err error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range list {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		mode := e.Type()
		if mode&fs.ModeSymlink != 0 {
			mode = 0
			if info, err := os.Stat(filepath.Join(dir, e.Name())); err == nil {
				mode = info.Mode().Type()
			}
		}
		switch {
		case mode.IsDir():
			folders = append(folders, e.Name())
		case mode.IsRegular():
			files = append(files, e.Name())
		}
	}
	return files, folders, nil
}

// readList reads path,label lines. Errors name the file and the line.
func (f *ImageFolder) readList() error {
	data, err := os.ReadFile(f.opt.List)
	if err != nil {
		return config.Fieldf("list", "cannot be read: %w", err)
	}
	bad := func(line int, format string, args ...any) error {
		return config.Fieldf("list", "%s:%d: %w", f.opt.List, line, fmt.Errorf(format, args...))
	}
	r := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(data, []byte("\ufeff"))))
	r.FieldsPerRecord, r.TrimLeadingSpace, r.ReuseRecord = -1, true, true
	var texts []string // label of each file as written
	var lines []int
	for first := true; ; first = false {
		row, err := r.Read()
		if err == io.EOF {
			break
		}
		var parse *csv.ParseError
		if errors.As(err, &parse) {
			return bad(parse.Line, "%w", parse.Err)
		}
		if err != nil {
			return config.Fieldf("list", "cannot be read: %w", err)
		}
		line, _ := r.FieldPos(0)
		if len(row) != 2 {
			return bad(line, "a line is path,label; this one has %d fields", len(row))
		}
		path, label := strings.TrimSpace(row[0]), strings.TrimSpace(row[1])
		if first && strings.EqualFold(path, "path") && strings.EqualFold(label, "label") {
			continue
		}
		if path == "" {
			return bad(line, "the path is empty")
		}
		if label == "" {
			return bad(line, "%s has no label", path)
		}
		// In UTF-16, as some spreadsheets write it, every other byte is 0.
		if !utf8.ValidString(label) || strings.ContainsRune(path+label, 0) {
			return bad(line, "%q,%q is not text in UTF-8, as weights and tables have their names: save the list in UTF-8", path, label)
		}
		f.names = append(f.names, strings.Clone(filepath.FromSlash(path)))
		texts, lines = append(texts, strings.Clone(label)), append(lines, line)
	}
	if len(f.names) == 0 {
		return config.Fieldf("list", "%s names no image; it needs lines of path,label", f.opt.List)
	}

	f.labels = make([]int32, len(texts))
	if f.numbers = !slices.ContainsFunc(texts, func(t string) bool { return !isNumber(t) }); f.numbers {
		greatest := 0
		for i, t := range texts {
			n, err := strconv.Atoi(t)
			if err != nil || n < 0 || n > maxLabel {
				return bad(lines[i], "label %s is outside 0..%d", t, maxLabel)
			}
			f.labels[i], greatest = int32(n), max(greatest, n)
		}
		for i := range greatest + 1 {
			f.classes = append(f.classes, strconv.Itoa(i))
		}
		return nil
	}
	f.classes = slices.Compact(slices.Sorted(slices.Values(texts)))
	for i, t := range texts {
		at, _ := slices.BinarySearch(f.classes, t)
		f.labels[i] = int32(at)
	}
	return nil
}

// isNumber reports whether a label is written as a whole number.
func isNumber(s string) bool {
	digits := strings.TrimPrefix(s, "-")
	return digits != "" && strings.Trim(digits, "0123456789") == ""
}
