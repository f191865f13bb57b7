package cmd

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"sluice/pipeline"
)

// progress is how far a run is and how it goes. The sink adds to it while a
// display reads it.
type progress struct {
	epochs, stepsPerEpoch int

	mu          sync.Mutex
	first, last pipeline.Metric // steps
	steps       int             // that were added
}

func (p *progress) add(m pipeline.Metric) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.steps == 0 {
		p.first = m
	}
	p.last = m
	p.steps++
}

func (p *progress) total() int { return p.epochs * p.stepsPerEpoch }

// eta is the time left, from the mean time of the steps so far (validation and
// all), and false before there are two.
func (p *progress) eta() (time.Duration, bool) {
	steps := p.last.Step - p.first.Step
	if steps <= 0 || p.total() == 0 {
		return 0, false
	}
	seconds := (p.last.Seconds - p.first.Seconds) / float64(steps)
	return time.Duration(seconds * float64(max(0, p.total()-p.last.Step)) * float64(time.Second)), true
}

// where and numbers are the parts of a status line, the most important first.
func (p *progress) where() []string {
	if p.steps == 0 {
		return []string{"working"}
	}
	s := []string{
		fmt.Sprintf("epoch %d/%d", p.last.Epoch+1, p.epochs),
		fmt.Sprintf("step %d/%d", p.last.Step, p.total()),
	}
	if eta, ok := p.eta(); ok {
		s = append(s, "ETA "+duration(eta))
	}
	return s
}

func (p *progress) numbers() []string {
	if p.steps == 0 {
		return nil
	}
	speed := []string{rate(p.last.ImagesPerSecond), bottleneck(p.last.InputWait, p.last.SinkWait)}
	if p.last.Event == "progress" { // of work that has no loss
		return speed
	}
	return append([]string{fmt.Sprintf("loss %.3f", p.last.Loss), "top-1 " + percent(p.last.Top1)}, speed...)
}

// barLine fits a bar and its numbers into width columns; what does not fit is
// left out, the bar first.
func (p *progress) barLine(width int) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := fit(width, p.where())
	const least, most = 8, 40
	room := min(width-len([]rune(text))-4, most) // brackets and two spaces
	if room < least || p.total() == 0 {
		return text
	}
	full := min(room, room*p.last.Step/p.total())
	return "[" + strings.Repeat("=", full) + strings.Repeat(" ", room-full) + "]  " + text
}

func (p *progress) numbersLine(width int) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fit(width, p.numbers())
}

func (p *progress) plainLine() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(append(p.where(), p.numbers()...), "  ")
}

func (p *progress) validationLine(m pipeline.Metric) string {
	epoch := fmt.Sprintf("epoch %d", m.Epoch+1)
	if p.epochs > m.Epoch { // an evaluation tells the epoch of its weights, and has one of its own
		epoch += fmt.Sprintf("/%d", p.epochs)
	}
	return fmt.Sprintf("%s  validation  loss %.3f  top-1 %s  top-5 %s", epoch, m.Loss, percent(m.Top1), percent(m.Top5))
}

// fit joins as many parts as go into width columns, at least the beginning of
// the first.
func fit(width int, parts []string) string {
	line := ""
	for i, part := range parts {
		if i == 0 {
			line = part
			continue
		}
		if len([]rune(line))+2+len([]rune(part)) > width {
			break
		}
		line += "  " + part
	}
	if r := []rune(line); len(r) > width {
		line = string(r[:max(0, width)])
	}
	return line
}

// bottleneck names what a run waits for. A device that waits for more than a
// tenth of the time could do that much more with faster input.
func bottleneck(input, sink float64) string {
	switch {
	case input > 0.1 && input >= sink:
		return "input-bound"
	case sink > 0.1:
		return "sink-bound"
	}
	return "compute-bound"
}

func percent(fraction float64) string { return fmt.Sprintf("%.1f %%", 100*fraction) }

func rate(r float64) string {
	if r < 10 {
		return fmt.Sprintf("%.1f images/s", r)
	}
	return fmt.Sprintf("%.0f images/s", r)
}

// duration is short: 8s, 2m05s, 3h07m.
func duration(d time.Duration) string {
	s := int(math.Round(d.Seconds()))
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	}
	return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
}

// size is in the units of files: 12 B, 4.1 kB, 240 MB.
func size(bytes int64) string {
	if bytes < 1000 {
		return fmt.Sprintf("%d B", bytes)
	}
	value, unit := float64(bytes), 0
	for value >= 999.5 && unit < 4 {
		value /= 1000
		unit++
	}
	digits := 0
	if value < 9.95 {
		digits = 1
	}
	return fmt.Sprintf("%.*f %sB", digits, value, []string{"", "k", "M", "G", "T"}[unit])
}
