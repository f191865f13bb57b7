package pipeline

import (
	"errors"
	"fmt"
)

// maxWarned is how many samples of a run are named to the user; of those beyond only the number is told.
const maxWarned = 20

// warnings tells the user of samples that are used though a stage has warned of
// them: each once a run, and how many they were at the end of an epoch.
type warnings struct {
	prefix string // of the stages' labels
	warn   func(string)
	told   map[int]bool // by index
	images int          // in this epoch
}

// add takes the next sample of the order with a notice.
func (w *warnings) add(s *Sample) {
	w.images++
	if w.told[s.Index] || len(w.told) > maxWarned {
		return
	}
	if w.told == nil {
		w.told = map[int]bool{}
	}
	w.told[s.Index] = true
	if len(w.told) > maxWarned {
		w.warn(fmt.Sprintf("%smore than %d images are used though there is something wrong with them; only their number is told from here on", w.prefix, maxWarned))
		return
	}
	for _, n := range s.notices {
		err := Error{Stage: w.prefix + n.stage, Name: s.Name, Key: s.Key, Err: errors.New(n.reason)}
		w.warn(err.Error() + "; it is used all the same")
	}
}

// endEpoch tells the number.
func (w *warnings) endEpoch(epoch int) {
	switch w.images {
	case 0:
	case 1:
		w.warn(fmt.Sprintf("%sepoch %d: 1 image was used though there is something wrong with it", w.prefix, epoch+1))
	default:
		w.warn(fmt.Sprintf("%sepoch %d: %d images were used though there is something wrong with them", w.prefix, epoch+1, w.images))
	}
	w.images = 0
}
