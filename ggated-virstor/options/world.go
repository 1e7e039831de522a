package options

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/state"
	"github.com/gvirstor/gvirstor/geomlib/virstor/backup"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// World is what options say of files: the configuration, and where providers are.
// A worker that reads options again reaches no files, is another user by then, and is
// told (Told).
type World interface {
	// Defaults are those of whoever started the program.
	Defaults() Defaults
	// Load reads the configuration at path. fs.ErrNotExist: there is none.
	Load(path string) (*File, error)
	// Absolute names a provider so that it has one name wherever it is named from.
	Absolute(name string) (string, error)
}

// Defaults are the options that are others for root than for other users.
type Defaults struct {
	Root      bool // the program was started by root
	Control   string
	RunDir    string
	BackupDir string // empty: none
	StateDir  string // empty: none
}

// defaults are those of this process as it is now.
func defaults() Defaults {
	uid := os.Geteuid()
	d := Defaults{Root: uid == 0, Control: control.DefaultSocket(uid, os.Getenv), RunDir: geomlib.DefaultRunDir(), StateDir: state.DefaultFor(uid)}
	if d.Root { // who may write there
		d.BackupDir = backup.DefaultDir
	}
	return d
}

// Seen is what options said of files when they were read.
type Seen struct {
	Found bool              // there is a configuration
	Text  []byte            // of it
	Names map[string]string // of providers, as written, and in full
	Own   Defaults
}

// Here is the World of this process. It notes what it was asked. It is for one
// goroutine at a time.
type Here struct{ seen Seen }

// NewHere makes a Here that was asked nothing yet.
func NewHere() *Here { return &Here{Seen{Names: make(map[string]string), Own: defaults()}} }

// Defaults implements World.
func (w *Here) Defaults() Defaults { return w.seen.Own }

// Load implements World.
func (w *Here) Load(path string) (*File, error) {
	file, err := LoadFile(path)
	if err == nil {
		w.seen.Found, w.seen.Text = true, file.Text
	}
	return file, err
}

// Absolute implements World: it gives a file that is found from here its whole path.
// Others are below /dev, or have a scheme.
func (w *Here) Absolute(name string) (string, error) {
	path := name
	if err := geomlib.Name(name).CheckUser(); err != nil {
		return "", err
	}
	switch {
	case geomlib.Name(name).Scheme() != "": // the same from everywhere
	case filepath.IsAbs(name): // which needs no look, that may hang
		path = filepath.Clean(name)
	case isHere(name):
		var err error
		if path, err = filepath.Abs(name); err != nil {
			return "", fmt.Errorf("where is %s: %w", name, err)
		}
	}
	w.seen.Names[name] = path
	return path, nil
}

// nameSilence is how long the file system that a name leads to may take to tell whether
// it is there.
const nameSilence = time.Second

// isHere reports whether there is such a file. One whose file system does not answer is
// taken for there: opening it tells, and can be given up.
func isHere(name string) bool {
	here := make(chan bool, 1)
	go func() {
		_, err := os.Stat(name)
		here <- err == nil
	}()
	select {
	case found := <-here:
		return found
	case <-time.After(nameSilence):
		return true
	}
}

// Seen is what w has been asked up to now, and what it answered.
func (w *Here) Seen() Seen {
	s := w.seen
	s.Names = maps.Clone(s.Names)
	return s
}

// Told is a World that another process has seen.
type Told Seen

// Defaults implements World.
func (w Told) Defaults() Defaults { return w.Own }

// Load implements World.
func (w Told) Load(path string) (*File, error) {
	if !w.Found {
		return nil, fmt.Errorf("read the configuration %s: %w", path, fs.ErrNotExist)
	}
	return ParseFile(path, bytes.NewReader(w.Text))
}

// Absolute implements World.
func (w Told) Absolute(name string) (string, error) {
	path, ok := w.Names[name]
	if !ok {
		return "", fmt.Errorf("%s: the supervisor has read another configuration; send SIGHUP again", name)
	}
	return path, nil
}

// absoluteAll is Absolute for several.
func absoluteAll(w World, names []string) ([]string, error) {
	var all []string
	for _, name := range names {
		path, err := w.Absolute(name)
		if err != nil {
			return nil, err
		}
		all = append(all, path)
	}
	return all, nil
}
