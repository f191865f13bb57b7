package cmd

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"image/jpeg"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"sluice/gpu"
	"sluice/pipeline"
	"sluice/pipeline/config"
	"sluice/sinks/nearest"
)

// neighbors is the command of that name.
type neighbors struct {
	dir, query, column, weights, device, html string
	count                                     int
	asJSON                                    bool
}

func newNeighbors() *cobra.Command {
	var n neighbors
	c := &cobra.Command{
		Use:   "neighbors FEATURES --query IMAGE|NAME",
		Short: "Find the images whose features are nearest to those of one image",
		Long: `Looks in a folder of features, which a run with the sink features has written as
npy, or as arrow without compression, for the images nearest to one by the
Euclidean distance of a layer's numbers: the test of the AlexNet paper's section
6.1. The search is exact.

The query is the name of an image among the features, or a file. The features of
a file are computed with the weights of the run that wrote the others.`,
		Example: `  pipeline neighbors runs/features/features --query daisy/1031799732.jpg -k 6
  pipeline neighbors runs/features/features --query photo.jpg --html page.html`,
		Args: exactly("FEATURES"),
		RunE: func(c *cobra.Command, args []string) error {
			n.dir = args[0]
			switch {
			case n.query == "":
				return usagef("say which image to look for: --query IMAGE, a file, or NAME, as the features have it")
			case n.count < 1:
				return usagef("-k must be at least 1, is %d", n.count)
			}
			ctx, stop := untilSignal(c.Context(), c.ErrOrStderr())
			defer stop()
			return n.run(ctx, c.OutOrStdout())
		},
	}
	f := c.Flags()
	f.StringVarP(&n.query, "query", "q", "", "`IMAGE`: its name among the features, or a file")
	f.IntVarP(&n.count, "count", "k", 6, "tell `N` neighbors")
	f.StringVar(&n.column, "column", "", "`LAYER` whose numbers are compared (default the first of the features)")
	f.StringVar(&n.html, "html", "", "`FILE` for a page with the images, all in one")
	f.BoolVar(&n.asJSON, "json", false, "print JSON on standard output, a line a neighbor")
	f.StringVar(&n.weights, "weights", "", "`FILE` of weights for a query that is a file (default those of the run that wrote the features)")
	f.StringVar(&n.device, "device", gpu.Auto, "auto (cuda where there is one, else the CPU), cpu or cuda")
	return c
}

// neighbor is what is printed of an image that was found.
type neighbor struct {
	Rank     int          `json:"rank"`
	Distance float64      `json:"distance"`
	Name     string       `json:"name"`
	Index    int64        `json:"index"` // in the source
	Label    string       `json:"label,omitempty"`
	Picture  template.URL `json:"-"`
}

func (n *neighbors) run(ctx context.Context, out io.Writer) (err error) {
	if _, err := os.Stat(filepath.Join(n.dir, "manifest.json")); err != nil {
		return usagef("%s is no folder of features: %w; name the folder with manifest.json in it, as runs/NAME/features", n.dir, reason(err))
	}
	s, err := nearest.Open(n.dir, n.column)
	if err != nil {
		return &exitError{exitUsage, err}
	}
	defer func() { err = errors.Join(err, s.Close()) }()

	row, known, err := s.Find(n.query)
	if err != nil {
		return err
	}
	var vector []float32
	count := n.count
	if known {
		vector, err = s.Vector(row)
		count++ // for itself
	} else {
		vector, err = n.compute(ctx, s)
	}
	if err != nil {
		return err
	}
	found, err := s.Search(ctx, vector, count, 0)
	if err != nil {
		return err
	}
	if known {
		found = slices.DeleteFunc(found, func(f nearest.Neighbour) bool { return f.Row == row })
		found = found[:min(len(found), n.count)]
	}
	var labels []string
	if text := s.Manifest.Metadata["labels"]; text != "" {
		if err := json.Unmarshal([]byte(text), &labels); err != nil {
			return fmt.Errorf("%s: the names of the labels: %w", n.dir, err)
		}
	}
	var all []neighbor
	for i, f := range found {
		r, err := s.Row(f.Row)
		if err != nil {
			return err
		}
		one := neighbor{Rank: i + 1, Distance: f.Distance, Name: r.Name, Index: r.Index}
		if l := int(r.Label); l >= 0 && l < len(labels) {
			one.Label = labels[l]
		}
		all = append(all, one)
	}
	if n.html != "" {
		query := neighbor{Name: n.query, Index: -1}
		if known {
			r, err := s.Row(row)
			if err != nil {
				return err
			}
			query.Index = r.Index
		}
		if err := n.page(ctx, s, query, all); err != nil {
			return err
		}
	}
	return n.print(out, s, all)
}

