package virstor

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// HeldNotifier is implemented by Completers that want to know that a write is
// held for space. Held is called when Status counts the write among those that
// are held, and before anything can end it there, at most once for each time it
// is held, never after or beside Complete. If it returns false, nobody waits for
// the write any more: it ends with ErrAbandoned instead. Held must not block; of
// the volume it may call RetryHeld. It may give r.Data another memory with the
// same bytes.
type HeldNotifier interface {
	Held(r *Request) bool
}

// ResumeNotifier is implemented by HeldNotifiers that also want to know that a
// held write goes on. Resumed is called when there is space for it, before
// anything of it is done and while it still counts as held. If it returns false, the write stays held until
// RetryHeld or until space appears again. If the space is gone after all, Held
// follows once more.
type ResumeNotifier interface {
	Resumed(r *Request) bool
}

type heldState struct {
	since time.Time
	why   error    // ErrNoSpace, or the write that found the storage of a component full
	told  bool     // Held was called, and no Resumed since
	ended error    // non-nil: it is not to be held any more; guarded by heldWrites.mu
	later []extent // as reqState.later; guarded by heldWrites.mu
}

// heldWrites are the writes that wait for a free chunk, or for room below a
// component, by the time that they were first held. They are
// the committer's; mu is for those who look on.
//
// A write counts from before anybody is told that it is held until before anybody is
// told that it is not, those included that are just being tried again: else whoever
// looks on would see none, and readers who wait for room would read more each time.
type heldWrites struct {
	over atomic.Bool // bytes ≥ limit

	mu    sync.Mutex
	limit int64
	list  []*Request
	away  []*Request    // count too, but are in the committer's hands: to be told, or being tried again
	bytes int64         // of both
	room  chan struct{} // non-nil while over; closed when it ends
}

// HeldFull returns nil, or, while the volume holds its limit of write data, a
// channel that is closed when it holds less.
func (h *Head) HeldFull() <-chan struct{} {
	w := &h.held
	if !w.over.Load() {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.room == nil {
		return nil // a nil channel of the right type: there is room
	}
	return w.room
}

// admit holds r, or says why it may not be held. Before r can be found on the
// list, and completed by whoever empties it, its Completer is told; and before that
// r counts. Only the committer admits.
func (h *heldWrites) admit(r *Request) error {
	if r.req.held.since.IsZero() {
		r.req.held.since = time.Now()
	}
	if err := h.count(r); err != nil {
		return err
	}
	if c, ok := r.Done.(HeldNotifier); ok && !r.req.held.told {
		r.req.held.told = true
		if !c.Held(r) {
			return ErrAbandoned
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := r.req.held.ended; err != nil {
		return err
	}
	h.away = without(h.away, r)
	i := len(h.list) // one that was tried again gets its old place
	for i > 0 && h.list[i-1].req.held.since.After(r.req.held.since) {
		i--
	}
	h.list = slices.Insert(h.list, i, r)
	return nil
}

// count lets r count, unless it does already, or says why it may not be held.
func (h *heldWrites) count(r *Request) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if slices.Contains(h.away, r) {
		return nil
	}
	n := int64(len(r.Data))
	if r.Flags&NoHold != 0 && h.bytes+n > h.limit {
		return fmt.Errorf("the volume already holds as much as it may: %w", ErrNoSpace)
	}
	h.away = append(h.away, r)
	h.bytes += n
	h.updateLocked()
	return nil
}

// leave lets r, which is not on the list, count no more.
func (h *heldWrites) leave(r *Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.away); n > 0 {
		if h.away = without(h.away, r); len(h.away) < n {
			h.bytes -= int64(len(r.Data))
			h.updateLocked()
		}
	}
}

// without is list without r. They are tried, and so found, in their order.
func without(list []*Request, r *Request) []*Request {
	i := slices.Index(list, r)
	if i < 0 {
		return list
	}
	return slices.Delete(list, i, i+1)
}

// tryAll appends the list to dst, keeping the order, to be tried again. They count
// until they leave or are admitted.
func (h *heldWrites) tryAll(dst []*Request) []*Request {
	h.mu.Lock()
	defer h.mu.Unlock()
	dst = append(dst, h.list...)
	h.away = append(h.away, h.list...)
	clear(h.list)
	h.list = h.list[:0]
	return dst
}

// takeAll empties the list. What is in the committer's hands is to be held no more:
// it is done, or ends with why. n counts these, too.
func (h *heldWrites) takeAll(why error) (gone []*Request, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	gone, h.list = h.list, nil
	for _, r := range gone {
		h.bytes -= int64(len(r.Data))
	}
	h.updateLocked()
	n = len(gone)
	for _, r := range h.away {
		if r.req.held.ended == nil {
			r.req.held.ended = why
			n++
		}
	}
	return gone, n
}

// mayResume asks whether r, which was held, may go on.
func mayResume(r *Request) bool {
	c, ok := r.Done.(ResumeNotifier)
	if !ok || !r.req.held.told {
		return true
	}
	r.req.held.told = !c.Resumed(r)
	return !r.req.held.told
}

// takeExpired takes those that were held since before t.
func (h *heldWrites) takeExpired(dst []*Request, t time.Time) []*Request {
	h.mu.Lock()
	defer h.mu.Unlock()
	kept := h.list[:0]
	for _, r := range h.list {
		if r.req.held.since.After(t) {
			kept = append(kept, r)
			continue
		}
		dst = append(dst, r)
		h.bytes -= int64(len(r.Data))
	}
	clear(h.list[len(kept):])
	h.list = kept
	h.updateLocked()
	return dst
}

// setLimit changes how many bytes are held; those that are stay.
func (h *heldWrites) setLimit(bytes int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.limit = bytes
	h.updateLocked()
}

// updateLocked keeps over and room in step with bytes; h.mu is held.
func (h *heldWrites) updateLocked() {
	over := h.bytes >= h.limit
	if over == h.over.Load() {
		return
	}
	if over {
		h.room = make(chan struct{})
	} else {
		close(h.room)
		h.room = nil
	}
	h.over.Store(over)
}

func (h *heldWrites) empty() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.list) == 0
}

