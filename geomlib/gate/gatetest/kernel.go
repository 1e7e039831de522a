// Package gatetest is geom_gate(4) in a process: the same structures through
// the same ioctls as the kernel's, with its semantics (sys/geom/gate/g_gate.c),
// and on the other side the device nodes with whatever opens, reads, writes and
// tastes them. Daemons are tested against it on systems that have no geom_gate.
package gatetest

import (
	"fmt"
	"sync"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/gate"
)

// Options choose among kernels. The zero Options are a FreeBSD 14 that tastes
// nothing.
type Options struct {
	// MaxUnits is kern.geom.gate.maxunits; 0 means 256.
	MaxUnits int
	// Version is the interface's version; 0 means 3.
	Version uint32
	// SignalCancels: a signal makes a sleeping START answer ECANCELED, as
	// kernels before 14 do, and not EINTR.
	SignalCancels bool
	// DeleteNeedsRoom: START answers ENOMEM for a DELETE longer than the
	// buffer too, as older kernels do.
	DeleteNeedsRoom bool
	// Taste: GEOM's event thread reads the first and the last sector of a
	// device after CREATE and after every last close of a writer, and what
	// waits for GEOM's events waits for that.
	Taste bool
}

// Kernel is a geom_gate: units, and the devices they make. It outlives
// the descriptors that are opened to it.
type Kernel struct {
	opts   Options
	events *events

	// mu is g_gate_units_lock and the topology lock in one. It is taken
	// before a unit's.
	mu    sync.Mutex
	freed sync.Cond // a unit's ref fell, on mu
	units []*unit
	// panicked is why the kernel would have.
	panicked error
	// others are the providers of other classes.
	others []foreign
}

// New makes a geom_gate without units. Close it.
func New(opts Options) *Kernel {
	if opts.MaxUnits == 0 {
		opts.MaxUnits = 256
	}
	if opts.Version == 0 {
		opts.Version = gate.Version
	}
	k := &Kernel{opts: opts, units: make([]*unit, opts.MaxUnits), events: newEvents()}
	k.freed.L = &k.mu
	return k
}

// Close destroys all units by force and ends the event thread. Every START
// ends; what is queued fails with ENXIO.
func (k *Kernel) Close() {
	for n := range k.units {
		u := k.hold(n)
		if u == nil {
			continue
		}
		k.mu.Lock()
		dying := u.dying
		k.mu.Unlock()
		if dying { // somebody destroys it already
			k.release(u)
			continue
		}
		_ = k.destroy(u, true) // by force it does not fail
	}
	k.events.close()
}

// Panicked is why the kernel would have panicked, or nil: a unit whose destruction waits for
// whoever is within a request was destroyed once more, and each of the two would free it.
func (k *Kernel) Panicked() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.panicked
}

// Signal makes one sleeping START of the unit end as a signal to its thread
// would, and reports whether there was one.
func (k *Kernel) Signal(unit int) bool {
	u := k.hold(unit)
	if u == nil {
		return false
	}
	defer k.release(u)
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.sleepers) == 0 {
		return false
	}
	u.sleepers[0].signalledLocked(u)
	return true
}

// Sleeping tells how many STARTs of the unit sleep.
func (k *Kernel) Sleeping(unit int) int {
	u := k.hold(unit)
	if u == nil {
		return 0
	}
	defer k.release(u)
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.sleepers)
}

// Status is what kern.geom.confxml and gstat tell of a unit.
type Status struct {
	Name       string
	Info       string
	MediaSize  int64
	SectorSize int
	Flags      gate.Flags
	Readers    int // opens for reading
	Writers    int // opens for writing
	Waiting    int // requests on the in-queue
	Taken      int // requests on the out-queue: taken, not answered
}

// Status reads a unit's. As the kernel's confxml does, it waits for the event
// thread; ok is false when there is no such unit.
func (k *Kernel) Status(unit int) (s Status, ok bool) {
	k.events.waitIdle()
	return k.Peek(unit)
}

// Peek is Status without waiting for the event thread.
func (k *Kernel) Peek(unit int) (s Status, ok bool) {
	u := k.hold(unit)
	if u == nil {
		return s, false
	}
	defer k.release(u)
	k.mu.Lock()
	s = Status{Name: u.name, Info: u.info, MediaSize: u.mediaSize, SectorSize: u.sectorSize,
		Flags: u.flags, Readers: u.readers, Writers: u.writers}
	k.mu.Unlock()
	u.mu.Lock()
	s.Waiting, s.Taken = u.in.len, u.out.len
	u.mu.Unlock()
	return s, true
}

// WaitIdle returns when GEOM's event thread has nothing to do.
func (k *Kernel) WaitIdle() { k.events.waitIdle() }

// Within has somebody be within a request for a unit, as a thread of a process that was
// stopped stays, until leave is called: the unit is not destroyed before.
func (k *Kernel) Within(unit int) (leave func()) {
	u := k.hold(unit)
	return func() { k.release(u) }
}

// hold finds a unit and keeps it from going away until release.
func (k *Kernel) hold(n int) *unit {
	k.mu.Lock()
	defer k.mu.Unlock()
	if n < 0 || n >= len(k.units) || k.units[n] == nil {
		return nil
	}
	k.units[n].ref++
	return k.units[n]
}

func (k *Kernel) holdName(name string) *unit {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, u := range k.units {
		if u != nil && u.name == name {
			u.ref++
			return u
		}
	}
	return nil
}

func (k *Kernel) release(u *unit) {
	k.mu.Lock()
	defer k.mu.Unlock()
	u.ref--
	if u.ref == 0 {
		k.freed.Broadcast()
	}
}

func (k *Kernel) create(u *unit, number int, named bool) gate.Errno {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case number >= len(k.units):
		return gate.EINVAL
	case number >= 0 && k.units[number] != nil:
		return gate.EEXIST
	case number < 0:
		for number = 0; number < len(k.units) && k.units[number] != nil; number++ {
		}
		if number == len(k.units) {
			return gate.ENFILE
		}
	}
	if !named {
		u.name = autoName(number)
	}
	for _, other := range k.units {
		if other != nil && other.name == u.name {
			return gate.EEXIST
		}
	}
	u.number = number
	k.units[number] = u
	if u.timeout > 0 {
		u.guard = time.AfterFunc(u.timeout, u.guardScan)
	}
	k.tasteLocked(u)
	return 0
}

// destroy takes over the caller's hold on u, as g_gate_destroy does.
func (k *Kernel) destroy(u *unit, force bool) gate.Errno {
	k.mu.Lock()
	if u.dying {
		k.panicked = fmt.Errorf("unit %d is destroyed twice", u.number)
		k.mu.Unlock()
		k.release(u)
		return gate.ENXIO
	}
	if !force && (u.readers != 0 || u.writers != 0) {
		k.mu.Unlock()
		k.release(u)
		return gate.EBUSY
	}
	u.dying = true
	k.mu.Unlock()

	u.kill()

	k.mu.Lock()
	u.ref--
	for u.ref > 0 {
		k.freed.Wait()
	}
	k.units[u.number] = nil
	k.mu.Unlock()
	return 0
}
