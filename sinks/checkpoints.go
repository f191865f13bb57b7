package sinks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sluice/net"
	"sluice/pipeline"
	"sluice/pipeline/config"
)

func init() {
	pipeline.RegisterSink("checkpoints",
		"Keeps what it takes to go on after a crash or Ctrl-C with `pipeline run FILE --resume`, to the same bits: weights, momentum, schedule and place in the data, "+
			"as checkpoints/step-N.safetensors. One is always written when the run ends or is interrupted.",
		CheckpointsOptions{EveryMinutes: 10, EveryEpochs: 1, Keep: 2},
		func(o CheckpointsOptions) (pipeline.Sink, error) { return NewCheckpoints(o) })
}

// CheckpointsOptions are the options of the checkpoints sink.
type CheckpointsOptions struct {
	EverySteps   int     `yaml:"every_steps" doc:"write one every so many steps; 0: not by steps"`
	EveryMinutes float64 `yaml:"every_minutes" doc:"write one when so many minutes have gone since the last; 0: not by time"`
	EveryEpochs  int     `yaml:"every_epochs" doc:"write one at the end of every so many epochs; 0: not by epochs"`
	Keep         int     `yaml:"keep" doc:"how many of the newest to keep; with 2, one that is damaged costs little"`
	KeepBest     bool    `yaml:"keep_best" doc:"keep that of the best validation, too"`
}

// CheckpointsSink writes Checkpoint batches into the folder checkpoints of the run
// folder, in the background: Write waits only for the write before. A file has
// its name only when all of it is on the disk, and an older one is removed only
// after that, so at any instant, and after any failure, the last good one is there.
type CheckpointsSink struct {
	opt     CheckpointsOptions
	disk    disk
	dir     string
	kept    []keptCheckpoint // by step, the oldest first
	writing chan error       // gives the outcome of the write under way; nil if none is
}

// keptCheckpoint is a whole checkpoint on the disk.
type keptCheckpoint struct {
	net.CheckpointFile
	top1 float64 // of the validation just before it, -1 without
}

