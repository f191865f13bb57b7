package sinks

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/compress"
	"github.com/apache/arrow/go/v17/parquet/file"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"

	"sluice/pipeline"
	"sluice/pipeline/config"
)

func init() {
	pipeline.RegisterSink("quarantine",
		"Writes the samples that were left out (run.on_error: quarantine), and those that a stage has warned of but which are used all the same (decode's damaged: keep), "+
			"as Parquet: name, index, epoch, stage, reason, SHA-256 of the bytes. "+
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
	// told are the bad samples of the validation that a resumed run has rows of
	// already, for it tells of them once more.
	told map[pipeline.BadSample]bool
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

// Outputs is the file.
func (q *QuarantineSink) Outputs() []string { return []string{q.opt.File} }

// Accepts bad samples, and checkpoints to sync the journal before them.
func (q *QuarantineSink) Accepts(k pipeline.Kind) bool {
	return k == pipeline.Quarantine || k == pipeline.Checkpoint
}

// Prepare removes what an earlier run left under the same names. On resuming it
// keeps the rows before the place where the run goes on, and the rest come again.
func (q *QuarantineSink) Prepare(_ context.Context, env *pipeline.Env) error {
	q.file = filepath.Join(env.RunDir, q.opt.File)
	q.journal = strings.TrimSuffix(q.file, ".parquet") + ".jsonl"
	if !env.Resume {
		return startAfresh(q.file, q.journal)
	}
	return q.goOn(env)
}

// goOn makes the journal of a run that is resumed from the journal that a killed
// run left, or from the Parquet file of one that had time to write it.
func (q *QuarantineSink) goOn(env *pipeline.Env) error {
	rows, err := q.before()
	if err != nil {
		return err
	}
	q.told = map[pipeline.BadSample]bool{}
	var lines []byte
	for _, row := range rows {
		validation := strings.HasPrefix(row.Stage, "validate: ")
		at := pipeline.Cursor{Epoch: int(row.Epoch), Pos: int(row.Pos)}
		if !validation && (at.Epoch > env.Start.Epoch || at.Epoch == env.Start.Epoch && at.Pos >= env.Start.Pos) {
			continue
		}
		if validation {
			q.told[row] = true
		}
		line, err := json.Marshal(row)
		if err != nil {
			return err
		}
		lines = append(append(lines, line...), '\n')
	}
	if len(lines) == 0 {
		return startAfresh(q.file, q.journal)
	}
	if err := replaceFile(q.journal, func(w io.Writer) error { _, err := w.Write(lines); return err }); err != nil {
		return err
	}
	if q.open, err = os.OpenFile(q.journal, os.O_RDWR|os.O_APPEND, 0); err != nil {
		return fileError(q.journal, err)
	}
	return startAfresh(q.file)
}

// before reads the rows of the run so far: those of the journal, which is removed
// only when the Parquet file is whole.
func (q *QuarantineSink) before() ([]pipeline.BadSample, error) {
	data, err := os.ReadFile(q.journal)
	if errors.Is(err, fs.ErrNotExist) {
		return q.parquetBefore()
	}
	if err != nil {
		return nil, fileError(q.journal, err)
	}
	var rows []pipeline.BadSample
	for line := range bytes.Lines(data) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // cut short by a crash; it comes again
		}
		var row pipeline.BadSample
		if err := json.Unmarshal(line, &row); err != nil {
			return nil, fmt.Errorf("%s: the line %q is no bad sample: %w", q.journal, line, err)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func (q *QuarantineSink) parquetBefore() (rows []pipeline.BadSample, err error) {
	f, err := file.OpenParquetFile(q.file, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", q.file, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	r, err := pqarrow.NewFileReader(f, pqarrow.ArrowReadProperties{BatchSize: quarantineRows}, memory.DefaultAllocator)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", q.file, err)
	}
	records, err := r.GetRecordReader(context.Background(), nil, nil)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", q.file, err)
	}
	defer records.Release()
	for records.Next() {
		more, err := pipeline.QuarantineOf(records.Record())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", q.file, err)
		}
		rows = append(rows, more...)
	}
	if err := records.Err(); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading %s: %w", q.file, err)
	}
	return rows, nil
}

// Write appends the rows of b to the journal. Before a checkpoint it waits until
// they are on the disk, for a run that is resumed there does not write them again.
func (q *QuarantineSink) Write(_ context.Context, b *pipeline.Batch) error {
	if b.Kind == pipeline.Checkpoint {
		if q.open == nil {
			return nil
		}
		if err := q.open.Sync(); err != nil {
			return fileError(q.journal, err)
		}
		return nil
	}
	rows, err := pipeline.QuarantineOf(b.Record)
	if err != nil {
		return err
	}
	rows = slices.DeleteFunc(rows, func(row pipeline.BadSample) bool { return q.told[row] })
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
