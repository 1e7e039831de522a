package virstor

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/gvirstor/gvirstor/ondisk"
)

// claimLimit is for how long others wait for one who has claimed a volume and writes
// nothing.
const claimLimit = 30 * time.Second

// ErrClaimed: somebody has the volume to himself, or had, and lost it to others.
var ErrClaimed = fmt.Errorf("%w to others while a stream is received", ErrReadOnly)

// claim is that somebody writes to the volume alone.
type claim struct {
	token uint64
	heard atomic.Int64 // when he wrote last, nanoseconds since 1970
}

// Claim gives whoever asks the volume to himself, and returns the Request.Claim of what he
// writes, which is not 0. It returns when nothing of others is at work but what is held for
// space (ErrBusy). Requests of others that would change the volume fail with ErrClaimed; but
// when the claimant was not heard of for 30 s they go on, and he has lost it. A claim takes
// the place of one that is there.
func (h *Head) Claim() (token uint64, err error) {
	if err := h.v.readOnly(); err != nil {
		return 0, fmt.Errorf("claim %s: %w", h.Name(), err)
	}
	h.v.metaMu.Lock()
	c := &claim{token: h.v.draw()}
	h.v.metaMu.Unlock()
	c.heard.Store(time.Now().UnixNano())
	h.claim.Store(c)
	drained := h.writes.closeWithin(drainLimit)
	h.writes.open(h.v.resume)
	if !drained {
		h.Unclaim(c.token)
		return 0, fmt.Errorf("claim %s: %w", h.Name(), ErrBusy)
	}
	return c.token, nil
}

// Unclaim ends a claim. One that was lost has ended.
func (h *Head) Unclaim(token uint64) {
	if c := h.claim.Load(); c != nil && c.token == token {
		h.claim.CompareAndSwap(c, nil)
	}
}

// Claimed is nil while the claim holds, and otherwise ErrClaimed.
func (h *Head) Claimed(token uint64) error {
	if c := h.claim.Load(); c == nil || c.token != token {
		return fmt.Errorf("%s: the claim is lost: %w", h.Name(), ErrClaimed)
	}
	return nil
}

// mayChange refuses what changes the volume while somebody else has claimed it. claim is
// that of the request, 0 of most.
func (h *Head) mayChange(claim uint64) error {
	if h.gone.Load() {
		return fmt.Errorf("%s, which is deleted: %w", h.Name(), ErrClosed)
	}
	if claim != 0 {
		if err := h.Claimed(claim); err != nil {
			return err
		}
		if c := h.claim.Load(); c != nil {
			c.heard.Store(time.Now().UnixNano())
		}
		return nil
	}
	c := h.claim.Load()
	if c == nil {
		return nil
	}
	if time.Since(time.Unix(0, c.heard.Load())) < claimLimit {
		return fmt.Errorf("%s: %w", h.Name(), ErrClaimed)
	}
	h.claim.CompareAndSwap(c, nil)
	return nil
}

// SnapshotReceived is Snapshot of what was received from elsewhere, under the GUID that the
// snapshot has there. The claim ends when it is taken (ErrClaimed).
func (h *Head) SnapshotReceived(name string, guid ondisk.GUID, claim uint64) error {
	if err := h.Claimed(claim); err != nil {
		return fmt.Errorf("snapshot %s@%s: %w", h.Name(), ondisk.Printable(name), err)
	}
	if err := h.snapshotAs(name, guid); err != nil {
		return err
	}
	h.Unclaim(claim)
	return nil
}
