package virstor

import (
	"fmt"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
	"github.com/gvirstor/gvirstor/ondisk"
)

// ResizeVolume makes the further volume of that name size bytes large, rounded up to whole
// chunks (ErrNoVolume, ErrDamaged, ErrRequest, ErrNoSpace, ErrJobRunning), on stable storage
// when it returns; dry only tells what it would be. It may be in use. It shrinks when no
// snapshot of it is larger (ErrLargerSnapshots) and nothing is allocated beyond the new end, or
// with force, which gives that up; lost is how many chunks that are. Without force the error is
// a *TailError then.
//
// Map, flush, directory, flush, record: a crash leaves the one size or the other.
func (v *Volume) ResizeVolume(name string, size int64, force, dry bool) (rounded, lost int64, err error) {
	v.job.starting.Lock() // no job begins
	defer v.job.starting.Unlock()
	v.metaMu.Lock()
	rounded, lost, err = v.resizeVolumeLocked(name, size, force, dry)
	v.metaMu.Unlock()
	if err != nil {
		return rounded, lost, fmt.Errorf("resize %s/%s: %w", v.name, ondisk.Printable(name), err)
	}
	if !dry {
		v.emit(Event{Kind: EventResized})
	}
	return rounded, lost, nil
}

// resizeVolumeLocked is ResizeVolume. v.job.starting and v.metaMu are held.
func (v *Volume) resizeVolumeLocked(name string, size int64, force, dry bool) (rounded, lost int64, err error) {
	h, err := v.mayResizeVolumeLocked(name, dry)
	if err != nil {
		return 0, 0, err
	}
	if rounded, err = v.furtherSize(size); err != nil {
		return 0, 0, err
	}
	if rounded >= h.Size() {
		if dry || rounded == h.Size() {
			return rounded, 0, nil
		}
		h.committer.pause()
		defer h.committer.unpause()
		return rounded, 0, h.storeSizeLocked(h.Size(), rounded)
	}
	lost, err = h.shrinkLocked(rounded, force, dry)
	return rounded, lost, err
}

// mayResizeVolumeLocked is the further volume of that name, if it can have another size.
// v.job.starting and v.metaMu are held.
func (v *Volume) mayResizeVolumeLocked(name string, dry bool) (*Head, error) {
	h, err := v.furtherLocked(name)
	if err == nil {
		err = h.damage
	}
	if err == nil && h.unsure {
		err = v.pool.doubt
	}
	if err == nil {
		err = v.noJobLocked()
	}
	if err == nil {
		err = v.couldChangePoolLocked(dry)
	}
	if err == nil {
		err = h.refusal(deedAllocate)
	}
	return h, err
}

// shrinkLocked cuts the volume off at size. Requests beyond fail from then on. v.metaMu is
// held.
func (h *Head) shrinkLocked(size int64, force, dry bool) (lost int64, err error) {
	var larger []string
	for _, s := range h.snapshots() {
		if int64(s.Size) > size {
			larger = append(larger, s.Name)
		}
	}
	if larger != nil {
		return 0, fmt.Errorf("%w (%s)", ErrLargerSnapshots, firstOf(larger))
	}
	was := h.Size()
	if dry {
		return h.allocatedIn(size, was), nil
	}
	h.size.Store(size)
	defer func() {
		if err != nil && h.v.pool.doubt == nil {
			h.size.Store(was)
		}
	}()
	drained := h.writes.closeWithin(drainLimit) // what has begun before
	h.writes.open(h.v.resume)
	if !drained {
		return 0, ErrBusy
	}
	h.committer.pause()
	defer h.committer.unpause()
	if lost = h.allocatedIn(size, was); lost > 0 && !force {
		return lost, &TailError{h.Name(), size, lost, lost * h.v.chunk, h.nameTail("", size, was)}
	}
	return lost, h.storeSizeLocked(was, size)
}

// storeSizeLocked writes what of the map is another for a volume of size bytes, to other
// chunks, and puts it in force. The last chunk of the map that there is before and after is
// among that: of its last sector the rest says that nothing is allocated. v.metaMu is held, and
// the committer is paused. It had so many bytes.
func (h *Head) storeSizeLocked(had, size int64) error {
	v := h.v
	was := h.stored()
	d := v.nextDirectory(size < had)
	h.chunks.Resize(h.entriesOf(size))
	plan, err := v.planVolume(d, h.mapID, uint64(size), was.parts)
	if err == nil {
		plan.words = h.chunks
		err = v.storeMapLocked(plan, d)
	}
	if err != nil {
		if v.pool.doubt != nil {
			return v.doubtLocked(err) // the map may lie elsewhere
		}
		v.alloc.PutAll(d.taken)
		return err
	}
	h.lies.Store(&plan.at)
	h.size.Store(size)
	h.forgetTail(uint64(size/v.chunk), uint64(had/v.chunk))
	v.setDirectory(&d.Directory)
	v.freeUnshared(append(was.chunks(), d.gone...))
	v.freeSoon()
	v.kick()
	return nil
}

// forgetTail takes the chunks from virtual chunk vc to end out of the map in memory, and frees
// what nobody else names. No request reaches them, and the committer is paused.
func (h *Head) forgetTail(vc, end uint64) {
	free := h.v.ledger().free
	for vc = h.chunks.NextAllocated(vc, end); vc < end; vc = h.chunks.NextAllocated(vc+1, end) {
		p, ok := h.chunks.Lock(vc)
		if !ok {
			continue
		}
		h.chunks.Unlock(vc, 0)
		h.partial.forget(vc)
		h.allocated.Add(-1)
		if !h.chunks.IsNamed(vc, chunkmap.WordOf(p)) {
			free(p)
		}
	}
}
