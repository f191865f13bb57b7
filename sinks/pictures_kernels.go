package sinks

import (
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"math"

	"github.com/disintegration/imaging"

	"sluice/net"
)

const (
	kernelsWidth = 800 // about, of the picture, in pixels
	tileSide     = 96  // the most that a kernel's side is drawn with, if it has fewer weights
	tileGap      = 3
)

// drawKernels tiles the kernels of a convolution (OIHW), each pixel a square. A
// kernel is scaled by its own greatest weight: mid gray is zero, black and white
// (of a channel) are minus and plus that. Three input channels are red, green
// and blue, or blue, green, red; of any other number the mean is drawn, in gray.
// A weight that is no finite number is drawn as zero.
func drawKernels(t *net.NamedTensor, bgr bool) (image.Image, error) {
	if len(t.Dims) != 4 {
		return nil, fmt.Errorf("%d dimensions, want 4", len(t.Dims))
	}
	n, channels, h, w := t.Dims[0], t.Dims[1], t.Dims[2], t.Dims[3]
	if n < 1 || channels < 1 || h < 1 || w < 1 || n*channels*h*w != len(t.Data) {
		return nil, fmt.Errorf("shape %v with %d values", t.Dims, len(t.Data))
	}
	cols := int(math.Ceil(math.Sqrt(1.6 * float64(n)))) // a picture wider than high
	cols = min(cols, n)
	rows := (n + cols - 1) / cols
	zoom := max(min(kernelsWidth/cols, tileSide)/max(h, w), 1)
	stepX, stepY := w*zoom+tileGap, h*zoom+tileGap
	img := imaging.New(cols*stepX+tileGap, rows*stepY+tileGap, color.White)
	size := channels * h * w
	for k := range n {
		kernel := drawKernel(t.Data[k*size:(k+1)*size], channels, h, w, bgr)
		tile := imaging.Resize(kernel, w*zoom, h*zoom, imaging.NearestNeighbor)
		at := image.Pt(tileGap+k%cols*stepX, tileGap+k/cols*stepY)
		draw.Draw(img, tile.Rect.Add(at), tile, image.Point{}, draw.Src)
	}
	return img, nil
}

// drawKernel draws one kernel, a weight a pixel.
func drawKernel(weights []float32, channels, h, w int, bgr bool) *image.NRGBA {
	plane := h * w
	pixels := make([][3]float64, plane)
	greatest := 0.0
	for i := range pixels {
		for c := range channels {
			v := float64(weights[c*plane+i])
			if math.IsNaN(v) || math.IsInf(v, 0) {
				v = 0
			}
			switch {
			case channels != 3:
				for j := range pixels[i] {
					pixels[i][j] += v / float64(channels)
				}
			case bgr:
				pixels[i][2-c] = v
			default:
				pixels[i][c] = v
			}
		}
		for _, v := range pixels[i] {
			greatest = max(greatest, math.Abs(v))
		}
	}
	if greatest == 0 {
		greatest = 1
	}
	shade := func(v float64) uint8 { return uint8(math.Round(127.5 + 127.5*v/greatest)) }
	img := image.NewNRGBA(image.Rect(0, 0, w, h))
	for i, p := range pixels {
		img.SetNRGBA(i%w, i/w, color.NRGBA{shade(p[0]), shade(p[1]), shade(p[2]), 255})
	}
	return img
}
