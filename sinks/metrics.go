package sinks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/compress"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"

	"sluice/pipeline"
	"sluice/pipeline/config"
)

func init() {
	pipeline.RegisterSink("metrics", "Writes every metric of the run: one JSON object a line as it comes, and the same table as Parquet at the end.",
		MetricsOptions{File: "metrics.jsonl", Parquet: "metrics.parquet"},
		func(o MetricsOptions) (pipeline.Sink, error) { return NewMetrics(o) })
}

// MetricsOptions are the options of the metrics sink.
type MetricsOptions struct {
	File    string `yaml:"file" doc:"JSON lines, in the run folder; started afresh by every run"`
	Parquet string `yaml:"parquet" doc:"the same as one Parquet table, written when the run ends, also by an error; empty for none"`
}

// MetricsSink writes Metrics batches into the run folder: each row at once as a
// line of JSON, so that a run can be watched and nothing is lost by a crash, and
// all rows as Parquet on Close.
type MetricsSink struct {
	opt  MetricsOptions
	dir  string
	file *os.File
	rows []pipeline.Metric // for the Parquet file; a hundred bytes a row
}

// NewMetrics makes the metrics sink; it is an error for a file to lie outside
// the run folder.
func NewMetrics(o MetricsOptions) (*MetricsSink, error) {
	if err := inRunFolder("file", o.File); err != nil {
		return nil, err
	}
	if o.Parquet != "" {
		if err := inRunFolder("parquet", o.Parquet); err != nil {
			return nil, err
		}
		if filepath.Clean(o.Parquet) == filepath.Clean(o.File) {
			return nil, config.Fieldf("parquet", "must be another file than %q", o.File)
		}
	}
	return &MetricsSink{opt: o}, nil
}

// Accepts only metrics.
func (m *MetricsSink) Accepts(k pipeline.Kind) bool { return k == pipeline.Metrics }

// Prepare starts the file of JSON lines afresh.
func (m *MetricsSink) Prepare(_ context.Context, env *pipeline.Env) error {
	m.dir = env.RunDir
	path := filepath.Join(m.dir, m.opt.File)
	f, err := os.Create(path)
	if err != nil {
		return fileError(path, err)
	}
	m.file = f
	if m.opt.Parquet == "" {
		return nil
	}
	return probe(filepath.Join(m.dir, m.opt.Parquet))
}

// Write appends a line of JSON for each row.
func (m *MetricsSink) Write(_ context.Context, b *pipeline.Batch) error {
	rows, err := pipeline.MetricsOf(b.Record)
	if err != nil {
		return err
	}
	for _, row := range rows {
		line, err := json.Marshal(row)
		if err != nil {
			return fmt.Errorf("metric of step %d: %w", row.Step, err)
		}
		// One write a line and no buffer: a reader sees whole lines, and what
		// is written outlives the process.
		if _, err := m.file.Write(append(line, '\n')); err != nil {
			return fileError(m.file.Name(), err)
		}
		m.rows = append(m.rows, row)
	}
	return nil
}

// Close ends the file of JSON lines and writes the Parquet file with what there
// is. It does nothing for a sink that was never prepared.
func (m *MetricsSink) Close() error {
	if m.file == nil {
		return nil
	}
	var err error
	if e := errors.Join(m.file.Sync(), m.file.Close()); e != nil {
		err = fileError(m.file.Name(), e)
	}
	m.file = nil
	if m.opt.Parquet == "" {
		return err
	}
	return errors.Join(err, replaceFile(filepath.Join(m.dir, m.opt.Parquet), m.writeParquet))
}

func (m *MetricsSink) writeParquet(w io.Writer) error {
	rec := pipeline.MetricsRecord(m.rows...)
	defer rec.Release()
	props := parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Snappy))
	pw, err := pqarrow.NewFileWriter(rec.Schema(), w, props, pqarrow.NewArrowWriterProperties(pqarrow.WithStoreSchema()))
	if err != nil {
		return err
	}
	return errors.Join(pw.Write(rec), pw.Close())
}
