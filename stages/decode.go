package stages

import (
	"bytes"
	"cmp"
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
		DecodeOptions{Orientation: true, Damaged: damagedError, MaxPixels: 50_000_000, MaxBytes: 128 << 20},
		func(o DecodeOptions) (pipeline.SampleStage, error) { return NewDecode(o) })
}

// DecodeOptions are the options of the decode stage.
type DecodeOptions struct {
	Orientation bool   `yaml:"orientation" doc:"turn the picture upright as its EXIF orientation says"`
	Damaged     string `yaml:"damaged" doc:"a JPEG whose data are damaged or cut short: error, or keep what can be decoded (the rest is gray) with a warning and a row for the quarantine sink. A file of which nothing can be decoded, damage to its headers, and damage to files of other formats are always errors"`
	MaxPixels   int64  `yaml:"max_pixels" doc:"the most pixels an image may have, checked before memory is allocated, and the scans of a JPEG together 64 times as many, which bounds the time for it; a decoder needs up to 15 bytes a pixel (a progressive JPEG) for each worker"`
	MaxBytes    int64  `yaml:"max_bytes" doc:"the most bytes an encoded image may have"`
}

// What Damaged may be.
const (
	damagedError = "error"
	damagedKeep  = "keep"
)

// Decode is the sample stage of that name. It sets the sample's image and folds the
// EXIF orientation into its View; no pixel is moved or converted before it is rendered.
//
// Of a JPEG it reads the headers. The rest is decoded when the pixels are needed: only then it is known
// which window of it is kept, and what lies outside of it need not be transformed.
type Decode struct{ opt DecodeOptions }

// NewDecode makes the stage; the limits must be at least 1. No Damaged is error.
func NewDecode(o DecodeOptions) (*Decode, error) {
	o.Damaged = cmp.Or(o.Damaged, damagedError)
	var errs []error
	if o.Damaged != damagedError && o.Damaged != damagedKeep {
		errs = append(errs, config.Fieldf("damaged", "must be error or keep, is %q", o.Damaged))
	}
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

// Process decodes s.Bytes, or gets ready to. A sample without any that has its picture from the source keeps it.
func (d *Decode) Process(ctx context.Context, s *pipeline.Sample) error {
	if len(s.Bytes) == 0 && s.HasImage() {
		return nil
	}
	f, err := d.format(s.Bytes)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := d.begin(ctx, f, s); err != nil {
		return err
	}
	if !d.opt.Orientation {
		return nil
	}
	if orient := f.orientation(s.Bytes); orient != 1 {
		size := s.View().Size
		s.SetView(augment.NewView(size.X, size.Y, orient))
	}
	return nil
}

// format is that of the bytes, if they are not too many.
func (d *Decode) format(data []byte) (format, error) {
	if len(data) == 0 {
		return format{}, errors.New("there are no bytes to decode")
	}
	if int64(len(data)) > d.opt.MaxBytes {
		return format{}, fmt.Errorf("%d bytes are more than max_bytes: %d", len(data), d.opt.MaxBytes)
	}
	f, ok := formatOf(data)
	if !ok {
		return format{}, fmt.Errorf("this is no JPEG, PNG, GIF, BMP, TIFF or WebP picture (it begins with % x)", data[:min(len(data), 8)])
	}
	return f, nil
}

// begin gives s its image, or what decodes it when it is needed.
func (d *Decode) begin(ctx context.Context, f format, s *pipeline.Sample) error {
	if !f.fast {
		img, err := d.decode(ctx, f, s.Bytes)
		if err == nil {
			s.SetImage(img)
		}
		return err
	}
	p := pipeline.Scratch[picture](s, d)
	unsupported := p.open(d, f, s.Bytes)
	if unsupported == nil {
		s.SetPicture(p)
		return nil
	}
	if !errors.Is(unsupported, jpeg.ErrUnsupported) {
		return unsupported
	}
	// image/jpeg may know that kind; if not, it was named best here.
	img, err := d.decode(ctx, f, s.Bytes)
	if err != nil {
		return unsupported
	}
	s.SetImage(img)
	return nil
}

// picture is a JPEG whose headers are in order, and the memory to decode it.
type picture struct {
	decoder jpeg.Decoder
	data    []byte
	options jpeg.Options
	size    image.Point
}

// open reads the headers of data.
func (p *picture) open(d *Decode, f format, data []byte) error {
	c, err := jpeg.DecodeConfig(data)
	if err != nil {
		return err
	}
	if err := d.checkSize(f, c.Width, c.Height); err != nil {
		return err
	}
	p.data, p.size = data, image.Pt(c.Width, c.Height)
	p.options = jpeg.Options{MaxPixels: d.opt.MaxPixels, Keep: d.opt.Damaged == damagedKeep}
	return nil
}

// Bounds implements pipeline.Picture.
func (p *picture) Bounds() image.Rectangle { return image.Rectangle{Max: p.size} }

// Decode implements pipeline.Picture.
func (p *picture) Decode(s *pipeline.Sample, region image.Rectangle) (image.Image, error) {
	p.options.Region = region
	img, err := p.decoder.Decode(p.data, p.options)
	p.data = nil
	if err != nil {
		return nil, err
	}
	if img.Damage != nil {
		s.Warn(fmt.Sprintf("%v; %d MCUs are missing", img.Damage, img.Lost))
	}
	return img.Image(), nil
}

// decode decodes by the format's own decoder.
func (d *Decode) decode(ctx context.Context, f format, data []byte) (img image.Image, err error) {
	// The decoders are others' code and have had panics on hostile files; one bad file
	// must not end the process.
	defer func() {
		if p := recover(); p != nil {
			img, err = nil, fmt.Errorf("damaged %s: the decoder panicked: %v", f.name, p)
		}
	}()
	size, err := f.config(reader{bytes.NewReader(data), ctx})
	if err != nil {
		return nil, f.explain(err)
	}
	if err := d.check(f, data, size.Width, size.Height); err != nil {
		return nil, err
	}
	img, err = f.decode(reader{bytes.NewReader(data), ctx})
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
	if err := d.checkSize(f, w, h); err != nil {
		return err
	}
	if f.pixelsPerByte > 0 && int64(w)*int64(h)/f.pixelsPerByte > int64(len(data)) {
		return fmt.Errorf("the %s claims %d x %d pixels, which cannot be in %d bytes: it is cut short or damaged", f.name, w, h, len(data))
	}
	return d.checkScans(f, data, w, h)
}

func (d *Decode) checkSize(f format, w, h int) error {
	if w <= 0 || h <= 0 {
		return fmt.Errorf("the %s has %d x %d pixels", f.name, w, h)
	}
	if int64(w) > d.opt.MaxPixels/int64(h) {
		return fmt.Errorf("the %s has %d x %d pixels, more than max_pixels: %d", f.name, w, h, d.opt.MaxPixels)
	}
	return nil
}

func (d *Decode) checkScans(f format, data []byte, w, h int) error {
	if f.scans == nil {
		return nil
	}
	n := f.scans(data)
	if n > jpeg.MaxScans {
		return fmt.Errorf("the %s has %d scans, more than the %d that any honest file needs", f.name, n, jpeg.MaxScans)
	}
	if int64(n)*int64(w)*int64(h)/jpeg.MaxPasses > d.opt.MaxPixels {
		return fmt.Errorf("the %s has %d scans of %d x %d pixels, together more than %d times max_pixels: %d", f.name, n, w, h, jpeg.MaxPasses, d.opt.MaxPixels)
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
