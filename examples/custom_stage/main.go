// Command custom_stage is the pipeline command with stages of its own: README.md.
package main

import (
	"sluice/cmd"

	_ "sluice/gpu"
	_ "sluice/sinks"
	_ "sluice/stages"
)

func main() { cmd.Main() }
