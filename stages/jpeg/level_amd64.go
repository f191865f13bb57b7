//go:build !noasm

package jpeg

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

func best() level {
	switch x := cpu.X86; {
	case !x.HasAVX2 || !x.HasBMI1 || !x.HasBMI2:
		return levelGeneric
	case x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL:
		return levelAVX512
	}
	return levelAVX2
}

func idct2(l level, coefs *[128]int16, quant *[64]uint16, dst []byte, stride int) {
	if l < levelAVX2 {
		idct2Go(coefs, quant, dst, stride)
		return
	}
	_ = dst[7*stride:][:16] // the assembly does not look
	idctAVX2(coefs, quant, &dst[0], stride)
}

// mcusFast decodes the MCUs of a row from s on, as far as column to or a code that only Go finds.
func mcusFast(b *bits, mcu []mcuBlock, to int, s *stop) {
	mcusBMI2(&b.buf, (*uintptr)(unsafe.Pointer(&mcu[0])), len(mcu), &order, to, &s.x)
	s.block /= int(unsafe.Sizeof(mcuBlock{}))
}
