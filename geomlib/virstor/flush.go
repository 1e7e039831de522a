package virstor

import (
	"errors"
	"sync"
)

// flush puts everything acknowledged before r on stable storage.
func (v *Volume) flush(r *Request, block bool) {
	if !block && !v.allClean() {
		v.workers.put(r)
		return
	}
	v.finish(r, v.flushAll())
}

func (v *Volume) allClean() bool {
	if v.lost.Load() != nil {
		return false
	}
	for _, c := range v.components() {
		if !c.clean() {
			return false
		}
	}
	return true
}

// flushAll flushes every component that needs it, side by side. As those of a component
// that failed one, all fail when such a component 0 has left.
func (v *Volume) flushAll() error {
	v.stats.flushes.Add(1)
	comps := v.components()
	if v.cfg.breaks(breakFlushCoverage) {
		comps = comps[1:]
	}
	err := v.flushComponents(comps)
	if lost := v.lost.Load(); lost != nil {
		err = errors.Join(err, *lost)
	}
	return err
}

// flushComponents flushes comps side by side and joins their errors.
func (v *Volume) flushComponents(comps []*component) error {
	if v.cfg.serial {
		var err error
		for _, c := range comps {
			err = errors.Join(err, c.flush())
		}
		return err
	}
	var first *component
	var g *flushJobs
	for _, c := range comps {
		if c.clean() {
			continue
		}
		if first == nil {
			first = c
			continue
		}
		if g == nil {
			g = v.flushPool.Get().(*flushJobs)
		}
		g.start(v.writers, c)
	}
	if first == nil {
		return nil
	}
	err := first.flush()
	if g != nil {
		err = errors.Join(err, g.wait())
		v.flushPool.Put(g)
	}
	return err
}

// finishFUA completes a write all of which is done once it is durable: on the
// components it lies on, and in the map if an entry may not be durable.
func (v *Volume) finishFUA(r *Request) {
	var last *component
	for off, end := r.Offset, r.Offset+r.Length; off < end; {
		pc := v.pieceAt(off, end)
		ph, state := v.chunks.pin(pc.vc)
		switch state {
		case busy:
			if v.chunks.park(pc.vc, r) {
				return // and begins again
			}
			continue
		case pinned:
			c := v.component(ph.comp)
			v.chunks.unpin(pc.vc)
			if c == last {
				break
			}
			if err := c.flush(); err != nil {
				v.finish(r, err)
				return
			}
			last = c
		}
		off += pc.n
	}
	if v.ledger().isDurable() {
		v.finish(r, nil)
		return
	}
	v.finish(r, v.component(0).flush())
}

// flushJobs runs component flushes on workers.
type flushJobs struct {
	wg   sync.WaitGroup
	jobs []*flushJob
	used int
}

type flushJob struct {
	g   *flushJobs
	c   *component
	err error
}

func (j *flushJob) perform() {
	j.err = j.c.flush()
	j.g.wg.Done()
}

func (g *flushJobs) start(w *workers, c *component) {
	if g.used == len(g.jobs) {
		g.jobs = append(g.jobs, &flushJob{g: g})
	}
	j := g.jobs[g.used]
	g.used++
	j.c, j.err = c, nil
	g.wg.Add(1)
	w.put(j)
}

func (g *flushJobs) wait() error {
	g.wg.Wait()
	var err error
	for _, j := range g.jobs[:g.used] {
		err = errors.Join(err, j.err)
		j.c, j.err = nil, nil
	}
	g.used = 0
	return err
}

// freedChunks are physical chunks whose unmapping is durable (until then they are in
// the map's ledger), and which are passed down to the device before they are free to
// be used again.
type freedChunks struct {
	v *Volume

	mu      sync.Mutex
	ready   []phys
	passing int       // taken from ready, and not yet free
	running bool      // a worker empties ready
	stopped sync.Cond // running ended
}

// take takes chunks over, and reports whether begin is to be called.
func (f *freedChunks) take(chunks []phys) (begin bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ready = append(f.ready, chunks...)
	begin = len(f.ready) > 0 && !f.running
	f.running = f.running || begin
	return begin
}

func (f *freedChunks) begin() {
	if f.v.cfg.serial {
		f.perform()
	} else {
		f.v.passDowns.put(f)
	}
}

// pending is the number of chunks that are not yet free.
func (f *freedChunks) pending() int {
	n := f.v.ledger().pending() // first: a chunk that is passed on meanwhile counts twice, not never
	f.mu.Lock()
	defer f.mu.Unlock()
	n += len(f.ready) + f.passing
	if f.running && n == 0 {
		n = 1
	}
	return n
}

// wait returns when no worker empties ready.
func (f *freedChunks) wait() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.running {
		f.stopped.Wait()
	}
}

// perform passes discards down and gives the chunks back, on the worker that is
// there for it: those who wait for freed chunks may be what all others wait for.
func (f *freedChunks) perform() {
	v := f.v
	var batch []phys
	for {
		f.mu.Lock()
		batch, f.ready = f.ready, batch[:0]
		f.passing = len(batch)
		if len(batch) == 0 {
			f.running = false
			f.stopped.Broadcast()
			f.mu.Unlock()
			v.committer.kick()
			return
		}
		f.mu.Unlock()
		for _, p := range batch {
			c := v.component(p.comp)
			if v.cfg.Discard != DiscardOff {
				v.passDown(c, c.offset(p.chunk), v.chunk)
			}
			v.alloc.put(p)
			f.passed()
		}
		v.committer.kick()
	}
}

// passed notes that one more chunk is free.
func (f *freedChunks) passed() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.passing--
}
