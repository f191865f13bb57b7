// Command pipeline trains networks on images, see README.md. To make a binary
// with stages, sources, layers or sinks of your own, copy this file and add an
// import.
package main

import (
	"sluice/cmd"

	_ "sluice/gpu"
	_ "sluice/sinks"
	_ "sluice/stages"
)

func main() { cmd.Main() }
