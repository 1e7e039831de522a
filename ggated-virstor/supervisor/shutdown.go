package supervisor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/ggated-virstor/gatepub/units"
)

// limits are the times of a shutdown.
type limits struct {
	// Since its beginning, until unmounts are by force, and then the destruction of devices.
	unmount, destroy time.Duration
	// answer is how long a worker may take to answer what takes no time: one that does not
	// stands still.
	answer time.Duration
	// kernel is how long the kernel may take to destroy a device that is not busy, and again
	// when its worker was killed.
	kernel time.Duration
}

// systemLimits are those of the system's shutdown: rc(8)'s watchdog takes 90 s.
var systemLimits = limits{unmount: 20 * time.Second, destroy: 60 * time.Second, answer: 5 * time.Second, kernel: 3 * time.Second}

const (
	unmountPause = 500 * time.Millisecond
	// lastRoomAfter is how long an unmount waits before the reserve is released, and how long a
	// shutdown takes before the worker has to show that it answers. An unmount comes to
	// what waits for space within that, on a slow machine, too.
	lastRoomAfter = 5 * time.Second
)

// shutdown ends everything within a minute or so: what is mounted from our devices, m, is
// unmounted while a worker serves it, another when this one dies.
func (s *Supervisor) shutdown(w *worker, m mounts, limit limits) error {
	s.log.Info("shutting down")
	if s.opt.Units == nil {
		return s.end(w, Finish)
	}
	var serving atomic.Pointer[worker]
	serving.Store(w)
	cleared := make(chan struct{})
	go func() {
		defer close(cleared)
		if err := s.clear(s.clearingOf(m, &serving, limit.answer), limit); err != nil {
			s.log.Error("shutdown", "error", err)
		}
	}()
	s.succession(&serving, s.start, cleared)
	err := s.end(serving.Load(), Finish)
	s.destroyLeft(true, limit.kernel) // it may have made again what was destroyed before it
	return err
}

// succession has another worker serve whenever one dies, until over is closed.
func (s *Supervisor) succession(serving *atomic.Pointer[worker], start func() (*worker, error), over <-chan struct{}) {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		w := serving.Load()
		select {
		case <-w.gone:
		case <-over:
			return
		}
		s.logDeath(w, pause)
		select {
		case <-time.After(pause):
		case <-over:
			return
		}
		next, err := start()
		if err != nil {
			s.log.Error("shutdown", "error", err)
			continue
		}
		serving.Store(next)
	}
}

// destroyLeft destroys the devices that the last worker did not come to destroy; without force,
// not those that somebody has open.
func (s *Supervisor) destroyLeft(force bool, patience time.Duration) {
	left, err := s.opt.Units.Units()
	if err != nil {
		s.log.Error("the devices that are left are not known", "error", err)
	}
	for k, unit := range left {
		if err := s.release(k, unit, force, func() {}, patience); err != nil && !errors.Is(err, gate.ErrBusy) {
			s.log.Error("the device could not be destroyed", "device", unit.Name, "error", err)
		}
	}
}

// clearing is what clear does it with, in its own goroutine. All but mounts may be called again.
type clearing struct {
	mounts   mounts
	check    func() // kills the worker if it does not answer
	lastRoom func() // has the worker release the reserves
	kill     func() // kills the worker
}

// clearingOf is that of whoever serves, which has to answer within patience. A worker that opens
// volumes still is let alone: it has no reserves to release.
func (s *Supervisor) clearingOf(m mounts, serving *atomic.Pointer[worker], patience time.Duration) clearing {
	var told, killed *worker
	kill := func() {
		if w := serving.Load(); w != killed {
			killed = w
			s.killStopped(w)
		}
	}
	return clearing{mounts: m, kill: kill,
		check: func() {
			if w := serving.Load(); w.ready.Load() && w != killed && !alive(w, patience) {
				kill()
			}
		},
		lastRoom: func() {
			if w := serving.Load(); w.ready.Load() && w != told {
				told = w
				s.giveLastRoom(w, patience)
			}
		}}
}

// alive reports whether a worker answers within patience, or has ended.
func alive(w *worker, patience time.Duration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	// One of an earlier version knows no such question, and answers that.
	_, _ = w.peer.Call(ctx, methodAlive, struct{}{}, nil)
	return ctx.Err() == nil
}

// giveLastRoom has the worker release the reserves.
func (s *Supervisor) giveLastRoom(w *worker, patience time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := w.peer.Call(ctx, methodLastRoom, struct{}{}, nil); err != nil {
		s.log.Warn("the reserves are not released: what a full volume is to write may not find room", "error", err)
	}
}

// killStopped kills a worker that does not answer, or in which a device's requests do not end.
func (s *Supervisor) killStopped(w *worker) {
	s.log.Error("a worker that stands still is killed, for the system shuts down", "worker", w.cmd.Process.Pid)
	if err := w.kill(); err != nil {
		s.log.Error("shutdown", "error", err)
	}
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
// have the reserve, and what is in memory would stay behind that. From then on it looks after the
// worker, too: nothing that waits for one that stands still goes on.
//
// The kernel destroys a device when nobody is within a request for it (sc_ref in
// sys/geom/gate/g_gate.c), which a worker that was stopped stays for ever: it is killed when a
// device is not destroyed in time.
func (s *Supervisor) clear(c clearing, limit limits) error {
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
		pause, cancel := context.WithTimeout(context.Background(), min(unmountPause, limit.unmount/4+time.Millisecond))
		all := s.unmountAll(pause, u, left, since > limit.unmount)
		for k, unit := range left {
			err := s.release(k, unit, since > limit.destroy, c.kill, limit.kernel)
			switch {
			case err == nil && since > limit.destroy:
				s.log.Error("destroyed while it was open, for the system shuts down", "device", unit.Name)
			case err == nil:
				delete(left, k)
			case errors.Is(err, errStays):
				stay[k], staying = true, errors.Join(staying, err)
			case !errors.Is(err, gate.ErrBusy):
				all = errors.Join(all, err)
			}
		}
		if since > limit.destroy {
			cancel()
			return errors.Join(all, u.err(), staying)
		}
		if len(left) > 0 {
			<-pause.Done()
		}
		wait := min(lastRoomAfter, limit.unmount/4)
		if time.Since(begun) > wait {
			c.check()
		}
		if u.waitsAny(wait) {
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
		names = append(names, unit.Name)
	}
	names = s.withAbove(names)
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

// withAbove are devices and everything that GEOM makes of them: partitions and the like. Where
// GEOM waits it is asked once for all, so that a shutdown with many devices takes no longer.
func (s *Supervisor) withAbove(devices []string) []string {
	tree, err := s.opt.Units.Tree(context.Background())
	if err != nil {
		return devices
	}
	all := slices.Clone(devices)
	for _, c := range tree.Classes {
		for _, g := range c.Geoms {
			for _, p := range g.Providers {
				if slices.ContainsFunc(devices, func(d string) bool { return p.Name != d && tree.OnTopOf(p.Name, d) }) {
					all = append(all, p.Name)
				}
			}
		}
	}
	return all
}
