package simd

import "unsafe"

// Product is a register tile of a matrix product: rows of activations, read
// where they lie, times a packed panel of weights.
//
//	for r := range rows {
//		for l := range lanes {
//			sum := Bias[l] // 0 if Bias is nil
//			for s := range Segments {
//				for k := range K {
//					sum += A[Offsets[s] + r*Stride + k] * B[(s*K+k)*lanes + l]
//				}
//			}
//			if Flags&Add != 0 { sum += C[r*LDC+l] }
//			if Flags&ReLU != 0 { sum = max(sum, 0) }
//			C[r*LDC+l] = sum
//		}
//	}
//
// Offsets and strides are in bytes, counts in floats. The kernels read the
// fields by their place: the order is theirs.
type Product struct {
	A        *float32
	Stride   int  // between rows
	Offsets  *int // where each segment begins, from A
	Segments int  // at least 1
	K        int  // elements of a segment
	B        *float32
	C        *float32
	LDC      int // between rows of C
	Bias     *float32
	Flags    int
}

// Flags of a Product.
const (
	Add  = 1 << iota // to what C holds
	ReLU             // a NaN stays one
	// Ahead fetches the beginning of each row (128 bytes) of the next segment
	// while one is multiplied, for segments that come from memory and lie too far
	// apart for the processor to see it coming. One more offset follows the last.
	Ahead
)

// Outer is a register tile of a sum of outer products, read where they lie:
//
//	for r := range rows {
//		for l := range lanes {
//			sum := 0
//			for i := range Lines {
//				for k := range N {
//					sum += A[i*ALine + k*AStep + r] * B[i*BLine + k*BStep + l]
//				}
//			}
//			if Add != 0 { sum += C[r*LDC+l] }
//			C[r*LDC+l] = sum
//		}
//	}
//
// Steps are in bytes. All lanes of B are read, also those that are of no use.
type Outer struct {
	A            *float32
	AStep, ALine int
	B            *float32
	BStep, BLine int
	N, Lines     int // at least 1 line
	C            *float32
	LDC          int
	Add          int
}

// Tiles are register tiles of up to Rows rows by Lanes floats.
type Tiles struct {
	Rows, Lanes int
	product     []func(*uintptr) // by rows-1
	outer       []func(*uintptr)
}

// Product computes p over rows rows, 1..t.Rows.
func (t *Tiles) Product(rows int, p *Product) {
	t.product[rows-1]((*uintptr)(unsafe.Pointer(p)))
}

// Outer computes o over rows rows, 1..t.Rows.
func (t *Tiles) Outer(rows int, o *Outer) {
	t.outer[rows-1]((*uintptr)(unsafe.Pointer(o)))
}

// width is tiles of one width, and what a lane of theirs costs in percent of the
// cheapest's.
type width struct {
	tiles *Tiles
	cost  int
}

// TilesFor gives the tiles of a level that compute this many outputs with the
// least waste in the last panel. It depends on nothing else, so that tensors of
// one shape agree.
func TilesFor(l Level, outputs int) *Tiles {
	var best *Tiles
	least := 0
	for _, w := range widths(l) {
		lanes := (outputs + w.tiles.Lanes - 1) / w.tiles.Lanes * w.tiles.Lanes
		if cost := lanes * w.cost; best == nil || cost < least {
			best, least = w.tiles, cost
		}
	}
	return best
}

// TilesOf gives all tiles of a level, the cheapest lanes first.
func TilesOf(l Level) (tiles []*Tiles) {
	for _, w := range widths(l) {
		tiles = append(tiles, w.tiles)
	}
	return tiles
}
