package gatetest

import (
	"sync"

	"github.com/gvirstor/gvirstor/geomlib/gate"
)

// events is GEOM's event thread: one event at a time, in order.
type events struct {
	mu      sync.Mutex
	changed sync.Cond
	queue   []func()
	busy    bool
	closed  bool
	done    chan struct{}
}

func newEvents() *events {
	e := &events{done: make(chan struct{})}
	e.changed.L = &e.mu
	go e.run()
	return e
}

func (e *events) post(event func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.closed {
		e.queue = append(e.queue, event)
		e.changed.Broadcast()
	}
}

func (e *events) run() {
	defer close(e.done)
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		for len(e.queue) == 0 {
			if e.closed {
				return
			}
			e.changed.Wait()
		}
		event := e.queue[0]
		e.queue = e.queue[1:]
		e.busy = true
		e.mu.Unlock()
		event()
		e.mu.Lock()
		e.busy = false
		e.changed.Broadcast()
	}
}

// waitIdle is g_waitidle.
func (e *events) waitIdle() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.busy || len(e.queue) > 0 {
		e.changed.Wait()
	}
}

func (e *events) close() {
	e.mu.Lock()
	e.closed = true
	e.changed.Broadcast()
	e.mu.Unlock()
	<-e.done
}

// tasteLocked posts the tasting of u's device; k.mu is held.
func (k *Kernel) tasteLocked(u *unit) {
	if k.opts.Taste {
		k.events.post(func() { k.taste(u) })
	}
}

// taste reads what every class reads: the first sector and the last.
func (k *Kernel) taste(u *unit) {
	d, errno := k.open(u, Reader)
	if errno != 0 {
		return
	}
	defer d.close(true)
	sector := make([]byte, d.SectorSize())
	for _, off := range []int64{0, d.MediaSize() - int64(len(sector))} {
		c := NewCall()
		c.Cmd, c.Offset, c.Length, c.Data = gate.Read, off, int64(len(sector)), sector
		d.Issue(c)
		if c.Wait() == gate.ENXIO {
			return
		}
	}
}
