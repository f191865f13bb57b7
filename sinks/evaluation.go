package sinks

import (
	"context"
	"errors"
	"io"
	"path/filepath"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/compress"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"

	"sluice/pipeline"
)

func init() {
	pipeline.RegisterSink("evaluation",
		"Writes how an evaluation came out, class by class: classes.parquet, the images and the accuracy of each, and confusion.parquet, how many of each were taken for each.",
		struct{}{},
		func(struct{}) (pipeline.Sink, error) { return &EvaluationSink{}, nil })
}

// The files of the evaluation sink, in the run folder.
const (
	classesFile   = "classes.parquet"
	confusionFile = "confusion.parquet"
)

// EvaluationSink writes an Evaluation batch as two Parquet files.
type EvaluationSink struct{ dir string }

// ClassAccuracy is a row of classes.parquet.
type ClassAccuracy struct {
	Label  int32
	Class  string
	Images int64
	Top1   float64 // fraction; 0 of no images
	Top5   float64
}

// ClassAccuracies sums a confusion matrix up, a row a class, in the order of the
// labels.
func ClassAccuracies(outcomes []pipeline.Outcome) []ClassAccuracy {
	var rows []ClassAccuracy
	for _, o := range outcomes {
		for int(o.Label) >= len(rows) {
			rows = append(rows, ClassAccuracy{Label: int32(len(rows))})
		}
		r := &rows[o.Label]
		r.Class = o.Class
		r.Images += o.Images
		r.Top5 += float64(o.Top5)
		if o.Label == o.Predicted {
			r.Top1 += float64(o.Images)
		}
	}
	for i := range rows {
		n := float64(max(rows[i].Images, 1))
		rows[i].Top1, rows[i].Top5 = rows[i].Top1/n, rows[i].Top5/n
	}
	return rows
}

// Outputs are the two files.
func (s *EvaluationSink) Outputs() []string { return []string{classesFile, confusionFile} }

// Accepts only evaluations.
func (s *EvaluationSink) Accepts(k pipeline.Kind) bool { return k == pipeline.Evaluation }

// Prepare removes the files of an earlier run.
func (s *EvaluationSink) Prepare(_ context.Context, env *pipeline.Env) error {
	s.dir = env.RunDir
	return startAfresh(filepath.Join(s.dir, classesFile), filepath.Join(s.dir, confusionFile))
}

// Write writes both files.
func (s *EvaluationSink) Write(_ context.Context, b *pipeline.Batch) error {
	outcomes, err := pipeline.OutcomesOf(b.Record)
	if err != nil {
		return err
	}
	classes := classesRecord(ClassAccuracies(outcomes))
	defer classes.Release()
	write := func(name string, rec arrow.Record) error {
		return replaceFile(filepath.Join(s.dir, name), func(w io.Writer) error { return writeTable(w, rec) })
	}
	return errors.Join(write(classesFile, classes), write(confusionFile, b.Record))
}

func classesRecord(rows []ClassAccuracy) arrow.Record {
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{
		{Name: "label", Type: arrow.PrimitiveTypes.Int32},
		{Name: "class", Type: arrow.BinaryTypes.String},
		{Name: "images", Type: arrow.PrimitiveTypes.Int64},
		{Name: "top1", Type: arrow.PrimitiveTypes.Float64},
		{Name: "top5", Type: arrow.PrimitiveTypes.Float64},
	}, nil))
	defer b.Release()
	for _, r := range rows {
		b.Field(0).(*array.Int32Builder).Append(r.Label)
		b.Field(1).(*array.StringBuilder).Append(r.Class)
		b.Field(2).(*array.Int64Builder).Append(r.Images)
		b.Field(3).(*array.Float64Builder).Append(r.Top1)
		b.Field(4).(*array.Float64Builder).Append(r.Top5)
	}
	return b.NewRecord()
}

// Close has nothing to give back.
func (s *EvaluationSink) Close() error { return nil }

// writeTable writes a record as a Parquet file.
func writeTable(w io.Writer, rec arrow.Record) error {
	props := parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Snappy))
	out, err := pqarrow.NewFileWriter(rec.Schema(), w, props, pqarrow.NewArrowWriterProperties(pqarrow.WithStoreSchema()))
	if err != nil {
		return err
	}
	return errors.Join(out.Write(rec), out.Close())
}
