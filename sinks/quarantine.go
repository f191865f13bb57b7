package sinks

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/compress"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"

	"sluice/pipeline"
	"sluice/pipeline/config"
)

func init() {
	pipeline.RegisterSink("quarantine",
		"Writes the samples that were left out (run.on_error: quarantine) as Parquet: name, index, epoch, stage, reason, SHA-256 of the bytes. "+
			"While the run goes they are lines of JSON beside it, so that a killed run keeps them. No bad sample, no file.",
		QuarantineOptions{File: "quarantine.parquet"},
		func(o QuarantineOptions) (pipeline.Sink, error) { return NewQuarantine(o) })
}

// QuarantineOptions are the options of the quarantine sink.
type QuarantineOptions struct {
	File string `yaml:"file" doc:"Parquet, in the run folder, written when the run ends, also by an error; until then the rows are in the same name ending in .jsonl"`
}

// QuarantineSink writes Quarantine batches into the run folder. Each row is
// appended to a journal, one object a line, as it comes: it can be watched and
// outlives a killed process. Close turns the journal into the Parquet file and
// removes it, so just one of the two is there after a run; if the Parquet file
// cannot be written the journal stays. Memory does not grow with the rows.
type QuarantineSink struct {
	file, journal string // paths
	opt           QuarantineOptions
	open          *os.File // the journal, once there is a row
}

// NewQuarantine makes the quarantine sink; file is a name in the run folder that
// ends in .parquet.
func NewQuarantine(o QuarantineOptions) (*QuarantineSink, error) {
	if err := inRunFolder("file", o.File); err != nil {
		return nil, err
	}
	if filepath.Ext(o.File) != ".parquet" {
		return nil, config.Fieldf("file", "must end in .parquet, is %q", o.File)
	}
	return &QuarantineSink{opt: o}, nil
}

// Accepts only bad samples.
func (q *QuarantineSink) Accepts(k pipeline.Kind) bool { return k == pipeline.Quarantine }

// Prepare removes what an earlier run left under the same names.
func (q *QuarantineSink) Prepare(_ context.Context, env *pipeline.Env) error {
	q.file = filepath.Join(env.RunDir, q.opt.File)
	q.journal = strings.TrimSuffix(q.file, ".parquet") + ".jsonl"
	return startAfresh(q.file, q.journal)
}

// Write appends the rows of b to the journal.
func (q *QuarantineSink) Write(_ context.Context, b *pipeline.Batch) error {
	rows, err := pipeline.QuarantineOf(b.Record)
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		return nil
	}
	if q.open == nil {
		if q.open, err = os.OpenFile(q.journal, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644); err != nil {
			return fileError(q.journal, err)
		}
	}
	var lines []byte
	for _, row := range rows {
		line, err := json.Marshal(row)
		if err != nil {
			return err
		}
		lines = append(append(lines, line...), '\n')
	}
	// One call, so that a kill leaves whole lines.
	if _, err := q.open.Write(lines); err != nil {
		return fileError(q.journal, err)
	}
	return nil
}

// Close turns the journal into the Parquet file.
func (q *QuarantineSink) Close() error {
	if q.open == nil {
		return nil
	}
	journal := q.open
	q.open = nil
	err := replaceFile(q.file, func(w io.Writer) error {
		if _, err := journal.Seek(0, io.SeekStart); err != nil {
			return err
		}
		return quarantineParquet(w, journal)
	})
	if err := errors.Join(err, journal.Close()); err != nil {
		return fmt.Errorf("%w (the bad samples are in %s)", err, q.journal)
	}
	if err := os.Remove(q.journal); err != nil {
		return fileError(q.journal, err)
	}
	return nil
}

// quarantineRows are converted at a time; each lot is a row group.
const quarantineRows = 8192

// quarantineParquet copies a journal. A last line cut short, by a disk that was
// full, is left out: its Write has failed the run.
func quarantineParquet(w io.Writer, journal io.Reader) error {
	empty := pipeline.QuarantineRecord()
	defer empty.Release()
	out, err := pqarrow.NewFileWriter(empty.Schema(), w,
		parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Snappy)), pqarrow.NewArrowWriterProperties(pqarrow.WithStoreSchema()))
	if err != nil {
		return err
	}
	in := bufio.NewReader(journal)
	rows := make([]pipeline.BadSample, 0, 64)
	for more := true; more; {
		line, err := in.ReadBytes('\n')
		switch {
		case err == nil:
			var row pipeline.BadSample
			if err := json.Unmarshal(line, &row); err != nil {
				return fmt.Errorf("line %q of the journal: %w", line, err)
			}
			rows = append(rows, row)
		case errors.Is(err, io.EOF):
			more = false
		default:
			return err
		}
		if len(rows) == quarantineRows || !more && len(rows) > 0 {
			record := pipeline.QuarantineRecord(rows...)
			err := out.Write(record)
			record.Release()
			if err != nil {
				return err
			}
			rows = rows[:0]
		}
	}
	return out.Close()
}
