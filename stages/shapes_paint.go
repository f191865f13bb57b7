package stages

import (
	"image"
	"math"
	"math/rand/v2"
	"slices"

	"sluice/stages/internal/jpegenc"
)

// How hard the shapes are. Sizes are fractions of the picture's shorter side,
// tones are levels of 0..255.
const (
	shapeMinSide   = 96
	shapeMaxSide   = 200
	shapeMaxAspect = 1.35

	shapeMinDiameter   = 0.50 // of the outline's circle
	shapeMaxDiameter   = 0.85
	shapeMinPatterned  = 0.60 // the least diameter of one told by its pattern
	shapeMaxTurn       = 25   // degrees either way
	shapeMaxShift      = 0.15 // of the middle, from the picture's
	shapeMaxStretch    = 1.12 // one way, and as much shrunk the other
	shapeMinContrast   = 55   // of luma between the shape and its surroundings, and between a pattern's tones
	shapeMaxContrast   = 110
	shapeMinPeriod     = 0.42 // of a pattern, in radii
	shapeMaxPeriod     = 0.62
	shapeMaxClutter    = 9  // bars and spots behind the shape
	shapeClutterSize   = 12 // percent of the shorter side: a spot's greatest diameter
	shapeClutterTone   = 45 // greatest contrast of one
	shapeMaxTexture    = 18 // greatest amplitude of the surface of ground and shape
	shapeMaxNoise      = 12 // greatest amplitude of grain
	shapeMinQuality    = 60
	shapeMaxQuality    = 95
	shapeGrayFraction  = 0.1
	shapeShadeFraction = 0.6 // how many cast a shadow
)

// tone is a colour in JPEG's own space: luma, and chroma about 0.
type tone struct{ y, cb, cr float32 }

func (t tone) mix(o tone, f float32) tone {
	return tone{t.y + (o.y-t.y)*f, t.cb + (o.cb-t.cb)*f, t.cr + (o.cr-t.cr)*f}
}

// latticeSide is the period of the noise fields, a power of two.
const latticeSide = 32

// A shapePainter renders pictures one after the other. It keeps its memory; each
// picture depends only on the generator and the class. Pixels are tones
// until they are developed.
type shapePainter struct {
	w, h    int
	pix     []tone
	row     []tone // scratch of blur
	lattice [latticeSide * latticeSide]float32
	ycc     image.YCbCr
}

// paint appends the JPEG of one picture of class to dst.
func (p *shapePainter) paint(dst []byte, rng *rand.Rand, class *shapeClass) ([]byte, error) {
	short := between(rng, shapeMinSide, shapeMaxSide/shapeMaxAspect*1.12)
	long := min(short*between(rng, 1, shapeMaxAspect), shapeMaxSide)
	p.w, p.h = int(short), int(long)
	if rng.IntN(2) == 0 {
		p.w, p.h = p.h, p.w
	}
	p.pix = slices.Grow(p.pix[:0], p.w*p.h)[:p.w*p.h]
	for i := range p.lattice {
		p.lattice[i] = between(rng, -1, 1)
	}

	ground := randomTone(rng, between(rng, 50, 205))
	p.background(rng, ground)
	for range rng.IntN(shapeMaxClutter + 1) {
		p.clutter(rng, ground)
	}
	p.shape(rng, class, ground)
	for range rng.IntN(3) {
		p.blur(between(rng, 0.05, 0.3))
	}
	grain := between(rng, 0, shapeMaxNoise)
	quality := shapeMinQuality + rng.IntN(shapeMaxQuality-shapeMinQuality+1)
	return jpegenc.Append(dst, p.develop(rng, grain), jpegenc.Options{Quality: quality})
}

func between(rng *rand.Rand, lo, hi float32) float32 { return lo + (hi-lo)*rng.Float32() }

// randomTone is of any hue, and paler where little of a hue fits the luma.
func randomTone(rng *rand.Rand, luma float32) tone {
	room := min(1, min(luma, 255-luma)/90)
	return tone{luma, room * between(rng, -55, 55), room * between(rng, -55, 55)}
}

// away is a luma that stands out from another, lighter or darker, whichever there
// is room for.
func away(rng *rand.Rand, luma float32) float32 {
	d := between(rng, shapeMinContrast, shapeMaxContrast)
	if rng.IntN(2) == 0 {
		d = -d
	}
	if luma+d < 12 || luma+d > 243 {
		d = -d
	}
	return min(max(luma+d, 12), 243)
}

// noise is a smooth field of -1..1 with a feature about every 1; x and y are not
// negative.
func (p *shapePainter) noise(x, y float32) float32 {
	i, j := int32(x), int32(y)
	x, y = x-float32(i), y-float32(j)
	const mask = latticeSide - 1
	i, i1 := i&mask, (i+1)&mask
	j, j1 := j&mask*latticeSide, (j+1)&mask*latticeSide
	l := &p.lattice
	top := l[j+i] + (l[j+i1]-l[j+i])*x
	bottom := l[j1+i] + (l[j1+i1]-l[j1+i])*x
	return top + (bottom-top)*y
}

