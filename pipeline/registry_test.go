package pipeline

import (
	"context"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"

	"sluice/pipeline/config"
)

// counting is a sample stage, a batch stage, a source and a sink that are their own
// options, with a state.
type counting struct {
	Least int `yaml:"least" doc:"at least 1"`
	calls int
}

func (c *counting) Check() error {
	if c.Least < 1 {
		return config.Fieldf("least", "must be at least 1, is %d", c.Least)
	}
	return nil
}
func (c *counting) Process(context.Context, *Sample) error { c.calls++; return nil }

type countingBatches struct{ counting }

func (c *countingBatches) Process(context.Context, *Batch, Emit) error { c.calls++; return nil }

type countingSource struct{}

func (countingSource) Len() int                                 { return 1 }
func (countingSource) Read(context.Context, int, *Sample) error { return nil }

type countingSink struct{ rows int }

func (c *countingSink) Write(context.Context, *Batch) error { c.rows++; return nil }
func (*countingSink) Close() error                          { return nil }

func init() {
	DefineSampleStage("spec_counting", "", counting{Least: 1})
	DefineSampleStage("spec_counting_none", "", counting{})
	DefineBatchStage("spec_counting_batches", "", countingBatches{counting{Least: 2}})
	DefineSource("spec_counting_source", "", countingSource{})
	DefineSink("spec_counting_sink", "", countingSink{rows: 7})
}

// What is its own options has a value for each use, and says itself what is wrong.
func TestDefine(t *testing.T) {
	first, err := SampleStages.New("spec_counting")
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Value.Process(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	second, err := SampleStages.New("spec_counting")
	if err != nil {
		t.Fatal(err)
	}
	if a, b := first.Value.(*counting), second.Value.(*counting); a.calls != 1 || b.calls != 0 || a.Least != 1 {
		t.Errorf("the first has counted %d and the second %d calls, least is %d", a.calls, b.calls, a.Least)
	}
	if _, err := SampleStages.New("spec_counting_none"); err == nil || !strings.Contains(err.Error(), "least must be at least 1, is 0") {
		t.Errorf("error is %v", err)
	}
	if b, err := BatchStages.New("spec_counting_batches"); err != nil || b.Value.(*countingBatches).Least != 2 {
		t.Errorf("%v, %v", b.Value, err)
	}
	if s, err := Sources.New("spec_counting_source"); err != nil || s.Value.Len() != 1 {
		t.Errorf("%v, %v", s.Value, err)
	}
	if s, err := Sinks.New("spec_counting_sink"); err != nil || s.Value.(*countingSink).rows != 7 {
		t.Errorf("%v, %v", s.Value, err)
	}
}

// Pass keeps what was lent, and hands a reference on.
func TestPass(t *testing.T) {
	column := array.NewInt64Builder(smallRecords)
	defer column.Release()
	column.Append(1)
	values := column.NewArray()
	rec := array.NewRecord(arrow.NewSchema([]arrow.Field{{Name: "x", Type: arrow.PrimitiveTypes.Int64}}, nil), []arrow.Array{values}, 1)
	values.Release()
	before := smallRecords.CurrentAlloc()
	b := &Batch{Kind: Features, Record: rec}
	if err := b.Pass(func(b *Batch) error { b.Record.Release(); return nil }); err != nil {
		t.Fatal(err)
	}
	if smallRecords.CurrentAlloc() != before {
		t.Error("the record went with the reference that was handed on")
	}
	rec.Release()
	if smallRecords.CurrentAlloc() >= before {
		t.Error("the record was not released with the last reference")
	}
}
