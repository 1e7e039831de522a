package chunkmap

import (
	"runtime"
	"sync"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
)

// State is what became of an attempt to pin a virtual chunk or to take it.
type State uint8

// The states.
const (
	Pinned      State = iota // it is the caller's until Unpin or Unlock
	Unallocated              // it has no physical chunk
	Busy                     // somebody else has it to himself
	Shared                   // a Frozen may name its physical chunk, which is not to be written to
)

// Waiter is who was parked because a chunk is busy.
type Waiter interface {
	// Resume tells that the chunk may be tried again. It must not block.
	Resume()
}

// shard is where those wait that found a chunk busy.
type shard struct {
	mu     sync.Mutex
	cond   sync.Cond // waiters for busy to clear and for pins to drain
	parked []parkedWaiter
}

type parkedWaiter struct {
	vc uint64
	w  Waiter
}

func (m *Map) shard(vc uint64) *shard { return &m.shards[vc%uint64(len(m.shards))] }

// Pin keeps the mapping of vc as it is until Unpin. The physical chunk is
// not reused while it is pinned.
func (m *Map) Pin(vc uint64) (alloc.Phys, State) { return m.pinUnless(vc, wordBusy, 0) }

// PinWrite is Pin for one who writes to the physical chunk. Nobody does so while Freeze
// is called.
func (m *Map) PinWrite(vc uint64) (alloc.Phys, State) {
	m.mark(vc)
	return m.pinUnless(vc, wordBusy, wordShared)
}

// PinRead is Pin for one who only reads.
func (m *Map) PinRead(vc uint64) (alloc.Phys, State) { return m.pinUnless(vc, wordBusy|wordShown, 0) }

// pinUnless is Pin and its like: a word that has of mask no bit but wordBusy is busy, and
// one that has the bit shared is.
func (m *Map) pinUnless(vc, mask, shared uint64) (alloc.Phys, State) {
	p := m.existing(vc)
	if p == nil {
		return alloc.Phys{}, Unallocated
	}
	e := &p[vc%PageEntries]
	for {
		w := e.Load()
		switch {
		case w&mask == wordBusy:
			return alloc.Phys{}, Busy
		case w&wordAlloc == 0:
			return alloc.Phys{}, Unallocated
		case w&shared != 0:
			return alloc.Phys{}, Shared
		case w>>pinShift >= pinLimit:
			runtime.Gosched()
		case e.CompareAndSwap(w, w+pinOne):
			return Word(w).Phys(), Pinned
		}
	}
}

// PinWait is Pin that waits while the chunk is busy. It reports whether the
// chunk is allocated and pinned.
func (m *Map) PinWait(vc uint64) (alloc.Phys, bool) {
	for {
		ph, state := m.Pin(vc)
		if state != Busy {
			return ph, state == Pinned
		}
		s := m.shard(vc)
		s.mu.Lock()
		for m.Load(vc)&wordBusy != 0 {
			s.cond.Wait()
		}
		s.mu.Unlock()
	}
}

// Unpin ends Pin and PinRead.
func (m *Map) Unpin(vc uint64) {
	e := &m.existing(vc)[vc%PageEntries]
	w := e.Add(^uint64(pinOne - 1))
	if w&wordBusy != 0 && w>>pinShift == 0 {
		s := m.shard(vc)
		s.mu.Lock()
		s.cond.Broadcast()
		s.mu.Unlock()
	}
}

// Lock takes vc for its caller alone: it waits for other owners and for
// pinned I/O. It reports false, without the lock, when vc is not allocated.
func (m *Map) Lock(vc uint64) (alloc.Phys, bool) {
	ph, state := m.own(vc, true)
	return ph, state == Pinned
}

// LockState is Lock with the answer of TryLock, which is never Busy.
func (m *Map) LockState(vc uint64) (alloc.Phys, State) { return m.own(vc, true) }

