package main

import (
	"context"
	"errors"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// backend does the verbs of a volume: the daemon that serves it, or this process for a
// volume that is stopped.
type backend struct {
	control.Verbs
	volume  control.VolumeStatus // of a stopped one, once it is open
	client  *control.Client      // nil: the volume is stopped
	stopped *stopped             // nil: the daemon serves the volume
}

// find finds who does the verbs of a volume. The daemon is asked first unless
// components are named. A stopped volume is not open yet.
func (c *call) find(ctx context.Context, name string, w *where) (*backend, error) {
	if names := w.components(); names != nil {
		return c.onStopped(name, names, w), c.refuseKernels(ctx, name)
	}
	client, v, err := c.volumeOf(ctx, name)
	if err == nil {
		return &backend{Verbs: client, volume: v, client: client}, nil
	}
	names, treeErr := c.components(ctx, name)
	notRunning := errors.Is(err, control.ErrNotRunning)
	switch {
	case treeErr == nil && names != nil:
		return c.onStopped(name, names, w), nil
	case errors.Is(treeErr, geomlib.ErrNotSupported) && notRunning:
		err = failf("%w; the components of a stopped volume are named by --offline", err)
	case errors.Is(treeErr, geomlib.ErrNotSupported):
	case treeErr != nil:
		err = treeErr
	case notRunning:
		err = failf("%w; and no component of %s was found", err, name)
	}
	return nil, err
}

// onStopped is the backend of a volume that nobody serves.
func (c *call) onStopped(name string, components []string, w *where) *backend {
	s := newStopped(c, name, components, w)
	return &backend{Verbs: s, stopped: s}
}

// purpose is what a stopped volume is opened for.
type purpose int

const (
	toChange   purpose = iota // what is on it
	toRead                    // only
	toIdentify                // who it is: its name, id or fence. The engine has no part in that
)

// on finds the backend of a volume and has do use it.
func (c *call) on(ctx context.Context, name string, w *where, p purpose, do func(*backend) error) error {
	b, err := c.find(ctx, name, w)
	if err != nil {
		return err
	}
	return b.use(ctx, p, do)
}

// use opens a stopped volume, calls do, and lets go of the backend.
func (b *backend) use(ctx context.Context, p purpose, do func(*backend) error) (err error) {
	if b.client != nil {
		defer b.client.Close()
		return do(b)
	}
	if b.volume, err = b.stopped.open(ctx, p); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.stopped.close()) }()
	return do(b)
}

// componentName is the name under which v has the component that operand means.
func componentName(v *control.VolumeStatus, operand string) (string, error) {
	for _, c := range v.Components {
		if strings.TrimPrefix(c.Name, "/dev/") == strings.TrimPrefix(operand, "/dev/") {
			return c.Name, nil
		}
	}
	return forDaemon(operand)
}
