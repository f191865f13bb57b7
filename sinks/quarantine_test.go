package sinks

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/apache/arrow/go/v17/arrow"

	"sluice/pipeline"
)

var someBad = []pipeline.BadSample{
	{Name: "n01/a.jpg", Index: 7, Epoch: 0, Stage: "decode", Reason: "unexpected EOF", SHA256: strings.Repeat("ab", 32)},
	{Name: "n02/ü \"b\".jpg", Index: 1 << 40, Epoch: 3, Stage: "random_crop#2", Reason: "crop 64x64\nis larger than the image", SHA256: ""},
	{Name: "n03/c.jpg", Index: 0, Epoch: 3, Stage: "image_folder", Reason: "permission denied <&>"},
}

func newQuarantine(t *testing.T, dir string) *QuarantineSink {
	t.Helper()
	q, err := NewQuarantine(QuarantineOptions{File: "quarantine.parquet"})
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Prepare(t.Context(), &pipeline.Env{RunDir: dir}); err != nil {
		t.Fatal(err)
	}
	return q
}

func writeBad(t *testing.T, q *QuarantineSink, rows ...pipeline.BadSample) error {
	t.Helper()
	rec := pipeline.QuarantineRecord(rows...)
	defer rec.Release()
	return q.Write(t.Context(), &pipeline.Batch{Kind: pipeline.Quarantine, Record: rec})
}

func readBad(t *testing.T, path string) (rows []pipeline.BadSample) {
	t.Helper()
	eachRecord(t, path, func(rec arrow.Record) {
		got, err := pipeline.QuarantineOf(rec)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range got { // the strings are the record's memory
			row.Name, row.Stage = strings.Clone(row.Name), strings.Clone(row.Stage)
			row.Reason, row.SHA256 = strings.Clone(row.Reason), strings.Clone(row.SHA256)
			rows = append(rows, row)
		}
	})
	return rows
}

// The rows are in the journal at once, so that a kill loses none, and in the
// Parquet file alone at the end.
func TestQuarantineReadsBack(t *testing.T) {
	dir := t.TempDir()
	q := newQuarantine(t, dir)
	journal := filepath.Join(dir, "quarantine.jsonl")
	for i := range someBad {
		if err := writeBad(t, q, someBad[i]); err != nil {
			t.Fatal(err)
		}
		lines := strings.SplitAfter(read(t, journal), "\n")
		var got pipeline.BadSample
		if err := json.Unmarshal([]byte(lines[i]), &got); err != nil || got != someBad[i] {
			t.Errorf("line %d is %q (%v)", i, lines[i], err)
		}
		wantOnly(t, dir, "quarantine.jsonl")
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	if got := readBad(t, q.file); !slices.Equal(got, someBad) {
		t.Errorf("read back %+v", got)
	}
	wantOnly(t, dir, "quarantine.parquet")
}

func TestQuarantineOfManyRows(t *testing.T) {
	q := newQuarantine(t, t.TempDir())
	want := make([]pipeline.BadSample, 2*quarantineRows+5)
	for i := range want {
		want[i] = pipeline.BadSample{Name: fmt.Sprint(i), Index: int64(i), Stage: "decode"}
	}
	for lot := range slices.Chunk(want, 1000) {
		if err := writeBad(t, q, lot...); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	if got := readBad(t, q.file); !slices.Equal(got, want) {
		t.Errorf("%d rows read back, not the %d written", len(got), len(want))
	}
}

func TestNoBadSampleNoFile(t *testing.T) {
	dir := t.TempDir()
	q := newQuarantine(t, dir)
	if err := writeBad(t, q); err != nil {
		t.Fatal(err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	wantOnly(t, dir)
	unprepared, err := NewQuarantine(QuarantineOptions{File: "q.parquet"})
	if err != nil {
		t.Fatal(err)
	}
	if err := unprepared.Close(); err != nil {
		t.Error(err)
	}
}

// A second run in the folder does not show the bad samples of the first, whether
// that ended or was killed.
func TestQuarantineStartsAfresh(t *testing.T) {
	dir := t.TempDir()
	for _, killed := range []bool{false, true} {
		q := newQuarantine(t, dir)
		if err := writeBad(t, q, someBad...); err != nil {
			t.Fatal(err)
		}
		if killed {
			if err := q.open.Close(); err != nil {
				t.Fatal(err)
			}
		} else if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		q = newQuarantine(t, dir)
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		wantOnly(t, dir)
	}
}

// What cannot become Parquet stays as it was taken in, and the error says where.
func TestQuarantineKeepsTheJournalOnError(t *testing.T) {
	dir := t.TempDir()
	q := newQuarantine(t, dir)
	if err := writeBad(t, q, someBad...); err != nil {
		t.Fatal(err)
	}
	// A folder with something in it cannot be replaced by a file.
	if err := os.MkdirAll(filepath.Join(q.file, "in the way"), 0o755); err != nil {
		t.Fatal(err)
	}
	err := q.Close()
	if err == nil || !strings.Contains(err.Error(), q.file) || !strings.Contains(err.Error(), q.journal) {
		t.Errorf("the error is %v, want one that names both files", err)
	}
	if n := strings.Count(read(t, q.journal), "\n"); n != len(someBad) {
		t.Errorf("the journal has %d lines", n)
	}
	wantOnly(t, dir, "quarantine.jsonl", "quarantine.parquet")
}

func TestQuarantineOnAFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Skip("there is no /dev/full here; TestQuarantineKeepsTheJournalOnError has another error")
	}
	q := newQuarantine(t, t.TempDir())
	q.open = full
	err = writeBad(t, q, someBad...)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), q.journal) {
		t.Errorf("a full disk gives %v", err)
	}
	if err := full.Close(); err != nil {
		t.Fatal(err)
	}
}

