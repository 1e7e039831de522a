package virstor

import (
	"errors"
	"fmt"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
)

// ErrNotOlder: what is compared with a snapshot is not newer than it.
var ErrNotOlder = errors.New("the snapshot is not older")

// Changes tell where a volume, or a snapshot of it, differs from an older snapshot. Methods
// may be called by many goroutines at once. While they are open the older snapshot, and the
// other one, cannot be deleted.
type Changes interface {
	// Ranges calls emit for consecutive runs that together cover [off, off+n), as far as
	// that lies within what is compared, until emit returns false. Runs are whole chunks
	// but for their ends, and neighbours may be alike. What reads otherwise than in the
	// older snapshot is changed; so is all beyond that one's size. Of what is changed some
	// may read the same. Of a volume that is written to it is what was so at some moment
	// during the call: a write that was acknowledged before is seen.
	Ranges(off, n int64, emit func(length int64, changed bool) bool)
	// Size is that of what is compared with the older snapshot, bytes.
	Size() int64
	// Close lets the snapshots go. It is called once.
	Close()
}

// changes is Changes: two maps name a chunk of one virtual number alike when neither has
// changed there, since no owner overwrites what another one names.
type changes struct {
	v     *Volume
	h     *Head
	older *snapshot
	newer *snapshot // nil: the volume
}

// GUID is that of the older snapshot.
func (c *changes) GUID() uint64 { return uint64(c.older.GUID) }

// ChangesSince compares the volume with a snapshot of it, or with one that it descends from,
// which has its volume's name before the "@" (Older; ErrNoSnapshot, ErrDamaged).
func (h *Head) ChangesSince(snapshot string) (Changes, error) {
	h.v.metaMu.Lock()
	defer h.v.metaMu.Unlock()
	return h.compareLocked(snapshot, nil)
}

// ChangesSince compares the snapshot with an older one, as Head.ChangesSince does.
func (w *View) ChangesSince(snapshot string) (Changes, error) {
	w.v.metaMu.Lock()
	defer w.v.metaMu.Unlock()
	return w.s.of.compareLocked(snapshot, w.s)
}

// compareLocked is ChangesSince; v.metaMu is held.
func (h *Head) compareLocked(snapshot string, newer *snapshot) (Changes, error) {
	older, err := h.olderLocked(snapshot)
	switch {
	case err != nil:
	case older.damage != nil:
		err = older.damage
	case newer != nil && older.ID >= newer.ID:
		err = fmt.Errorf("%s@%s, seen from @%s: %w", h.Name(), older.Name, newer.Name, ErrNotOlder)
	}
	if err != nil {
		return nil, fmt.Errorf("compare with a snapshot: %w", err)
	}
	older.views++
	if newer != nil {
		newer.views++
	}
	return &changes{v: h.v, h: h, older: older, newer: newer}, nil
}

// Older are the names of the snapshots that ChangesSince takes, the oldest first. Of a clone
// those come first that it descends from: the one that it was at first, the older ones of the
// volume that this is of, and what that descends from.
func (h *Head) Older() []string { return h.olderThan(nil) }

// Older are the names of the snapshots that ChangesSince takes, the oldest first.
func (w *View) Older() []string { return w.s.of.olderThan(w.s) }

func (h *Head) olderThan(newer *snapshot) (names []string) {
	h.v.metaMu.Lock()
	defer h.v.metaMu.Unlock()
	for _, s := range h.ancestorsLocked() {
		if s.damage == nil {
			names = append(names, s.fullName())
		}
	}
	for _, s := range h.snapshots() {
		if s.damage == nil && (newer == nil || s.ID < newer.ID) {
			names = append(names, s.Name)
		}
	}
	return names
}

// olderLocked is the snapshot of that name, of the volume itself or, with a volume's name, one
// that it descends from. v.metaMu is held.
func (h *Head) olderLocked(name string) (*snapshot, error) {
	for _, s := range h.ancestorsLocked() {
		if s.fullName() == name {
			return s, nil
		}
	}
	return h.snapshotLocked(name)
}

// ancestorsLocked are the snapshots of other volumes that the volume descends from, the oldest
// first. v.metaMu is held.
func (h *Head) ancestorsLocked() (all []*snapshot) {
	for ; h.origin != nil; h = h.origin.of {
		var older []*snapshot
		for _, s := range h.origin.of.snapshots() {
			if s.ID <= h.origin.ID {
				older = append(older, s)
			}
		}
		all = append(older, all...)
	}
	return all
}

// fullName is the snapshot's with its volume's.
func (s *snapshot) fullName() string { return s.of.Name() + "@" + s.Name }

func (c *changes) Close() {
	c.v.metaMu.Lock()
	defer c.v.metaMu.Unlock()
	c.older.views--
	if c.newer != nil {
		c.newer.views--
	}
}

func (c *changes) Size() int64 {
	if c.newer != nil {
		return int64(c.newer.Size)
	}
	return c.h.Size()
}

func (c *changes) Ranges(off, n int64, emit func(length int64, changed bool) bool) {
	end := min(off+n, c.Size())
	for known := min(end, int64(c.older.Size)); off < known; {
		to, ok := c.page(off, known, emit)
		if !ok {
			return
		}
		off = to
	}
	if off < end {
		emit(end-off, true)
	}
}

// page is Ranges for [off, end) as far as one page of the map goes, to.
func (c *changes) page(off, end int64, emit func(length int64, changed bool) bool) (to int64, more bool) {
	var differ [chunkmap.PageEntries]bool
	chunk := c.v.chunk
	vc := c.v.chunkOf(off)
	page := vc / chunkmap.PageEntries
	first := page * chunkmap.PageEntries
	limit := min(end, (first+chunkmap.PageEntries)*chunk)
	if !c.differ(uint64(page), &differ) {
		return limit, emit(limit-off, false)
	}
	for off < limit {
		changed := differ[vc-first]
		for vc++; vc-first < chunkmap.PageEntries && differ[vc-first] == changed; vc++ {
		}
		next := min(limit, vc*chunk)
		if !emit(next-off, changed) {
			return next, false
		}
		off = next
	}
	return limit, true
}

// differ looks at a page. A place that a chunk leaves meanwhile is not given out again
// before that is done, so that it is never taken for what the chunk has now.
func (c *changes) differ(page uint64, differ *[chunkmap.PageEntries]bool) bool {
	if c.v.viewing.tryEnter() {
		defer c.v.viewing.leave()
	} else { // who shuts it holds this
		c.v.metaMu.Lock()
		defer c.v.metaMu.Unlock()
	}
	switch {
	case c.newer != nil:
		return c.older.frozen.Differ(c.newer.frozen, page, differ)
	case c.older.of != c.h:
		return c.older.frozen.DifferIn(c.h.chunks, page, differ)
	}
	return c.older.frozen.Differ(nil, page, differ)
}
