package virstor

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
)

// crowd is a run in which several requests are under way at once, and yet the seed
// decides everything: the volume is serial, and more is asked of it before it has
// done what it was asked before, and whenever it asks something of a disk.
type crowd struct {
	w        *world
	left     int       // requests
	under    []*marker // way
	inHook   bool
	quiet    bool // nothing is submitted and nothing fails: the volume opens or closes
	faulty   bool // requests to disks fail now and then
	forgot   bool // a flush failed since the volume was opened
	err      error
	joined   int // requests submitted in the midst of another
	together int // most that were under way at once
}

// runCrowd does n requests. faulty: now and then a disk fails one of its own.
func (w *world) runCrowd(n int, faulty bool) error {
	c := &crowd{w: w, left: n, faulty: faulty}
	for _, d := range w.disks {
		d.SetForgetful(true)
		defer d.Inject(func(o disktest.Op) error {
			c.midst(o)
			return c.fault(o)
		})()
	}
	for c.left > 0 && c.err == nil {
		switch k := w.rng.IntN(100); {
		case k < 55:
			c.submit(false)
		case k < 90:
			c.turn()
		case k < 96:
			c.look()
		case faulty:
			c.restart()
		case k < 98 || w.jobs:
			c.verb()
		}
		c.settle()
	}
	c.quiet = true
	w.vol.catchUp()
	c.settle()
	if c.err == nil && len(c.under) > 0 {
		c.err = fmt.Errorf("%d requests never ended", len(c.under))
	}
	if c.forgot {
		w.model.forget(w.rec.Mark("ends after a flush failed"))
	}
	w.counts.joined.Add(int64(c.joined))
	return c.err
}

// turn lets the volume do one thing, of those for workers or those for the
// committer.
func (c *crowd) turn() {
	v := c.w.vol
	if c.w.rng.IntN(2) == 0 && v.workers.doOne() {
		return
	}
	if !v.committer.doOne() {
		v.workers.doOne()
	}
}

// midst is called when a disk is about to do something.
func (c *crowd) midst(o disktest.Op) {
	if c.inHook || c.quiet || c.left == 0 || o.Kind == disktest.Read || c.w.rng.IntN(3) > 0 {
		return
	}
	c.inHook = true
	defer func() { c.inHook = false }()
	before := c.left
	for range 1 + c.w.rng.IntN(2) {
		// A flush in the midst of another would wait for that one for ever.
		c.submit(o.Kind == disktest.Write && c.w.rng.IntN(4) == 0)
	}
	c.joined += before - c.left
}

// submit asks for something that does not touch what is under way. It never waits,
// but for flush, which flushes at once.
func (c *crowd) submit(flush bool) {
	w, rng := c.w, c.w.rng
	if c.left == 0 {
		return
	}
	c.left--
	w.counts.ops.Add(1)
	if flush || rng.IntN(8) == 0 {
		m := &marker{w: w, flush: true, done: make(chan error, 1)}
		m.begun = w.rec.Mark("flush begins")
		m.r = Request{Op: OpFlush, Done: m}
		if flush {
			m.r.Flags = MayBlock
		}
		c.start(m)
		return
	}
	first, n := c.place(rng)
	for _, m := range c.under {
		if first < m.first+m.n && m.first < first+n {
			return
		}
	}
	fua := Flags(rng.IntN(6)/5) * FUA
	switch k := rng.IntN(10); {
	case k < 7:
		c.start(w.begin(first, n, OpWrite, fua))
	case k < 9:
		c.start(w.begin(first, n, OpWriteZeroes, fua|Flags(rng.IntN(2))*NoHole))
	default:
		c.start(w.begin(first, n, OpDelete, 0))
	}
}

// place picks units, mostly of the first few chunks, so that requests meet in them.
func (c *crowd) place(rng *rand.Rand) (first, n int64) {
	first, n = c.w.place(rng, 0, 1)
	if rng.IntN(3) > 0 {
		first %= 8 * c.w.chunk / unit
		n = min(n, 1+rng.Int64N(64))
	}
	return first, n
}

func (c *crowd) start(m *marker) {
	c.under = append(c.under, m)
	c.together = max(c.together, len(c.under))
	c.w.vol.Submit(&m.r)
}

// fault fails what a disk is about to do, now and then.
func (c *crowd) fault(o disktest.Op) error {
	rng := c.w.rng
	if !c.faulty || c.quiet || rng.IntN(12) > 0 || o.Kind == disktest.Flush && rng.IntN(3) > 0 {
		return nil
	}
	c.w.counts.faults.Add(1)
	c.forgot = c.forgot || o.Kind == disktest.Flush
	err := []error{syscall.EIO, syscall.ENOSPC, syscall.ENXIO}[rng.IntN(3)]
	if o.Kind != disktest.Flush && o.Len > 0 && rng.IntN(3) == 0 {
		return disktest.Partial{Done: rng.Int64N(o.Len), Err: err}
	}
	return err
}

// failures are what a caller is told when a disk fails.
var failures = []error{syscall.EIO, syscall.ENOSPC, syscall.ENXIO, ErrDegraded, ErrFlushFailed, ErrUnfinished, ErrTakesNoWrites}

// isFailure reports whether err comes from a failing disk.
func isFailure(err error) bool {
	return slices.ContainsFunc(failures, func(f error) bool { return errors.Is(err, f) })
}

func (c *crowd) expected(err error) bool { return c.faulty && isFailure(err) }

// restart closes the volume, whatever that says of flushes that failed, and opens
// it again, which ends that.
func (c *crowd) restart() {
	c.quiet = true
	defer func() { c.quiet = false }()
	err := c.w.vol.Close()
	if c.forgot {
		c.w.model.forget(c.w.rec.Mark("opened again after a flush failed"))
		c.forgot = false
	}
	if err == nil || c.expected(err) {
		c.w.vol, err = openDisks(c.w.cfg, c.w.disks)
	}
	if err != nil && c.err == nil {
		c.err = fmt.Errorf("restart: %w", err)
	}
}

// settle forgets what has ended.
func (c *crowd) settle() {
	kept := c.under[:0]
	for _, m := range c.under {
		select {
		case err := <-m.done:
			if err != nil && !errors.Is(err, ErrNoSpace) && !c.expected(err) && c.err == nil {
				c.err = fmt.Errorf("%s of units %d+%d among others: %w", m.r.Op, m.first, m.n, err)
			}
		default:
			kept = append(kept, m)
		}
	}
	c.under = kept
}

// look reads what nobody changes just now.
func (c *crowd) look() {
	first, n := c.place(c.w.rng)
	for _, m := range c.under {
		if first < m.first+m.n && m.first < first+n {
			return
		}
	}
	quiet := c.quiet
	c.quiet = true // nobody is to begin to change it
	if err := c.w.look(first, n); err != nil && !c.expected(err) && c.err == nil {
		c.err = err
	}
	c.quiet = quiet
}

// verb does something that changes metadata, among requests.
func (c *crowd) verb() {
	w := c.w
	before := w.vol
	if err := w.anyVerb(w.rng, func(on bool) { c.quiet = on }); err != nil && c.err == nil {
		c.err = err
	}
	if w.vol != before {
		c.settle()
	}
}
