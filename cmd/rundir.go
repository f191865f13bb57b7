package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"sluice/pipeline"
)

// runRecord is run.json: what a run was made of and what became of it.
type runRecord struct {
	Name     string      `json:"name"`
	Status   string      `json:"status"` // "running", "done", "failed" or "interrupted"
	Error    string      `json:"error,omitempty"`
	Seed     uint64      `json:"seed"`
	File     string      `json:"file"`               // as it was given; resolved.yaml is what it came to
	Set      []string    `json:"set,omitempty"`      // the --set overrides, other flags among them
	Started  time.Time   `json:"started"`            // the first time
	Resumed  []time.Time `json:"resumed,omitempty"`  // every time after it
	Finished *time.Time  `json:"finished,omitempty"` // nil while it runs, and for ever if it was killed
	Versions versions    `json:"versions"`
}

const runFile = "run.json"

// runDir is the folder of one run, held by this process until it is closed.
type runDir struct {
	path   string
	kept   string // where the results of the run before are now; "" if there were none
	lock   *os.File
	record runRecord
	// resolved is to be written when a resumed run begins; until then it may still
	// be refused, and leaves the folder as it was.
	resolved []byte
}

// openRunDir makes the run folder and writes run.json and resolved.yaml. The
// results of an earlier run of that name are moved aside, never written over.
func openRunDir(path string, resolved []byte, record runRecord) (*runDir, error) {
	d := &runDir{path: path, record: record}
	if err := d.create(); err != nil {
		return nil, fmt.Errorf("run folder %s: %w", path, err)
	}
	// The record is first, for it is what tells the folder of a run that was killed here.
	if err := errors.Join(d.writeRecord(), d.write("resolved.yaml", resolved)); err != nil {
		d.lock.Close()
		return nil, err
	}
	return d, nil
}

// resumeRunDir takes the folder of an earlier run to go on with it. Nothing is
// written before begin.
func resumeRunDir(path string, resolved []byte, record runRecord) (*runDir, error) {
	none := func(err error) error {
		return fmt.Errorf("run folder %s: %w: there is no run to go on with (%w); run it without --resume", path, pipeline.ErrResume, err)
	}
	lock, err := lockDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, none(err)
	}
	if err != nil {
		return nil, fmt.Errorf("run folder %s: %w", path, err)
	}
	var before runRecord
	data, err := os.ReadFile(filepath.Join(path, runFile))
	if err == nil {
		err = json.Unmarshal(data, &before)
	}
	if err != nil {
		lock.Close()
		return nil, none(fmt.Errorf("%s: %w", runFile, reason(err)))
	}
	record.Resumed = append(before.Resumed, record.Started)
	record.Started = before.Started
	return &runDir{path: path, lock: lock, record: record, resolved: resolved}, nil
}

// begin writes what a resumed run is made of.
func (d *runDir) begin() error {
	if d.resolved == nil {
		return nil
	}
	resolved := d.resolved
	d.resolved = nil
	return errors.Join(d.write("resolved.yaml", resolved), d.writeRecord())
}

// beginSink begins the folder of a run that everybody has prepared for.
type beginSink struct{ dir *runDir }

func (beginSink) Accepts(pipeline.Kind) bool                     { return false }
func (s beginSink) Prepare(context.Context, *pipeline.Env) error { return s.dir.begin() }
func (beginSink) Write(context.Context, *pipeline.Batch) error   { return nil }
func (beginSink) Close() error                                   { return nil }

func (d *runDir) create() (err error) {
	if err := os.MkdirAll(d.path, 0o777); err != nil {
		return fmt.Errorf("it cannot be made: %w; name another place with --set run.dir=DIR", reason(err))
	}
	if d.lock, err = lockDir(d.path); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			d.lock.Close()
		}
	}()
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return reason(err)
	}
	// A run that was killed before it had a record leaves at most a part of that.
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool {
		return strings.HasPrefix(e.Name(), "."+runFile) && os.Remove(filepath.Join(d.path, e.Name())) == nil
	})
	if len(entries) == 0 {
		return nil
	}
	if _, err := os.Stat(filepath.Join(d.path, runFile)); err != nil {
		return fmt.Errorf("it has files in it but no %s, so it is not of a run; give the run another name with --set name=NAME, or empty it", runFile)
	}
	// The lock moves with the folder, so a run that has it still holds it.
	for i := 1; ; i++ {
		d.kept = fmt.Sprintf("%s.%d", d.path, i)
		if _, err := os.Lstat(d.kept); errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err := os.Rename(d.path, d.kept); err != nil {
		return fmt.Errorf("moving the results of the run before aside: %w", err)
	}
	d.lock.Close()
	if err := os.Mkdir(d.path, 0o777); err != nil {
		return reason(err)
	}
	d.lock, err = lockDir(d.path)
	return err
}

func (d *runDir) write(name string, data []byte) error {
	path := filepath.Join(d.path, name)
	if err := renameio.WriteFile(path, data, 0o666); err != nil {
		return fmt.Errorf("writing %s: %w", path, reason(err))
	}
	return nil
}

func (d *runDir) writeRecord() error {
	data, err := json.MarshalIndent(d.record, "", "  ")
	if err != nil {
		return err
	}
	return d.write(runFile, append(data, '\n'))
}

// finish writes how the run ended into run.json and gives the folder free.
func (d *runDir) finish(status string, runErr error) error {
	defer d.lock.Close()
	if d.resolved != nil {
		return nil // it never began
	}
	now := time.Now().UTC()
	d.record.Status, d.record.Finished = status, &now
	if runErr != nil {
		d.record.Error = runErr.Error()
	}
	return d.writeRecord()
}

type keptFile struct {
	name string
	size int64
}

// files lists what is in the folder, temporary files and empty ones left out. A folder in it
// ends in "/" and is as large as the files in it.
func (d *runDir) files() []keptFile {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil
	}
	var files []keptFile
	for _, e := range entries {
		info, err := e.Info()
		switch {
		case err != nil || e.Name()[0] == '.':
		case info.Mode().IsRegular() && info.Size() > 0:
			files = append(files, keptFile{e.Name(), info.Size()})
		case info.IsDir():
			if n := sizeOf(filepath.Join(d.path, e.Name())); n > 0 {
				files = append(files, keptFile{e.Name() + "/", n})
			}
		}
	}
	return files
}

// sizeOf sums the files below a folder.
func sizeOf(dir string) (sum int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				sum += info.Size()
			}
		}
		return nil // what cannot be read counts nothing
	})
	return sum
}

// reason leaves out of a file error the path that the caller names anyway.
func reason(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
