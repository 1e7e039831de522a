package virstor

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
)

// clients are goroutines that ask things of a volume which has goroutines of its
// own, while verbs are done to it. They write over each other, and some die with
// requests at work or held. The seed decides what is asked, the scheduler in which
// order; what is made of the log afterwards is the seed's again.
type clients struct {
	w      *world
	left   atomic.Int64 // requests that are still to be made
	living atomic.Int64 // clients

	mu      sync.Mutex
	changed sync.Cond // vol is another one
	vol     *Volume   // who is not told of a new one asks a closed one
	orphans []*marker
	errs    []error
}

// runClients lets n clients make ops requests beside verbs.
func (w *world) runClients(n, ops int) error {
	c := &clients{w: w, vol: w.vol}
	c.changed.L = &c.mu
	c.left.Store(int64(ops))
	c.living.Store(int64(n))
	for i, d := range w.disks {
		defer d.Inject(dawdle(w.seed + uint64(i)))()
	}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { c.live(rand.New(rand.NewPCG(w.seed, uint64(i)+300))) })
	}
	c.administer(rand.New(rand.NewPCG(w.seed, 299)))
	wg.Wait()
	if err := errors.Join(c.errs...); err != nil {
		return err
	}
	if err := c.end(); err != nil {
		return err
	}
	_, err := w.readAll(w.model.at(w.rec.Len(), true))
	return err
}

// dawdle lets others run before a disk does something: a flush takes longer than a
// write.
func dawdle(seed uint64) func(disktest.Op) error {
	var n atomic.Uint64
	return func(o disktest.Op) error {
		x := (seed + n.Add(1)) * 0x9e3779b97f4a7c15 >> 58
		if o.Kind == disktest.Read {
			x /= 16
		} else if o.Kind == disktest.Flush {
			x *= 2
		}
		for range x {
			runtime.Gosched()
		}
		return nil
	}
}

// end waits for what the run left behind.
func (c *clients) end() error {
	w := c.w
	if s, err := w.vol.WaitJob(context.Background()); err != nil || s.Err != nil && !bearable(s.Err) {
		return fmt.Errorf("the last job: %w, %w", err, s.Err)
	}
	for _, m := range c.orphans {
		for open := true; open; {
			select {
			case <-m.done:
				open = false
			default:
				w.vol.FailHeld()
				runtime.Gosched()
			}
		}
	}
	return nil
}

func (c *clients) fail(err error) {
	c.mu.Lock()
	c.errs = append(c.errs, err)
	c.mu.Unlock()
	c.left.Store(0)
}

// volume is the one that is open, once it is another one than closed.
func (c *clients) volume(closed *Volume) *Volume {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.vol == closed {
		c.changed.Wait()
	}
	return c.vol
}

// live is one client after the other in the same place.
func (c *clients) live(rng *rand.Rand) {
	defer c.living.Add(-1)
	v := c.volume(nil)
	for c.left.Add(-1) >= 0 {
		c.w.counts.ops.Add(1)
		err := c.ask(v, rng)
		switch {
		case errors.Is(err, ErrClosed):
			v = c.volume(v)
		case err != nil && !errors.Is(err, ErrNoSpace):
			c.fail(err)
			return
		}
	}
}

// ask makes one request and waits for it, or dies with several.
func (c *clients) ask(v *Volume, rng *rand.Rand) error {
	w := c.w
	switch k := rng.IntN(100); {
	case k < 12:
		return await(c.flush(v))
	case k < 16:
		w.counts.orphaned.Add(1)
		for range 1 + rng.IntN(4) {
			m := c.request(rng)
			m.dead = true
			c.mu.Lock()
			c.orphans = append(c.orphans, m)
			c.mu.Unlock()
			v.Submit(&m.r)
		}
		return nil
	case k < 24:
		return c.look(v, rng)
	}
	m := c.request(rng)
	m.r.Flags |= Flags(rng.IntN(2)) * MayBlock
	v.Submit(&m.r)
	return await(m)
}

func await(m *marker) error {
	err := <-m.done
	if err != nil {
		err = fmt.Errorf("%s of units %d+%d among clients: %w", m.r.Op, m.first, m.n, err)
	}
	return err
}

func (c *clients) flush(v *Volume) *marker {
	w := c.w
	m := &marker{w: w, flush: true, done: make(chan error, 1)}
	m.r = Request{Op: OpFlush, Done: m}
	w.mu.Lock()
	m.begun = w.rec.Mark("flush begins")
	w.mu.Unlock()
	v.Submit(&m.r)
	return m
}

