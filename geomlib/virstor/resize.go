package virstor

import (
	"fmt"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/extblock"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Resize starts a job that makes the volume size bytes large, rounded as label
// rounds. It grows at once within the room behind the map, else by moving the
// chunks there. It shrinks when nothing is allocated beyond the new end, or
// with force, which gives that up.
func (v *Volume) Resize(size int64, force bool, opt JobOptions) error {
	rounded, _, err := ondisk.RoundVirtualSize(size, v.chunk, int(v.sector))
	if err != nil {
		return &JobError{jobResize, v.name, err}
	}
	// What was freed before is room.
	if err := v.waitFreed(); err != nil {
		return &JobError{jobResize, v.name, err}
	}
	r := resizing{v, rounded, force}
	if err := r.mayStart(); err != nil {
		return err
	}
	return r.start(opt)
}

// resizing is a volume on the way to another size.
type resizing struct {
	v     *Volume
	size  int64 // bytes, rounded
	force bool  // what is allocated beyond is given up
}

// task is what the next start resumes.
func (r resizing) task(opt JobOptions) ondisk.Task {
	t := ondisk.Task{Kind: ondisk.TaskResize, Arg: [8]uint64{uint64(opt.Rate), uint64(r.size)}}
	if r.force {
		t.Arg[2] = 1
	}
	return t
}

// start starts the job.
func (r resizing) start(opt JobOptions) error {
	v := r.v
	return v.startJob(jobResize, r.task(opt), opt, func(j *jobHandle) error {
		if opt.DryRun {
			j.result("%d bytes now, would be %d%s", v.Size(), r.size, v.nameTail("; would be lost: ", r.size, v.Size()))
			return nil
		}
		if r.size < v.labelledSize() {
			return r.shrink(j)
		}
		for v.Size() < r.size {
			if err := r.grow(j); err != nil {
				return err
			}
		}
		j.result("%d bytes", v.Size())
		return nil
	})
}

// mayStart refuses what cannot be done, before anything is.
func (r resizing) mayStart() error {
	v, size := r.v, r.size
	if size < v.Size() {
		if err := v.snapshotsFit(size); err != nil {
			return fmt.Errorf("shrink %s to %d bytes: %w", v.name, size, err)
		}
		if lost := v.allocatedIn(size, v.Size()); lost > 0 && !r.force {
			return r.tailError(lost)
		}
		return nil
	}
	entries := size / v.chunk
	chunks := (entries*ondisk.EntrySize + v.chunk - 1) / v.chunk
	if 2*chunks > ondisk.MaxReserved {
		return fmt.Errorf("grow %s to %d bytes: %w: the map would reserve %d chunks, at most %d",
			v.name, size, ondisk.ErrMapTooLarge, 2*chunks, ondisk.MaxReserved)
	}
	zero := v.component(0)
	if more := 2*chunks - int64(zero.first()); more > 0 {
		available := v.alloc.Available()
		if 2*chunks >= int64(zero.usable()) {
			return fmt.Errorf("grow %s to %d bytes: %w: %s holds %d chunks and the map would reserve %d",
				v.name, size, ErrTooSmall, zero.name(), zero.usable(), 2*chunks)
		}
		if available < more {
			return v.shortOf(jobResize, more-available, more-available, evacuation{v: v}.refusing())
		}
	}
	return nil
}

// snapshotsFit refuses a size that is less than a snapshot's.
func (v *Volume) snapshotsFit(size int64) error {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	var larger []string
	for _, s := range v.snapshots() {
		if int64(s.Size) > size {
			larger = append(larger, s.Name)
		}
	}
	if larger == nil {
		return nil
	}
	return fmt.Errorf("%w (%s)", ErrLargerSnapshots, firstOf(larger))
}

// TailError tells what keeps a volume from being made smaller.
type TailError struct {
	Volume string
	Size   int64 // bytes, that it was to have
	Chunks int64 // allocated ones beyond
	Bytes  int64 // of these chunks
	Places string
}

func (e *TailError) Error() string {
	return fmt.Sprintf("shrink %s to %d bytes: %d chunks, %d bytes, lie beyond (force gives them up): %s",
		e.Volume, e.Size, e.Chunks, e.Bytes, e.Places)
}

// Unwrap makes errors.Is(err, ErrAllocated) true.
func (e *TailError) Unwrap() error { return ErrAllocated }

// tailError refuses to give up n chunks.
func (r resizing) tailError(n int64) error {
	return &TailError{r.v.name, r.size, n, n * r.v.chunk, r.v.nameTail("", r.size, r.v.labelledSize())}
}

// tailRuns is how many places nameTail names.
const tailRuns = 8

// nameTail says, after prefix, what of [off, end) is allocated; nothing when
// nothing is.
func (h *Head) nameTail(prefix string, off, end int64) string {
	var b strings.Builder
	runs := 0
	h.extents(off, end, func(n int64, allocated bool) bool {
		if allocated {
			runs++
			if runs <= tailRuns {
				fmt.Fprintf(&b, "%sbytes %d to %d", prefix, off, off+n-1)
				prefix = ", "
			}
		}
		off += n
		return true
	})
	if runs > tailRuns {
		fmt.Fprintf(&b, " and %d places more", runs-tailRuns)
	}
	return b.String()
}

// allocatedIn counts the allocated chunks of [off, end).
func (h *Head) allocatedIn(off, end int64) int64 {
	var n int64
	limit := uint64(end / h.v.chunk)
	for vc := h.chunks.NextAllocated(uint64(off/h.v.chunk), limit); vc < limit; vc = h.chunks.NextAllocated(vc+1, limit) {
		n++
	}
	return n
}

// grow takes one step towards the size: as far as the map can be extended without
// overwriting the extension block that is in force.
func (r resizing) grow(j *jobHandle) error {
	v, zero := r.v, r.v.component(0)
	next, err := r.grown(zero.meta())
	if err != nil {
		return err
	}
	if err := (evacuation{v: v}).vacate(j, zero, uint32(next.ChunkReserved)); err != nil {
		v.alloc.ReleaseKept(0)
		return err
	}
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	v.committer.pause()
	defer v.committer.unpause()
	if err := v.mayChangeLocked(); err != nil {
		v.alloc.ReleaseKept(0)
		return fmt.Errorf("grow %s: %w", v.name, err)
	}
	was := zero.meta() // a component may have joined, and the generation risen, since it was looked at
	if !v.cfg.breaks(breakOldMetadata) {
		if next, err = r.grown(was); err != nil {
			v.alloc.ReleaseKept(0)
			return err
		}
	}
	if err := r.prepareMap(zero, next); err != nil {
		v.alloc.ReleaseKept(0)
		return err
	}
	moved, err := v.moveLease(zero.prov(), next)
	if err != nil {
		v.alloc.ReleaseKept(0)
		return err
	}
	if err := geomlib.StoreMetadata(zero.accounted(), next); err != nil {
		return v.doubtLocked(fmt.Errorf("%s may have grown; restart to find out: %w", v.name, err))
	}
	zero.setMeta(next)
	moved()
	v.meta.ext.offset, v.meta.ext.room = ondisk.ExtensionOffset(next)
	v.alloc.ReserveKept(uint32(was.ChunkReserved), uint32(next.ChunkReserved))
	v.adoptSize(next.VirtualSize)
	return nil
}

// grown is component 0's metadata m after one step of growing. Only a resize changes what
// of m and of the extension block it goes by.
func (r resizing) grown(m ondisk.Metadata) (next ondisk.Metadata, err error) {
	v, size := r.v, r.size
	limit := int64(m.ChunkReserved) * v.chunk
	if v.meta.ext.room {
		limit = v.meta.ext.offset
	}
	per := v.sector / ondisk.EntrySize
	entries := min(size/v.chunk, limit/v.sector*per)
	next = m
	next.VirtualSize = uint64(entries * v.chunk)
	mapChunks := (entries*ondisk.EntrySize + v.chunk - 1) / v.chunk
	next.ChunkReserved = uint16(max(int64(m.ChunkReserved), 2*mapChunks))
	if next.VirtualSize <= m.VirtualSize && v.meta.ext.room {
		// The map reaches to the extension block already: that moves first.
		next.VirtualSize = m.VirtualSize
		next.ChunkReserved = uint16(2 * ((size/v.chunk*ondisk.EntrySize + v.chunk - 1) / v.chunk))
	}
	next.ChunkNext = max(next.ChunkNext, uint32(next.ChunkReserved))
	if next.VirtualSize <= m.VirtualSize && next.ChunkReserved <= m.ChunkReserved {
		return m, fmt.Errorf("grow %s: no room behind the map: %w", v.name, ErrNoExtension)
	}
	return next, nil
}

// prepareMap makes the sectors that next adds to the map say that nothing is
// allocated, and moves the extension record. v.metaMu is held and the committer
// is paused.
func (r resizing) prepareMap(zero *component, next ondisk.Metadata) error {
	v := r.v
	if err := v.waitFreed(); err != nil {
		return err
	}
	v.leaveOldLeases()
	has := zero.meta().MapBytes()
	if err := zero.clear(has, next.MapBytes()-has, v.zeros); err != nil {
		return err
	}
	if err := zero.flush(); err != nil {
		return err
	}
	return r.moveRecord(zero, next)
}

// moveRecord writes the extension record where it will be when next is component 0's
// metadata. Until then it is in no force.
func (r resizing) moveRecord(zero *component, next ondisk.Metadata) error {
	v := r.v
	off, room := ondisk.ExtensionOffset(next)
	if !room || v.meta.ext.room && off == v.meta.ext.offset {
		return nil
	}
	rec := v.meta.ext.rec
	rec.Sequence++
	if err := extblock.Erase(zero.accounted(), off, 1-rec.Slot()); err != nil {
		return err
	}
	if err := extblock.Store(zero.accounted(), off, rec); err != nil {
		return err
	}
	v.meta.ext.rec, v.meta.ext.valid = rec, true
	return nil
}

// adoptSize makes size the volume's in memory and in the metadata of the other
// components, which component 0 overrules. v.metaMu is held.
func (v *Volume) adoptSize(size uint64) {
	v.chunks.Resize(size / uint64(v.chunk))
	v.size.Store(int64(size))
	for _, c := range v.components()[1:] {
		m := c.meta()
		m.VirtualSize = size
		if err := geomlib.StoreMetadata(c.accounted(), m); err != nil {
			v.log.Warn("component keeps an old virtual size until the next start", "component", c.name(), "error", err)
			continue
		}
		c.setMeta(m)
	}
	v.emit(Event{Kind: EventResized})
}

// labelledSize is the virtual size in component 0's metadata, bytes.
func (v *Volume) labelledSize() int64 { return int64(v.component(0).meta().VirtualSize) }

// cutForShrink gives the volume the size that an interrupted shrink was to
// reach, before anything is written: what would be written beyond it would be
// lost when that goes on.
func (v *Volume) cutForShrink() {
	if t := v.meta.ext.rec.Task; v.meta.ext.room && t.Kind == ondisk.TaskResize {
		v.size.Store(min(v.Size(), int64(t.Arg[1])))
	}
}

// shrink cuts the volume off at the size. Requests beyond fail from now on.
func (r resizing) shrink(j *jobHandle) error {
	v, size := r.v, r.size
	was := v.labelledSize()
	lost := v.nameTail("; lost: ", size, was)
	v.size.Store(size)
	if err := r.freeTail(j, was); err != nil {
		v.size.Store(was)
		return err
	}
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	if err := r.storeShrunkLocked(); err != nil {
		if !v.cond.is(stateFrozen) {
			v.size.Store(was)
		}
		return err
	}
	v.adoptSize(uint64(size))
	j.result("%d bytes%s", size, lost)
	return nil
}

// freeTail frees the chunks of [size, was), which no request reaches any more.
// Without force it only makes sure that there are none.
func (r resizing) freeTail(j *jobHandle, was int64) error {
	v, size := r.v, r.size
	v.committer.pause() // what was assigned beyond the end is published now
	v.committer.unpause()
	tail := v.allocatedIn(size, was)
	if tail > 0 && !r.force {
		return r.tailError(tail) // written since it was looked at
	}
	j.total(tail * v.chunk)
	for off := size; off < was; {
		next, n, _, err := v.freeChunks(off, was, v.chunks.LockState)
		if err != nil {
			return err
		}
		if err := j.step(n*v.chunk, n); err != nil {
			return err
		}
		off = next
	}
	return nil
}

// storeShrunkLocked makes size component 0's, when the freed tail is durable;
// v.metaMu is held.
func (r resizing) storeShrunkLocked() error {
	v, size := r.v, r.size
	if err := v.mayChangeLocked(); err != nil {
		return fmt.Errorf("shrink %s: %w", v.name, err)
	}
	if err := v.waitFreed(); err != nil {
		return err
	}
	zero := v.component(0)
	if err := zero.flush(); err != nil {
		return err
	}
	m := zero.meta()
	m.VirtualSize = uint64(size)
	v.committer.pause()
	defer v.committer.unpause()
	if err := geomlib.StoreMetadata(zero.accounted(), m); err != nil {
		// What is written beyond the new size from now on would be lost if that
		// size is in force: take it back.
		if back := geomlib.StoreMetadata(zero.accounted(), zero.meta()); back != nil {
			return v.doubtLocked(fmt.Errorf("%s may have shrunk; restart to find out: %w", v.name, err))
		}
		return err
	}
	zero.setMeta(m)
	return nil
}
