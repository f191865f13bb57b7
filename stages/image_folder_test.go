package stages

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"sluice/pipeline"
)

// tree makes a folder of files; a path that ends in / is an empty folder.
func tree(t testing.TB, paths ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, p := range paths {
		full := filepath.Join(dir, filepath.FromSlash(p))
		if strings.HasSuffix(p, "/") {
			if err := os.MkdirAll(full, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte("bytes of "+p), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func link(t testing.TB, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
}

func folder(t testing.TB, o ImageFolderOptions) *ImageFolder {
	t.Helper()
	if o.MaxBytes == 0 {
		o.MaxBytes = 1 << 20
	}
	return must[*ImageFolder](t)(NewImageFolder(o))
}

// contents is "label name" of every sample, after its bytes have been compared with those of the file.
func contents(t testing.TB, f *ImageFolder) []string {
	t.Helper()
	var out []string
	s := pipeline.NewSample(1, "image_folder", pipeline.Key{})
	for i := range f.Len() {
		if err := f.Read(t.Context(), i, s); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(s.Bytes), "bytes of ") {
			t.Errorf("%s: %q", s.Name, s.Bytes)
		}
		out = append(out, fmt.Sprint(s.Label, " ", s.Name))
	}
	return out
}

func wantContents(t testing.TB, f *ImageFolder, want ...string) {
	t.Helper()
	if got := contents(t, f); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestImageFolder(t *testing.T) {
	dir := tree(t, "tulip/b.jpg", "tulip/a.jpg", "daisy/x/deep/1.PNG", "daisy/noext", "daisy/z.jpeg",
		"README.txt", ".git/config", "daisy/.DS_Store", "tulip/.cache/q.jpg", "tulip/looks.jpg/inside.gif")
	f := folder(t, ImageFolderOptions{Dir: dir})
	if got := f.Classes(); !slices.Equal(got, []string{"daisy", "tulip"}) {
		t.Errorf("classes %q", got)
	}
	wantContents(t, f, "0 daisy/noext", "0 daisy/z.jpeg", "0 daisy/x/deep/1.PNG", "1 tulip/a.jpg", "1 tulip/b.jpg", "1 tulip/looks.jpg/inside.gif")
}

func TestImageFolderFlat(t *testing.T) {
	f := folder(t, ImageFolderOptions{Dir: tree(t, "b.jpg", "a.png", ".hidden")})
	if f.Classes() != nil {
		t.Errorf("classes %q", f.Classes())
	}
	wantContents(t, f, "-1 a.png", "-1 b.jpg")
	if err := f.MapClasses([]string{"x"}); err != nil {
		t.Errorf("without labels there is nothing to map: %v", err)
	}
	wantContents(t, f, "-1 a.png", "-1 b.jpg")
}

func TestImageFolderOneClass(t *testing.T) {
	f := folder(t, ImageFolderOptions{Dir: tree(t, "only/a.jpg")}) // fine for features; train refuses it
	if got := f.Classes(); len(got) != 1 || got[0] != "only" {
		t.Errorf("classes %q", got)
	}
}

func TestImageFolderSymlinks(t *testing.T) {
	elsewhere := tree(t, "real/1.jpg", "real/sub/2.jpg", "single.jpg")
	dir := tree(t, "a/0.jpg", "b/0.jpg")
	link(t, filepath.Join(elsewhere, "real"), filepath.Join(dir, "a", "linked"))
	link(t, filepath.Join(elsewhere, "real"), filepath.Join(dir, "a", "twice")) // the same folder again
	link(t, filepath.Join(elsewhere, "single.jpg"), filepath.Join(dir, "b", "one.jpg"))
	link(t, dir, filepath.Join(dir, "b", "up"))                        // a circle
	link(t, filepath.Join(dir, "b"), filepath.Join(dir, "b", "self"))  // a shorter one
	link(t, filepath.Join(elsewhere, "real"), filepath.Join(dir, "c")) // a class that is a link
	f := folder(t, ImageFolderOptions{Dir: dir})
	if got := f.Classes(); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("classes %q", got)
	}
	got := contents(t, f)
	for _, want := range []string{"0 a/0.jpg", "0 a/linked/1.jpg", "0 a/linked/sub/2.jpg", "1 b/0.jpg", "1 b/one.jpg", "2 c/1.jpg"} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is missing of %q", want, got)
		}
	}
	if slices.Contains(got, "0 a/twice/1.jpg") || slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, "self") }) {
		t.Errorf("a folder is read twice: %q", got)
	}
}

// A dangling link is a bad sample, so the policy for those decides.
func TestImageFolderDanglingLink(t *testing.T) {
	dir := tree(t, "a/0.jpg")
	link(t, filepath.Join(dir, "nowhere.jpg"), filepath.Join(dir, "a", "1.jpg"))
	f := folder(t, ImageFolderOptions{Dir: dir})
	s := pipeline.NewSample(1, "image_folder", pipeline.Key{})
	if err := f.Read(t.Context(), 1, s); err == nil || !strings.Contains(err.Error(), "1.jpg") || s.Name != "a/1.jpg" {
		t.Errorf("%s: %v", s.Name, err)
	}
}

