package jpeg

import (
	"errors"
	"fmt"
	"image"
)

// Errors that Decode and DecodeConfig wrap, beside [*Damage].
var (
	// ErrFormat is a file that is no JPEG or whose headers contradict themselves.
	ErrFormat = errors.New("not a proper JPEG")
	// ErrUnsupported is a kind of JPEG that this package does not decode; the message names it.
	ErrUnsupported = errors.New("unsupported kind of JPEG")
	// ErrTooLarge is a picture with more pixels than Options.MaxPixels, or so many scans of it
	// that decoding would take as long as one of far more.
	ErrTooLarge = errors.New("too many pixels")
)

func formatError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
}

func unsupported(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrUnsupported, fmt.Sprintf(format, args...))
}

// DefaultMaxPixels is the limit where Options set none.
const DefaultMaxPixels = 100_000_000

// MaxScans is the most scans of a file. Real ones have about ten, and no honest script needs more than
// a few hundred; each scan of a few bytes may cost a pass over the picture.
const MaxScans = 500

// MaxPasses bounds the time that a file of many scans takes: all of them together go over at most as
// many pixels as so many passes over the largest picture that is allowed.
const MaxPasses = 64

// Options say how a file is decoded; the zero value decodes all of it and takes no damage.
type Options struct {
	// MaxPixels is the most pixels (width times height) that are decoded, checked before
	// memory is allocated; 0 means DefaultMaxPixels. The scans of a picture may go over
	// 64 times as many.
	MaxPixels int64
	// Region, if not empty, is the part of the picture that is wanted, in pixels. The rest is
	// read, and damage in it found, but not transformed: its samples are unspecified.
	Region image.Rectangle
	// Keep gives a damaged picture with what could be decoded (the rest is gray) and
	// Image.Damage set, where otherwise the damage is the error. It is the error still
	// where nothing at all could be decoded.
	Keep bool
}

// Damage is what is wrong with the entropy-coded data of a file: bits that are no
// code, data that end too soon or too late, scans that are missing.
type Damage struct {
	Offset int    // byte of the file at which it was noticed
	Scan   int    // scan, from 1
	MCU    int    // minimum coded unit of the scan, from 0
	MCUs   int    // how many the scan has; 0 before the first
	Reason string // such as "the data end"
}

// Error implements error.
func (d *Damage) Error() string {
	if d.MCUs == 0 {
		return fmt.Sprintf("damaged JPEG: %s at byte %d", d.Reason, d.Offset)
	}
	return fmt.Sprintf("damaged JPEG: %s at byte %d (scan %d, MCU %d of %d)", d.Reason, d.Offset, d.Scan, d.MCU, d.MCUs)
}

// Decoder decodes one file after another in the same memory. The zero value is
// ready. It must not be used by two goroutines at a time.
type Decoder struct {
	opt   Options
	level level // of CPU; levelUnset until first used

	header
	dc, ac [4]table

	bits    bits
	scan    scan
	scans   int     // begun
	damage  *Damage // the first
	damaged Damage  // what damage points to
	begun   int     // MCUs of the scans that have begun
	lost    int     // those of them that were given up

	mcu   []mcuBlock // the blocks of an MCU of a sequential scan
	strip []int16    // coefficients of some MCUs
	flags []uint8    // of each block in it: not 0 if there is more than DC

	out Image

	seen func(c *component, coefs []int16) // for tests: coefficients before they are transformed
}

// Decode decodes a file. The picture and its planes are valid until the
// next call. Errors wrap ErrFormat, ErrUnsupported or ErrTooLarge, or are a *Damage.
func (d *Decoder) Decode(data []byte, opt Options) (*Image, error) {
	if errChosen != nil && d.level == levelUnset {
		return nil, errChosen
	}
	d.begin(data, opt)
	defer func() { d.data, d.bits.src = nil, nil }()
	err := d.decode()
	if err != nil {
		// Whatever goes wrong once there are pixels is damage too, such as a marker
		// segment that is cut short.
		if !opt.Keep || d.scans == 0 || errors.Is(err, ErrUnsupported) || errors.Is(err, ErrTooLarge) {
			return nil, err
		}
		if d.damage == nil {
			d.note(d.pos, err.Error())
		}
	}
	if d.damage != nil && (!opt.Keep || d.lost == d.begun) {
		return nil, d.damage
	}
	d.finish()
	return &d.out, nil
}

func (d *Decoder) begin(data []byte, opt Options) {
	if d.level == levelUnset {
		d.level = chosen
	}
	if opt.MaxPixels == 0 {
		opt.MaxPixels = DefaultMaxPixels
	}
	d.opt = opt
	d.reset(data, opt.MaxPixels)
	for i := range d.dc {
		d.dc[i].set, d.ac[i].set = false, false
	}
	d.scans, d.damage, d.begun, d.lost = 0, nil, 0, 0
	d.scan.mcu, d.scan.mcus = 0, 0
}

// decode goes from marker to marker until every coefficient is there or the file ends.
func (d *Decoder) decode() error {
	if err := d.start(); err != nil {
		return err
	}
	for {
		code, err := d.marker()
		if err != nil {
			return d.ended(err)
		}
		switch code {
		case markerEOI:
			return d.ended(nil)
		case markerDHT:
			if err := d.huffmanTables(); err != nil {
				return err
			}
		case markerSOS:
			if err := d.startScan(); err != nil {
				return err
			}
			if d.frame.progressive {
				err = d.progressive()
			} else {
				err = d.sequential()
			}
			if err != nil {
				return err
			}
			if d.complete() {
				return nil // what follows cannot change a sample
			}
		default:
			if err := d.segment(code); err != nil {
				return err
			}
		}
	}
}

// complete reports whether every component is decoded to the last bit.
func (d *Decoder) complete() bool {
	for i := range d.frame.comps {
		if d.frame.comps[i].bitsLeft != [64]int8{} {
			return false
		}
	}
	return true
}

// ended judges a file that ends (cause nil: by an EOI marker) before every coefficient is complete.
func (d *Decoder) ended(cause error) error {
	if !d.hasFrame || d.scans == 0 {
		if cause != nil {
			return cause
		}
		return formatError("it ends before any picture data")
	}
	for i := range d.frame.comps {
		if d.frame.comps[i].bitsLeft[0] < 0 {
			d.note(d.pos, fmt.Sprintf("there is no data of component %d", i))
			return nil
		}
	}
	// A progressive file that says that it ends may leave out what it likes.
	if cause != nil {
		d.note(d.pos, "the file ends before its last scan")
	}
	return nil
}

// note records damage at a byte of the file; the first is kept.
func (d *Decoder) note(offset int, reason string) {
	if d.damage != nil {
		return
	}
	d.damaged = Damage{Offset: offset, Scan: d.scans, MCU: d.scan.mcu, MCUs: d.scan.mcus, Reason: reason}
	d.damage = &d.damaged
}
