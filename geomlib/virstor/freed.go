package virstor

import (
	"sync"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
)

// freedChunks are physical chunks whose unmapping is durable (until then they are in
// the map's ledger), and which are passed down to the device before they are free to
// be used again.
type freedChunks struct {
	v *Volume

	mu      sync.Mutex
	ready   []alloc.Phys
	passing int       // taken from ready, and not yet free
	running bool      // a worker empties ready
	stopped sync.Cond // running ended
}

// take takes chunks over, and reports whether begin is to be called.
func (f *freedChunks) take(chunks []alloc.Phys) (begin bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ready = append(f.ready, chunks...)
	begin = len(f.ready) > 0 && !f.running
	f.running = f.running || begin
	return begin
}

func (f *freedChunks) begin() {
	if f.v.cfg.serial || f.v.passDowns == nil { // as while the volume is opened
		f.perform()
	} else {
		f.v.passDowns.put(f)
	}
}

// pending is the number of chunks that are not yet free.
func (f *freedChunks) pending() int {
	n := 0 // of the ledgers first: a chunk that is passed on meanwhile counts twice, not never
	for _, c := range f.v.components() {
		if l := c.ledger.Load(); l != nil {
			n += l.pending()
		}
	}
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
	var batch []alloc.Phys
	for {
		f.mu.Lock()
		batch, f.ready = f.ready, batch[:0]
		f.passing = len(batch)
		if len(batch) == 0 {
			f.running = false
			f.stopped.Broadcast()
			f.mu.Unlock()
			v.kick()
			return
		}
		f.mu.Unlock()
		for _, p := range batch {
			c := v.component(p.Comp)
			if v.cfg.Discard != DiscardOff {
				v.passDown(c, c.offset(p.Chunk), v.chunk)
			}
			v.alloc.Put(p)
			f.passed()
		}
		v.kick()
	}
}

// passed notes that one more chunk is free.
func (f *freedChunks) passed() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.passing--
}

// comeSoon reports whether chunks will be free that are not yet: unless the component that
// says so can never again be flushed.
func (f *freedChunks) comeSoon() bool {
	hopeless := 0
	for _, c := range f.v.components() {
		if l := c.ledger.Load(); l != nil && c.failedFlush() != nil {
			hopeless += l.pending()
		}
	}
	return f.pending() > hopeless
}

// flushSoon flushes the components that hold maps, so that freed chunks become usable.
type flushSoon struct{ v *Volume }

func (f *flushSoon) perform() {
	v := f.v
	for i, c := range v.components() {
		if l := c.ledger.Load(); l == nil || i > 0 && l.pending() == 0 {
			continue
		}
		if c.flush() != nil { // which the component remembers
			v.kick() // what waits for those chunks waits in vain
		}
	}
}