func TestImageFolderMistakes(t *testing.T) {
	for _, c := range []struct {
		what, want string
		o          ImageFolderOptions
	}{
		{"nothing given", "say where the images are", ImageFolderOptions{}},
		{"missing", "no such file", ImageFolderOptions{Dir: "no/such/folder"}},
		{"a file", "is a file", ImageFolderOptions{Dir: filepath.Join(tree(t, "f.jpg"), "f.jpg")}},
		{"empty", "is empty", ImageFolderOptions{Dir: t.TempDir()}},
		{"only hidden", "is empty", ImageFolderOptions{Dir: tree(t, ".x/a.jpg", ".y")}},
		{"an empty class", `no file in the class folder "cats"`, ImageFolderOptions{Dir: tree(t, "cats/", "dogs/1.jpg")}},
		{"a class of empty folders", `no file in the class folder "cats"`, ImageFolderOptions{Dir: tree(t, "cats/more/", "cats/.hidden", "dogs/1.jpg")}},
		{"max_bytes", "max_bytes must be at least 1", ImageFolderOptions{Dir: tree(t, "a/1"), MaxBytes: -1}},
		{"missing list", "list cannot be read", ImageFolderOptions{List: "no/such/list.csv"}},
		{"list with a missing dir", "dir cannot be read", ImageFolderOptions{List: "list.csv", Dir: "no/such/folder"}},
	} {
		if c.o.MaxBytes == 0 {
			c.o.MaxBytes = 1
		}
		if _, err := NewImageFolder(c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.what, err, c.want)
		}
	}
}

func TestImageFolderUnreadable(t *testing.T) {
	if os.Geteuid() == 0 || runtime.GOOS == "windows" {
		t.Skip("the superuser may read everything; TestImageFolderUnreadableToNobody runs instead")
	}
	dir := tree(t, "a/0.jpg", "b/0.jpg")
	if err := os.Chmod(filepath.Join(dir, "b"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(filepath.Join(dir, "b"), 0o755) })
	_, err := NewImageFolder(ImageFolderOptions{Dir: dir, MaxBytes: 1})
	if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "b")) {
		t.Errorf("got %v", err)
	}
}

