//go:build !noasm

package jpeg

import (
	"testing"
	"unsafe"
)

// The generator of the assembly knows where the fields are.
func TestLayout(t *testing.T) {
	var b bits
	var m mcuBlock
	var s stop
	var h table
	for name, is := range map[string][2]uintptr{
		"bits.buf":  {unsafe.Offsetof(b.buf), 0},
		"bits.n":    {unsafe.Offsetof(b.n), 8},
		"bits.p":    {unsafe.Offsetof(b.p), 16},
		"bits.data": {unsafe.Offsetof(b.data), 24},
		"bits.end":  {unsafe.Offsetof(b.end), 48},
		"dc":        {unsafe.Offsetof(m.dc), 0},
		"ac":        {unsafe.Offsetof(m.ac), 8},
		"pred":      {unsafe.Offsetof(m.pred), 16},
		"coefs":     {unsafe.Offsetof(m.coefs), 24},
		"flag":      {unsafe.Offsetof(m.flag), 32},
		"step":      {unsafe.Offsetof(m.step), 40},
		"mcuBlock":  {unsafe.Sizeof(m), 56},
		"x":         {unsafe.Offsetof(s.x), 0},
		"block":     {unsafe.Offsetof(s.block), 8},
		"k":         {unsafe.Offsetof(s.k), 16},
		"lookup":    {unsafe.Offsetof(h.lookup), 0},
		"tail":      {unsafe.Offsetof(h.tail), 4096},
		"tailAt":    {unsafe.Offsetof(h.tailAt), 4096 + 8192},
	} {
		if is[0] != is[1] {
			t.Errorf("%s is at %d, not %d", name, is[0], is[1])
		}
	}
	if got, want := [...]int{lookupBits, tailSize, badCode, elsewhere, beforeDC}, [...]int{10, 2048, 64, 240, 0xFFFF}; got != want {
		t.Errorf("constants %v, want %v", got, want)
	}
}
