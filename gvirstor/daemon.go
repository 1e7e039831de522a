package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/gvirstor/gvirstor/geomlib/ownfile"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

// reach reaches the daemon. Where nobody said which socket it is, one that another user
// has put there is refused.
func (c *call) reach() (*control.Client, error) {
	if !c.socketNamed {
		if err := ownfile.CheckSocket(c.socket); errors.Is(err, ownfile.ErrUnsafe) {
			return nil, err
		}
	}
	return c.dial(c.socket)
}

// connect reaches the daemon, which must run.
func (c *call) connect() (*control.Client, error) {
	client, err := c.reach()
	if errors.Is(err, control.ErrNotRunning) {
		return nil, failf("Can't reach the daemon: %w; start it, or name its socket by --control or GVIRSTOR_CONTROL", err)
	}
	if err != nil {
		return nil, failf("Can't reach the daemon: %w", err)
	}
	return client, nil
}

// volumeOf reaches the daemon and finds a volume.
func (c *call) volumeOf(ctx context.Context, name string) (*control.Client, control.VolumeStatus, error) {
	client, err := c.connect()
	if err != nil {
		return nil, control.VolumeStatus{}, err
	}
	v, err := client.Volume(ctx, name)
	switch {
	case err == nil:
		return client, v, nil
	case control.KindOf(err) == control.NotFound:
		err = unknownVolume(ctx, client, name)
	default:
		err = failf("Can't ask the daemon for %s: %w", name, err)
	}
	client.Close()
	return nil, v, err
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
			if p.Lacks != "" {
				p.Reason = p.Lacks
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
	name = ondisk.Printable(name)
	if device {
		return failf("Don't know anything about '%s'; this is the utility of ggated-virstor(8), and /dev/virstor/%s is none of its volumes: "+
			"if the kernel class runs it, /sbin/gvirstor knows it", name, name)
	}
	return failf("Don't know anything about '%s'", name)
}
