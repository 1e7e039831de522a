package virstor

import (
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Trouble is a kind of failure that a component has.
type Trouble int

// The kinds of trouble.
const (
	ReadTrouble  Trouble = iota // reads fail
	WriteTrouble                // writes fail
	// StorageFull: the file system that the component is a file on, or the thin
	// device that it is, has no room for what was never written to (ENOSPC, EDQUOT).
	// Blocks that are there can be overwritten.
	StorageFull
	// Unreached: the component is a geomlib.Remote that is away. What is asked of it
	// waits, or fails when that takes too long. It is over when it is reached again.
	Unreached
)

// kindsNoted is how many of the kinds are failures, which are noted when they happen.
const kindsNoted = Unreached

func (t Trouble) String() string {
	switch t {
	case ReadTrouble:
		return "read errors"
	case WriteTrouble:
		return "write errors"
	case StorageFull:
		return "storage full"
	case Unreached:
		return "no connection"
	}
	return fmt.Sprintf("trouble %d", int(t))
}

// Troubles are all kinds.
func Troubles() []Trouble { return []Trouble{ReadTrouble, WriteTrouble, StorageFull, Unreached} }

const (
	// troubleLasts is how long a component is in trouble after the last failure, so
	// that one failure now and then is told once.
	troubleLasts = 5 * time.Minute
	// troubleSilence is how often a trouble that goes on is logged.
	troubleSilence = time.Minute
)

// troubled is what a component knows of its failures of each kind. Nothing of it is
// touched while requests succeed.
type troubled [kindsNoted]struct {
	count  atomic.Uint64 // failures
	last   atomic.Int64  // the last one, Unix nanoseconds
	logged atomic.Int64  // when it was logged last
	told   atomic.Uint64 // how many had been logged then
}

// note counts a failure, and logs it unless one of its kind was logged lately. It
// reports whether the component was in no such trouble before.
func (t *troubled) note(kind Trouble, component string, err error, log *slog.Logger) (news bool) {
	k, now := &t[kind], time.Now().UnixNano()
	n := k.count.Add(1)
	news = now-k.last.Swap(now) > int64(troubleLasts)
	logged := k.logged.Load()
	if now-logged > int64(troubleSilence) && k.logged.CompareAndSwap(logged, now) {
		log.Error("component fails", "component", component, "what", kind.String(), "failures", n-k.told.Swap(n), "error", err)
	}
	return news
}

// lasts reports whether there was a failure of the kind lately.
func (t *troubled) lasts(kind Trouble) bool {
	last := t[kind].last.Load()
	return last != 0 && time.Now().UnixNano()-last <= int64(troubleLasts)
}

// list are the kinds that last.
func (t *troubled) list() []Trouble {
	var ks []Trouble
	for kind := range kindsNoted {
		if t.lasts(kind) {
			ks = append(ks, kind)
		}
	}
	return ks
}

// readFailed and writeFailed note a failure of the component's provider.
func (c *component) readFailed(err error) {
	c.stats.readErrors.Add(1)
	c.noteTrouble(ReadTrouble, err)
}

func (c *component) writeFailed(err error) {
	c.stats.writeErrors.Add(1)
	c.noteUnwritten(err)
	kind := WriteTrouble
	if isStorageFull(err) {
		kind = StorageFull
	}
	c.noteTrouble(kind, err)
}

// isStorageFull reports whether a write of a component failed because there is no
// room below it.
func isStorageFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

func (c *component) noteTrouble(kind Trouble, err error) {
	if c.troubled.note(kind, c.name(), err, c.log) && c.emit != nil {
		c.emit(Event{Kind: EventTrouble, Component: int(c.index()), Err: err})
	}
}

// newComponent makes a component that tells of its trouble.
func (v *Volume) newComponent(p geomlib.Provider, m ondisk.Metadata) *component {
	c := newComponent(p, m, v.log, v.cfg.breakRule)
	c.emit = v.emit
	if l := v.lease.Load(); l != nil {
		c.lease.Store(l)
		l.guard(p)
	}
	if r, ok := p.(geomlib.Remote); ok {
		r.Watch(func() { v.emit(Event{Kind: EventTrouble, Component: int(c.index())}) })
	}
	return c
}
