package net

import "fmt"

// Shape is the size of a tensor at the border of an engine: N images of C maps
// of H x W, NCHW. A weight is O x I x H x W (OIHW), a bias 1 x C x 1 x 1.
type Shape struct{ N, C, H, W int }

// Len is the number of elements.
func (s Shape) Len() int { return s.N * s.C * s.H * s.W }

// Image is the number of elements of one image.
func (s Shape) Image() int { return s.C * s.H * s.W }

func (s Shape) String() string { return fmt.Sprintf("%dx%dx%dx%d", s.N, s.C, s.H, s.W) }