// HeldStatus tells of the writes held for space, be it chunks or room below a component.
type HeldStatus struct {
	Count  int
	Bytes  int64
	Oldest time.Duration // how long the first one waits
}

func (h *heldWrites) status() HeldStatus {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := HeldStatus{Count: len(h.list) + len(h.away), Bytes: h.bytes}
	for _, list := range [...][]*Request{h.list, h.away} { // each in order
		if len(list) > 0 {
			s.Oldest = max(s.Oldest, time.Since(list[0].req.held.since))
		}
	}
	return s
}

// FailHeld fails the writes that wait for space now, with ErrNoSpace, and
// returns how many there were. One that the volume is just trying again is done
// if there is space, and fails soon if there is not.
func (h *Head) FailHeld() int {
	gone, n := h.held.takeAll(ErrNoSpace)
	for _, r := range gone {
		h.finish(r, fmt.Errorf("write to %s given up while held: %w", h.Name(), ErrNoSpace))
	}
	return n
}

// EndHeld ends r, a write that its Completer was told is held: nobody waits for
// it any more. It completes with ErrAbandoned, at once or, if the volume is just
// trying it again, soon; if it goes on already, it is done.
func (h *Head) EndHeld(r *Request) {
	if h.v.cfg.breaks(breakHeldOutlives) {
		return
	}
	w := &h.held
	w.mu.Lock()
	i := slices.Index(w.list, r)
	if i < 0 {
		r.req.held.ended = ErrAbandoned
		w.mu.Unlock()
		return
	}
	w.list = slices.Delete(w.list, i, i+1)
	w.bytes -= int64(len(r.Data))
	w.updateLocked()
	w.mu.Unlock()
	h.finish(r, fmt.Errorf("write to %s given up while held: %w", h.Name(), ErrAbandoned))
	h.committer.kick() // others may have waited behind it
}

// RetryHeld tries the writes that are held again.
func (h *Head) RetryHeld() { h.committer.kick() }

// Supersede tells that n bytes from off on were written, zeroed or discarded by
// a request that counts as later than r, a write that is held. When r goes on,
// it leaves them as they are. The caller makes sure that r is held until
// Supersede returns: by what Resumed answers, and by not letting Complete return.
func (h *Head) Supersede(r *Request, off, n int64) {
	if h.v.cfg.breaks(breakSuperseded) {
		return
	}
	w := &h.held
	w.mu.Lock()
	r.req.held.later = withExtent(r.req.held.later, extent{off, off + n})
	w.mu.Unlock()
	h.committer.kick() // it may need fewer chunks now
}

