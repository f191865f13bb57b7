package augment

// grid walks the samples of a stored plane in the order of the oriented picture:
// oriented sample (x, y) is number at + x*dx + y*dy. With it an EXIF orientation costs no
// moved pixel.
type grid struct{ at, dx, dy int }

// orientedGrid is the grid of a plane of w x h stored samples, whose neighbours in a row are
// sx apart and in a column sy. The eight cases are those of EXIF 2.3, tag 274.
func orientedGrid(orient, w, h, sx, sy int) grid {
	right, bottom := (w-1)*sx, (h-1)*sy
	switch orient {
	case 2: // mirrored left to right
		return grid{right, -sx, sy}
	case 3: // half a turn
		return grid{right + bottom, -sx, -sy}
	case 4: // mirrored top to bottom
		return grid{bottom, sx, -sy}
	case 5: // transposed
		return grid{0, sy, sx}
	case 6: // to be turned a quarter clockwise
		return grid{bottom, -sy, sx}
	case 7: // transposed along the other diagonal
		return grid{right + bottom, -sy, -sx}
	case 8: // to be turned a quarter anticlockwise
		return grid{right, sy, -sx}
	default:
		return grid{0, sx, sy}
	}
}
