package virstor

import (
	"sync"
	"sync/atomic"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
)

// mapLedger tells what of the maps is durable on one component, and which chunks
// wait for that. Each component that holds the first volume's map has one of its own, from
// when it became component 0, and with further volumes all have one: a flush that began before the map moved ends in the ledger in
// which it began, and proves nothing about the map of now.
type mapLedger struct {
	v *Volume

	// written counts writes of map sectors; durable is its value that the last
	// flush covers.
	written, durable atomic.Uint64

	mu       sync.Mutex
	waiting  []alloc.Phys // freed; the sector that says so is in no flush that began since
	flushing []alloc.Phys // freed; the running flush covers the sector
	covers   uint64       // map writes that the running flush covers
	running  bool
}

// isDurable reports whether every map sector that was written is durable.
func (l *mapLedger) isDurable() bool { return l.durable.Load() == l.written.Load() }

// wrote counts a write of map sectors. all: every one before it was durable.
func (l *mapLedger) wrote() (all bool) {
	n := l.written.Add(1)
	return l.durable.Load() == n-1
}

// free keeps a chunk until the map sector that freed it is durable.
func (l *mapLedger) free(p alloc.Phys) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running && l.v.cfg.breaks(breakFreedCovered) {
		l.flushing = append(l.flushing, p)
		return
	}
	l.waiting = append(l.waiting, p)
}

// pending is how many chunks are kept.
func (l *mapLedger) pending() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting) + len(l.flushing)
}

// abandon returns the chunks that are kept, when nobody will ask again what this
// component's map says of them, and forgets them.
func (l *mapLedger) abandon() []alloc.Phys {
	l.mu.Lock()
	defer l.mu.Unlock()
	chunks := append(l.waiting, l.flushing...)
	l.waiting, l.flushing = nil, nil
	return chunks
}

// each calls do with each chunk that is kept, to change it.
func (l *mapLedger) each(do func(*alloc.Phys)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.waiting {
		do(&l.waiting[i])
	}
	for i := range l.flushing {
		do(&l.flushing[i])
	}
}

// flushBegins and flushEnded bracket each device flush of the component. They do not
// overlap.
func (l *mapLedger) flushBegins() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flushing = append(l.flushing, l.waiting...)
	l.waiting = l.waiting[:0]
	l.covers, l.running = l.written.Load(), true
}

func (l *mapLedger) flushEnded(err error) {
	l.mu.Lock()
	l.running = false
	begin := false
	if err == nil {
		l.durable.Store(l.covers)
		begin = l.v.freed.take(l.flushing)
	} else {
		l.waiting = append(l.waiting, l.flushing...)
	}
	l.flushing = l.flushing[:0]
	l.mu.Unlock()
	switch {
	case begin:
		l.v.freed.begin()
	case err != nil:
		l.v.mapLost(l)
	}
}

// mapLost tells those whose maps lie on the component of l that a flush of it failed.
func (v *Volume) mapLost(l *mapLedger) {
	if v.ledger() == l {
		v.committer.mapLost()
	}
	for _, c := range v.components() {
		if c.ledger.Load() != l {
			continue
		}
		for _, h := range v.further() {
			if h.liesOn(c) {
				h.committer.mapLost()
			}
		}
	}
}

// ledger is that of component 0, for the first volume's map and the record.
func (v *Volume) ledger() *mapLedger { return v.component(0).ledger.Load() }
