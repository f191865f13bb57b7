package gpu

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"go.yaml.in/yaml/v3"

	"sluice/net"
)

// Description is what a file of weights or a checkpoint says about itself.
type Description struct {
	File string `json:"file"`
	Kind string `json:"kind"` // "weights", "checkpoint", or "tensors" of a file that another program wrote
	// Network is the network as in a YAML. Layers and the sums are of one image.
	Network    string             `json:"network,omitempty"`
	Layers     []LayerDescription `json:"layers,omitempty"`
	Parameters int                `json:"parameters"`
	MACs       int64              `json:"multiply_adds,omitempty"`
	Classes    []string           `json:"classes,omitempty"` // in the order of the outputs
	Image      *inputAbout        `json:"image,omitempty"`
	// Samples is the sample stages that make such an image, as YAML; empty if the
	// file does not say. Preprocessing is the fingerprint of them and Image.
	Samples       string         `json:"samples,omitempty"`
	Preprocessing string         `json:"preprocessing,omitempty"`
	Training      *TrainingState `json:"training,omitempty"`

	// What only Inspect fills in.
	Bytes   int64               `json:"bytes,omitempty"`
	SHA256  string              `json:"sha256,omitempty"` // of the whole file, hex
	Tensors []TensorDescription `json:"tensors,omitempty"`
	// Metadata is all that the file says, of one that another program wrote.
	Metadata map[string]string `json:"metadata,omitempty"`
}

// LayerDescription is a row of the table of layers.
type LayerDescription struct {
	Name       string `json:"name"`
	Type       string `json:"type"`
	Output     [3]int `json:"output"` // channels, height, width
	Parameters int    `json:"parameters"`
	MACs       int64  `json:"multiply_adds"`
}

// TensorDescription is a tensor of the file.
type TensorDescription struct {
	Name  string `json:"name"`
	Role  string `json:"role"`
	Shape []int  `json:"shape"`
}

// TrainingState is how far the training was.
type TrainingState struct {
	Epoch   int      `json:"epoch"` // from 0
	Step    int      `json:"step"`
	Seed    string   `json:"seed,omitempty"`
	Version string   `json:"version,omitempty"` // of the program
	Top1    *float64 `json:"validation_top1,omitempty"`
	// Those of a checkpoint.
	Epochs   int     `json:"epochs,omitempty"`   // of the run
	Position int     `json:"position,omitempty"` // images of the epoch that are done with
	LR       float64 `json:"lr,omitempty"`       // of the last step
}

// Describe reads only the header of a file of weights or of a checkpoint. A file
// that does not say what its network is, is an error.
func Describe(file string) (*Description, error) {
	f, err := open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	meta, err := net.ReadSafetensorsMetadata(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return describe(file, meta)
}

// Inspect reads a whole file, and verifies the checksum of a checkpoint. Of a
// safetensors file that another program wrote it tells the tensors.
func Inspect(file string) (*Description, error) {
	f, err := open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sum := sha256.New()
	tensors, meta, err := net.ReadSafetensors(io.TeeReader(f, sum))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var d *Description
	if meta["net"] == "" {
		d = &Description{File: file, Kind: "tensors", Metadata: meta}
	} else if d, err = describe(file, meta); err != nil {
		return nil, err
	}
	if d.Kind == "checkpoint" {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if _, _, err := net.ReadCheckpoint(f); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	d.SHA256 = hex.EncodeToString(sum.Sum(nil))
	if info, err := f.Stat(); err == nil {
		d.Bytes = info.Size()
	}
	parameters := 0
	for _, t := range tensors {
		d.Tensors = append(d.Tensors, TensorDescription{Name: t.Name, Role: t.Role, Shape: t.Dims})
		if t.Role != net.RoleMomentum {
			parameters += len(t.Data)
		}
	}
	if d.Kind == "tensors" {
		d.Parameters = parameters
	}
	return d, nil
}

// open says what is wrong with a name that is no file of weights.
func open(file string) (*os.File, error) {
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, fmt.Errorf("%s is a folder: name the file of weights in it, as %s/weights.safetensors", file, file)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no regular file", file)
	}
	return os.Open(file)
}

func describe(file string, meta map[string]string) (*Description, error) {
	a, err := parseAbout(file, meta)
	if err != nil {
		return nil, err
	}
	plan, err := a.Net.Plan(1, a.Input.Height, a.Input.Width, len(a.Classes))
	if err != nil {
		return nil, fmt.Errorf("%s: the network in its metadata: %w", file, err)
	}
	text, err1 := yaml.Marshal(a.Net)
	input, err2 := json.Marshal(a.Input)
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	d := &Description{
		File: file, Kind: "weights", Network: string(text), Parameters: plan.Params, MACs: plan.MACs, Classes: a.Classes, Image: &a.Input,
		Samples: a.Samples, Preprocessing: fingerprint(a.Samples, string(input)),
		Training: &TrainingState{Epoch: a.Epoch, Step: a.Step, Seed: meta["seed"], Version: meta["version"]},
	}
	if v := meta["validation_top1"]; v != "" {
		d.Training.Top1 = new(float64)
		if err := json.Unmarshal([]byte(v), d.Training.Top1); err != nil {
			return nil, fmt.Errorf("%s: %q in its metadata: %w", file, "validation_top1", err)
		}
	}
	for _, l := range plan.Layers {
		row := LayerDescription{Name: l.Name, Type: l.Type, Output: [3]int{l.Plan.Out.C, l.Plan.Out.H, l.Plan.Out.W}, MACs: l.Plan.MACs}
		for _, s := range l.Plan.Params {
			row.Parameters += s.Shape.Len()
		}
		d.Layers = append(d.Layers, row)
	}
	if state := meta[stateKey]; state != "" {
		var m mark
		if err := json.Unmarshal([]byte(state), &m); err != nil {
			return nil, fmt.Errorf("%s: its state: %w", file, err)
		}
		d.Kind = "checkpoint"
		t := d.Training
		t.Epochs, t.Position, t.LR = m.Epochs, m.Cursor.Pos, m.LR
		if t.Epoch = m.Cursor.Epoch; !m.Open {
			t.Epoch--
		}
	}
	return d, nil
}
