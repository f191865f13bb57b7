//go:build !amd64 || noasm

package jpeg

func best() level { return levelGeneric }

func idct2(_ level, coefs *[128]int16, quant *[64]uint16, dst []byte, stride int) {
	idct2Go(coefs, quant, dst, stride)
}

func mcusFast(*bits, []mcuBlock, int, *stop) { panic("jpeg: there is no assembly for this machine") }
