// A program for the stage exec: it darkens the pixels of each image by half and
// adds how bright they were.
package main

import (
	"log"
	"os"
	"slices"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"sluice/pipeline"
	"sluice/stages"
)

func main() {
	if err := stages.ServeExec(os.Stdin, os.Stdout, schema, answer); err != nil {
		log.Fatal(err) // on standard error, which goes to the run's log
	}
}

func schema(in *arrow.Schema) (*arrow.Schema, error) {
	meta := in.Metadata()
	return arrow.NewSchema(append(in.Fields(), arrow.Field{Name: "brightness", Type: arrow.PrimitiveTypes.Float32}), &meta), nil
}

func answer(batch arrow.Record) (arrow.Record, error) {
	images, err := pipeline.ImagesOf(batch)
	if err != nil {
		return nil, err
	}
	b := array.NewFloat32Builder(memory.DefaultAllocator)
	defer b.Release()
	for pixels := range slices.Chunk(images.Pixels, images.H*images.W*3) {
		sum := 0
		for i, v := range pixels {
			sum += int(v)
			pixels[i] = v / 2 // the memory of this program, so it may be written
		}
		b.Append(float32(sum) / float32(len(pixels)))
	}
	brightness := b.NewArray()
	defer brightness.Release()
	columns, err := schema(batch.Schema())
	if err != nil {
		return nil, err
	}
	return array.NewRecord(columns, append(slices.Clone(batch.Columns()), brightness), batch.NumRows()), nil
}
