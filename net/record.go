package net

import "github.com/apache/arrow/go/v17/arrow"

// TensorsRecord makes the record of a Batch of kind weights: a row a tensor with
// the columns name, role, dtype (utf8), shape (list of int64), bytes (binary,
// little endian). meta becomes the schema's metadata.
func TensorsRecord(tensors []NamedTensor, meta map[string]string) arrow.Record { panic("skeleton") }

// TensorsOf reads a record made by TensorsRecord.
func TensorsOf(rec arrow.Record) ([]NamedTensor, map[string]string, error) { panic("skeleton") }
