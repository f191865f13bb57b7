package gpu

// Available is a device that a network can run on, or the reason why there is none of
// its kind.
type Available struct {
	// Device is what the YAML calls it: cpu or cuda.
	Device string
	// About is what it is; empty if there is none, and Missing says why.
	About, Missing string
}

// List is what this program finds on this machine, in the order in which auto tries
// them. It allocates no tensor.
func List() []Available {
	var all []Available
	cards, err := cudaDevices()
	for _, c := range cards {
		all = append(all, Available{Device: CUDA, About: c})
	}
	if err != nil {
		all = append(all, Available{Device: CUDA, Missing: err.Error()})
	}
	a := Available{Device: CPU}
	if e, err := Open(CPU, 0); err != nil {
		a.Missing = err.Error()
	} else {
		a.About = e.Name()
		_ = e.Close() // of no card, and nothing ran
	}
	return append(all, a)
}
