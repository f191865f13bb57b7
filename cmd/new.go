package cmd

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"github.com/spf13/cobra"
)

//go:embed templates/new
var newTemplates embed.FS

// newKinds are what new can write; each has a template and one of its test.
var newKinds = []string{"stage", "source", "sink", "layer"}

func newNew() *cobra.Command {
	var sluice string
	c := &cobra.Command{
		Use:   "new " + strings.Join(newKinds, "|") + " NAME",
		Short: "Write a Go module with a stage, source, sink or layer of yours",
		Long: `Writes the folder NAME: a module that is this command with one more name for the
YAML, with a test. It compiles at once; change it into what you need:

  cd NAME && go test ./... && go run . stages NAME

Its go.mod says where the checkout of Sluice is that it is compiled with
(replace), and takes the versions of all else from there.`,
		Example:   `  pipeline new stage soft_blur`,
		Args:      exactly("KIND", "NAME"),
		ValidArgs: newKinds,
		RunE: func(c *cobra.Command, args []string) error {
			kind, name := args[0], args[1]
			if err := checkNew(kind, name); err != nil {
				return err
			}
			checkout, err := findCheckout(sluice)
			if err != nil {
				return err
			}
			if err := writeModule(checkout, kind, name); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "wrote %s; next: cd %s && go test ./... && go run . stages %s\n", name, name, name)
			return nil
		},
	}
	c.Flags().StringVar(&sluice, "sluice", "", "checkout `DIR` of Sluice to compile with (default the one that this folder lies in)")
	return c
}

var newName = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)

func checkNew(kind, name string) error {
	if !slices.Contains(newKinds, kind) {
		return usagef("new cannot write a %q; it can write a %s", kind, strings.Join(newKinds, ", a "))
	}
	if !newName.MatchString(name) || len(name) > 64 {
		return usagef("%q cannot be the name of a %s: small letters, digits and _ between them, a letter first, 64 at most, as in soft_blur", name, kind)
	}
	for _, g := range catalogue() {
		for _, e := range g.entries {
			if e.name == name {
				return usagef("there is a %s called %s already; choose another name", e.kind, name)
			}
		}
	}
	return nil
}

// findCheckout is dir, or the checkout of Sluice that the working folder lies in.
func findCheckout(dir string) (string, error) {
	if dir != "" {
		abs, err := filepath.Abs(dir)
		if err == nil && !isCheckout(abs) {
			err = usagef("--sluice %s is no checkout of Sluice: it has no go.mod that begins with \"module sluice\"", dir)
		}
		return abs, err
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; !isCheckout(dir); dir = filepath.Dir(dir) {
		if dir == filepath.Dir(dir) {
			return "", usagef("this folder does not lie in a checkout of Sluice; say where one is: --sluice DIR")
		}
	}
	return dir, nil
}

func isCheckout(dir string) bool {
	text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	return err == nil && strings.HasPrefix(string(text), "module sluice\n")
}

// writeModule writes the folder name, whole or not at all.
func writeModule(checkout, kind, name string) (err error) {
	if _, err := os.Lstat(name); err == nil {
		return usagef("%s is there already; choose another name, or remove it", name)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	gomod, err := os.ReadFile(filepath.Join(checkout, "go.mod"))
	if err != nil {
		return err
	}
	sums, err := os.ReadFile(filepath.Join(checkout, "go.sum"))
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(".", "."+name+"-*")
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, reason(err))
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	files := map[string][]byte{"go.mod": moduleFile(string(gomod), checkout, name), "go.sum": sums, ".gitignore": []byte("/runs/\n")}
	words := struct{ Kind, Name, Type string }{kind, name, typeName(name)}
	for from, to := range map[string]string{"main": "main.go", kind: kind + ".go", kind + "_test": kind + "_test.go"} {
		t, err := template.ParseFS(newTemplates, "templates/new/"+from+".go.tmpl")
		if err != nil {
			return err
		}
		var text bytes.Buffer
		if err := t.Execute(&text, words); err != nil {
			return err
		}
		files[to] = text.Bytes()
	}
	for file, text := range files {
		if err := os.WriteFile(filepath.Join(tmp, file), text, 0o666); err != nil {
			return fmt.Errorf("writing %s: %w", name, reason(err))
		}
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return fmt.Errorf("writing %s: %w", name, reason(err))
	}
	if err := os.Rename(tmp, name); err != nil {
		return fmt.Errorf("writing %s: %w", name, reason(err))
	}
	return nil
}

// moduleFile is a go.mod that takes everything as the checkout's says.
func moduleFile(checkoutMod, checkout, name string) []byte {
	_, rest, _ := strings.Cut(checkoutMod, "\n")
	var lines []string
	for line := range strings.SplitSeq(rest, "\n") {
		if strings.HasPrefix(line, "\t") && !strings.Contains(line, "//") {
			line += " // indirect"
		}
		lines = append(lines, line)
	}
	return fmt.Appendf(nil, `module example.com/%s
%s
require sluice v0.0.0

// The checkout of Sluice that this is compiled with: the version above means nothing
// while this line is there. Where the checkout moves, change the path; what it needs
// is above and in go.sum, which "go mod tidy" brings up to date.
replace sluice => %s
`, name, strings.Join(lines, "\n"), strconv.Quote(checkout))
}

// typeName is soft_blur as SoftBlur.
func typeName(name string) string {
	var out strings.Builder
	for part := range strings.SplitSeq(name, "_") {
		out.WriteString(strings.ToUpper(part[:1]) + part[1:])
	}
	return out.String()
}
