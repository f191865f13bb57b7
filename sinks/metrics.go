package sinks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"sluice/pipeline"
	"sluice/pipeline/config"
)

func init() {
	pipeline.RegisterSink("metrics", "Writes every metric of the run: one JSON object a line as it comes, and the same table as Parquet at the end.",
		MetricsOptions{File: metricsFile, Parquet: "metrics.parquet"},
		func(o MetricsOptions) (pipeline.Sink, error) { return NewMetrics(o) })
}

// metricsFile is the usual name.
const metricsFile = "metrics.jsonl"

// MetricsOptions are the options of the metrics sink.
type MetricsOptions struct {
	File    string `yaml:"file" doc:"JSON lines, in the run folder; started afresh by every run that is not resumed"`
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

// Outputs are the JSON lines, and the table if there is one.
func (m *MetricsSink) Outputs() []string {
	if m.opt.Parquet == "" {
		return []string{m.opt.File}
	}
	return []string{m.opt.File, m.opt.Parquet}
}

// Accepts metrics, and checkpoints to sync the metrics before them.
func (m *MetricsSink) Accepts(k pipeline.Kind) bool {
	return k == pipeline.Metrics || k == pipeline.Checkpoint
}

// Prepare starts the file of JSON lines afresh. On resuming it keeps the lines
// before the place where the run goes on, and the rest come again.
func (m *MetricsSink) Prepare(_ context.Context, env *pipeline.Env) error {
	m.dir = env.RunDir
	path := filepath.Join(m.dir, m.opt.File)
	if env.Resume {
		var lines []byte
		var err error
		if lines, m.rows, err = metricsBefore(path, env); err != nil {
			return err
		}
		if err := replaceFile(path, func(w io.Writer) error { _, err := w.Write(lines); return err }); err != nil {
			return err
		}
	}
	flags := os.O_WRONLY | os.O_CREATE | os.O_APPEND
	if !env.Resume {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, 0o666)
	if err != nil {
		return fileError(path, err)
	}
	m.file = f
	if m.opt.Parquet == "" {
		return nil
	}
	return probe(filepath.Join(m.dir, m.opt.Parquet))
}

// metricsBefore reads the lines of a file of metrics that are before the place
// where a run is resumed; none if there is no file. A last line that a crash has
// cut short is left out.
func metricsBefore(path string, env *pipeline.Env) (lines []byte, rows []pipeline.Metric, err error) {
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fileError(path, err)
	}
	for line := range bytes.Lines(data) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break
		}
		var row pipeline.Metric
		if err := json.Unmarshal(line, &row); err != nil {
			return nil, nil, fmt.Errorf("%s: the line %q is no metric: %w", path, line, err)
		}
		// What is said of the last step of an epoch that has not ended is said again.
		if row.Event != "done" && (row.Epoch < env.Start.Epoch || row.Epoch == env.Start.Epoch && row.Step < env.StartStep) {
			lines, rows = append(lines, line...), append(rows, row)
		}
	}
	return lines, rows, nil
}

// Write appends a line of JSON for each row. Before a checkpoint it waits until
// they are on the disk, for a run that is resumed there does not write them again.
func (m *MetricsSink) Write(_ context.Context, b *pipeline.Batch) error {
	if b.Kind == pipeline.Checkpoint {
		if err := m.file.Sync(); err != nil {
			return fileError(m.file.Name(), err)
		}
		return nil
	}
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
	return writeTable(w, rec)
}
