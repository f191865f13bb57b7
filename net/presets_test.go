package net_test

import (
	"fmt"
	"strings"
	"testing"

	"sluice/net"
)

// params counts what a layer trains.
func params(l net.LayerPlan) (n int) {
	for _, p := range l.Plan.Params {
		n += p.Shape.Len()
	}
	return n
}

// TestAlexNetTable computes the paper's table: shapes, parameters, cost.
func TestAlexNetTable(t *testing.T) {
	want := []struct {
		name, out string
		params    int
	}{
		{"conv1", "96x55x55", 34944},
		{"norm1", "96x55x55", 0},
		{"pool1", "96x27x27", 0},
		{"conv2", "256x27x27", 307456},
		{"norm2", "256x27x27", 0},
		{"pool2", "256x13x13", 0},
		{"conv3", "384x13x13", 885120},
		{"conv4", "384x13x13", 663936},
		{"conv5", "256x13x13", 442624},
		{"pool5", "256x6x6", 0},
		{"fc6", "4096x1x1", 37752832},
		{"drop6", "4096x1x1", 0},
		{"fc7", "4096x1x1", 16781312},
		{"drop7", "4096x1x1", 0},
		{"fc8", "1000x1x1", 4097000},
		{"softmax", "1000x1x1", 0},
	}
	for _, side := range []int{227, 224} {
		p, err := net.Preset("alexnet").Plan(128, side, side, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Input.Shape(); got != (net.Shape{N: 128, C: 3, H: 227, W: 227}) {
			t.Errorf("the input of images of %d is %v", side, got)
		}
		if len(p.Layers) != len(want) {
			t.Fatalf("%d layers, want %d", len(p.Layers), len(want))
		}
		for i, l := range p.Layers {
			o := l.Plan.Out
			if out := fmt.Sprintf("%dx%dx%d", o.C, o.H, o.W); l.Name != want[i].name || out != want[i].out || params(l) != want[i].params {
				t.Errorf("layer %d is %s of %s with %d parameters, want %v", i, l.Name, out, params(l), want[i])
			}
		}
		if p.Params != 60_965_224 {
			t.Errorf("%d parameters, want 60,965,224", p.Params)
		}
		if p.MACs < 715e6 || p.MACs > 725e6 {
			t.Errorf("%d multiply-adds, want 0.72 G", p.MACs)
		}
	}
}

// TestAlexNetInit holds the paper's initialisation: N(0, 0.01), and biases of 1
// in conv2, conv4, conv5, fc6 and fc7.
func TestAlexNetInit(t *testing.T) {
	p, err := net.Preset("alexnet").Plan(1, 227, 227, 0)
	if err != nil {
		t.Fatal(err)
	}
	ones := "conv2 conv4 conv5 fc6 fc7"
	for _, l := range p.Layers {
		for _, s := range l.Plan.Params {
			want := net.Init{Std: 0.01}
			if s.Name == "bias" {
				want = net.Init{}
				if strings.Contains(ones, l.Name) {
					want.Value = 1
				}
			}
			if s.Init != want || s.LR != 1 || s.Decay != 1 {
				t.Errorf("%s.%s starts as %v, want %v", l.Name, s.Name, s.Init, want)
			}
			if groups := strings.Contains("conv2 conv4 conv5", l.Name); s.Name == "weight" && groups != (s.Groups == 2) {
				t.Errorf("%s has %d groups", l.Name, s.Groups)
			}
		}
	}
}

func TestPresets(t *testing.T) {
	for _, c := range []struct {
		name    string
		side    int
		classes int
		params  int
		macs    int64 // at most
	}{
		// Without groups conv2, conv4 and conv5 see twice the maps.
		{"alexnet_one_gpu", 227, 0, 60_965_224 + 256*48*25 + 384*192*9 + 256*192*9, 1140e6},
		{"alexnet_torchvision", 224, 0, 61_100_840, 720e6},
		{"alexnet_small", 64, 10, 94_522, 3.5e6},
		{"alexnet", 224, 10, 60_965_224 - 990*4097, 721e6},
	} {
		p, err := net.Preset(c.name).Plan(4, c.side, c.side, c.classes)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if p.Params != c.params || p.MACs > c.macs {
			t.Errorf("%s has %d parameters and %d multiply-adds, want %d and at most %d", c.name, p.Params, p.MACs, c.params, c.macs)
		}
	}
}

func TestPresetSizes(t *testing.T) {
	for name, want := range map[string]string{
		"alexnet":             "227 x 227, or of 224 x 224",
		"alexnet_one_gpu":     "227 x 227, or of 224 x 224",
		"alexnet_torchvision": "takes images of 224 x 224",
		"alexnet_small":       "must fit into the input",
	} {
		for _, size := range [][2]int{{7, 7}, {227, 224}} {
			_, err := net.Preset(name).Plan(1, size[0], size[1], 10)
			if size[0] == 7 || name != "alexnet_small" {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s of %v: error %v, want %q", name, size, err, want)
				}
			}
		}
	}
}
