package gpu

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"sluice/net"
	"sluice/pipeline"
)

// Statistics says that the network's mean is that of the training images. It
// implements pipeline.StatisticsUser.
func (t *Train) Statistics() string {
	switch t.opt.Net.Mean().From {
	case net.MeanAuto, net.MeanAutoChannels:
		return pipeline.FromSource
	}
	return ""
}

// SetStatistics gives the mean.
func (t *Train) SetStatistics(s *pipeline.Statistics) error {
	if t.opt.Net.Mean().From == net.MeanAuto {
		if s.MeanImage == nil {
			return errors.New(noMeanImage)
		}
		t.mean = &net.MeanImage{H: s.H, W: s.W, Pixels: s.MeanImage}
		return nil
	}
	t.mean = &net.MeanImage{H: 1, W: 1, Pixels: s.Mean[:]}
	return nil
}

const noMeanImage = "mean: auto is the mean image of the training images as they are before the first random stage, and these differ in size: " +
	"put center_crop: {size: 256} before what is random, or use mean: auto_channels, which is three numbers"

// planMean finds the mean of the network that is not in its YAML, as far as it is
// known before the run, and holds the images to it.
func (t *Train) planMean(env *pipeline.Env) error {
	switch from := t.opt.Net.Mean().From; from {
	case "", net.MeanAutoChannels:
		return nil
	case net.MeanAuto:
		if env.Survey.W == 0 {
			return errors.New(noMeanImage)
		}
		return checkCanvases(env, "the mean image of the training images", env.Survey.W, env.Survey.H)
	default:
		m, err := net.ReadMean(from)
		if err != nil {
			return fmt.Errorf("mean: %w", err)
		}
		t.mean = m
		return checkMean(env, from, m)
	}
}

// checkMean holds the images of a line and of its validation to a mean image.
func checkMean(env *pipeline.Env, what string, m *net.MeanImage) error {
	if m.H == 1 && m.W == 1 {
		return nil
	}
	return checkCanvases(env, what, m.W, m.H)
}

func checkCanvases(env *pipeline.Env, what string, w, h int) error {
	err := checkCanvas(env.Frame, "", what, w, h)
	if env.ValidationSamples > 0 {
		err = errors.Join(err, checkCanvas(env.ValidationFrame, "of the validation ", what, w, h))
	}
	return err
}

// checkCanvas holds crops to a mean image: their origins count on a canvas that
// must be it.
func checkCanvas(f pipeline.Frame, whose, what string, w, h int) error {
	cw, ch := f.CanvasW, f.CanvasH
	if cw == 0 {
		cw, ch = f.W, f.H
	}
	if cw == w && ch == h {
		return nil
	}
	return fmt.Errorf("the images %sare cut out of a canvas of %dx%d (the first crop, or the whole image), and %s is of %dx%d: "+
		"put center_crop: {size: %d} before the other crops, or subtract the channels' mean with mean: auto_channels",
		whose, cw, ch, what, w, h, min(w, h))
}

// meanAbout is what weights say of their mean image; the image itself is among
// them.
type meanAbout struct {
	Height int    `json:"height"`
	Width  int    `json:"width"`
	SHA256 string `json:"sha256"` // of its numbers, float32 little endian, hex
}

func aboutMean(m *net.MeanImage) *meanAbout {
	if m == nil {
		return nil
	}
	return &meanAbout{Height: m.H, Width: m.W, SHA256: sumOf(m.Pixels)}
}

func sumOf(v []float32) string {
	sum := sha256.New()
	_ = binary.Write(sum, binary.LittleEndian, v) // a hash takes everything
	return hex.EncodeToString(sum.Sum(nil))
}