func TestImageFolderBadFiles(t *testing.T) {
	dir := tree(t, "a/big", "a/ok")
	if err := os.WriteFile(filepath.Join(dir, "a", "empty.jpg"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	f := folder(t, ImageFolderOptions{Dir: dir, MaxBytes: 13})
	s := pipeline.NewSample(1, "image_folder", pipeline.Key{})
	for i, want := range []string{"", "is empty", ""} {
		s.Bytes = append(s.Bytes[:0], "old bytes"...)
		switch err := f.Read(t.Context(), i, s); {
		case want == "" && err != nil && f.names[i] == "a/ok":
			t.Error(err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || len(s.Bytes) != 0):
			t.Errorf("%s: %v, %q", s.Name, err, s.Bytes)
		}
	}
	small := folder(t, ImageFolderOptions{Dir: dir, MaxBytes: 5})
	if err := small.Read(t.Context(), 0, s); err == nil || !strings.Contains(err.Error(), "more than max_bytes: 5") {
		t.Errorf("got %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "a", "ok")); err != nil {
		t.Fatal(err)
	}
	if err := f.Read(t.Context(), 2, s); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a file that has gone: %v", err)
	}
}

func TestImageFolderReusesMemory(t *testing.T) {
	f := folder(t, ImageFolderOptions{Dir: tree(t, "a/0.jpg", "a/1.jpg")})
	s := pipeline.NewSample(1, "image_folder", pipeline.Key{})
	s.Bytes = make([]byte, 0, 4096)
	before := &s.Bytes[:1][0]
	for i := range 2 {
		if err := f.Read(t.Context(), i, s); err != nil {
			t.Fatal(err)
		}
	}
	if &s.Bytes[0] != before || string(s.Bytes) != "bytes of a/1.jpg" {
		t.Errorf("%q is not in the memory there was", s.Bytes)
	}
}

func TestImageFolderMapClasses(t *testing.T) {
	f := folder(t, ImageFolderOptions{Dir: tree(t, "cat/1", "dog/1")})
	if err := f.MapClasses([]string{"ant", "dog", "cat"}); err != nil {
		t.Fatal(err)
	}
	wantContents(t, f, "2 cat/1", "1 dog/1")
	if got := f.Classes(); !slices.Equal(got, []string{"ant", "dog", "cat"}) {
		t.Errorf("label i must be name i: %q", got)
	}
	err := folder(t, ImageFolderOptions{Dir: tree(t, "cat/1", "dgo/1")}).MapClasses([]string{"cat", "dog"})
	if err == nil || !strings.Contains(err.Error(), `class "dgo"`) || !strings.Contains(err.Error(), `did you mean "dog"?`) {
		t.Errorf("got %v", err)
	}
}

func list(t testing.TB, text string, files ...string) ImageFolderOptions {
	t.Helper()
	dir := tree(t, files...)
	path := filepath.Join(dir, "list.csv")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return ImageFolderOptions{List: path, MaxBytes: 1 << 20}
}

func TestImageFolderList(t *testing.T) {
	files := []string{"x/1.jpg", "x/2.jpg", "3.jpg", "a,b.jpg"}
	f := folder(t, list(t, "x/2.jpg,dog\nx/1.jpg,cat\n3.jpg,dog\n", files...))
	if got := f.Classes(); !slices.Equal(got, []string{"cat", "dog"}) {
		t.Errorf("classes %q", got)
	}
	wantContents(t, f, "1 x/2.jpg", "0 x/1.jpg", "1 3.jpg")

	// A header, a byte order mark, quotes, spaces, carriage returns and an empty line.
	f = folder(t, list(t, "\ufeffPath,Label\r\n\"a,b.jpg\", dog\r\n\r\n 3.jpg , \"cat\"\r\n", files...))
	wantContents(t, f, "1 a,b.jpg", "0 3.jpg")

	// Numbers are labels as they are.
	f = folder(t, list(t, "path,label\n3.jpg,3\nx/1.jpg,0\nx/2.jpg,10\n", files...))
	if got := f.Classes(); len(got) != 11 || got[10] != "10" {
		t.Errorf("classes %q", got)
	}
	wantContents(t, f, "3 3.jpg", "0 x/1.jpg", "10 x/2.jpg")

	// Paths are relative to dir if it is given, or absolute.
	o := list(t, "1.jpg,a\n", files...)
	o.Dir = filepath.Join(filepath.Dir(o.List), "x")
	wantContents(t, folder(t, o), "0 1.jpg")
	o = list(t, "", files...)
	absolute := filepath.Join(filepath.Dir(o.List), "3.jpg")
	if err := os.WriteFile(o.List, []byte(absolute+",a\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	wantContents(t, folder(t, o), "0 "+filepath.ToSlash(absolute))
}

func TestImageFolderListMapClasses(t *testing.T) {
	files := []string{"1", "2"}
	// Numbers that are no names of training stand for themselves.
	f := folder(t, list(t, "1,2\n2,0\n", files...))
	if err := f.MapClasses([]string{"a", "b", "c", "d"}); err != nil {
		t.Fatal(err)
	}
	wantContents(t, f, "2 1", "0 2")
	if err := folder(t, list(t, "1,4\n2,0\n", files...)).MapClasses([]string{"a", "b", "c", "d"}); err == nil || !strings.Contains(err.Error(), "label 4") {
		t.Errorf("got %v", err)
	}
	// Numbers that are names of training, sorted as folders are, map by name.
	f = folder(t, list(t, "1,2\n2,10\n", files...))
	if err := f.MapClasses([]string{"1", "10", "2"}); err != nil {
		t.Fatal(err)
	}
	wantContents(t, f, "2 1", "1 2")
	if err := folder(t, list(t, "1,2\n2,7\n", files...)).MapClasses([]string{"1", "10", "2"}); err == nil || !strings.Contains(err.Error(), `class "7"`) {
		t.Errorf("got %v", err)
	}
}

func TestImageFolderListMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"":                              "names no image",
		"path,label\n":                  "names no image",
		"a.jpg,x\nb.jpg\n":              "list.csv:2: a line is path,label; this one has 1 fields",
		"a.jpg,x,y\n":                   "list.csv:1: a line is path,label; this one has 3 fields",
		"a.jpg,x\n\n,y\n":               "list.csv:3: the path is empty",
		"a.jpg,x\nb.jpg,\n":             "list.csv:2: b.jpg has no label",
		"a.jpg,x\nb.jpg,\"y\n":          "list.csv:",
		"a.jpg,x\nb\"c.jpg,y\n":         "list.csv:2:",
		"a.jpg,1\nb.jpg,-1\n":           "list.csv:2: label -1 is outside",
		"a.jpg,1\nb.jpg,2000000000\n":   "list.csv:2: label 2000000000 is outside",
		"a.jpg,99999999999999999999\n":  "list.csv:1: label 99999999999999999999 is outside",
		"a.jpg,x\nb.jpg,\xc4pfel\n":     "list.csv:2: \"b.jpg\",\"\\xc4pfel\" is not text in UTF-8",
		"\xff\xfea\x00,\x00x\x00\n\x00": "list.csv:1: ",
	} {
		if _, err := NewImageFolder(list(t, text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}
