package pipeline

import "github.com/apache/arrow/go/v17/arrow"

// Images is a typed look at a record of kind Samples. The slices are the
// record's own memory: valid while the record is held, not to be written.
type Images struct {
	N, H, W int
	Pixels  []byte    // N x H x W x 3, RGB, after crop and flip
	Shift   []float32 // N x 3, RGB, in levels
	Origin  []int32   // N x 2: x, y of the crop on its canvas
	Flip    []bool    // N
	View    []int32   // N; which of a sample's views, 0 for the only one
	Label   []int32   // N; below zero: none
	Index   []int64   // N; place in the dataset
	Name    []string  // N
}

// ImagesOf reads a record of kind Samples by the names of its columns.
func ImagesOf(rec arrow.Record) (Images, error) { panic("skeleton") }

// MetricsRecord makes the record of a Metrics batch; the columns are named as
// in Metric's JSON.
func MetricsRecord(rows ...Metric) arrow.Record { panic("skeleton") }

// MetricsOf reads a record made by MetricsRecord.
func MetricsOf(rec arrow.Record) ([]Metric, error) { panic("skeleton") }

// BadSample is a row of a Quarantine batch.
type BadSample struct {
	Name   string
	Index  int64
	Epoch  int32
	Stage  string
	Reason string
	SHA256 string // of the encoded bytes, hex; empty if they could not be read
}

// QuarantineRecord makes the record of a Quarantine batch.
func QuarantineRecord(rows ...BadSample) arrow.Record { panic("skeleton") }

// QuarantineOf reads a record made by QuarantineRecord.
func QuarantineOf(rec arrow.Record) ([]BadSample, error) { panic("skeleton") }
