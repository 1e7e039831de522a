package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	"github.com/gvirstor/gvirstor/ggated-virstor/config"
	"github.com/gvirstor/gvirstor/ggated-virstor/supervisor"
)

// world is what options say of files: the configuration, and where providers are.
// A worker that reads options again reaches no files, and is told.
type world interface {
	// load reads the configuration at path. fs.ErrNotExist: there is none.
	load(path string) (*config.File, error)
	// absolute names a provider so that it has one name wherever it is named from.
	absolute(name string) (string, error)
}

// hereWorld is the world of this process. It notes what it was asked.
type hereWorld struct{ noted supervisor.Configuration }

func newHereWorld() *hereWorld {
	return &hereWorld{supervisor.Configuration{Names: make(map[string]string)}}
}

func (w *hereWorld) load(path string) (*config.File, error) {
	file, err := config.Load(path)
	if err == nil {
		w.noted.Found, w.noted.Text = true, file.Text
	}
	return file, err
}

// absolute gives a file that is found from here its whole path. Others are below
// /dev.
func (w *hereWorld) absolute(name string) (string, error) {
	path := name
	if _, err := os.Stat(name); err == nil {
		if path, err = filepath.Abs(name); err != nil {
			return "", fmt.Errorf("where is %s: %w", name, err)
		}
	}
	w.noted.Names[name] = path
	return path, nil
}

// toldWorld is what another process saw of it.
type toldWorld struct{ supervisor.Configuration }

func (w toldWorld) load(path string) (*config.File, error) {
	if !w.Found {
		return nil, fmt.Errorf("read the configuration %s: %w", path, fs.ErrNotExist)
	}
	return config.Parse(path, bytes.NewReader(w.Text))
}

func (w toldWorld) absolute(name string) (string, error) {
	path, ok := w.Names[name]
	if !ok {
		return "", fmt.Errorf("%s: the supervisor has read another configuration; send SIGHUP again", name)
	}
	return path, nil
}

// absoluteAll is absolute for several.
func absoluteAll(w world, names []string) ([]string, error) {
	var all []string
	for _, name := range names {
		path, err := w.absolute(name)
		if err != nil {
			return nil, err
		}
		all = append(all, path)
	}
	return all, nil
}

// copyOf is what w has noted up to now.
func (w *hereWorld) copyOf() supervisor.Configuration {
	c := w.noted
	c.Names = maps.Clone(c.Names)
	return c
}