// Superseded reports whether later requests did all of [off, off+n) of r, as
// Supersede has told; r is held.
func (h *Head) Superseded(r *Request, off, n int64) bool {
	h.held.mu.Lock()
	defer h.held.mu.Unlock()
	return slices.ContainsFunc(r.req.held.later, func(e extent) bool { return e.from <= off && off+n <= e.to })
}

// learn brings what r leaves to later requests up to date.
func (h *heldWrites) learn(r *Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r.req.later = r.req.held.later
}

// withExtent is list, which is in order and without overlaps, with e. It
// leaves list as it is.
func withExtent(list []extent, e extent) []extent {
	with := make([]extent, 0, len(list)+1)
	for i, old := range list {
		if old.from > e.to {
			return append(append(with, e), list[i:]...)
		}
		if old.to < e.from {
			with = append(with, old)
			continue
		}
		e = extent{min(e.from, old.from), max(e.to, old.to)}
	}
	return append(with, e)
}

// ahead returns the first range from off on that r is to write itself. It is
// empty when there is none.
func (r *Request) ahead(off int64) (from, to int64) {
	end := r.Offset + r.Length
	for _, e := range r.req.later {
		if off < e.from {
			return min(off, end), min(e.from, end)
		}
		off = max(off, e.to)
	}
	return min(off, end), end
}

// fullRule is what happens to a write that finds no chunk. It can change while
// the volume is used.
type fullRule struct {
	policy  FullPolicy
	timeout time.Duration
}

// SetFull changes Config.WhenFull and Config.FullTimeout. Writes that are held
// obey at once. It may be called at any time by any goroutine.
func (v *Volume) SetFull(p FullPolicy, timeout time.Duration) {
	v.full.Store(&fullRule{p, timeout})
	v.kick()
}

// SetHeldLimit changes Config.HeldLimit, in bytes, more than 0. Writes that are
// held stay so. It may be called at any time by any goroutine.
func (v *Volume) SetHeldLimit(bytes int64) {
	for _, h := range v.heads() {
		h.held.setLimit(bytes)
	}
}

// ReserveAuto is a reserve that goes by the size of the volume, and follows it when
// components come and go: 2 % of the physical chunks, at least 4 and at most 64, and no
// more than a quarter of a small volume.
const ReserveAuto = -1

// autoReserve is ReserveAuto of a volume of so many chunks that data may use.
func autoReserve(physical int64) int64 {
	return min(max(physical*2/100, 4), 64, physical/4)
}

// SetReserve changes how many chunks ordinary writes leave free, or makes it ReserveAuto.
// A smaller reserve lets writes that are held for space go on at once: the way out when
// a volume is full.
func (v *Volume) SetReserve(chunks int64) error {
	if chunks < 0 && chunks != ReserveAuto {
		return refuse(ErrRequest, "a reserve of %d chunks: the number must not be negative", chunks)
	}
	if chunks > 0 && chunks > v.Status().PhysicalChunks {
		return refuse(ErrRequest, "%d chunks are asked for, and %s has %d", chunks, v.name, v.Status().PhysicalChunks)
	}
	v.reserve.set(chunks == ReserveAuto, func() { v.alloc.SetReserve(max(0, chunks)) })
	v.fitReserve()
	v.emit(Event{Kind: EventAllocated})
	return nil
}

// reserveRule says whether the reserve is ReserveAuto.
type reserveRule struct {
	mu   sync.Mutex // held while the reserve changes
	auto bool
}

// set changes the rule, and with do the reserve.
func (r *reserveRule) set(auto bool, do func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.auto = auto
	do()
}

// fitReserve has a reserve of ReserveAuto follow the components, and writes that are held
// try again.
func (v *Volume) fitReserve() {
	v.reserve.mu.Lock()
	if v.reserve.auto {
		physical := int64(0)
		for _, f := range v.alloc.Figures() {
			physical += int64(f.Total)
		}
		v.alloc.SetReserve(autoReserve(physical))
	}
	v.reserve.mu.Unlock()
	v.kick()
}
