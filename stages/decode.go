package stages

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"io"

	"sluice/augment"
	"sluice/pipeline"
	"sluice/pipeline/config"
	"sluice/stages/jpeg"
)

func init() {
	pipeline.RegisterSampleStage("decode",
		"Decode the bytes of an image to pixels. The content decides the format, never the name: JPEG, PNG, GIF (the first frame), BMP, TIFF or WebP. "+
			"Gray, CMYK and YCCK become RGB, 16 bits become 8, and what is transparent shows a white background. "+
			"A file that is cut short, damaged or larger than the limits is an error of that sample.",
		DecodeOptions{Orientation: true, MaxPixels: 50_000_000, MaxBytes: 128 << 20},
		func(o DecodeOptions) (pipeline.SampleStage, error) { return NewDecode(o) })
}

// DecodeOptions are the options of the decode stage.
type DecodeOptions struct {
	Orientation bool  `yaml:"orientation" doc:"turn the picture upright as its EXIF orientation says"`
	MaxPixels   int64 `yaml:"max_pixels" doc:"the most pixels an image may have, checked before memory is allocated; a decoder needs up to 15 bytes a pixel (a progressive JPEG) for each worker"`
	MaxBytes    int64 `yaml:"max_bytes" doc:"the most bytes an encoded image may have"`
}

// Decode is the sample stage of that name. It sets the sample's image and folds the
// EXIF orientation into its View; no pixel is moved or converted before it is rendered.
type Decode struct{ opt DecodeOptions }

// NewDecode makes the stage; the limits must be at least 1.
func NewDecode(o DecodeOptions) (*Decode, error) {
	var errs []error
	if o.MaxPixels < 1 {
		errs = append(errs, config.Fieldf("max_pixels", "must be at least 1, is %d", o.MaxPixels))
	}
	if o.MaxBytes < 1 {
		errs = append(errs, config.Fieldf("max_bytes", "must be at least 1, is %d", o.MaxBytes))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return &Decode{o}, nil
}

// Frame implements pipeline.Framer: sizes differ from here on.
func (d *Decode) Frame(pipeline.Frame) (pipeline.Frame, error) { return pipeline.Frame{}, nil }

// Process decodes s.Bytes.
func (d *Decode) Process(ctx context.Context, s *pipeline.Sample) error {
	img, orient, err := d.decode(ctx, s.Bytes, pipeline.Scratch[jpeg.Decoder](s, d))
	if err != nil {
		return err
	}
	s.SetImage(img)
	if orient != 1 {
		b := img.Bounds()
		s.SetView(augment.NewView(b.Dx(), b.Dy(), orient))
	}
	return nil
}

// decode uses the memory of fast for JPEGs, and so may the image that it gives.
func (d *Decode) decode(ctx context.Context, data []byte, fast *jpeg.Decoder) (img image.Image, orient int, err error) {
	if len(data) == 0 {
		return nil, 0, errors.New("there are no bytes to decode")
	}
	if int64(len(data)) > d.opt.MaxBytes {
		return nil, 0, fmt.Errorf("%d bytes are more than max_bytes: %d", len(data), d.opt.MaxBytes)
	}
	f, ok := formatOf(data)
	if !ok {
		return nil, 0, fmt.Errorf("this is no JPEG, PNG, GIF, BMP, TIFF or WebP picture (it begins with % x)", data[:min(len(data), 8)])
	}
	// The decoders are others' code and have had panics on hostile files; one bad file
	// must not end the process.
	defer func() {
		if p := recover(); p != nil {
			img, err = nil, fmt.Errorf("damaged %s: the decoder panicked: %v", f.name, p)
		}
	}()
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	orient = 1
	if d.opt.Orientation {
		orient = f.orientation(data)
	}
	if f.fast {
		img, err := d.decodeFast(f, data, fast)
		if !errors.Is(err, jpeg.ErrUnsupported) {
			return img, orient, err
		}
		// image/jpeg may know that kind; if not, it was named best here.
		if img, err := d.decodeWith(ctx, f, data); err == nil {
			return img, orient, nil
		}
		return nil, 0, err
	}
	img, err = d.decodeWith(ctx, f, data)
	return img, orient, err
}

// decodeFast decodes a JPEG in the memory of fast.
func (d *Decode) decodeFast(f format, data []byte, fast *jpeg.Decoder) (image.Image, error) {
	if err := checkScans(f, data); err != nil {
		return nil, err
	}
	picture, err := fast.Decode(data, jpeg.Options{MaxPixels: d.opt.MaxPixels})
	if errors.Is(err, jpeg.ErrTooLarge) {
		return nil, fmt.Errorf("%w (max_pixels)", err)
	}
	if err != nil {
		return nil, err
	}
	return picture.Image(), nil
}

// decodeWith decodes by the format's own decoder.
func (d *Decode) decodeWith(ctx context.Context, f format, data []byte) (image.Image, error) {
	size, err := f.config(reader{bytes.NewReader(data), ctx})
	if err != nil {
		return nil, f.explain(err)
	}
	if err := d.check(f, data, size.Width, size.Height); err != nil {
		return nil, err
	}
	img, err := f.decode(reader{bytes.NewReader(data), ctx})
	if err != nil {
		return nil, f.explain(err)
	}
	if f.framed {
		img = onCanvas(img, size.Width, size.Height)
	}
	if b := img.Bounds(); b.Empty() {
		return nil, fmt.Errorf("the %s has %d x %d pixels", f.name, b.Dx(), b.Dy())
	}
	return img, nil
}

// check holds what a header claims against the limits, before a decoder allocates for it.
func (d *Decode) check(f format, data []byte, w, h int) error {
	if w <= 0 || h <= 0 {
		return fmt.Errorf("the %s has %d x %d pixels", f.name, w, h)
	}
	if int64(w) > d.opt.MaxPixels/int64(h) {
		return fmt.Errorf("the %s has %d x %d pixels, more than max_pixels: %d", f.name, w, h, d.opt.MaxPixels)
	}
	if f.pixelsPerByte > 0 && int64(w)*int64(h)/f.pixelsPerByte > int64(len(data)) {
		return fmt.Errorf("the %s claims %d x %d pixels, which cannot be in %d bytes: it is cut short or damaged", f.name, w, h, len(data))
	}
	return checkScans(f, data)
}

func checkScans(f format, data []byte) error {
	if f.scans == nil {
		return nil
	}
	if n := f.scans(data); n > maxScans {
		return fmt.Errorf("the %s has %d scans, more than the %d that any honest file needs", f.name, n, maxScans)
	}
	return nil
}

// reader is a bytes.Reader that ends when the run is cancelled, so that a large
// picture does not hold it up.
type reader struct {
	*bytes.Reader
	ctx context.Context
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// WriteTo hides that of bytes.Reader, which would not look at the context.
func (r reader) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{r})
}
