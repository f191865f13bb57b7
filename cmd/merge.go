package cmd

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"sluice/pipeline"
	"sluice/sinks"
)

// jobIndex is what Kubernetes tells each pod of an indexed job, from 0.
const jobIndex = "JOB_COMPLETION_INDEX"

// maxShards is how many parts features may have: more shards would have none.
const maxShards = 10_000

// parseShard reads i/n, from 1, or auto/n with the index of a job, from 0.
func parseShard(text, index string) (s pipeline.Shard, err error) {
	if text == "" {
		return s, nil
	}
	wrong := usagef("--shard is i/n with i from 1 to n, as 2/4, or auto/n, not %q", text)
	which, of, ok := strings.Cut(text, "/")
	if !ok {
		return s, wrong
	}
	if s.Of, err = strconv.Atoi(of); err != nil || s.Of < 1 {
		return s, wrong
	}
	if s.Of > maxShards {
		return s, usagef("--shard %s: there may be %d shards", text, maxShards)
	}
	if which == "auto" {
		if s.Index, err = strconv.Atoi(index); err != nil || s.Index < 0 || s.Index >= s.Of {
			return s, usagef("--shard %s: %s must be from 0 to %d, is %q", text, jobIndex, s.Of-1, index)
		}
		return s, nil
	}
	if s.Index, err = strconv.Atoi(which); err != nil || s.Index < 1 || s.Index > s.Of {
		return s, wrong
	}
	s.Index--
	return s, nil
}

// shardSuffix is what a shard's run is called beside the name in the file.
func shardSuffix(s pipeline.Shard) string { return fmt.Sprintf(".%d-of-%d", s.Index+1, s.Of) }

var shardName = regexp.MustCompile(`\.\d+-of-\d+$`)

func newMerge() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "merge DIR...",
		Short: "Join the features that the shards of a run have written",
		Long: `Joins the features of all shards of a run (run --shard i/n). DIR are their run
folders, or the folders of features in them. The shards must be complete, hold
each part once, and be of the same weights, preprocessing, source and options;
every file is held to its checksum. Parts are linked where the file system can,
else copied. The result is, byte for byte, what one run would have written.`,
		Example: `  pipeline merge runs/features.*-of-4             to runs/features/features
  pipeline merge a/features b/features -o all`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("%s needs DIR...\nSee '%s --help'.", c.Name(), c.CommandPath())
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			for _, dir := range args {
				if _, err := os.Stat(dir); err != nil {
					return usagef("%s: %w; name the folders of the shards, as runs/NAME.*-of-4", dir, reason(err))
				}
			}
			to := output
			if to == "" {
				whole := shardName.ReplaceAllString(filepath.Clean(args[0]), "")
				if whole == filepath.Clean(args[0]) {
					return usagef("say where to: -o DIR (only for folders called NAME.i-of-n it is known)")
				}
				to = filepath.Join(whole, "features")
			}
			m, err := sinks.MergeFeatures(args, to)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s: %s rows in %d parts, of %s images\n", to, grouped(int64(m.Rows)), len(m.Parts), grouped(int64(m.Images)))
			return err
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "folder `DIR` for the parts and manifest.json (default NAME/features)")
	return c
}
