package cmd

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Programs by which the documents call the command.
var invocations = regexp.MustCompile(`^(?:go run \./cmd/pipeline|go run \.|(?:bin/)?pipeline|\./pipeline\.bin) +(.*)$`)

// documents are the texts that tell a user what to type.
func documents(t *testing.T) []string {
	t.Helper()
	var files []string
	for _, pattern := range []string{"*.md", "docs/*.md", "recipes/*.md", "examples/*/README.md"} {
		more, err := filepath.Glob(filepath.Join("..", pattern))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, more...)
	}
	if len(files) < 10 {
		t.Fatalf("only %d documents", len(files))
	}
	return files
}

// Every command that a document shows is one that the program knows, with flags
// that it has, on files of the tree that are there.
func TestDocumentedCommands(t *testing.T) {
	for _, wrong := range []string{"runn train.yaml", "run train.yaml --epoch 3", "check examples/none/train.yaml"} {
		if understood(shellWords(wrong)) == nil {
			t.Errorf("%s was taken for a command", wrong)
		}
	}
	tried := 0
	for _, file := range documents(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range shellLines(string(text)) {
			if output, ok := strings.CutPrefix(line, "go build -o "); ok {
				name, _, _ := strings.Cut(output, " ")
				if info, err := os.Stat(filepath.Join("..", name)); err == nil && info.IsDir() {
					t.Errorf("%s: %s: that is a folder, and the program would go into it", file, line)
				}
			}
			m := invocations.FindStringSubmatch(line)
			if m == nil {
				continue
			}
			tried++
			if err := understood(shellWords(m[1])); err != nil {
				t.Errorf("%s: %s: %v", file, line, err)
			}
		}
	}
	if tried < 50 {
		t.Errorf("only %d commands were found", tried)
	}
}

// shellLines are the commands of a text in Markdown: the lines of its blocks of
// shell, and what stands in backquotes.
func shellLines(text string) []string {
	var lines []string
	for i, part := range strings.Split(text, "```") {
		if i%2 == 0 {
			for j, span := range strings.Split(part, "`") {
				if j%2 == 1 {
					lines = append(lines, strings.Join(strings.Fields(span), " "))
				}
			}
			continue
		}
		if kind, block, ok := strings.Cut(part, "\n"); ok && (kind == "" || kind == "sh") {
			for line := range strings.Lines(block) {
				line, _, _ = strings.Cut(line, " # ")
				lines = append(lines, strings.TrimSpace(line))
			}
		}
	}
	return lines
}

// shellWords splits a command as a shell does that knows single quotes only.
func shellWords(line string) []string {
	var words []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			words = append(words, part)
		} else {
			words = append(words, strings.Fields(part)...)
		}
	}
	return words
}

func understood(words []string) error {
	root := newRoot()
	root.InitDefaultHelpCmd()
	c, rest, err := root.Find(words)
	if err != nil {
		return err
	}
	if c == root {
		if words[0] == "COMMAND" {
			return nil
		}
		return unknownCommand(root, words[0])
	}
	c.InitDefaultHelpFlag()
	if err := c.ParseFlags(rest); err != nil {
		return err
	}
	for _, arg := range c.Flags().Args() {
		if strings.HasPrefix(arg, "examples/") || strings.HasPrefix(arg, "recipes/") {
			if _, err := os.Stat(filepath.Join("..", arg)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Every command is in the README's table.
func TestReadmeHasEveryCommand(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range newRoot().Commands() {
		if !c.Hidden && !strings.Contains(string(readme), "\n| `pipeline "+c.Name()) {
			t.Errorf("README.md does not tell of %s", c.Name())
		}
	}
}
