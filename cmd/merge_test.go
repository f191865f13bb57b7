package cmd

import (
	"strings"
	"testing"

	"sluice/pipeline"
)

func TestParseShard(t *testing.T) {
	for _, c := range []struct {
		text, index string
		want        pipeline.Shard
		err         string
	}{
		{"", "3", pipeline.Shard{}, ""},
		{"1/4", "", pipeline.Shard{Index: 0, Of: 4}, ""},
		{"4/4", "0", pipeline.Shard{Index: 3, Of: 4}, ""},
		{"1/1", "", pipeline.Shard{Index: 0, Of: 1}, ""},
		{"auto/4", "3", pipeline.Shard{Index: 3, Of: 4}, ""},
		{"auto/4", "4", pipeline.Shard{}, `JOB_COMPLETION_INDEX must be from 0 to 3, is "4"`},
		{"auto/4", "", pipeline.Shard{}, `JOB_COMPLETION_INDEX must be from 0 to 3, is ""`},
		{"0/4", "", pipeline.Shard{}, "--shard is i/n with i from 1 to n"},
		{"5/4", "", pipeline.Shard{}, "--shard is i/n"},
		{"2", "", pipeline.Shard{}, "--shard is i/n"},
		{"a/b", "", pipeline.Shard{}, "--shard is i/n"},
		{"1/-2", "", pipeline.Shard{}, "--shard is i/n"},
		{"9223372036854775806/9223372036854775807", "", pipeline.Shard{}, "there may be 10000 shards"},
	} {
		got, err := parseShard(c.text, c.index)
		if c.err == "" && (err != nil || got != c.want) || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%q with index %q: %+v (%v), want %+v %s", c.text, c.index, got, err, c.want, c.err)
		}
	}
}
