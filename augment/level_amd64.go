//go:build !noasm

package augment

import "golang.org/x/sys/cpu"

func best() level {
	switch x := cpu.X86; {
	case x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL && x.HasAVX2:
		return levelAVX512
	case x.HasAVX2:
		return levelAVX2
	}
	return levelGeneric
}
