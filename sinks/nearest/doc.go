// Package nearest finds, among features that the sink features has written, those
// that lie nearest to a query by Euclidean distance: the test of the AlexNet paper's
// section 6.1. The search is exact. It looks at every row, in parts that are mapped
// into memory and not read into it, as fast as memory gives them.
//
//	set.go       the parts of a folder, of any format that can be mapped
//	arrow.go     where the columns lie in a file of Arrow
//	npy.go       the same of NumPy's arrays
//	search.go    the search
//	distance.go  its inner loop: assembly for AVX-512 and AVX2, written by _gen
package nearest