// A line that a full disk cut short fails its Write; those before it are kept.
func TestQuarantineLeavesOutACutLine(t *testing.T) {
	q := newQuarantine(t, t.TempDir())
	if err := writeBad(t, q, someBad[:2]...); err != nil {
		t.Fatal(err)
	}
	if _, err := q.open.WriteString(`{"name":"n03/c`); err != nil {
		t.Fatal(err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	if got := readBad(t, q.file); !slices.Equal(got, someBad[:2]) {
		t.Errorf("read back %+v", got)
	}
}

func TestQuarantineWhereNothingCanBeWritten(t *testing.T) {
	dir := t.TempDir()
	notAFolder := filepath.Join(dir, "file")
	if err := os.WriteFile(notAFolder, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, run := range []string{filepath.Join(dir, "missing"), notAFolder} {
		q, err := NewQuarantine(QuarantineOptions{File: "q.parquet"})
		if err != nil {
			t.Fatal(err)
		}
		err = q.Prepare(t.Context(), &pipeline.Env{RunDir: run})
		if err == nil || !strings.Contains(err.Error(), filepath.Join(run, "q.parquet")) {
			t.Errorf("%s gives %v, want an error that names the file", run, err)
		}
	}
	if os.Geteuid() == 0 {
		t.Log("root may write anywhere: a read-only folder was not tried")
		return
	}
	locked := filepath.Join(dir, "locked")
	if err := os.Mkdir(locked, 0o555); err != nil {
		t.Fatal(err)
	}
	if err := startAfresh(filepath.Join(locked, "x")); err == nil || !strings.Contains(err.Error(), "make the folder writable") {
		t.Errorf("a read-only folder gives %v", err)
	}
}

func TestQuarantineRefuses(t *testing.T) {
	for _, name := range []string{"", "/abs.parquet", "../out.parquet", "q.csv", "q.jsonl"} {
		if _, err := NewQuarantine(QuarantineOptions{File: name}); err == nil || !strings.HasPrefix(err.Error(), "file") {
			t.Errorf("%q gives %v", name, err)
		}
	}
	q, err := NewQuarantine(QuarantineOptions{File: "q.parquet"})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []pipeline.Kind{pipeline.Samples, pipeline.Metrics, pipeline.Features, pipeline.Weights} {
		if q.Accepts(k) {
			t.Errorf("accepts %s", k)
		}
	}
	if !q.Accepts(pipeline.Quarantine) {
		t.Error("does not accept what it is for")
	}
	dir := t.TempDir()
	prepared := newQuarantine(t, dir)
	rec := pipeline.MetricsRecord()
	defer rec.Release()
	if err := prepared.Write(t.Context(), &pipeline.Batch{Kind: pipeline.Quarantine, Record: rec}); err == nil {
		t.Error("a record of other columns is taken")
	}
}