// background fills the picture with a gradient between two tones near ground,
// bent by coarse noise, under a fine texture.
func (p *shapePainter) background(rng *rand.Rand, ground tone) {
	from := randomTone(rng, ground.y+between(rng, -30, 0)).mix(ground, 0.5)
	to := randomTone(rng, ground.y+between(rng, 0, 30)).mix(ground, 0.5)
	sin, cos := math.Sincos(2 * math.Pi * rng.Float64())
	slopeX, slopeY := float32(cos)/float32(p.w), float32(sin)/float32(p.h)
	coarse, bend := 1/between(rng, 20, 70), between(rng, 0, 0.8)
	fine, depth := 1/between(rng, 2.5, 10), between(rng, 0, shapeMaxTexture)
	squash := between(rng, 0.4, 1) // fine texture with a grain
	for y := range p.h {
		row := p.pix[y*p.w:][:p.w]
		fy := float32(y)
		along := 0.5 - slopeX*float32(p.w)/2 + slopeY*(fy-float32(p.h)/2)
		for x := range row {
			fx := float32(x)
			t := along + slopeX*fx + bend*p.noise(fx*coarse, fy*coarse)
			c := from.mix(to, min(max(t, 0), 1))
			c.y += depth * p.noise(fx*fine, fy*fine*squash+11)
			row[x] = c
		}
	}
}

// lay mixes into the pixels within reach of (cx, cy) what f gives for them: a
// tone and how much of it covers the pixel.
func (p *shapePainter) lay(cx, cy, reach float32, f func(dx, dy float32, under tone) (tone, float32)) {
	x0, x1 := max(int(cx-reach), 0), min(int(cx+reach)+2, p.w)
	y0, y1 := max(int(cy-reach), 0), min(int(cy+reach)+2, p.h)
	for y := y0; y < y1; y++ {
		row := p.pix[y*p.w:][:p.w]
		for x := x0; x < x1; x++ {
			if over, cover := f(float32(x)-cx, float32(y)-cy, row[x]); cover > 0 {
				row[x] = row[x].mix(over, min(cover, 1))
			}
		}
	}
}

// clutter lays a bar or a spot anywhere.
func (p *shapePainter) clutter(rng *rand.Rand, ground tone) {
	short := float32(min(p.w, p.h))
	c := randomTone(rng, min(max(ground.y+between(rng, -shapeClutterTone, shapeClutterTone), 12), 243))
	cx, cy := between(rng, 0, float32(p.w)), between(rng, 0, float32(p.h))
	sin64, cos64 := math.Sincos(2 * math.Pi * rng.Float64())
	sin, cos := float32(sin64), float32(cos64)
	half := between(rng, 0.3, 1) * short * shapeClutterSize / 200
	length := half
	if rng.IntN(2) == 0 { // a bar
		half *= 0.4
		length = between(rng, 0.15, 0.5) * short
	}
	soft, cover := between(rng, 0.3, 1), between(rng, 0.4, 1)
	p.lay(cx, cy, length+half, func(dx, dy float32, _ tone) (tone, float32) {
		u, v := cos*dx+sin*dy, cos*dy-sin*dx
		d := hypot(max(abs(u)-(length-half), 0), v) - half
		return c, min(0.5-d*soft, 1) * cover
	})
}

// shape lays the shape itself, whole inside the central square of the picture,
// and perhaps its shadow.
func (p *shapePainter) shape(rng *rand.Rand, class *shapeClass, ground tone) {
	short := float32(min(p.w, p.h))
	outline, least := class.outline, float32(shapeMinDiameter)
	if outline == nil {
		outline, least = plainOutlines[rng.IntN(len(plainOutlines))], shapeMinPatterned
	}
	radius := short / 2 * between(rng, least, shapeMaxDiameter)
	play := min(max(short/2-radius*shapeMaxStretch, 0), shapeMaxShift*short)
	cx := float32(p.w)/2 + between(rng, -play, play)
	cy := float32(p.h)/2 + between(rng, -play, play)
	sin64, cos64 := math.Sincos(float64(between(rng, -shapeMaxTurn, shapeMaxTurn)) * math.Pi / 180)
	stretch := between(rng, 1, shapeMaxStretch)
	if rng.IntN(2) == 0 {
		stretch = 1 / stretch
	}
	sin, cos := float32(sin64)/radius, float32(cos64)/radius
	// local turns a pixel's place into the outline's: turned, then stretched.
	local := func(dx, dy float32) (u, v float32) {
		return (cos*dx + sin*dy) * stretch, (cos*dy - sin*dx) / stretch
	}
	reach := radius * shapeMaxStretch

	body := randomTone(rng, away(rng, ground.y))
	second := randomTone(rng, away(rng, body.y))
	lightX, lightY := between(rng, -14, 14), between(rng, -14, 14)
	mottle, depth := between(rng, 2, 8), between(rng, 2, shapeMaxTexture)
	period := between(rng, shapeMinPeriod, shapeMaxPeriod)
	phaseU, phaseV := rng.Float32(), rng.Float32()
	sharp := radius / between(rng, 1, 1.8) // edges are 1 to 1.8 pixels wide

	if rng.Float32() < shapeShadeFraction {
		offX, offY := between(rng, -0.14, 0.14)*radius, between(rng, -0.14, 0.14)*radius
		dark, soft := between(rng, 0.15, 0.4), between(rng, 3, 8)
		p.lay(cx+offX, cy+offY, reach, func(dx, dy float32, under tone) (tone, float32) {
			under.y *= 1 - dark
			return under, 0.5 - outline(local(dx, dy))*soft
		})
	}
	p.lay(cx, cy, reach, func(dx, dy float32, _ tone) (tone, float32) {
		u, v := local(dx, dy)
		cover := 0.5 - outline(u, v)*sharp
		if cover <= 0 {
			return tone{}, 0
		}
		c := body
		if class.pattern != nil {
			d := class.pattern(u/period+phaseU, v/period+phaseV)
			c = c.mix(second, min(max(0.5-d*sharp*period, 0), 1))
		}
		c.y += lightX*u + lightY*v + depth*p.noise((u+2)*mottle, (v+2)*mottle)
		return c, cover
	})
}

