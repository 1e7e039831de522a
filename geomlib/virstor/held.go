package virstor

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// HeldNotifier is implemented by Completers that want to know that a write is
// held for space. Held is called at most once a request, never after or beside
// Complete. It must not block or call the volume. It may give r.Data another
// memory with the same bytes.
type HeldNotifier interface {
	Held(r *Request)
}

// ResumeNotifier is implemented by HeldNotifiers that also want to know that
// the volume tries a held write again, before it does anything of it. If there
// is no space even now, Held follows once more.
type ResumeNotifier interface {
	Resumed(r *Request)
}

type heldState struct {
	since time.Time
	told  bool
}

// heldWrites are the writes that wait for a free chunk, in order. They are
// the committer's; mu is for those who look on.
type heldWrites struct {
	over atomic.Bool // bytes ≥ limit

	mu    sync.Mutex
	limit int64
	list  []*Request
	bytes int64
	room  chan struct{} // non-nil while over; closed when it ends
}

// HeldFull returns nil, or, while the volume holds its limit of write data, a
// channel that is closed when it holds less.
func (v *Volume) HeldFull() <-chan struct{} {
	h := &v.held
	if !h.over.Load() {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.room == nil {
		return nil // a nil channel of the right type: there is room
	}
	return h.room
}

// admit holds r, or reports that it may not be held. Before r can be found
// on the list, and completed by whoever empties it, its Completer is told.
func (h *heldWrites) admit(r *Request) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := int64(len(r.Data))
	if r.Flags&NoHold != 0 && h.bytes+n > h.limit {
		return false
	}
	if r.req.held.since.IsZero() {
		r.req.held.since = time.Now()
	}
	if c, ok := r.Done.(HeldNotifier); ok && !r.req.held.told {
		r.req.held.told = true
		c.Held(r)
	}
	h.list = append(h.list, r)
	h.bytes += n
	h.updateLocked()
	return true
}

// takeAll empties the list into dst, keeping the order.
func (h *heldWrites) takeAll(dst []*Request) []*Request {
	h.mu.Lock()
	defer h.mu.Unlock()
	dst = append(dst, h.list...)
	clear(h.list)
	h.list = h.list[:0]
	h.bytes = 0
	h.updateLocked()
	return dst
}

// tellResumed tells that reqs, which were held, are tried again.
func tellResumed(reqs []*Request) {
	for _, r := range reqs {
		if c, ok := r.Done.(ResumeNotifier); ok {
			r.req.held.told = false
			c.Resumed(r)
		}
	}
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

// HeldStatus tells of the writes held for space.
type HeldStatus struct {
	Count  int
	Bytes  int64
	Oldest time.Duration // how long the first one waits
}

func (h *heldWrites) status() HeldStatus {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := HeldStatus{Count: len(h.list), Bytes: h.bytes}
	if len(h.list) > 0 {
		s.Oldest = time.Since(h.list[0].req.held.since)
	}
	return s
}

// FailHeld fails the writes that wait for space now, with ErrNoSpace, and
// returns how many there were.
func (v *Volume) FailHeld() int {
	gone := v.held.takeAll(nil)
	for _, r := range gone {
		v.finish(r, fmt.Errorf("write to %s given up while held: %w", v.name, ErrNoSpace))
	}
	return len(gone)
}
