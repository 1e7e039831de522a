package virstor

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/gvirstor/gvirstor/ondisk"
)

// send sends each snapshot as an increment of the one before, while the volume is used.
func (w *snapWorld) send() error {
	w.streams++
	if err := w.change(); err != nil {
		return err
	}
	return w.at.sent(w.vol)
}

// sent compares each snapshot with what the one before it, and a stream of what changed
// since, make at the other end.
func (m moment) sent(v *Volume) error {
	all := v.Snapshots()
	for i := range all[:max(0, len(all)-1)] {
		from, to := all[i].Name, all[i+1].Name
		if err := m.increment(v, from, to); err != nil {
			return fmt.Errorf("from %s to %s: %w", from, to, err)
		}
	}
	return nil
}

// increment sends snapshot to as an increment of from.
func (m moment) increment(v *Volume, from, to string) error {
	view, err := v.OpenSnapshot(to)
	if err != nil {
		return err
	}
	defer view.Close()
	changes, err := view.ChangesSince(from)
	if err != nil {
		return err
	}
	defer changes.Close()
	got := m.snaps[from]
	off, b := int64(0), make([]byte, 512)
	changes.Ranges(0, changes.Size(), func(n int64, changed bool) bool {
		for c := range snapCells {
			if at := offset(c); changed && at >= off && at < off+n && err == nil {
				_, err = view.ReadAt(b, at)
				got[c] = b[0]
			}
		}
		off += n
		return err == nil
	})
	if err == nil && got != m.snaps[to] {
		err = fmt.Errorf("it makes %v, not %v", got, m.snaps[to])
	}
	return err
}

// receive has the volume to itself, writes to it what comes, and takes a snapshot of that
// under the GUID that it has elsewhere. Or it is cut off: a mark is left, or nothing.
func (w *snapWorld) receive(i int) error {
	if len(w.at.snaps) > 3 {
		return w.snapshot(i)
	}
	w.streams++
	token, err := w.vol.Claim()
	if err != nil {
		return err
	}
	defer w.vol.Unclaim(token)
	if _, err := w.vol.WriteAt(make([]byte, 512), chunkAt(0)); !errors.Is(err, ErrClaimed) {
		return fmt.Errorf("another writes to what is received: %w", err)
	}
	for range 2 + w.rng.IntN(4) {
		w.stamp = w.stamp%250 + 1
		vc := w.rng.Int64N(snapChunks)
		b := bytes.Repeat([]byte{w.stamp}, crashChunk)
		if err := w.set(cellsIn(chunkAt(vc), crashChunk), w.stamp, func() error { return claimedWrite(w.vol, b, chunkAt(vc), token) }); err != nil {
			return err
		}
	}
	if w.rng.IntN(4) == 0 {
		return nil // cut off before anything is to be kept
	}
	if err := claimedFlush(w.vol, token); err != nil {
		return err
	}
	w.flushed()
	name, guid := fmt.Sprintf("v%d", i), ondisk.GUID(w.rng.Uint64()|1)
	w.at.snaps[name], w.at.maybe[name], w.at.guids[name] = w.now, true, guid
	w.note()
	err = w.vol.SnapshotReceived(name, guid, token)
	delete(w.at.maybe, name)
	if errors.Is(err, ErrNoSpace) {
		delete(w.at.snaps, name)
		err = nil
	} else {
		w.taken++
	}
	w.note()
	return err
}

// claimedWrite writes as the one who has claimed the volume.
func claimedWrite(v *Volume, b []byte, off int64, claim uint64) error {
	return submitted(&v.Head, Request{Op: OpWrite, Flags: MayBlock, Offset: off, Length: int64(len(b)), Data: b, Claim: claim})
}

func claimedFlush(v *Volume, claim uint64) error {
	return submitted(&v.Head, Request{Op: OpFlush, Flags: MayBlock, Claim: claim})
}

// submitted does r, and waits for it.
func submitted(h *Head, r Request) error {
	done := &waiter{ch: make(chan struct{}, 1)}
	done.r = r
	done.r.Done = done
	h.Submit(&done.r)
	h.v.catchUp() // a serial volume works on the goroutine of who asks
	<-done.ch
	return done.r.Err
}
