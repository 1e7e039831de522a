package virstor

import (
	"errors"
	"sync"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
)

// flush puts everything acknowledged before r on stable storage.
func (h *Head) flush(r *Request, block bool) {
	if !block && !h.v.allClean() {
		h.v.workers.put(r)
		return
	}
	h.finish(r, h.v.flushAll())
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
	if v.cfg.serial || v.writers == nil { // as while the volume is opened
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
func (h *Head) finishFUA(r *Request) {
	var last *component
	for off, end := r.Offset, r.Offset+r.Length; off < end; {
		pc := h.v.pieceAt(off, end)
		ph, state := h.chunks.Pin(pc.vc)
		switch state {
		case chunkmap.Busy:
			if h.park(pc.vc, r) {
				return // and begins again
			}
			continue
		case chunkmap.Pinned:
			c := h.v.component(ph.Comp)
			h.chunks.Unpin(pc.vc)
			if c == last {
				break
			}
			if err := c.flush(); err != nil {
				h.finish(r, err)
				return
			}
			last = c
		}
		off += pc.n
	}
	if h.isDurable() {
		h.finish(r, nil)
		return
	}
	if h.isFirst() {
		h.finish(r, h.v.component(0).flush())
		return
	}
	h.finish(r, h.v.flushComponents(h.homes()))
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
