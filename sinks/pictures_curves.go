package sinks

import (
	"fmt"
	"image/color"
	"io"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"

	"sluice/pipeline"
)

// seriesPoints is the most a series keeps: more than a picture can show. It is
// even, so that pairs can be merged.
const seriesPoints = 2048

// A series is a curve of a run of any length. A point is the mean of as many
// rows as every other; when there are too many, neighbours are merged.
type series struct {
	points  []seriesPoint // whole ones
	each    int           // rows of a whole point; 0 is 1
	pending seriesPoint   // sums
	count   int           // rows in pending
	rows    int           // all rows seen
	lost    int           // of them with a loss that is no finite number
	top1    float64       // of the last row
}

type seriesPoint struct{ step, loss, top1 float64 }

func (p seriesPoint) plus(q seriesPoint) seriesPoint {
	return seriesPoint{p.step + q.step, p.loss + q.loss, p.top1 + q.top1}
}

func (p seriesPoint) over(n int) seriesPoint {
	f := float64(n)
	return seriesPoint{p.step / f, p.loss / f, p.top1 / f}
}

// add takes in a row. One that has diverged cannot be drawn and is counted.
func (s *series) add(m pipeline.Metric) {
	s.rows++
	if math.IsNaN(m.Loss+m.Top1) || math.IsInf(m.Loss+m.Top1, 0) {
		s.lost++
		return
	}
	s.top1 = m.Top1
	s.pending = s.pending.plus(seriesPoint{float64(m.Step), m.Loss, m.Top1})
	s.count++
	if s.count < s.each {
		return
	}
	s.points = append(s.points, s.pending.over(s.count))
	s.pending, s.count = seriesPoint{}, 0
	if len(s.points) == seriesPoints {
		for i := range seriesPoints / 2 {
			s.points[i] = s.points[2*i].plus(s.points[2*i+1]).over(2)
		}
		s.points = s.points[:seriesPoints/2]
		s.each = 2 * max(s.each, 1)
	}
}

// all are the points with the last, unfinished one.
func (s *series) all() []seriesPoint {
	if s.count == 0 {
		return s.points
	}
	return append(s.points[:len(s.points):len(s.points)], s.pending.over(s.count))
}

// smoothed averages every point with its neighbours, a thirtieth of all. Steps are
// averaged as well, so that the ends, which have neighbours on one side, do not
// lean: a straight line stays one.
func smoothed(points []seriesPoint) []seriesPoint {
	reach := len(points) / 60
	out := make([]seriesPoint, len(points))
	for i := range points {
		near := points[max(i-reach, 0):min(i+reach+1, len(points))]
		var sum seriesPoint
		for _, p := range near {
			sum = sum.plus(p)
		}
		out[i] = sum.over(len(near))
	}
	return out
}

// The colours of the curves: two that the colour-blind can tell apart.
var (
	trainColor      = color.RGBA{0x1F, 0x6F, 0xB4, 0xFF}
	trainFaint      = color.RGBA{0xC3, 0xD9, 0xEC, 0xFF}
	validationColor = color.RGBA{0xD9, 0x5F, 0x02, 0xFF}
	gridColor       = color.RGBA{0xDA, 0xDA, 0xDA, 0xFF}
)

