package torch

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"testing"
)

// saved is what torch.save would write of a pickle and of storages.
func saved(t *testing.T, pickle string, storages map[string][]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	member := func(name string, data []byte) {
		w, err := z.CreateHeader(&zip.FileHeader{Name: "x/" + name, Method: zip.Store})
		if err == nil {
			_, err = w.Write(data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	member("data.pkl", []byte(pickle))
	for key, data := range storages {
		member("data/"+key, data)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Pieces of pickles, in the opcodes of protocol 2 and before.

func unicode(s string) string {
	return "X" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(s)))) + s
}

func integer(n int) string { return fmt.Sprintf("L%dL\n", n) }

func tuple(items ...string) string { return "(" + strings.Join(items, "") + "t" }

// tensor rebuilds one of a storage.
func tensor(key string, count, offset int, size, stride []int) string {
	whole := func(list []int) string {
		var items []string
		for _, n := range list {
			items = append(items, integer(n))
		}
		return tuple(items...)
	}
	of := tuple(unicode("storage"), "ctorch\nFloatStorage\n", unicode(key), unicode("cpu"), integer(count)) + "Q"
	return "ctorch._utils\n_rebuild_tensor_v2\n" + tuple(of, integer(offset), whole(size), whole(stride)) + "R"
}

// stateDict is a dict of names and what they stand for, by turns.
func stateDict(items ...string) string { return "\x80\x02}(" + strings.Join(items, "") + "u." }

// A file made to hang, to take all memory or to crash is an error that says what is wrong with it.
func TestHostileFiles(t *testing.T) {
	numbers := make([]byte, 4*12)
	for i := range 12 {
		binary.LittleEndian.PutUint32(numbers[4*i:], math.Float32bits(float32(i)))
	}
	storage := map[string][]byte{"0": numbers}
	read := func(pickle string) error {
		data := saved(t, pickle, storage)
		_, err := readState(bytes.NewReader(data), int64(len(data)))
		return err
	}
	good := stateDict(unicode("a"), tensor("0", 12, 0, []int{3, 4}, []int{4, 1}))
	if err := read(good); err != nil {
		t.Fatal(err)
	}

	turned := tensor("0", 12, 0, []int{4, 3}, []int{1, 4})
	many := []string{unicode("a0"), turned + "q\x01"}
	for i := range 10000 {
		many = append(many, unicode(fmt.Sprint("a", i+1)), "h\x01")
	}
	for _, c := range []struct{ what, pickle, want string }{
		{"an offset near 2^63", stateDict(unicode("a"), tensor("0", 12, math.MaxInt, []int{2}, []int{1})), "makes no sense"},
		{"an offset that the strides bring back", stateDict(unicode("a"), tensor("0", 12, math.MaxInt, []int{3, 2}, []int{1 << 30, 1 << 38})), "makes no sense"},
		{"a size of 2^62", stateDict(unicode("a"), tensor("0", 12, 0, []int{1 << 62}, []int{0})), "impossible shape"},
		{"a little that is repeated", stateDict(unicode("a"), tensor("0", 12, 0, []int{1 << 20, 1 << 10}, []int{0, 0})), "reaches beyond"},
		{"one turned tensor under many names", stateDict(many...), "more numbers than the file has bytes"},
		{"a number of a million digits", "\x80\x02L" + strings.Repeat("9", 1<<20) + "L\n.", "a line of more than"},
		{"a number of a megabyte", "\x80\x02\x8b\x00\x00\x10\x00" + strings.Repeat("\x01", 1<<20) + ".", "a number of 1048576 bytes"},
		{"a class with a long name", "\x80\x02c" + strings.Repeat("m", 1<<20) + "\nx\n.", "a line of more than"},
		{"a stack without end", "\x80\x02" + strings.Repeat("N", 5<<20), "more than the 4194304 that are read"},
		{"a call of something long", "\x80\x02" + unicode(strings.Repeat("f", 1<<20)) + ")R.", "REDUCE requires a Callable"},
		{"no opcode", "\x80\x02\xff.", "damaged"},
		{"a number of no bytes", "\x80\x02\x8a\x00.", "damaged"},
		{"a dict in itself", "\x80\x02}q\x00(" + unicode("a") + "h\x00u.", `its "a" is a *types.Dict`},
		{"a list as a name", "\x80\x02}(](Nu.", ""},
	} {
		err := read(c.pickle)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %.300v, want %q", c.what, err, c.want)
		} else if len(err.Error()) > 1000 {
			t.Errorf("%s: the error has %d bytes", c.what, len(err.Error()))
		}
	}

	// The same bounds hold in the format before, where pickles follow each other.
	magic := "\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
	legacy := []byte(magic + "\x80\x02M\xe9\x03." + "\x80\x02}." + "\x80\x02" + strings.Repeat("N", 5<<20))
	if _, err := readState(bytes.NewReader(legacy), int64(len(legacy))); err == nil || !strings.Contains(err.Error(), "more than the 4194304") {
		t.Errorf("the format before: %.300v", err)
	}

	// A bit that is not as it was saved.
	data := saved(t, good, storage)
	data[bytes.Index(data, numbers)+20] ^= 4
	if _, err := readState(bytes.NewReader(data), int64(len(data))); err == nil || !strings.Contains(err.Error(), "storage 0: its checksum is wrong") {
		t.Errorf("a flipped bit: %v", err)
	}
}
