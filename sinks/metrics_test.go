package sinks

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet/file"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"

	"sluice/pipeline"
)

var someMetrics = []pipeline.Metric{
	{Event: "step", Step: 10, Loss: 2.25, Top1: 0.25, Top5: 0.5, LR: 0.01, ImagesPerSecond: 120, InputWait: 0.5, SinkWait: 0.125, Seconds: 1.5},
	{Event: "validation", Epoch: 1, Step: 20, Loss: 1.5, Top1: 0.5, Top5: 1},
	{Event: "done", Epoch: 1, Step: 20, Loss: 1.5, Top1: 0.5, Top5: 1},
}

func TestMetricsAreWrittenTwice(t *testing.T) {
	dir := t.TempDir()
	s := prepared(t, dir)
	for i, row := range someMetrics {
		write(t, s, pipeline.Metrics, row)
		// Every row is there at once, whole.
		lines := strings.SplitAfter(read(t, filepath.Join(dir, "metrics.jsonl")), "\n")
		if len(lines) != i+2 || lines[i+1] != "" {
			t.Fatalf("after %d rows the file is %q", i+1, lines)
		}
		var got pipeline.Metric
		if err := json.Unmarshal([]byte(lines[i]), &got); err != nil || got != row {
			t.Errorf("line %d is %s (%v), want %+v", i, lines[i], err, row)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	got := parquetRows(t, filepath.Join(dir, "metrics.parquet"))
	if len(got) != len(someMetrics) {
		t.Fatalf("%d rows of Parquet, want %d", len(got), len(someMetrics))
	}
	for i := range got {
		if got[i] != someMetrics[i] {
			t.Errorf("row %d of Parquet is %+v, want %+v", i, got[i], someMetrics[i])
		}
	}
	wantOnly(t, dir, "metrics.jsonl", "metrics.parquet")
}

func TestMetricsStartAfresh(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		s := prepared(t, dir)
		write(t, s, pipeline.Metrics, someMetrics[0])
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(read(t, filepath.Join(dir, "metrics.jsonl")), "\n"); n != 1 {
		t.Errorf("%d lines after a second run of one row", n)
	}
	if rows := parquetRows(t, filepath.Join(dir, "metrics.parquet")); len(rows) != 1 {
		t.Errorf("%d rows of Parquet after a second run of one row", len(rows))
	}
}

// A run that fails before its first metric still leaves files that can be read.
func TestMetricsOfAnEmptyRun(t *testing.T) {
	dir := t.TempDir()
	if err := prepared(t, dir).Close(); err != nil {
		t.Fatal(err)
	}
	if rows := parquetRows(t, filepath.Join(dir, "metrics.parquet")); len(rows) != 0 {
		t.Errorf("%d rows of nothing", len(rows))
	}
}

func TestMetricsWhereNothingCanBeWritten(t *testing.T) {
	s, err := NewMetrics(MetricsOptions{File: "metrics.jsonl", Parquet: "metrics.parquet"})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "gone")
	err = s.Prepare(t.Context(), &pipeline.Env{RunDir: dir})
	if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "metrics.jsonl")) {
		t.Errorf("error %v does not name the file", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("closing what never opened: %v", err)
	}
}

// A disk that is full of metrics is an error that names the file.
func TestMetricsOnAFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("no /dev/full here; TestReplaceFileKeepsTheOldOneOnError injects the same error")
	}
	s := prepared(t, t.TempDir())
	_ = s.file.Close()
	s.file = full
	rec := pipeline.MetricsRecord(someMetrics[0])
	defer rec.Release()
	err = s.Write(t.Context(), &pipeline.Batch{Kind: pipeline.Metrics, Record: rec})
	if err == nil || !strings.Contains(err.Error(), "cannot write /dev/full: no space left on device; free some space") {
		t.Errorf("error %v", err)
	}
	if rows := len(s.rows); rows != 0 {
		t.Errorf("%d rows count as written", rows)
	}
}

func TestMetricsAcceptsNothingElse(t *testing.T) {
	s := prepared(t, t.TempDir())
	defer s.Close()
	for _, k := range []pipeline.Kind{pipeline.Samples, pipeline.Weights, pipeline.Features, pipeline.Quarantine} {
		if s.Accepts(k) {
			t.Errorf("metrics accepts %s", k)
		}
	}
	if !s.Accepts(pipeline.Metrics) {
		t.Error("metrics refuses metrics")
	}
}

func prepared(t *testing.T, dir string) *MetricsSink {
	t.Helper()
	s, err := NewMetrics(MetricsOptions{File: "metrics.jsonl", Parquet: "metrics.parquet"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Prepare(t.Context(), &pipeline.Env{RunDir: dir}); err != nil {
		t.Fatal(err)
	}
	return s
}

func write(t *testing.T, s pipeline.Sink, k pipeline.Kind, rows ...pipeline.Metric) {
	t.Helper()
	rec := pipeline.MetricsRecord(rows...)
	defer rec.Release()
	if err := s.Write(t.Context(), &pipeline.Batch{Kind: k, Record: rec}); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func parquetRows(t *testing.T, path string) (rows []pipeline.Metric) {
	t.Helper()
	eachRecord(t, path, func(rec arrow.Record) {
		some, err := pipeline.MetricsOf(rec)
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, some...)
	})
	return rows
}

// eachRecord reads a Parquet file. A record is lent for the call.
func eachRecord(t *testing.T, path string, see func(arrow.Record)) {
	t.Helper()
	pf, err := file.OpenParquetFile(path, false)
	if err != nil {
		t.Fatal(err)
	}
	defer pf.Close()
	r, err := pqarrow.NewFileReader(pf, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
	if err != nil {
		t.Fatal(err)
	}
	table, err := r.ReadTable(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer table.Release()
	records := array.NewTableReader(table, 0)
	defer records.Release()
	for records.Next() {
		see(records.Record())
	}
}
