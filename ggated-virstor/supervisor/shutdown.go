package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/ggated-virstor/gateunit"
)

// The times of a shutdown, from its beginning. rc(8)'s watchdog takes 90 s.
const (
	forceUnmount = 20 * time.Second
	forceDestroy = 60 * time.Second
	unmountPause = 500 * time.Millisecond
)

// shutdown ends everything within a minute or so: what is mounted from our
// devices is unmounted while the worker still serves it.
func (s *Supervisor) shutdown(w *worker) error {
	s.log.Info("shutting down")
	if s.opt.Units != nil {
		if err := s.clear(systemMounts{}, forceUnmount, forceDestroy); err != nil {
			s.log.Error("shutdown", "error", err)
		}
	}
	return s.end(w, Finish)
}

// mounts are the system's mounted file systems.
type mounts interface {
	// on lists those mounted from any of these devices, named without /dev/,
	// the last mounted first.
	on(devices []string) ([]string, error)
	unmount(path string, force bool) error
}

// clear unmounts what lies on our devices, and destroys the devices.
func (s *Supervisor) clear(m mounts, force, destroy time.Duration) error {
	begun := time.Now()
	var all error
	for {
		left, err := s.opt.Units.Units()
		if err != nil || len(left) == 0 {
			return errors.Join(all, err)
		}
		since := time.Since(begun)
		all = s.unmountAll(m, left, since > force)
		for id, u := range left {
			err := s.opt.Units.Release(id, u.Number, since > destroy)
			switch {
			case err == nil && since > destroy:
				s.log.Error("destroyed while it was open, for the system shuts down", "device", u.Name)
			case err != nil && !errors.Is(err, gate.ErrBusy):
				all = errors.Join(all, err)
			}
		}
		if since > destroy {
			return all
		}
		time.Sleep(min(unmountPause, force/4+time.Millisecond))
	}
}

func (s *Supervisor) unmountAll(m mounts, units map[uint32]gateunit.Unit, force bool) error {
	var names []string
	for _, u := range units {
		names = append(names, s.above(u.Name)...)
	}
	slices.Sort(names)
	paths, err := m.on(slices.Compact(names))
	if err != nil {
		return err
	}
	for _, p := range paths {
		e := m.unmount(p, force)
		if e == nil {
			s.log.Info("unmounted", "path", p, "force", force)
			continue
		}
		err = errors.Join(err, fmt.Errorf("unmount %s: %w", p, e))
	}
	return err
}

// above are a device and everything that GEOM makes of it: partitions and the
// like.
func (s *Supervisor) above(name string) []string {
	names := []string{name}
	tree, err := s.opt.Units.Tree(context.Background())
	if err != nil {
		return names
	}
	for _, c := range tree.Classes {
		for _, g := range c.Geoms {
			for _, p := range g.Providers {
				if p.Name != name && tree.OnTopOf(p.Name, name) {
					names = append(names, p.Name)
				}
			}
		}
	}
	return names
}
