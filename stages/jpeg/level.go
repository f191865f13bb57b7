package jpeg

// level is what the CPU can do. All levels give the same bytes.
type level uint8

const (
	levelUnset level = iota
	levelGeneric
	levelAVX2
	levelAVX512
)

func (l level) String() string {
	return [...]string{"unset", "generic", "avx2", "avx512"}[l]
}