// blur spreads every pixel: a of it goes to either neighbour, along rows and then
// along columns.
func (p *shapePainter) blur(a float32) {
	weigh := func(before, c, after tone) tone {
		m := 1 - 2*a
		return tone{
			m*c.y + a*(before.y+after.y),
			m*c.cb + a*(before.cb+after.cb),
			m*c.cr + a*(before.cr+after.cr),
		}
	}
	for y := range p.h {
		row := p.pix[y*p.w:][:p.w]
		before := row[0]
		for x, c := range row {
			row[x] = weigh(before, c, row[min(x+1, p.w-1)])
			before = c
		}
	}
	p.row = append(p.row[:0], p.pix[:p.w]...)
	for y := range p.h {
		row := p.pix[y*p.w:][:p.w]
		next := p.pix[min(y+1, p.h-1)*p.w:][:p.w]
		for x, c := range row {
			row[x] = weigh(p.row[x], c, next[x])
			p.row[x] = c
		}
	}
}

// develop adds grain and turns the picture into 8-bit planes: in colour with one
// of three subsamplings, or gray. The planes are the painter's.
func (p *shapePainter) develop(rng *rand.Rand, strength float32) image.Image {
	grain := grain{rng: rng, scale: strength / 255}
	gray := rng.Float32() < shapeGrayFraction
	m := &p.ycc
	m.Rect = image.Rect(0, 0, p.w, p.h)
	m.YStride = p.w
	m.Y = slices.Grow(m.Y[:0], p.w*p.h)[:p.w*p.h]
	for i := range p.pix {
		m.Y[i] = level(p.pix[i].y + grain.next())
	}
	if gray {
		return &image.Gray{Pix: m.Y, Stride: p.w, Rect: m.Rect}
	}

	h, v := 1, 1 // pixels of a chroma sample
	switch rng.IntN(3) {
	case 0:
		m.SubsampleRatio = image.YCbCrSubsampleRatio444
	case 1:
		m.SubsampleRatio, h = image.YCbCrSubsampleRatio422, 2
	case 2:
		m.SubsampleRatio, h, v = image.YCbCrSubsampleRatio420, 2, 2
	}
	m.CStride = (p.w + h - 1) / h
	n := m.CStride * ((p.h + v - 1) / v)
	m.Cb = slices.Grow(m.Cb[:0], n)[:n]
	m.Cr = slices.Grow(m.Cr[:0], n)[:n]
	for i := range n {
		x, y := i%m.CStride*h, i/m.CStride*v
		var cb, cr, count float32
		for j := y; j < min(y+v, p.h); j++ {
			for _, c := range p.pix[j*p.w+x : j*p.w+min(x+h, p.w)] {
				cb, cr, count = cb+c.cb, cr+c.cr, count+1
			}
		}
		m.Cb[i] = level(128 + cb/count + grain.next()/2)
		m.Cr[i] = level(128 + cr/count + grain.next()/2)
	}
	return m
}

// level rounds to what a byte can hold.
func level(f float32) byte { return byte(min(max(int32(f+0.5), 0), 255)) }

// grain gives noise of a triangular distribution between -255 and 255 times
// scale, four values for each draw.
type grain struct {
	rng   *rand.Rand
	scale float32
	bits  uint64
	left  int
}

func (g *grain) next() float32 {
	if g.left == 0 {
		g.bits, g.left = g.rng.Uint64(), 4
	}
	n := int32(g.bits&0xFF) - int32(g.bits>>8&0xFF)
	g.bits >>= 16
	g.left--
	return float32(n) * g.scale
}
