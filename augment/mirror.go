package augment

// Mirror flips a picture left to right in place. It is the eager twin of View.Mirror.
func Mirror(p *RGB) {
	for y := range p.H {
		mirrorRow(p.Row(y))
	}
}