// TryLock is Lock that does not wait for another owner: Pinned means that the
// caller has vc, Busy that somebody else does. It waits for pinned I/O.
func (m *Map) TryLock(vc uint64) (alloc.Phys, State) { return m.own(vc, false) }

// own is Lock and TryLock. wait: for another owner.
func (m *Map) own(vc uint64, wait bool) (alloc.Phys, State) {
	p := m.existing(vc)
	if p == nil {
		return alloc.Phys{}, Unallocated
	}
	e := &p[vc%PageEntries]
	s := m.shard(vc)
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		w := e.Load()
		if w&wordBusy != 0 {
			if !wait {
				return alloc.Phys{}, Busy
			}
			s.cond.Wait()
			continue
		}
		if w&wordAlloc == 0 {
			return alloc.Phys{}, Unallocated
		}
		if e.CompareAndSwap(w, w|wordBusy) {
			break
		}
	}
	for e.Load()>>pinShift != 0 {
		s.cond.Wait()
	}
	return Word(e.Load()).Phys(), Pinned
}

// Unlock ends Lock and gives vc the mapping of word, zero for none. Who was parked
// meanwhile is resumed, in order.
func (m *Map) Unlock(vc uint64, word Word) {
	s := m.shard(vc)
	s.mu.Lock()
	m.hideLocked(s, vc)
	m.storeLocked(s, vc, word)
}

// hideLocked takes back Show, and waits for those who read meanwhile. s.mu is held.
func (m *Map) hideLocked(s *shard, vc uint64) {
	e := &m.page(vc)[vc%PageEntries]
	for w := e.Load(); w&wordShown != 0 && !e.CompareAndSwap(w, w&^wordShown); {
		w = e.Load()
	}
	for e.Load()>>pinShift != 0 { // of those to whom it was shown
		s.cond.Wait()
	}
}

// Show lets a chunk be read that its owner keeps to himself, at the place that word
// names; until Unlock nobody changes it. Who was parked is resumed: who is not to read
// parks again.
func (m *Map) Show(vc uint64, word Word) {
	s := m.shard(vc)
	s.mu.Lock()
	m.storeLocked(s, vc, word|wordBusy|wordShown)
}

// storeLocked stores the word of vc, which nobody has pinned, and wakes who waits. It
// unlocks s.mu.
func (m *Map) storeLocked(s *shard, vc uint64, word Word) {
	e := &m.page(vc)[vc%PageEntries]
	if !m.same(Word(e.Load()), word) {
		m.keep(vc)
		e.Store(uint64(word))
	} else {
		// It may become shared meanwhile.
		for was := e.Load(); !e.CompareAndSwap(was, uint64(word)|was&wordShared); {
			was = e.Load()
		}
	}
	m.wakeLocked(s, vc)
}

// wakeLocked resumes who waits for vc, and unlocks s.mu.
func (m *Map) wakeLocked(s *shard, vc uint64) {
	ready := s.unparkLocked(vc)
	s.cond.Broadcast()
	s.mu.Unlock()
	for _, w := range ready {
		w.Resume()
	}
}

// unparkLocked removes those parked on vc from the list; s.mu is held.
func (s *shard) unparkLocked(vc uint64) []Waiter {
	var ready []Waiter
	kept := s.parked[:0]
	for _, p := range s.parked {
		if p.vc == vc {
			ready = append(ready, p.w)
		} else {
			kept = append(kept, p)
		}
	}
	clear(s.parked[len(kept):])
	s.parked = kept
	return ready
}

// Park leaves w to be resumed by the owner of vc. It reports false when vc is not busy
// any more, or not for w, which only reads if reads is true.
func (m *Map) Park(vc uint64, w Waiter, reads bool) bool {
	s := m.shard(vc)
	s.mu.Lock()
	defer s.mu.Unlock()
	word := m.Load(vc)
	if word&wordBusy == 0 || word&wordShown != 0 && reads {
		return false
	}
	s.parked = append(s.parked, parkedWaiter{vc, w})
	return true
}
