// Command _gen makes the PTX of every kernel with clang, which needs no CUDA toolkit for
// it, and looks for what a fast kernel must not have. It runs in the folder above:
//
//	go run . [-update]
//
// PTX that another version of clang made is left as it is, for it would differ without
// being better, unless -update is given; the new one is looked at all the same. Without
// clang nothing is done, and said.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

const compiler = "clang++-19"

// PTX 7.5 for compute capability 8.0 is what every driver from CUDA 11.5 on takes, for
// every card from the A100 on. No multiply-add is made where none is written: a kernel
// has the same bits from every compiler.
var arguments = []string{"-x", "cuda", "--cuda-device-only", "--cuda-gpu-arch=sm_80", "--cuda-feature=+ptx75", "-nocudainc", "-nocudalib",
	"-std=c++17", "-O3", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-S", "-o", "-"}

// forbidden is memory that spilled numbers and indexed arrays land in, calls, and
// arithmetic that is rounded in other ways than on the CPU.
var forbidden = regexp.MustCompile(`\.local\b|\bcall\b|div\.(full|approx)|sqrt\.approx|ex2\.|lg2\.|\.ftz|atom\.[a-z.]*add\.f`)

func main() {
	update := flag.Bool("update", false, "write whatever version made what is there")
	flag.Parse()
	if err := run(*update); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(update bool) error {
	if _, err := exec.LookPath(compiler); errors.Is(err, exec.ErrNotFound) {
		fmt.Printf("%s is not there (Debian: clang-19): the PTX stays as it is, NOT CHECKED\n", compiler)
		return nil
	}
	out, err := exec.Command(compiler, "--version").Output()
	if err != nil {
		return fmt.Errorf("%s --version: %w", compiler, err)
	}
	version, _, _ := strings.Cut(string(out), "\n")
	sources, err := filepath.Glob("../*.cu")
	if err != nil {
		return err
	}
	if len(sources) == 0 {
		return errors.New("there is no kernel in the folder above: run it by go generate")
	}
	for _, source := range sources {
		if err := compile(source, version, update); err != nil {
			return err
		}
	}
	return nil
}

func compile(source, version string, update bool) error {
	name := filepath.Base(source)
	c := exec.Command(compiler, append(arguments, name)...)
	c.Dir = filepath.Dir(source)
	c.Stderr = os.Stderr
	ptx, err := c.Output()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for i, line := range bytes.Split(ptx, []byte("\n")) {
		if found := forbidden.Find(line); found != nil {
			return fmt.Errorf("%s: line %d of its PTX has %q, which no kernel here may:\n%s", name, i+1, found, line)
		}
	}
	made := "// Made by go generate of " + name + " with " + version + "; do not edit.\n"
	file := strings.TrimSuffix(source, ".cu") + ".ptx"
	old, err := os.ReadFile(file)
	if err == nil && !update && !bytes.HasPrefix(old, []byte(made)) {
		fmt.Printf("%s was made by another compiler than %s: it stays as it is\n", filepath.Base(file), version)
		return nil
	}
	return os.WriteFile(file, append([]byte(made), ptx...), 0o644)
}