// drawCurves writes a PNG of 1200x500 pixels: the loss on the left and the
// accuracy on the right, over epochs if it is known how long one is.
func drawCurves(w io.Writer, name string, stepsPerEpoch int, train, validation *series) error {
	loss := newPanel(name+": loss", "cross-entropy (nats)")
	title := name + ": top-1 accuracy"
	if validation.rows > validation.lost {
		title += fmt.Sprintf(", %.1f %% on validation", 100*validation.top1)
	}
	accuracy := newPanel(title, "")
	loss.Legend.Top, loss.Legend.YOffs = true, -4 // where a curve that goes down is not
	accuracy.Legend.YOffs = 8
	accuracy.Y.Tick.Marker = percentTicks()
	loss.Y.Min, accuracy.Y.Min = 0, 0
	xLabel, perUnit := "step", 1.0
	if stepsPerEpoch > 0 {
		xLabel, perUnit = "epoch", float64(stepsPerEpoch)
	}
	for _, p := range []*plot.Plot{loss, accuracy} {
		p.X.Label.Text, p.X.Min = xLabel, 0
	}
	lossOf := func(p seriesPoint) float64 { return p.loss }
	top1Of := func(p seriesPoint) float64 { return p.top1 }
	for _, panel := range []struct {
		plot  *plot.Plot
		value func(seriesPoint) float64
	}{{loss, lossOf}, {accuracy, top1Of}} {
		if err := addCurves(panel.plot, train, validation, perUnit, panel.value); err != nil {
			return err
		}
	}
	accuracy.Y.Max = 1 // whatever the curves reach

	const dpi = 100
	canvas := vgimg.NewWith(vgimg.UseWH(12*vg.Inch, 5*vg.Inch), vgimg.UseDPI(dpi))
	tiles := draw.Tiles{Rows: 1, Cols: 2, PadX: 24, PadTop: 10, PadBottom: 8, PadLeft: 10, PadRight: 16}
	grid := plot.Align([][]*plot.Plot{{loss, accuracy}}, tiles, draw.New(canvas))
	loss.Draw(grid[0][0])
	accuracy.Draw(grid[0][1])
	_, err := vgimg.PngCanvas{Canvas: canvas}.WriteTo(w)
	return err
}

func newPanel(title, yLabel string) *plot.Plot {
	p := plot.New()
	p.Title.Text, p.Y.Label.Text = title, yLabel
	p.Title.Padding = 8
	p.Legend.Padding, p.Legend.XOffs = 3, -8
	for _, style := range []*text.Style{
		&p.Title.TextStyle, &p.X.Label.TextStyle, &p.Y.Label.TextStyle,
		&p.X.Tick.Label, &p.Y.Tick.Label, &p.Legend.TextStyle,
	} {
		style.Font.Variant, style.Font.Size = "Sans", 11
	}
	p.Title.TextStyle.Font.Size = 13
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = gridColor, gridColor
	p.Add(grid)
	return p
}

// addCurves adds training, faint as it was and strong smoothed, and validation,
// with dots where there is room for them.
func addCurves(p *plot.Plot, train, validation *series, perUnit float64, value func(seriesPoint) float64) error {
	curve := func(points []seriesPoint, c color.Color, width vg.Length) (*plotter.Line, error) {
		xy := make(plotter.XYs, len(points))
		for i, q := range points {
			xy[i] = plotter.XY{X: q.step / perUnit, Y: value(q)}
		}
		line, err := plotter.NewLine(xy)
		if err != nil {
			return nil, err
		}
		line.Color, line.Width = c, width
		p.Add(line)
		return line, nil
	}

	var keys []plot.Thumbnailer // none for what has diverged altogether
	if points := train.all(); len(points) > 0 {
		if _, err := curve(points, trainFaint, 1); err != nil {
			return err
		}
		line, err := curve(smoothed(points), trainColor, 2)
		if err != nil {
			return err
		}
		keys = append(keys, line)
	}
	if train.rows > 0 {
		p.Legend.Add(legend("training", train), keys...)
	}

	keys = nil
	if points := validation.all(); len(points) > 0 {
		line, err := curve(points, validationColor, 2)
		if err != nil {
			return err
		}
		keys = append(keys, line)
		if len(points) <= 60 {
			dots, err := plotter.NewScatter(line.XYs)
			if err != nil {
				return err
			}
			dots.Color, dots.Shape, dots.Radius = validationColor, draw.CircleGlyph{}, 3.5
			p.Add(dots)
			keys = append(keys, dots)
		}
	}
	if validation.rows > 0 {
		p.Legend.Add(legend("validation", validation), keys...)
	}
	return nil
}

// legend names a curve and says what it lacks.
func legend(name string, s *series) string {
	if s.lost == 0 {
		return name
	}
	return fmt.Sprintf("%s (%d of %d without a finite loss)", name, s.lost, s.rows)
}

func percentTicks() plot.ConstantTicks {
	var ticks plot.ConstantTicks
	for i := range 11 {
		t := plot.Tick{Value: float64(i) / 10}
		if i%2 == 0 {
			t.Label = fmt.Sprintf("%d %%", 10*i)
		}
		ticks = append(ticks, t)
	}
	return ticks
}
