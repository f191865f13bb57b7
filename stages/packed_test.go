package stages

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/augment"
	"sluice/pipeline"
)

// packedSide is the side of the pictures of a packed dataset.
const packedSide = 256

// packed is what a source of a packed dataset is: rows of packedSide x packedSide x 3 bytes that lie one behind the other,
// as in a file that is mapped into memory, and may not be written to.
type packed struct {
	Rows int `yaml:"rows" doc:"pictures"`
	data []byte
}

func (p *packed) row(i int) *augment.RGB {
	const size = packedSide * packedSide * 3
	return &augment.RGB{Pix: p.data[i*size:][:size:size], Stride: packedSide * 3, W: packedSide, H: packedSide}
}

func (p *packed) Len() int { return p.Rows }

func (p *packed) Read(_ context.Context, i int, s *pipeline.Sample) error {
	s.Name, s.Label = fmt.Sprintf("a/%d.png", i), 0
	s.SetImage(p.row(i))
	return nil
}

func (p *packed) Classes() []string { return []string{"a"} }

func (p *packed) Frame(pipeline.Frame) (pipeline.Frame, error) {
	return pipeline.Frame{W: packedSide, H: packedSide}, nil
}

func init() {
	pipeline.RegisterSource("packed_for_test", "Pictures of one size, decoded before.", packed{Rows: 5}, func(p packed) (pipeline.Source, error) {
		for i := range p.Rows {
			p.data = append(p.data, photo(packedSide, packedSide, uint64(i)).Pix...)
		}
		return &p, nil
	})
}

// records is a sink that writes down all of the batches.
type records struct{ text strings.Builder }

func (r *records) Write(_ context.Context, b *pipeline.Batch) error {
	if b.Kind != pipeline.Samples {
		return nil
	}
	m, err := pipeline.ImagesOf(b.Record)
	fmt.Fprintln(&r.text, b.Step, b.Cursor, b.Record.Schema(), sha256.Sum256(m.Pixels), m.Shift, m.Origin, m.Flip, m.Label, m.Index, m.Name)
	return err
}

func (r *records) Close() error { return nil }

func runYAML(t *testing.T, source, samples string) (string, error) {
	t.Helper()
	spec, err := pipeline.Parse("test.yaml", []byte("name: packed\nseed: 7\nsource: "+source+"\nsamples: "+samples+"\nbatch: {size: 2, shuffle: true}\nrun: {workers: 2}\n"), nil)
	if err != nil {
		return "", err
	}
	line, err := spec.Line("test")
	if err != nil {
		return "", err
	}
	line.Env.RunDir = t.TempDir()
	var r records
	line.Sinks = append(line.Sinks, pipeline.NamedSink{Name: "records", Sink: &r})
	err = line.Run(t.Context())
	return r.text.String(), err
}

// A source can deliver pixels instead of bytes. The line behind decode is the same for both, and so are the batches, to
// the bit; decode may stay, for it leaves alone what needs it not.
func TestPackedEqualsFiles(t *testing.T) {
	src := &packed{Rows: 5}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "a"), 0o777); err != nil {
		t.Fatal(err)
	}
	for i := range src.Rows {
		p := photo(packedSide, packedSide, uint64(i))
		src.data = append(src.data, p.Pix...)
		if err := os.WriteFile(filepath.Join(dir, "a", fmt.Sprintf("%d.png", i)), pngOf(t, p), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	const rest = "{center_crop: {size: 256}}, {random_crop: {size: 224}}, flip, pca_jitter]"
	want, err := runYAML(t, "{image_folder: {dir: "+dir+"}}", "[decode, "+rest)
	if err != nil {
		t.Fatal(err)
	}
	for _, samples := range []string{"[" + rest, "[decode, " + rest} {
		got, err := runYAML(t, "packed_for_test", samples)
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%s: other batches than from files", samples)
		}
	}
	if !strings.Contains(want, "256x256") {
		t.Errorf("the canvas is not 256 x 256: %.300s", want)
	}

	// What is mapped is not written to, also by a stage that changes pixels.
	before := bytes.Clone(src.data)
	for i := range src.Rows {
		s := pipeline.NewSample(1, "packed", pipeline.Key{Index: i})
		if err := src.Read(t.Context(), i, s); err != nil {
			t.Fatal(err)
		}
		p := pixels(t, s)
		clear(p.Pix)
		s.SetView(s.View().Mirror().Crop(1, 1, 200, 200))
		pixels(t, s)
	}
	if !bytes.Equal(src.data, before) {
		t.Error("the source's memory was written to")
	}
}

// Its size is known before a run.
func TestPackedSizeIsKnown(t *testing.T) {
	_, err := runYAML(t, "packed_for_test", "[{random_crop: {size: 300}}]")
	if err == nil || !strings.Contains(err.Error(), "300 is more than the image has here: 256 x 256") {
		t.Errorf("got %v", err)
	}
	if text, err := runYAML(t, "packed_for_test", "[flip]"); err != nil || text == "" {
		t.Errorf("without a crop: %v", err)
	}
}
