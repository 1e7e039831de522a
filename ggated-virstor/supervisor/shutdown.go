package supervisor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/ggated-virstor/gatepub/units"
)

// The times of a shutdown, from its beginning. rc(8)'s watchdog takes 90 s.
const (
	forceUnmount = 20 * time.Second
	forceDestroy = 60 * time.Second
	unmountPause = 500 * time.Millisecond
	// lastRoomAfter is how long an unmount waits before the reserve is released. It comes to
	// what waits for space within that, on a slow machine, too.
	lastRoomAfter = 5 * time.Second
	// lastRoomPatience is how long a worker is waited for that may answer nothing.
	lastRoomPatience = 5 * time.Second
	// destroyPatience is how long the kernel may take to destroy a device that is not busy, and
	// again when its worker was killed.
	destroyPatience = 3 * time.Second
)

// shutdown ends everything within a minute or so: what is mounted from our
// devices is unmounted while the worker still serves it.
func (s *Supervisor) shutdown(w *worker) error {
	s.log.Info("shutting down")
	if s.opt.Units != nil {
		c := clearing{mounts: systemMounts{}, lastRoom: sync.OnceFunc(func() { s.giveLastRoom(w) }), kill: sync.OnceFunc(func() { s.killStopped(w) })}
		if err := s.clear(c, forceUnmount, forceDestroy, destroyPatience); err != nil {
			s.log.Error("shutdown", "error", err)
		}
	}
	return s.end(w, Finish)
}

// giveLastRoom has the worker release the reserves.
func (s *Supervisor) giveLastRoom(w *worker) {
	ctx, cancel := context.WithTimeout(context.Background(), lastRoomPatience)
	defer cancel()
	if _, err := w.peer.Call(ctx, methodLastRoom, struct{}{}, nil); err != nil {
		s.log.Warn("the reserves are not released: what a full volume is to write may not find room", "error", err)
	}
}

// killStopped kills a worker in which a device's requests do not end.
func (s *Supervisor) killStopped(w *worker) {
	s.log.Error("a worker that stands still is killed, for the system shuts down", "worker", w.cmd.Process.Pid)
	if err := w.kill(); err != nil {
		s.log.Error("shutdown", "error", err)
	}
}

// clearing is what clear does it with.
type clearing struct {
	mounts   mounts
	lastRoom func() // releases the reserves
	kill     func() // kills the worker
}

// mounts are the system's mounted file systems.
type mounts interface {
	// on lists those mounted from any of these devices, named without /dev/,
	// the last mounted first.
	on(devices []string) ([]string, error)
	unmount(path string, force bool) error
}

// clear unmounts what lies on our devices, and destroys the devices. It calls c.lastRoom when
// an unmount has been waiting for some time: a file system that is unmounted is written as a
// whole then, and waits for what is in the way. Sooner, whoever writes to a full volume would
// have the reserve, and what is in memory would stay behind that.
//
// The kernel destroys a device when nobody is within a request for it (sc_ref in
// sys/geom/gate/g_gate.c), which a worker that was stopped stays for ever: it is killed when a
// device is not destroyed within patience.
func (s *Supervisor) clear(c clearing, force, destroy, patience time.Duration) error {
	begun := time.Now()
	u := &unmounter{mounts: c.mounts, running: make(map[string]time.Time), failed: make(map[string]error), results: make(chan unmounted), over: make(chan struct{})}
	defer close(u.over)
	stay := make(map[units.Key]bool) // the kernel is destroying them: nobody begins that again
	var staying error
	for {
		left, err := s.opt.Units.Units()
		maps.DeleteFunc(left, func(k units.Key, _ units.Unit) bool { return stay[k] })
		if err != nil || len(left) == 0 {
			return errors.Join(err, staying)
		}
		since := time.Since(begun)
		pause, cancel := context.WithTimeout(context.Background(), min(unmountPause, force/4+time.Millisecond))
		all := s.unmountAll(pause, u, left, since > force)
		for k, unit := range left {
			err := s.release(k, unit, since > destroy, c.kill, patience)
			switch {
			case err == nil && since > destroy:
				s.log.Error("destroyed while it was open, for the system shuts down", "device", unit.Name)
			case err == nil:
				delete(left, k)
			case errors.Is(err, errStays):
				stay[k], staying = true, errors.Join(staying, err)
			case !errors.Is(err, gate.ErrBusy):
				all = errors.Join(all, err)
			}
		}
		if since > destroy {
			cancel()
			return errors.Join(all, u.err(), staying)
		}
		if len(left) > 0 {
			<-pause.Done()
		}
		if u.waitsAny(min(lastRoomAfter, force/4)) {
			c.lastRoom()
		}
		cancel()
	}
}

// release destroys a device, and has kill called when the kernel has not done so within
// patience. What it does not do after that either is left to it.
func (s *Supervisor) release(k units.Key, unit units.Unit, force bool, kill func(), patience time.Duration) error {
	done := make(chan error, 1)
	go func() { done <- s.opt.Units.Release(k, unit.Number, force) }()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		kill()
	}
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		return fmt.Errorf("destroy %s: %w", unit.Name, errStays)
	}
}

// errStays: what somebody else does is left to them.
var errStays = errors.New("the kernel does not end that")

// unmountAll waits for the unmounts that it begins until ctx ends.
func (s *Supervisor) unmountAll(ctx context.Context, u *unmounter, all map[units.Key]units.Unit, force bool) error {
	var names []string
	for _, unit := range all {
		names = append(names, s.above(unit.Name)...)
	}
	slices.Sort(names)
	paths, err := u.on(slices.Compact(names))
	if err != nil {
		return err
	}
	for _, p := range paths {
		u.begin(p, force)
	}
	for len(u.running) > 0 {
		select {
		case r := <-u.results:
			u.note(r, s.log)
		case <-ctx.Done():
			return nil
		}
	}
	return nil
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
