package virstor

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/gvirstor/gvirstor/ondisk"
)

// claimedVolume is a volume that one has to himself, who receives a stream.
type claimedVolume struct {
	h     *Head
	token uint64
}

func (c *claimedVolume) is(h *Head) bool { return c != nil && c.h == h }

// refusesOthers has another write to it.
func (c *claimedVolume) refusesOthers() error {
	if _, err := c.h.WriteAt(make([]byte, 512), volCell(0)); !errors.Is(err, ErrClaimed) {
		return fmt.Errorf("another writes to what is received: %w", err)
	}
	return nil
}

// do does a request of who has it.
func (c *claimedVolume) do(r Request) error {
	r.Flags, r.Claim = MayBlock, c.token
	return submitted(c.h, r)
}

// receiveFresh receives a stream into a volume that is made for it. When it is cut off before
// anything came the volume is deleted.
func (w *volWorld) receiveFresh(name string) error {
	w.at.cells[name], w.now[name] = certain(volCells{}), volCells{}
	made, err := w.attempt(name, false, func() error { return createIn(w.vol, name, volSize) })
	if err != nil || !made {
		return err
	}
	w.made++
	if w.rng.IntN(4) == 0 {
		_, err = w.attempt(name, true, func() error { return w.vol.DeleteVolume(name) })
		return err
	}
	h, err := w.vol.OpenVolume(name)
	if err != nil {
		return err
	}
	defer h.Release()
	return w.receive(name, "r"+name, h)
}

// receive has a volume to itself, writes to it what comes, and takes a snapshot of that under
// the GUID that it has elsewhere; or, when it was cut off, under the name of a mark and one of
// its own. Others write to the other volumes meanwhile, and to this one not.
func (w *volWorld) receive(name, snap string, h *Head) error {
	token, err := h.Claim()
	if err != nil {
		return err
	}
	w.streams++
	w.claimed = &claimedVolume{h, token}
	defer func() {
		h.Unclaim(token)
		w.claimed = nil
	}()
	for range 2 + w.rng.IntN(4) {
		if err := w.receiveRecord(name); err != nil {
			return err
		}
		for _, o := range w.vol.heads() {
			if err := w.changeOf(o.ownName(), o); err != nil {
				return err
			}
		}
	}
	if w.rng.IntN(6) == 0 {
		return nil // cut off by the death of who received: nothing is kept
	}
	if err := w.flushed(); err != nil {
		return err
	}
	full, guid := name+"@"+snap, ondisk.GUID(0)
	if w.rng.IntN(3) > 0 {
		guid = ondisk.GUID(w.rng.Uint64() | 1)
		w.at.guids[full] = guid
	}
	w.at.snaps[full] = w.now[name]
	_, err = w.attempt(full, false, func() error { return h.SnapshotReceived(snap, guid, token) })
	return err
}

// receiveRecord writes what one record of a stream has: data, or that there are zeros.
func (w *volWorld) receiveRecord(name string) error {
	w.stamp = w.stamp%250 + 1
	c, stamp := w.rng.IntN(volChunks), w.stamp
	r := Request{Op: OpWrite, Offset: volCell(c), Length: crashChunk, Data: bytes.Repeat([]byte{stamp}, crashChunk)}
	if w.rng.IntN(4) == 0 {
		stamp = 0
		r.Op, r.Data = OpWriteZeroes, nil
	}
	return w.set(name, c, stamp, func() error { return w.claimed.do(r) })
}

// inDoubt is what may be done when nobody knows which directory is in force: writes to volumes
// that are the same in both. Nothing else begins.
func (w *volWorld) inDoubt() error {
	if err := createIn(w.vol, "more", volSize); !errors.Is(err, ErrUnfinished) && !w.cfg.breaks(breakDoubtWritten) {
		return fmt.Errorf("a directory is written while another is in doubt: %w", err)
	}
	for range 6 {
		for _, h := range w.vol.heads() {
			o, err := w.vol.OpenVolume(h.ownName())
			if errors.Is(err, ErrUnfinished) {
				continue
			}
			if err != nil {
				return err
			}
			err = w.changeOf(h.ownName(), o)
			o.Release()
			if err != nil {
				return fmt.Errorf("in doubt: %w", err)
			}
		}
		if w.rng.IntN(3) > 0 {
			continue
		}
		if err := w.flushed(); err != nil && !errors.Is(err, ErrUnfinished) {
			return fmt.Errorf("in doubt: %w", err)
		}
	}
	return nil
}
