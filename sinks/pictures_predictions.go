package sinks

import (
	"errors"
	"fmt"
	"image"
	"image/color"
	"io"

	"github.com/disintegration/imaging"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
)

// Prediction is what a network takes an image for: the likeliest classes, the
// first the most.
type Prediction struct {
	Name    string
	Image   image.Image // as the network sees it
	Classes []string
	Scores  []float64 // probabilities
}

// Sizes of the picture of predictions, in pixels (a point is one at this dpi).
const (
	predictionSide    = 200 // of an image
	predictionGap     = 16
	predictionBar     = 18
	predictionColumns = 4
)

// DrawPredictions writes a PNG of images with bars of what they are taken for, four
// in a row, as in figure 4 of the AlexNet paper.
func DrawPredictions(w io.Writer, of []Prediction) error {
	if len(of) == 0 {
		return errors.New("a picture of no predictions")
	}
	bars := 0
	for _, p := range of {
		bars = max(bars, len(p.Classes))
	}
	columns := min(len(of), predictionColumns)
	rows := (len(of) + columns - 1) / columns
	stepX, stepY := predictionSide+predictionGap, predictionSide+(bars+1)*predictionBar+2*predictionGap
	width, height := vg.Length(columns*stepX+predictionGap), vg.Length(rows*stepY+predictionGap)
	canvas := vgimg.NewWith(vgimg.UseWH(width, height), vgimg.UseDPI(72), vgimg.UseBackgroundColor(color.White))
	c := draw.New(canvas)
	style := newPanel("", "").X.Label.TextStyle
	style.XAlign, style.YAlign = draw.XLeft, draw.YBottom
	for i, p := range of {
		x := vg.Length(predictionGap + i%columns*stepX)
		y := height - vg.Length(predictionGap+i/columns*stepY) // the top: y grows upwards
		c.FillText(style, vg.Point{X: x, Y: y - predictionBar + 3}, shortened(p.Name, 34))
		y -= predictionBar
		img := imaging.Resize(p.Image, predictionSide, 0, imaging.Lanczos)
		if img.Rect.Dy() > predictionSide {
			img = imaging.Resize(p.Image, 0, predictionSide, imaging.Lanczos)
		}
		size := img.Bounds().Size()
		c.DrawImage(vg.Rectangle{Min: vg.Point{X: x, Y: y - vg.Length(size.Y)}, Max: vg.Point{X: x + vg.Length(size.X), Y: y}}, img)
		y -= predictionSide + 4
		for k, class := range p.Classes {
			top := y - vg.Length(k*predictionBar)
			bar := vg.Length(min(max(p.Scores[k], 0), 1) * predictionSide)
			c.FillPolygon(trainFaint, []vg.Point{{X: x, Y: top}, {X: x + bar, Y: top}, {X: x + bar, Y: top - predictionBar + 3}, {X: x, Y: top - predictionBar + 3}})
			c.FillText(style, vg.Point{X: x + 3, Y: top - predictionBar + 4}, fmt.Sprintf("%s  %.1f %%", shortened(class, 26), 100*p.Scores[k]))
		}
	}
	_, err := vgimg.PngCanvas{Canvas: canvas}.WriteTo(w)
	return err
}
