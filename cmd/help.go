package cmd

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sluice/pipeline/config"
)

// The groups of the commands, in the order in which help shows them.
const (
	groupRuns    = "runs"
	groupWeights = "weights"
	groupAbout   = "about"
)

// Help is 80 columns wide at most: a terminal's usual width.
const usageTemplate = `Usage:
  {{if .HasAvailableSubCommands}}{{.CommandPath}} COMMAND{{else}}{{.UseLine}}{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{range $group := .Groups}}

{{.Title}}{{range $.Commands}}{{if eq .GroupID $group.ID}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsagesWrapped 80 | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableSubCommands}}

{{.CommandPath}} COMMAND --help tells more of each.{{end}}
`

// inGroup puts commands into a group of the help.
func inGroup(id string, commands ...*cobra.Command) []*cobra.Command {
	for _, c := range commands {
		c.GroupID = id
	}
	return commands
}

// newHelp is help COMMAND; cobra's own takes a name that is none for no mistake.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Tell of a command what --help does",
		Long:    `Tells what a command does, its flags and an example, as COMMAND --help does.`,
		Example: `  pipeline help run`,
		GroupID: groupAbout,
		Args:    atMostOne,
		RunE: func(c *cobra.Command, args []string) error {
			of := c.Root()
			if len(args) > 0 {
				found, _, err := of.Find(args)
				if err != nil || found == of {
					return unknownCommand(of, args[0])
				}
				of = found
			}
			of.InitDefaultHelpFlag()
			return of.Help()
		},
	}
}

// flagError says what is wrong with a flag in the words of the command line, not of
// Go's parser.
func flagError(c *cobra.Command, err error) error {
	var bad *pflag.InvalidValueError
	if errors.As(err, &bad) {
		want := bad.GetFlag().Value.Type()
		switch want {
		case "int", "uint64":
			want = "a whole number"
		case "bool":
			want = "true or false"
		}
		return usagef("--%s must be %s, is %q\nSee '%s --help'.", bad.GetFlag().Name, want, bad.GetValue(), c.CommandPath())
	}
	hint := ""
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "" {
		var known []string
		c.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
		if near, ok := config.Nearest(strings.TrimLeft(unknown.GetSpecifiedName(), "-"), known); ok {
			hint = ", did you mean --" + near + "?"
		}
	}
	return usagef("%w%s\nSee '%s --help'.", err, hint, c.CommandPath())
}
