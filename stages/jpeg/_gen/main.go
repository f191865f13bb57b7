// Command gen writes the assembly of package jpeg.
//
//	go run . -out ../jpeg_amd64.s -stubs ../jpeg_stubs_amd64.go -pkg jpeg
package main

import (
	. "github.com/mmcloughlin/avo/build"
)

func main() {
	ConstraintExpr("!noasm")
	mcus()
	idct()
	Generate()
}
