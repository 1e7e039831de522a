package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// connect reaches the daemon.
func (c *call) connect() (*control.Client, error) {
	client, err := c.dial(c.socket)
	if errors.Is(err, control.ErrNotRunning) {
		return nil, failf("Can't reach the daemon: %w; start it, or name its socket by --control or GVIRSTOR_CONTROL", err)
	}
	if err != nil {
		return nil, failf("Can't reach the daemon: %w", err)
	}
	return client, nil
}

// forDaemon is the provider's name as a daemon in another working folder
// understands it: the absolute path of what is found here, else name.
func forDaemon(name string) (string, error) {
	if _, err := os.Stat(name); err != nil {
		return name, nil // below /dev, or the daemon tells what is wrong
	}
	path, err := filepath.Abs(name)
	if err != nil {
		return "", failf("Can't tell where %s is: %w", name, err)
	}
	return path, nil
}

func allForDaemon(names []string) ([]string, error) {
	var all []string
	for _, n := range names {
		path, err := forDaemon(n)
		if err != nil {
			return nil, err
		}
		all = append(all, path)
	}
	return all, nil
}

// unknownVolume is the kernel class's answer to a name it does not know, or to one
// that lacks a component.
func unknownVolume(ctx context.Context, v control.Verbs, name string) error {
	if st, err := v.Status(ctx); err == nil {
		for _, p := range st.Problems {
			if p.Volume != name {
				continue
			}
			p.Volume = ""
			if reason, missing := strings.CutPrefix(p.Reason, virstor.ErrIncomplete.Error()+": "); missing {
				p.Reason = reason
				return failf("Virstor %s is incomplete: %s", name, problemText(p))
			}
			return failf("%s is not served: %s", name, problemText(p))
		}
	}
	_, err := os.Stat(filepath.Join("/dev/virstor", name))
	return unknown(name, err == nil)
}

// unknown is unknownVolume, knowing whether there is a device of that name, which
// is not the daemon's.
func unknown(name string, device bool) error {
	if device {
		return failf("Don't know anything about '%s'; this is the utility of ggated-virstor(8), and /dev/virstor/%s is none of its volumes: "+
			"if the kernel class runs it, /sbin/gvirstor knows it", name, name)
	}
	return failf("Don't know anything about '%s'", name)
}

// open opens a provider that is to be changed. One that the daemon holds without
// serving it, since the rest of its volume is missing, it lets go.
func (c *call) open(ctx context.Context, name string, o geomlib.OpenOptions) (geomlib.Provider, error) {
	p, err := geomlib.Open(name, o)
	if !errors.Is(err, geomlib.ErrLocked) {
		return p, err
	}
	client, e := c.dial(c.socket)
	if e != nil {
		return nil, err
	}
	defer client.Close()
	path, e := forDaemon(name)
	if e != nil {
		return nil, e
	}
	if e := client.Release(ctx, control.ReleaseRequest{Providers: []string{path}}); e != nil {
		return nil, fmt.Errorf("%w (%w)", err, e)
	}
	return geomlib.Open(name, o)
}
