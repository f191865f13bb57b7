package augment

import (
	"fmt"
	"math"
)

// ShorterSide is the size of a w x h picture scaled so that its shorter side is
// size. The longer one is rounded down, as torchvision's Resize does.
func ShorterSide(w, h, size int) (int, int) {
	if w <= h {
		return size, size * h / w
	}
	return size * w / h, size
}

// Centre is where a crop of size begins on a side of n, in the middle. An odd rest is rounded to
// the even side, as torchvision's CenterCrop does.
func Centre(n, size int) int { return int(math.RoundToEven(float64(n-size) / 2)) }

// TenCrop is the ten views that the paper averages over at test time (section 4.1): the four
// corners (upper left and right, lower left and right) and the centre, w x h each, of what
// v gives, then the same five mirrored. It is an error if v gives less than w x h.
func TenCrop(v View, w, h int) ([10]View, error) {
	b := v.Bounds()
	var ten [10]View
	if w <= 0 || h <= 0 || w > b.X || h > b.Y {
		return ten, fmt.Errorf("ten crops of %d x %d do not fit a picture of %d x %d", w, h, b.X, b.Y)
	}
	// Origins count from all that the crops are taken from, not from the first of them.
	if !v.Cropped {
		v = v.Crop(0, 0, b.X, b.Y)
	}
	right, bottom := b.X-w, b.Y-h
	at := [5][2]int{{0, 0}, {right, 0}, {0, bottom}, {right, bottom}, {Centre(b.X, w), Centre(b.Y, h)}}
	for i, p := range at {
		ten[i] = v.Crop(p[0], p[1], w, h)
		ten[i+5] = ten[i].Mirror()
	}
	return ten, nil
}
