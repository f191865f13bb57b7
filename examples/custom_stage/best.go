package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/google/renameio/v2"

	"sluice/pipeline"
)

func init() {
	pipeline.DefineSink("best", "Writes the least validation loss of the run, and its epoch, to best.txt.", best{})
}

// best is a sink: it sees the metrics, and writes a file when all went well.
type best struct {
	folder string
	row    *pipeline.Metric
}

func (*best) Accepts(k pipeline.Kind) bool { return k == pipeline.Metrics }

func (b *best) Prepare(_ context.Context, env *pipeline.Env) error { b.folder = env.RunDir; return nil }

func (b *best) Write(_ context.Context, batch *pipeline.Batch) error {
	rows, err := pipeline.MetricsOf(batch.Record)
	for _, row := range rows {
		if row.Event == "validation" && (b.row == nil || row.Loss < b.row.Loss) {
			b.row = &row
		}
	}
	return err
}

func (b *best) Finish(context.Context) error {
	if b.row == nil {
		return nil
	}
	text := fmt.Sprintf("loss %.4f after epoch %d\n", b.row.Loss, b.row.Epoch+1)
	return renameio.WriteFile(filepath.Join(b.folder, "best.txt"), []byte(text), 0o666)
}

func (*best) Close() error { return nil }