func (n *neighbors) print(out io.Writer, s *nearest.Set, all []neighbor) error {
	w := &errWriter{w: out}
	if n.asJSON {
		enc := json.NewEncoder(w)
		for _, one := range all {
			if err := enc.Encode(one); err != nil {
				return err
			}
		}
		return nil
	}
	fmt.Fprintf(w, "nearest to %s by the %d numbers of %s, of %d images\n", n.query, s.Width, s.Column, s.Rows)
	for _, one := range all {
		fmt.Fprintf(w, "%4d  %10.4f  %-16s  %s\n", one.Rank, one.Distance, clipped(one.Label, 16), one.Name)
	}
	if n.html != "" {
		fmt.Fprintf(w, "wrote %s\n", n.html)
	}
	return w.err
}

// compute gives the features of a file, as those of the folder were made.
func (n *neighbors) compute(ctx context.Context, s *nearest.Set) ([]float32, error) {
	if _, err := os.Stat(n.query); err != nil {
		return nil, usagef("%q is neither the name of an image among the features (as %q), nor a file", n.query, example(s))
	}
	meta := s.Manifest.Metadata
	if meta["samples"] == "" {
		return nil, fmt.Errorf("the features in %s do not say how images are made for them; only their own images can be looked for, by name", n.dir)
	}
	weights := n.weights
	if weights == "" {
		var err error
		if weights, err = weightsOf(n.dir); err != nil {
			return nil, fmt.Errorf("%w: name them with --weights", err)
		}
	}
	about, err := gpu.Inspect(weights)
	if err != nil {
		return nil, fmt.Errorf("%w: name the weights that the features are of with --weights", err)
	}
	if about.SHA256 != meta["weights_sha256"] {
		return nil, fmt.Errorf("the features in %s are not of the weights that %s has now (SHA-256 %.12s, not %.12s): name theirs with --weights", n.dir, weights, meta["weights_sha256"], about.SHA256)
	}
	i := inference{device: n.device, files: []string{weights}, samples: meta["samples"]}
	if i.steps, i.frame, err = pipeline.ParseSamples(n.dir, i.samples); err != nil {
		return nil, err
	}
	o := gpu.ExtractOptions{
		Weights: weights, Layers: []string{s.Column}, Pool: meta["pool"], Normalize: meta["normalize"] == "true",
		DType: "float32", Preprocessing: "any", Device: n.device, LogEvery: 1,
	}
	if s.Column == "logits" {
		o.Layers, o.Logits = nil, true
	}
	stage, err := gpu.NewExtract(o)
	if err != nil {
		return nil, &exitError{exitUsage, err}
	}
	sink := &vectorSink{column: s.Column}
	l := i.line(imageFiles{n.query}, "query", pipeline.NamedStage{Name: "extract", Stage: stage}, pipeline.NamedSink{Name: "vector", Sink: sink})
	if err := begin(l); err != nil {
		return nil, err
	}
	if err := l.Run(ctx); err != nil {
		return nil, err
	}
	return sink.vector, nil
}

// example is the name of an image among the features.
func example(s *nearest.Set) string {
	if s.Rows == 0 {
		return ""
	}
	r, err := s.Row(0)
	if err != nil {
		return "" // it is said where it matters
	}
	return r.Name
}

// weightsOf finds the weights in the settings of the run that a folder of features
// belongs to, which lie in the run's folder.
func weightsOf(dir string) (string, error) {
	path, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for ; filepath.Dir(path) != path; path = filepath.Dir(path) {
		file := filepath.Join(path, "resolved.yaml")
		data, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		var run struct {
			Batches []struct {
				Extract struct {
					Weights string `yaml:"weights"`
				} `yaml:"extract"`
			} `yaml:"batches"`
		}
		if err := yaml.Unmarshal(data, &run); err != nil {
			return "", fmt.Errorf("%s: %w", file, err)
		}
		for _, b := range run.Batches {
			if b.Extract.Weights != "" {
				return b.Extract.Weights, nil
			}
		}
		break
	}
	return "", fmt.Errorf("the run that wrote %s does not say what its weights are", dir)
}

