package nearest

//go:generate go -C _gen run . -out ../distance_amd64.s -stubs ../distance_stubs_amd64.go -pkg nearest

// block is what every level's loop divides a row into, in floats: the four vectors
// of AVX-512's. What is left of a row is plain Go.
const block = 64

// distances gives the squared Euclidean distance to a query of each row that dst
// has room for; rows are as long as the query and follow each other. It is the
// truth for the assembly, but for the order of its sums.
func distances(dst, rows, query []float32) {
	width := len(query)
	for i := range dst {
		dst[i] = square(rows[i*width:][:width], query)
	}
}

// square is the squared distance of two rows. Sums are of a quarter of the
// elements, so that errors stay small in long rows.
func square(row, query []float32) float32 {
	var a, b, c, d float32
	i := 0
	for ; i+4 <= len(row) && i+4 <= len(query); i += 4 {
		r, q := row[i:i+4:i+4], query[i:i+4:i+4]
		da, db, dc, dd := r[0]-q[0], r[1]-q[1], r[2]-q[2], r[3]-q[3]
		a += da * da
		b += db * db
		c += dc * dc
		d += dd * dd
	}
	for ; i < len(row); i++ {
		e := row[i] - query[i]
		a += e * e
	}
	return a + b + (c + d)
}
