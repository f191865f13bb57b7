package sinks

import (
	"errors"
	"fmt"
	"image"
	"image/color"
	"io"

	"github.com/disintegration/imaging"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"

	"sluice/pipeline"
)

const (
	namedClasses    = 40  // as many have room for their names beside the matrix
	numberedClasses = 20  // and for numbers in it
	matrixSide      = 800 // pixels at least
)

// DrawConfusion writes a PNG of a confusion matrix: a row a class, a column what
// its images were taken for, the darker the greater a part of the class. Of many
// classes it leaves the names out.
func DrawConfusion(w io.Writer, title string, outcomes []pipeline.Outcome) error {
	classes := ClassAccuracies(outcomes)
	n := len(classes)
	if n == 0 {
		return errors.New("a confusion matrix of no classes")
	}
	cells := image.NewRGBA(image.Rect(0, 0, n, n))
	for i := range cells.Pix {
		cells.Pix[i] = 0xFF
	}
	var numbers plotter.XYLabels
	var styles []color.Color
	total, right := int64(0), int64(0)
	for _, o := range outcomes {
		total += o.Images
		if o.Label == o.Predicted {
			right += o.Images
		}
		if o.Images == 0 || int(o.Predicted) >= n {
			continue
		}
		part := float64(o.Images) / float64(classes[o.Label].Images)
		cells.Set(int(o.Predicted), int(o.Label), shadeOf(part))
		// The first class is at the top, where a plot has its greatest y.
		numbers.XYs = append(numbers.XYs, plotter.XY{X: float64(o.Predicted) + 0.5, Y: float64(n-int(o.Label)) - 0.5})
		numbers.Labels = append(numbers.Labels, fmt.Sprint(o.Images))
		ink := color.Color(color.Black)
		if part > 0.5 {
			ink = color.White
		}
		styles = append(styles, ink)
	}
	zoom := max(1, (matrixSide+n-1)/n)
	p := newPanel(fmt.Sprintf("%s: %.1f %% of %d images right", title, 100*float64(right)/float64(max(total, 1)), total), "class")
	p.X.Label.Text = "taken for"
	p.Add(plotter.NewImage(imaging.Resize(cells, n*zoom, n*zoom, imaging.NearestNeighbor), 0, 0, float64(n), float64(n)))
	if n <= numberedClasses && len(numbers.XYs) > 0 {
		labels, err := plotter.NewLabels(numbers)
		if err != nil {
			return err
		}
		for i := range labels.TextStyle {
			s := &labels.TextStyle[i]
			s.Font.Variant, s.Font.Size, s.XAlign, s.YAlign, s.Color = "Sans", 11, draw.XCenter, draw.YCenter, styles[i]
		}
		p.Add(labels)
	}
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = 0, float64(n), 0, float64(n)
	p.X.Tick.Marker, p.Y.Tick.Marker = plot.ConstantTicks(nil), plot.ConstantTicks(nil)
	if n <= namedClasses {
		var across, down plot.ConstantTicks
		for i, c := range classes {
			across = append(across, plot.Tick{Value: float64(i) + 0.5, Label: shortened(c.Class, 20)})
			down = append(down, plot.Tick{Value: float64(n-i) - 0.5, Label: shortened(c.Class, 20)})
		}
		p.X.Tick.Marker, p.Y.Tick.Marker = across, down
		p.X.Tick.Label.Rotation = 1.1
		p.X.Tick.Label.XAlign, p.X.Tick.Label.YAlign = draw.XRight, draw.YCenter
	}
	canvas := vgimg.NewWith(vgimg.UseWH(10*vg.Inch, 10*vg.Inch), vgimg.UseDPI(100))
	all := draw.New(canvas)
	p.Draw(draw.Crop(all, 10, -20, 10, -10))
	_, err := vgimg.PngCanvas{Canvas: canvas}.WriteTo(w)
	return err
}

// shadeOf is from white for 0 to the colour of the training curve for 1.
func shadeOf(part float64) color.RGBA {
	part = min(max(part, 0), 1)
	mix := func(to uint8) uint8 { return uint8(255 - part*float64(255-to) + 0.5) }
	return color.RGBA{mix(trainColor.R), mix(trainColor.G), mix(trainColor.B), 255}
}

// shortened cuts a text to n characters.
func shortened(text string, n int) string {
	if r := []rune(text); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return text
}
