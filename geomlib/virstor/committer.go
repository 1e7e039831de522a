package virstor

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
)

// committer is the one goroutine that assigns chunks and writes map sectors.
// It takes all that waits and does it as one group: data and zeros are
// written side by side, each component is flushed once, each map sector
// is written once.
type committer struct {
	h *Head
	v *Volume // of h

	mu       sync.Mutex
	queue    []*Request
	ops      []*opGroup
	retry    bool // space may have appeared, or the map may be writable again
	lost     bool // component 0 failed a flush: unflushed map sectors are in doubt
	stopping bool
	wake     chan struct{} // capacity 1
	done     chan struct{}

	// running is held while the map changes; pause takes it.
	running sync.Mutex

	degrade   degraded           // guarded by running
	unflushed map[int64]struct{} // map sectors that may not be durable; guarded by running

	// The rest belongs to the goroutine.
	steps    []commitStep
	batch    batch
	mapBuf   []byte
	full     bool // EventFull was the last word
	lastComp int
	noRoom   error     // the last write that found the storage of a component full, until one finds room
	tryAt    time.Time // when what is held for noRoom is tried again
	probed   bool      // one of them that needs chunks is in the batch
	freedAt  time.Time // when a chunk was freed that nobody has been asked to flush for; zero: none
}

// mapOp changes the mapping of one chunk, which is locked by whoever asks.
// The committer unlocks it.
type mapOp struct {
	vc   uint64
	old  alloc.Phys
	new  alloc.Phys
	set  bool // map to new; otherwise unmap
	same bool // new is the same place under another component index

	// shared: snapshots name old, and new from the record on that is in force; in memory
	// from now on. Neither is free, whatever becomes of the change.
	shared bool

	begun bool  // its sector was to be written: after an error it may hold either
	err   error // of its sector alone
}

func (o *mapOp) word() chunkmap.Word {
	if o.set {
		return chunkmap.WordOf(o.new)
	}
	return 0
}

// owns reports whether new is nobody's if the change is not done.
func (o *mapOp) owns() bool { return o.set && !o.same && !o.shared }

// opGroup is the mapOps of one caller, done in one batch. If their sectors are
// not all written, each is done that was.
type opGroup struct {
	ops  []mapOp
	err  error // the first failure
	done chan struct{}
}

func newCommitter(h *Head) *committer {
	v := h.v
	steps := v.cfg.commitSteps
	if steps == nil {
		steps = commitOrder()
	}
	return &committer{
		h:         h,
		v:         v,
		steps:     steps,
		wake:      make(chan struct{}, 1),
		done:      make(chan struct{}),
		mapBuf:    make([]byte, min(1<<20, h.mapBytes())),
		unflushed: make(map[int64]struct{}),
		lastComp:  -1,
	}
}

// put queues a write that needs a chunk.
func (k *committer) put(r *Request) {
	k.mu.Lock()
	k.queue = append(k.queue, r)
	k.mu.Unlock()
	k.signal()
}

// commit does ops and waits for it. After an error some may be done; in memory
// and on disk they are the same ones. It must not be called by a worker that the
// committer needs, which are those of Volume.writers.
func (k *committer) commit(ops []mapOp) error {
	g := &opGroup{ops: ops, done: make(chan struct{})}
	k.mu.Lock()
	k.ops = append(k.ops, g)
	k.mu.Unlock()
	k.signal()
	if k.v.cfg.serial {
		k.doOne()
	}
	<-g.done
	return g.err
}

// kick tells that space may have appeared.
func (k *committer) kick() {
	k.mu.Lock()
	k.retry = true
	k.mu.Unlock()
	k.signal()
}

// mapLost tells that a flush of component 0 failed. With it went the hope of
// writes that wait only for chunks which that flush was to free.
func (k *committer) mapLost() {
	k.mu.Lock()
	k.lost = true
	k.retry = k.retry || k.v.full.Load().policy == Fail
	k.mu.Unlock()
	k.signal()
}

func (k *committer) signal() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// stop ends the goroutine. Nothing may be queued any more.
func (k *committer) stop() {
	k.mu.Lock()
	k.stopping = true
	k.mu.Unlock()
	k.signal()
	<-k.done
}

const (
	degradedRetry = time.Second
	freedWait     = time.Second // until freed chunks are flushed for unasked
	batchRequests = 1024
	batchBytes    = 64 << 20
)

// loop is the committer.
func (k *committer) loop() {
	defer close(k.done)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		more, ok := k.next()
		if !ok {
			return
		}
		if !more {
			k.arm(timer)
			select {
			case <-k.wake:
			case <-timer.C:
				k.expire()
			}
			continue
		}
		k.run()
	}
}

// arm sets timer to when something has to be looked at unasked.
func (k *committer) arm(timer *time.Timer) {
	wait := time.Hour
	if k.h.ill.is(stateDegraded) {
		wait = degradedRetry
	}
	if t := k.v.full.Load().timeout; t > 0 {
		if h := k.h.held.status(); h.Count > 0 {
			wait = min(wait, max(0, t-h.Oldest))
		}
	}
	if !k.freedAt.IsZero() {
		wait = min(wait, max(0, time.Until(k.freedAt.Add(freedWait))))
	}
	if k.waitsForRoom() {
		wait = min(wait, max(0, time.Until(k.tryAt)))
	}
	timer.Reset(wait)
}

// expire fails what was held too long, lets a degraded map be tried again, and
// flushes for chunks that were freed, so that what clients who ask for no
// flush give up comes back as well.
func (k *committer) expire() {
	if !k.freedAt.IsZero() && time.Since(k.freedAt) >= freedWait {
		k.freedAt = time.Time{}
		k.v.workers.put(&k.v.flushSoon)
	}
	if t := k.v.full.Load().timeout; t > 0 {
		for _, r := range k.h.held.takeExpired(nil, time.Now().Add(-t)) {
			k.h.finish(r, fmt.Errorf("write to %s held for %s: %w", k.h.Name(), t, r.req.held.why))
		}
	}
	if k.h.ill.is(stateDegraded) {
		k.running.Lock()
		defer k.running.Unlock()
		if k.degrade.is() {
			k.repair()
		}
	}
}

// next fills the batch with what waits. more is false when nothing does, ok
// when the committer is to end.
func (k *committer) next() (more, ok bool) {
	b := &k.batch
	b.reset()
	k.probed = false
	due := k.roomIsDue()
	k.mu.Lock()
	retry, lost := k.retry || due, k.lost
	k.retry, k.lost = false, false
	if k.stopping && len(k.queue) == 0 && len(k.ops) == 0 {
		k.mu.Unlock()
		return false, false
	}
	if retry {
		b.reqs = k.h.held.tryAll(b.reqs)
	}
	b.held = len(b.reqs)
	n, bytes := 0, 0
	for n < len(k.queue) && n < batchRequests && bytes < batchBytes {
		bytes += len(k.queue[n].Data)
		n++
	}
	b.reqs = append(b.reqs, k.queue[:n]...)
	k.queue = slices.Delete(k.queue, 0, n)
	b.ops = append(b.ops, k.ops...)
	clear(k.ops)
	k.ops = k.ops[:0]
	k.mu.Unlock()
	if lost {
		k.running.Lock()
		k.doubtUnflushed()
		k.running.Unlock()
	}
	return len(b.reqs)+len(b.ops) > 0, true
}

// pause keeps the map as it is, on disk and in memory, until unpause.
func (k *committer) pause()   { k.running.Lock() }
func (k *committer) unpause() { k.running.Unlock() }
