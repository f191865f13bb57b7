package pipeline

// Metric is one row of a Metrics batch, one line of metrics.jsonl and one line
// of `--log-format json`. Fractions are 0..1.
type Metric struct {
	// Event is "step", "validation", "progress" (of work without a loss) or "done"; "layer"
	// is how one layer fares at a step; "warning" and "lost" have nothing but a Text.
	Event           string  `json:"event"`
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

	// Left out of JSON where they are zero or of no meaning. GradNorm is the Euclidean
	// norm of the gradient before it was clipped: of all of it in a step (the mean over
	// its updates), of a layer's in a layer.
	GradNorm float64 `json:"grad_norm,omitempty"`
	Layer    string  `json:"layer,omitempty"`
	Update   float64 `json:"update_ratio,omitempty"` // norm of a layer's update over that of its weights
	Dead     float64 `json:"dead,omitempty"`         // fraction of a ReLU's units that were 0 for every image of the batch
	Text     string  `json:"text,omitempty"`
}
