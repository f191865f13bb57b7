package net_test

import (
	"strings"
	"testing"

	"sluice/net"
	"sluice/pipeline/config"
)

// The paper's CNN* is its network with a convolution more over the last pooling; all
// other layers keep their names and shapes, so that weights of the one start the other.
func TestSixthConvolution(t *testing.T) {
	plan := func(text string) (*net.NetPlan, error) {
		var def net.Def
		doc, err := config.Parse("net.yaml", []byte(text))
		if err == nil {
			err = doc.Decode(&def)
		}
		if err != nil {
			return nil, err
		}
		return def.Plan(2, 224, 224, 1000)
	}
	star, err := plan("alexnet: {conv6: 256}")
	if err != nil {
		t.Fatal(err)
	}
	plain, err := plan("alexnet: {}")
	if err != nil {
		t.Fatal(err)
	}
	at := 0
	for _, l := range star.Layers {
		if l.Name == "conv6" {
			if before := star.Layers[at-1]; before.Name != "pool5" || l.Plan.Out != before.Plan.Out {
				t.Errorf("conv6 gives %v after %s of %v", l.Plan.Out, before.Name, before.Plan.Out)
			}
			continue
		}
		if same := plain.Layers[at]; same.Name != l.Name || same.Plan.Out != l.Plan.Out {
			t.Errorf("layer %s of %v, want %s of %v", l.Name, l.Plan.Out, same.Name, same.Plan.Out)
		}
		at++
	}
	// In two groups, as conv5.
	if more := star.Params - plain.Params; more != 256*128*9+256 || at != len(plain.Layers) {
		t.Errorf("%d parameters more in %d layers", more, len(star.Layers))
	}
	if _, err := plan("alexnet: {conv6: -1}"); err == nil || !strings.Contains(err.Error(), "conv6 must be at least 0, is -1") {
		t.Errorf("conv6: -1 gives %v", err)
	}
}
