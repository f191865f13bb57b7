package jpeg_test

import (
	"errors"
	"fmt"
	"image"

	"sluice/stages/internal/jpegenc"
	"sluice/stages/jpeg"
)

// One decoder for each worker, in whose memory the pictures follow one another.
func ExampleDecoder() {
	data, err := jpegenc.Append(nil, image.NewYCbCr(image.Rect(0, 0, 100, 75), image.YCbCrSubsampleRatio420), jpegenc.Options{Quality: 90})
	if err != nil {
		panic(err)
	}
	var d jpeg.Decoder
	m, err := d.Decode(data, jpeg.Options{MaxPixels: 50_000_000})
	if err != nil {
		panic(err)
	}
	fmt.Println(m.Width, m.Height, m.Model, m.Planes[1].Width, m.Planes[1].Height)
	fmt.Printf("%T\n", m.Image())

	// A file that is cut short is an error that says where, or a picture that says so.
	var damage *jpeg.Damage
	_, err = d.Decode(data[:len(data)-20], jpeg.Options{})
	fmt.Println(errors.As(err, &damage), damage.MCU, damage.MCUs)
	m, err = d.Decode(data[:len(data)-20], jpeg.Options{Keep: true})
	fmt.Println(m.Lost, err)
	// Output:
	// 100 75 YCbCr 50 38
	// *image.YCbCr
	// true 30 35
	// 5 <nil>
}
