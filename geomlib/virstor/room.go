package virstor

import (
	"errors"
	"fmt"
	"time"
)

// roomRetry is how often writes are tried again that found the storage of a
// component full: nobody tells when there is room.
const roomRetry = time.Second

// mapWriteError is of a write of map sectors, which then may hold anything. Nobody is
// held for room below them: the volume is degraded, and tries them again itself.
type mapWriteError struct{ err error }

func (e *mapWriteError) Error() string { return "write the allocation map: " + e.err.Error() }
func (e *mapWriteError) Unwrap() error { return e.err }

// holdsFor reports whether a write, or a discard, that failed with err is to be held until
// there is room below its component.
func (v *Volume) holdsFor(err error) bool {
	var ofMap *mapWriteError
	return isStorageFull(err) && v.full.Load().policy == Wait && !errors.As(err, &ofMap)
}

// storageFull holds or fails a write for which there is no room below a component, or
// that came after such a one, and reports whether it holds.
func (k *committer) storageFull(r *Request) bool {
	if r.req.noRoom != nil {
		k.noRoom, r.req.noRoom = r.req.noRoom, nil
		k.tryAt = time.Now().Add(roomRetry)
	}
	why := k.noRoom
	if !k.v.holdsFor(why) {
		k.end(r, fmt.Errorf("%s of %d bytes to %s at %d: %w", r.Op, r.Length, k.h.Name(), r.Offset, why))
		return false
	}
	return k.hold(r, why)
}

// waitsForRoom reports whether writes are to be tried again unasked.
func (k *committer) waitsForRoom() bool { return k.noRoom != nil && !k.h.held.empty() }

// roomIsDue reports whether they are to be tried now, and makes the next time a second
// from now. What nobody waits for any more is forgotten.
func (k *committer) roomIsDue() bool {
	if !k.waitsForRoom() {
		k.noRoom = nil
		return false
	}
	now := time.Now()
	if now.Before(k.tryAt) {
		return false
	}
	k.tryAt = now.Add(roomRetry)
	return true
}

// probing reports whether a held write that needs chunks is to leave it to another of
// the batch to find out whether there is room. The first one does.
func (k *committer) probing() bool {
	if k.noRoom == nil || !k.v.holdsFor(k.noRoom) {
		return false
	}
	probed := k.probed
	k.probed = true
	return probed
}

// seeRoom notes that the chunks of the batch were written: there is room, and what was
// left to wait goes on.
func (k *committer) seeRoom() {
	if k.noRoom == nil || len(k.batch.chunks) == 0 {
		return
	}
	for _, r := range k.batch.reqs {
		if r.req.noRoom != nil {
			return
		}
	}
	for i := range k.batch.chunks {
		if k.batch.chunks[i].err != nil {
			return
		}
	}
	k.noRoom = nil
	k.kick()
}