// vectorSink keeps the features of one image.
type vectorSink struct {
	column string
	vector []float32
}

func (s *vectorSink) Accepts(k pipeline.Kind) bool { return k == pipeline.Features }

func (s *vectorSink) Write(_ context.Context, b *pipeline.Batch) error {
	if b.Record.NumRows() > 0 {
		at := b.Record.Schema().FieldIndices(s.column)[0]
		s.vector = slices.Clone(b.Record.Column(at).(*array.FixedSizeList).ListValues().(*array.Float32).Float32Values())
	}
	return nil
}

func (s *vectorSink) Close() error { return nil }

//go:embed templates/neighbors.html
var neighborsPage string

// pictureSide is the height and width of a picture on the page, in pixels.
const pictureSide = 200

// page writes the pictures, which are in the page itself: read from the source of
// the features once more, and cut from the middle.
func (n *neighbors) page(ctx context.Context, s *nearest.Set, query neighbor, all []neighbor) error {
	source, err := sourceOf(s.Manifest.Source)
	if err != nil {
		return fmt.Errorf("the images of the features in %s: %v; run this in the folder that their run was in", n.dir, err)
	}
	if c, ok := source.(io.Closer); ok {
		defer c.Close()
	}
	steps, _, err := pipeline.ParseSamples("page", fmt.Sprintf("- decode\n- resize: {shorter: %d}\n- center_crop: {size: %[1]d}\n", pictureSide))
	if err != nil {
		return err
	}
	picture := func(source pipeline.Source, index int, name string) (template.URL, error) {
		img, err := thumbnail(ctx, source, index, steps)
		if err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		return img, nil
	}
	if query.Index >= 0 {
		query.Picture, err = picture(source, int(query.Index), query.Name)
	} else {
		query.Picture, err = picture(imageFiles{n.query}, 0, query.Name)
	}
	for i := range all {
		if err == nil {
			all[i].Picture, err = picture(source, int(all[i].Index), all[i].Name)
		}
	}
	if err != nil {
		return fmt.Errorf("drawing %w", err)
	}
	page, err := template.New("neighbors").Parse(neighborsPage)
	if err != nil {
		return err
	}
	return writePicture(n.html, func(w io.Writer) error {
		return page.Execute(w, map[string]any{
			"Query": query, "Neighbors": all, "Column": s.Column, "Width": s.Width, "Rows": s.Rows, "Side": pictureSide,
		})
	})
}

// thumbnail is a picture as a data URL.
func thumbnail(ctx context.Context, source pipeline.Source, index int, steps []pipeline.Step) (template.URL, error) {
	if index >= source.Len() {
		return "", fmt.Errorf("the source has %d images by now, and this was number %d", source.Len(), index)
	}
	sample := pipeline.NewSample(0, "neighbors", pipeline.Key{Index: index})
	if err := source.Read(ctx, index, sample); err != nil {
		return "", err
	}
	for _, step := range steps {
		if err := step.Stage.Process(ctx, sample); err != nil {
			return "", fmt.Errorf("%s: %w", step.Label, err)
		}
	}
	img, err := sample.Pixels()
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	if err := jpeg.Encode(&out, img, &jpeg.Options{Quality: 85}); err != nil {
		return "", err
	}
	return template.URL("data:image/jpeg;base64," + base64.StdEncoding.EncodeToString(out.Bytes())), nil
}

// sourceOf builds the source that a manifest names.
func sourceOf(text string) (pipeline.Source, error) {
	if strings.TrimSpace(text) == "" {
		return nil, errors.New("the manifest does not say where they are from")
	}
	doc, err := config.Parse("source", []byte(text))
	if err != nil {
		return nil, err
	}
	d := doc.Decoder()
	item, ok := pipeline.Sources.Decode(d, doc.Root)
	if !ok {
		return nil, d.Err()
	}
	return item.Value, nil
}
