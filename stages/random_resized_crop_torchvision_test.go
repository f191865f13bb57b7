package stages

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"testing"
)

// How often each part of a picture is drawn is how often torchvision draws it: width,
// height and place together, by a chi-square test of the two sets of draws. See
// scripts/goldens_torchvision.py.
func TestRandomResizedCropAgainstTorchvision(t *testing.T) {
	data, err := os.ReadFile("testdata/torchvision/crops.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Width, Height int
		Scale, Ratio  [2]float64
		Cell, Draws   int
		Counts        map[string]int
	}
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) != 5 {
		t.Fatalf("%d cases", len(cases))
	}
	for _, g := range cases {
		crop := randomResizedCrop(t, RandomResizedCropOptions{Size: 8, Scale: g.Scale, Ratio: g.Ratio})
		want := map[[4]int]int{}
		for key, n := range g.Counts {
			var k [4]int
			if _, err := fmt.Sscanf(key, "%d,%d,%d,%d", &k[0], &k[1], &k[2], &k[3]); err != nil {
				t.Fatalf("%q: %v", key, err)
			}
			want[k] = n
		}
		draw := func(c *RandomResizedCrop) map[[4]int]int {
			rng := rand.New(rand.NewPCG(1, 2))
			counts := map[[4]int]int{}
			for range g.Draws {
				p := c.part(rng, g.Width, g.Height)
				counts[[4]int{p.Min.X / g.Cell, p.Min.Y / g.Cell, p.Dx() / g.Cell, p.Dy() / g.Cell}]++
			}
			return counts
		}
		name := fmt.Sprintf("%d x %d", g.Width, g.Height)
		z := excess(draw(crop), want)
		t.Logf("%s: %d parts, %.2f standard deviations", name, len(g.Counts), z)
		if z > 4 {
			t.Errorf("%s: the parts differ from torchvision's by %.1f standard deviations", name, z)
		}
		// A change of a hundredth in an option is seen, so the draws are enough.
		other := *crop
		other.opt.Scale[0] += 0.01
		if z := excess(draw(&other), want); z < 6 {
			t.Errorf("%s: another scale is not told from torchvision's: %.1f standard deviations", name, z)
		}
	}
}

// excess is how far chi-square of two sets of equally many draws is above what it
// would be for one distribution, in its standard deviations. Rare outcomes are one.
func excess(a, b map[[4]int]int) float64 {
	const rare = 20
	var rareA, rareB, bins int
	var chi float64
	add := func(a, b int) {
		d := float64(a - b)
		chi += d * d / float64(a+b)
		bins++
	}
	all := map[[4]int]bool{}
	for _, m := range []map[[4]int]int{a, b} {
		for k := range m {
			all[k] = true
		}
	}
	for k := range all {
		if a[k]+b[k] < rare {
			rareA, rareB = rareA+a[k], rareB+b[k]
			continue
		}
		add(a[k], b[k])
	}
	if rareA+rareB > 0 {
		add(rareA, rareB)
	}
	free := float64(bins - 1)
	return (chi - free) / math.Sqrt(2*free)
}
