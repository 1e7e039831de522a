package virstor

import (
	"cmp"
	"math"
	"slices"

	"github.com/gvirstor/gvirstor/ondisk"
)

// Pack starts a job that fills holes with the highest chunks, component after
// component, until the volume could be handed back. It can be cancelled and
// started again at any time.
func (v *Volume) Pack(opt JobOptions) error {
	task := ondisk.Task{Kind: ondisk.TaskPack, Arg: [8]uint64{uint64(opt.Rate)}}
	return v.startJob(jobPack, task, opt, v.pack)
}

func (v *Volume) pack(j *jobHandle) error {
	if err := v.waitFreed(); err != nil {
		return err
	}
	if j.opt.DryRun {
		j.wouldMove(v.packMoves())
		return nil
	}
	// Chunks that are written meanwhile go to the lowest places too, so that
	// every pass begins with less to do. Under a load that frees chunks as fast as
	// they are moved there is no end to that: then it is told how things stand.
	defer v.alloc.setFill(v.alloc.setFill(true))
	buf := make([]byte, min(moveBuffer, v.chunk))
	var moved int64
	for last := int64(math.MaxInt64); last > 0; {
		n, err := v.packPass(j, buf)
		moved += n
		if err != nil {
			return err
		}
		if n >= last {
			break
		}
		last = n
	}
	if err := v.lowerChunkCounts(); err != nil {
		return err
	}
	j.result("%d chunks moved", moved)
	if why := v.obstacles(); why != nil {
		j.result("%d chunks moved; %s", moved, why[0])
	}
	return nil
}

// before is the order in which the kernel class fills.
func before(a, b phys) int {
	return cmp.Or(cmp.Compare(a.comp, b.comp), cmp.Compare(a.chunk, b.chunk))
}

// packMoves is how many chunks lie beyond the places they would fill.
func (v *Volume) packMoves() int64 {
	used := v.chunksWhere(func(phys) bool { return true })
	var n int64
	left := int64(len(used))
	for _, c := range v.components() {
		room := int64(c.usable()) - int64(c.first())
		take := min(left, room)
		end := phys{c.index(), c.first() + uint32(take)}
		for _, pl := range used {
			if pl.at.comp == c.index() && before(pl.at, end) >= 0 {
				n++
			}
		}
		left -= take
	}
	return n
}

// packPass moves the chunks that lie last to the places that are free first.
func (v *Volume) packPass(j *jobHandle, buf []byte) (int64, error) {
	places := v.chunksWhere(func(phys) bool { return true })
	slices.SortFunc(places, func(a, b mapping) int { return v.packOrder(b.at, a.at) })
	j.total(v.packTotal() + v.packMoves()*v.chunk)
	var n int64
	for _, pl := range places {
		target, ok := v.alloc.takeFirst()
		if !ok {
			break
		}
		if !v.onLastSector(pl.at) && before(target, pl.at) > 0 {
			v.alloc.put(target)
			break
		}
		moved, err := v.moveChunk(pl.vc, pl.at, target, buf)
		if err != nil {
			return n, err
		}
		now := int64(0)
		if moved {
			now = 1
		}
		n += now
		if err := j.step(v.chunk, now); err != nil {
			return n, err
		}
		// What moved away is where something may move to.
		if v.freed.pending() >= packFlush {
			if err := v.waitFreed(); err != nil {
				return n, err
			}
		}
	}
	return n, v.waitFreed()
}

// packFlush is how many moves share a flush of the map.
const packFlush = 16

// packOrder puts chunks on a metadata sector last, so that they move first.
func (v *Volume) packOrder(a, b phys) int {
	la, lb := v.onLastSector(a), v.onLastSector(b)
	switch {
	case la && !lb:
		return 1
	case lb && !la:
		return -1
	}
	return before(a, b)
}

func (v *Volume) onLastSector(p phys) bool {
	c := v.component(p.comp)
	return p.chunk >= c.usable()
}

// packTotal is what the job has done so far, in bytes.
func (v *Volume) packTotal() int64 {
	s, _ := v.Job()
	return s.Done
}

// lowerChunkCounts takes chunks that reach into a metadata sector, and are in use
// no more, out of the count of their component.
func (v *Volume) lowerChunkCounts() error {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	for _, c := range v.components() {
		m := c.meta()
		if m.ChunkCount = v.safeChunkCount(c); m == c.meta() {
			continue
		}
		if err := v.storeMetaLocked(c, m); err != nil {
			return err
		}
	}
	return nil
}

// takeFirst takes the free chunk that lies first, whatever the order of the
// volume.
func (a *allocator) takeFirst() (phys, bool) {
	a.lockSettled()
	defer a.mu.Unlock()
	for i, p := range a.pools[:a.takers] {
		if p.closed() {
			continue
		}
		if chunk, _, ok := p.lowest(); ok {
			a.free--
			return phys{uint16(i), chunk}, true
		}
	}
	return phys{}, false
}