// NewCheckpoints makes the checkpoints sink.
func NewCheckpoints(o CheckpointsOptions) (*CheckpointsSink, error) {
	var errs []error
	for name, v := range map[string]float64{"every_steps": float64(o.EverySteps), "every_minutes": o.EveryMinutes, "every_epochs": float64(o.EveryEpochs)} {
		if !(v >= 0 && v <= 1e9) {
			errs = append(errs, config.Fieldf(name, "must be from 0 to 1e9, is %g", v))
		}
	}
	if o.Keep < 1 {
		errs = append(errs, config.Fieldf("keep", "must be at least 1, is %d", o.Keep))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &CheckpointsSink{opt: o, disk: realDisk{}}, nil
}

// Outputs is the folder.
func (s *CheckpointsSink) Outputs() []string { return []string{net.CheckpointDir} }

// Accepts only checkpoints.
func (s *CheckpointsSink) Accepts(k pipeline.Kind) bool { return k == pipeline.Checkpoint }

// Checkpoints says how often.
func (s *CheckpointsSink) Checkpoints() pipeline.Checkpoints {
	return pipeline.Checkpoints{
		Steps: s.opt.EverySteps, Epochs: s.opt.EveryEpochs,
		Interval: time.Duration(s.opt.EveryMinutes * float64(time.Minute)),
	}
}

// Prepare makes the folder. On resuming, what a crash has left half written is
// removed, and files of later steps, which are damaged, are put aside under
// another name so that they never count as the newest.
func (s *CheckpointsSink) Prepare(_ context.Context, env *pipeline.Env) error {
	s.dir = filepath.Join(env.RunDir, net.CheckpointDir)
	if err := os.MkdirAll(s.dir, 0o777); err != nil {
		return fileError(s.dir, err)
	}
	files, err := net.Checkpoints(s.dir)
	if err != nil {
		return err
	}
	if !env.Resume && len(files) > 0 {
		return fmt.Errorf("%s has the checkpoints of another run: go on with that one (--resume), or move them away", s.dir)
	}
	for i := len(files) - 1; i >= 0; i-- {
		f := files[i]
		if f.Step > env.StartStep {
			if err := s.disk.Rename(f.Path, f.Path+".damaged"); err != nil {
				return fileError(f.Path, err)
			}
			continue
		}
		s.kept = append(s.kept, keptCheckpoint{f, top1Of(f.Path)})
	}
	half, err := filepath.Glob(filepath.Join(s.dir, ".step-*"))
	if err != nil {
		return err
	}
	for _, path := range half {
		if err := s.disk.Remove(path); err != nil {
			return fileError(path, err)
		}
	}
	return probe(filepath.Join(s.dir, "step"))
}

// top1Of is the accuracy that a checkpoint says it has, -1 if it says none.
func top1Of(path string) float64 {
	f, err := os.Open(path)
	if err != nil {
		return -1
	}
	defer f.Close()
	meta, err := net.ReadSafetensorsMetadata(f)
	if err != nil {
		return -1 // whoever reads it whole says what is wrong with it
	}
	return accuracyIn(meta)
}

func accuracyIn(meta map[string]string) float64 {
	top1, err := strconv.ParseFloat(meta["validation_top1"], 64)
	if err != nil {
		return -1
	}
	return top1
}

// Write waits for the write before and begins this one.
func (s *CheckpointsSink) Write(ctx context.Context, b *pipeline.Batch) error {
	if err := s.wait(ctx); err != nil {
		return err
	}
	b.Record.Retain()
	record, step := b.Record, b.Step
	done := make(chan error, 1)
	s.writing = done
	go func() {
		defer record.Release()
		tensors, meta, err := net.TensorsOf(record)
		if err == nil {
			err = s.write(step, tensors, meta)
		}
		done <- err
	}()
	return nil
}

// wait gives the outcome of the write under way, if there is one.
func (s *CheckpointsSink) wait(ctx context.Context) error {
	if s.writing == nil {
		return nil
	}
	select {
	case err := <-s.writing:
		s.writing = nil
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// write puts one checkpoint on the disk, and then removes what is to be kept no
// longer.
func (s *CheckpointsSink) write(step int, tensors []net.NamedTensor, meta map[string]string) error {
	path := filepath.Join(s.dir, net.CheckpointName(step))
	if err := writeWhole(s.disk, path, func(w io.Writer) error { return net.WriteCheckpoint(w, tensors, meta) }); err != nil {
		return fileError(path, err)
	}
	if n := len(s.kept); n > 0 && s.kept[n-1].Step == step {
		s.kept = s.kept[:n-1] // replaced: its epoch has ended
	}
	s.kept = append(s.kept, keptCheckpoint{net.CheckpointFile{Path: path, Step: step}, accuracyIn(meta)})
	best := -1
	if s.opt.KeepBest {
		for i, k := range s.kept {
			if k.top1 >= 0 && (best < 0 || k.top1 > s.kept[best].top1) {
				best = i
			}
		}
	}
	left := s.kept[:0:0]
	for i, k := range s.kept {
		if i == best || i >= len(s.kept)-s.opt.Keep {
			left = append(left, k)
		} else if err := s.disk.Remove(k.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fileError(k.Path, err)
		}
	}
	s.kept = left
	return nil
}

// Close waits for the last write.
func (s *CheckpointsSink) Close() error { return s.wait(context.Background()) }

// disk is what writing a checkpoint asks of a file system, so that tests can let
// each of it fail.
type disk interface {
	// CreateTemp makes a new file in dir.
	CreateTemp(dir, pattern string) (diskFile, error)
	Rename(from, to string) error
	Remove(path string) error
	// SyncDir makes the names in a folder last.
	SyncDir(dir string) error
}

type diskFile interface {
	io.WriteCloser
	Name() string
	Sync() error
}

// writeWhole gives path what write writes, whole or not at all: a temporary file,
// synced, renamed, and the folder synced.
func writeWhole(d disk, path string, write func(io.Writer) error) (err error) {
	dir, name := filepath.Split(path)
	f, err := d.CreateTemp(dir, "."+name+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = d.Remove(f.Name()) // what is left is found by the next Prepare
		}
	}()
	if err := errors.Join(write(f), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := d.Rename(f.Name(), path); err != nil {
		return err
	}
	return d.SyncDir(strings.TrimSuffix(dir, string(filepath.Separator)))
}

// realDisk is the system's.
type realDisk struct{}

func (realDisk) CreateTemp(dir, pattern string) (diskFile, error) {
	f, err := os.CreateTemp(dir, pattern)
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(0o644); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return f, nil
}

func (realDisk) Rename(from, to string) error { return os.Rename(from, to) }
func (realDisk) Remove(path string) error     { return os.Remove(path) }
func (realDisk) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
