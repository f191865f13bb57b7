package pipeline

// Metric is one row of a Metrics batch, one line of metrics.jsonl and one line
// of `--log-format json`. Fractions are 0..1.
type Metric struct {
	Event           string  `json:"event"` // "step", "validation", "progress" (of work without a loss) or "done"
	Epoch           int     `json:"epoch"` // from 0
	Step            int     `json:"step"`  // steps done since the start of the run
	Loss            float64 `json:"loss"`  // mean cross-entropy, nats
	Top1            float64 `json:"top1"`
	Top5            float64 `json:"top5"`
	LR              float64 `json:"lr"`
	ImagesPerSecond float64 `json:"images_per_second"`
	InputWait       float64 `json:"input_wait"` // fraction of the time the device stage waited for a batch
	SinkWait        float64 `json:"sink_wait"`  // fraction of the time it waited for the sinks
	Seconds         float64 `json:"seconds"`    // since the run began
}
