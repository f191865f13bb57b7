package pipeline

import "github.com/apache/arrow/go/v17/arrow"

// Evaluation is the kind of a batch that says how classes were predicted: a
// confusion matrix, rows of Outcome.
const Evaluation Kind = "evaluation"

// Outcome is a row of an Evaluation batch: how many images of a class were taken
// for another, or for what they are. The class of every label has a row of its own
// with Predicted equal to it.
type Outcome struct {
	Label          int32  `json:"label"`
	Class          string `json:"class"`
	Predicted      int32  `json:"predicted"`
	PredictedClass string `json:"predicted_class"`
	Images         int64  `json:"images"`
	Top5           int64  `json:"top5"` // of them with the class among the five likeliest
}

// OutcomesRecord makes the record of an Evaluation batch; the columns are named as
// in Outcome's JSON.
func OutcomesRecord(rows ...Outcome) arrow.Record { return tableOf(rows) }

// OutcomesOf reads a record made by OutcomesRecord.
func OutcomesOf(rec arrow.Record) ([]Outcome, error) { return rowsOf[Outcome](rec) }
