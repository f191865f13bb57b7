package stages

import "math"

// A shapeClass is an outline, or a pattern on any of several outlines. A distance
// is negative inside, about 1 a radius, of a form that fits the unit circle.
type shapeClass struct {
	name    string
	outline func(u, v float32) float32 // distance to the edge; nil: one of plainOutlines
	pattern func(u, v float32) float32 // distance to the edge between two tones, in periods; nil: one tone
}

// shapeClasses are the classes in the order of their labels. Seven are told by
// their outline and three by their texture; nothing else tells them.
var shapeClasses = [...]shapeClass{
	{name: "disc", outline: disc},
	{name: "square", outline: square},
	{name: "triangle", outline: triangle},
	{name: "star", outline: star},
	{name: "ring", outline: ring},
	{name: "cross", outline: cross},
	{name: "crescent", outline: crescent},
	{name: "stripes", pattern: stripes},
	{name: "checker", pattern: checker},
	{name: "dots", pattern: dots},
}

// plainOutlines have room for a pattern.
var plainOutlines = [...]func(u, v float32) float32{disc, square, triangle}

func disc(u, v float32) float32 { return hypot(u, v) - 0.92 }

func square(u, v float32) float32 { return max(abs(u), abs(v)) - 0.7 }

func triangle(u, v float32) float32 {
	const sin60 = 0.8660254
	return max(v, sin60*abs(u)-v/2) - 0.5
}

// star is a pentagram: inside all five lines through its tips, but for one.
func star(u, v float32) float32 {
	u = abs(u) // one tip is up, so two pairs of lines mirror each other
	const sin36, cos36 = 0.58778525, 0.80901699
	const sin72, cos72 = 0.95105652, 0.30901699
	first, second := -v, float32(math.Inf(-1)) // the two greatest distances
	for _, d := range [...]float32{
		sin72*u + -cos72*v, -sin72*u + -cos72*v, sin36*u + cos36*v, -sin36*u + cos36*v,
	} {
		if d > first {
			first, second = d, first
		} else {
			second = max(second, d)
		}
	}
	return second - cos72
}

func ring(u, v float32) float32 { return abs(hypot(u, v)-0.7) - 0.22 }

func cross(u, v float32) float32 {
	a, b := abs(u), abs(v)
	return max(max(a, b)-0.94, min(a, b)-0.26)
}

// crescent is a disc with another one bitten out.
func crescent(u, v float32) float32 {
	return max(hypot(u, v)-0.92, 0.72-hypot(u-0.45, v))
}

func stripes(u, _ float32) float32 { return wave(u) }

// checker is where two waves have the same sign; near a corner the distance is
// that of the nearer edge.
func checker(u, v float32) float32 {
	a, b := wave(u), wave(v)
	d := min(abs(a), abs(b))
	if (a < 0) == (b < 0) {
		return d
	}
	return -d
}

// dots are discs on a square grid of period 1.
func dots(u, v float32) float32 {
	return hypot(u-floor(u)-0.5, v-floor(v)-0.5) - 0.31
}

// wave is a triangle wave of period 1: distance to the nearest multiple of a half,
// with alternating sign.
func wave(u float32) float32 { return abs(u-floor(u)-0.5) - 0.25 }

func hypot(u, v float32) float32 { return float32(math.Sqrt(float64(u*u + v*v))) }
func abs(u float32) float32      { return float32(math.Abs(float64(u))) }
func floor(u float32) float32    { return float32(math.Floor(float64(u))) }