// request makes a change that is not submitted yet.
func (c *clients) request(rng *rand.Rand) *marker {
	first, n := c.place(rng)
	fua := Flags(rng.IntN(6)/5) * FUA
	switch k := rng.IntN(10); {
	case k < 6:
		return c.w.begin(first, n, OpWrite, fua)
	case k < 8:
		return c.w.begin(first, n, OpWriteZeroes, fua|Flags(rng.IntN(2))*NoHole)
	}
	return c.w.begin(first, n, OpDelete, 0)
}

// place picks units, mostly of a few chunks in which clients meet.
func (c *clients) place(rng *rand.Rand) (first, n int64) {
	first, n = c.w.place(rng, 0, 1)
	if rng.IntN(4) > 0 {
		first %= 10 * c.w.chunk / unit
		n = min(n, 1+rng.Int64N(2*c.w.chunk/unit))
	}
	return first, n
}

// look reads units that others may change meanwhile.
func (c *clients) look(v *Volume, rng *rand.Rand) error {
	w := c.w
	first, n := c.place(rng)
	w.mu.Lock()
	begun := w.rec.Mark("read begins")
	w.mu.Unlock()
	b := make([]byte, n*unit)
	if _, err := v.ReadAt(b, first*unit); err != nil {
		return fmt.Errorf("read of units %d+%d: %w", first, n, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	ended := w.rec.Mark("read")
	for i := range n {
		if err := w.model.during(first+i, begun, ended).check(first+i, b[i*unit:(i+1)*unit]); err != nil {
			return fmt.Errorf("read among clients: %w", err)
		}
	}
	return nil
}

// administer does verbs to the volume as long as clients live.
func (c *clients) administer(rng *rand.Rand) {
	w := c.w
	for c.living.Load() > 0 {
		for range rng.IntN(200) {
			runtime.Gosched()
		}
		if w.vol.Status().Held.Count > 0 && rng.IntN(4) == 0 {
			w.vol.FailHeld()
		}
		if c.left.Load() <= 0 {
			continue // what the clients wait for still ends
		}
		if err := c.verb(rng); err != nil && !bearable(err) {
			c.fail(fmt.Errorf("among clients: %w", err))
		}
		w.counts.beside.Add(1)
	}
}

// bearable reports whether a verb may end so where nothing failed.
func bearable(err error) bool {
	return slices.ContainsFunc([]error{ErrNoSpace, ErrRequest, ErrTooSmall, ErrNoExtension, ErrAllocated, ErrComponentZero,
		ErrInUse, ErrNotComponent, ErrJobRunning, ErrNoJob, context.Canceled}, func(e error) bool { return errors.Is(err, e) })
}

// verb does, or begins, something to the volume.
func (c *clients) verb(rng *rand.Rand) error {
	w, v := c.w, c.w.vol
	var comps []string
	for _, p := range v.Providers() {
		comps = append(comps, p.Name())
	}
	one := comps[rng.IntN(len(comps))]
	switch rng.IntN(14) {
	case 0:
		return c.reopen(rng.IntN(2) == 0)
	case 1:
		return v.Add(c.spare(rng), AddOptions{})
	case 2:
		return v.Remove(one)
	case 3:
		return v.Evacuate([]string{one}, "", JobOptions{})
	case 4:
		if ps := c.spare(rng); len(ps) == 1 {
			return v.Replace(one, ps[0], false, JobOptions{})
		}
		return nil
	case 5:
		return v.Pack(JobOptions{})
	case 6:
		return v.Rebalance(JobOptions{})
	case 7:
		return v.Reclaim(JobOptions{})
	case 8:
		return v.Resize(v.Size()+rng.Int64N(40)*w.chunk, false, JobOptions{})
	case 9:
		return v.Resize(w.size+rng.Int64N(40)*w.chunk, true, JobOptions{})
	case 10:
		return v.CancelJob()
	case 11, 12:
		if w.cfg.ZeroAhead > 0 {
			newZeroAhead(v).one()
		}
		return nil
	}
	s, err := v.WaitJob(context.Background())
	return errors.Join(err, s.Err)
}

// spare is a disk that is no component, or none.
func (c *clients) spare(rng *rand.Rand) []geomlib.Provider {
	for _, i := range rng.Perm(len(c.w.disks)) {
		if d := c.w.disks[i]; !c.w.has(d.Name()) {
			return []geomlib.Provider{d}
		}
	}
	return nil
}

// reopen closes the volume in the face of the clients, and opens it again.
func (c *clients) reopen(handBack bool) error {
	if err := c.w.reopen(handBack); err != nil {
		return err
	}
	c.mu.Lock()
	c.vol = c.w.vol
	c.mu.Unlock()
	c.changed.Broadcast()
	return nil
}
