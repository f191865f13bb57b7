package augment

import (
	"image"
	"testing"
)

// What torchvision's resized_crop makes of a part of a picture, by way of Pillow: the
// part is scaled as if there were nothing around it. See scripts/goldens_torchvision.py.
func TestAgainstTorchvision(t *testing.T) {
	for _, c := range []struct {
		name   string
		w, h   int
		part   image.Rectangle
		side   int
		filter Filter
	}{
		{"bilinear_reduced", 320, 240, image.Rect(30, 17, 231, 195), 64, Bilinear},
		{"bilinear_wide", 320, 240, image.Rect(3, 101, 303, 184), 64, Bilinear},
		{"bilinear_enlarged", 125, 94, image.Rect(40, 50, 69, 87), 64, Bilinear},
		{"bilinear_corner", 125, 94, image.Rect(61, 30, 125, 94), 48, Bilinear},
		{"bicubic_reduced", 320, 240, image.Rect(30, 17, 231, 195), 64, Bicubic},
		{"lanczos_tall", 320, 240, image.Rect(111, 2, 201, 232), 64, Lanczos},
	} {
		v := NewView(c.w, c.h, 1).Cut(c.part).Scale(c.side, c.side)
		v.Filter = c.filter
		near(t, c.name, render(t, formulaRGB(c.w, c.h), v), golden(t, "torchvision", c.name), 1)
	}
}
