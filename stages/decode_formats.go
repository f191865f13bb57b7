package stages

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/draw"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"strings"

	"github.com/bep/imagemeta"
	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"
	"golang.org/x/image/webp"
)

// format is what decode knows of a file format. The decoders are named here and not
// registered with package image, so that no import elsewhere can change what decodes.
type format struct {
	name   string
	config func(io.Reader) (image.Config, error)
	decode func(io.Reader) (image.Image, error)
	exif   imagemeta.ImageFormat // ImageFormatAuto: it has no EXIF
	// pixelsPerByte is how many pixels a byte of a whole file can stand for at most,
	// 0 if there is no bound: a header that claims more is not to be believed.
	pixelsPerByte int64
	scans         func([]byte) int // how many passes over all pixels the file asks for; nil: one
	fast          bool             // stages/jpeg decodes it
	framed        bool             // decode gives a part of the picture that config gives the size of
}

// deflateRatio is the most that deflate can enlarge data (zlib's documentation).
const deflateRatio = 1032

// formatOf recognises a format by its first bytes.
func formatOf(data []byte) (format, bool) {
	switch {
	case begins(data, "\xff\xd8"):
		return format{
			name: "JPEG", fast: true, config: jpeg.DecodeConfig, decode: jpeg.Decode, exif: imagemeta.JPEG,
			// A bit a block of 64 pixels, in components that may be subsampled by 4 in one direction
			// each.
			pixelsPerByte: 1024,
			// In entropy-coded data a 0xff is followed by 0 or a restart, so this finds start-of-scan
			// markers alone (and one in a thumbnail).
			scans: func(b []byte) int { return bytes.Count(b, []byte{0xff, 0xda}) },
		}, true
	case begins(data, "\x89PNG\r\n\x1a\n"):
		return format{name: "PNG", config: png.DecodeConfig, decode: png.Decode, exif: imagemeta.PNG, pixelsPerByte: 8 * deflateRatio}, true
	case begins(data, "GIF87a"), begins(data, "GIF89a"):
		// gif.Decode stops after the first frame, which need not fill the canvas.
		return format{name: "GIF", config: gif.DecodeConfig, decode: gif.Decode, framed: true}, true
	case begins(data, "BM"):
		return format{name: "BMP", config: bmp.DecodeConfig, decode: bmp.Decode, pixelsPerByte: 8}, true
	case begins(data, "II*\x00"), begins(data, "MM\x00*"):
		// Fax compression has no bound: a white line of any length is one bit.
		return format{name: "TIFF", config: tiff.DecodeConfig, decode: tiff.Decode, exif: imagemeta.TIFF}, true
	case begins(data, "RIFF????WEBP"):
		return format{name: "WebP", config: webp.DecodeConfig, decode: webp.Decode, exif: imagemeta.WebP}, true
	}
	return format{}, false
}

// begins reports whether data begins with magic, in which ? is any byte.
func begins(data []byte, magic string) bool {
	if len(data) < len(magic) {
		return false
	}
	for i := range len(magic) {
		if magic[i] != '?' && data[i] != magic[i] {
			return false
		}
	}
	return true
}

// explain makes a decoder's error one that a user understands.
func (f format) explain(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return fmt.Errorf("the %s is cut short: %w", f.name, err)
	}
	// The decoders begin their messages with the name of their package.
	for _, prefix := range []string{"png: ", "gif: ", "bmp: ", "tiff: ", "webp: ", "vp8: ", "vp8l: "} {
		if msg, ok := strings.CutPrefix(err.Error(), prefix); ok {
			return fmt.Errorf("damaged or unusual %s: %s", f.name, msg)
		}
	}
	return fmt.Errorf("damaged or unusual %s: %w", f.name, err)
}

// onCanvas is a frame on the transparent canvas of w x h pixels that it is a part of.
func onCanvas(frame image.Image, w, h int) image.Image {
	canvas := image.Rect(0, 0, w, h)
	if frame.Bounds() == canvas {
		return frame
	}
	img := image.NewNRGBA(canvas)
	draw.Draw(img, frame.Bounds(), frame, frame.Bounds().Min, draw.Src)
	return img
}

// orientation is the EXIF orientation, 1..8; 1 if there is none or it cannot be read. Bad
// metadata is no reason to give up a good picture.
func (f format) orientation(data []byte) (orient int) {
	if f.exif == imagemeta.ImageFormatAuto {
		return 1
	}
	if f.exif == imagemeta.JPEG && !hasEXIF(data) {
		return 1 // as most photos of a dataset; looking is cheaper than parsing
	}
	orient = 1
	// As with the decoders; a panic here leaves the picture as it is stored.
	defer func() {
		if recover() != nil {
			orient = 1
		}
	}()
	_, _ = imagemeta.Decode(imagemeta.Options{ // an error leaves 1
		R: bytes.NewReader(data), ImageFormat: f.exif, Sources: imagemeta.EXIF,
		ShouldHandleTag: func(t imagemeta.TagInfo) bool { return t.Namespace == "IFD0" && t.Tag == "Orientation" },
		HandleTag: func(t imagemeta.TagInfo) error {
			// The standard says 16 bits; some writers use 32.
			switch v := t.Value.(type) {
			case uint16:
				orient = int(v)
			case uint32:
				orient = int(min(v, 9))
			}
			return imagemeta.ErrStopWalking
		},
	})
	if orient < 1 || orient > 8 {
		return 1
	}
	return orient
}

// hasEXIF looks for an EXIF segment in the headers of a JPEG, before its first scan.
func hasEXIF(data []byte) bool {
	const app1, sos = 0xe1, 0xda
	for at := 2; at+4 <= len(data); {
		if data[at] != 0xff {
			// Not where a marker should be; decoders go on all the same.
			return bytes.Contains(data[at:], []byte("Exif\x00\x00"))
		}
		code := data[at+1]
		switch {
		case code == 0xff: // filling
			at++
			continue
		case code == sos:
			return false
		case code == app1 && bytes.HasPrefix(data[at+4:], []byte("Exif\x00\x00")):
			return true
		}
		at += 2 + int(binary.BigEndian.Uint16(data[at+2:]))
	}
	return false
}
