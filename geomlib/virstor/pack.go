package virstor

import (
	"errors"
	"math"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
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
	defer v.alloc.SetFill(v.alloc.SetFill(true))
	for last := int64(math.MaxInt64); last > 0; {
		n, err := v.packPass(j)
		if err != nil {
			return err
		}
		if n >= last {
			break
		}
		last = n
	}
	// A map is copied whole before what it was is free, for which there may be no room below.
	if err := v.newMover(j, v.beyondPacked()).clearSystem(); err != nil && !errors.Is(err, ErrNoSpace) {
		return err
	}
	if err := v.waitFreed(); err != nil {
		return err
	}
	if err := v.lowerChunkCounts(); err != nil {
		return err
	}
	s, _ := v.Job()
	j.result("%d chunks moved", s.Moved)
	if why := v.obstacles(); why != nil {
		j.result("%d chunks moved; %s", s.Moved, why[0])
	}
	return nil
}

// packMoves is how many chunks lie beyond the places they would fill.
func (v *Volume) packMoves() int64 { return v.countWhere(v.beyondPacked()) }

// beyondPacked picks the places that would be free if all that is in use lay first.
func (v *Volume) beyondPacked() func(alloc.Phys) bool {
	left := v.countWhere(func(alloc.Phys) bool { return true })
	comps := v.components()
	ends := make([]uint32, len(comps))
	for i, c := range comps {
		take := min(left, int64(c.usable())-int64(c.first()))
		ends[i] = c.first() + uint32(take)
		left -= take
	}
	return func(p alloc.Phys) bool { return p.Chunk >= ends[p.Comp] }
}

// packPass moves the chunks that lie last to the places that are free first.
func (v *Volume) packPass(j *jobHandle) (int64, error) {
	m := v.newMover(j, func(alloc.Phys) bool { return false })
	defer m.end()
	places := v.placesWhere(func(alloc.Phys) bool { return true })
	slices.SortFunc(places, func(a, b mapping) int { return v.packOrder(b.at, a.at) })
	j.total(v.packTotal() + v.packMoves()*v.chunk)
	var n int64
	for _, pl := range places {
		target, ok := v.alloc.TakeFirst()
		if !ok {
			break
		}
		if !v.onLastSector(pl.at) && target.Compare(pl.at) > 0 {
			v.alloc.Put(target)
			break
		}
		moved, err := m.move(pl, target)
		if moved {
			n++
		}
		if err != nil {
			return n, err
		}
		// What moved away is where something may move to.
		if v.freed.pending() >= packFlush {
			if err := v.waitFreed(); err != nil {
				return n, err
			}
		}
	}
	if err := m.settle(); err != nil {
		return n, err
	}
	return n, v.waitFreed()
}

// packFlush is how many moves share a flush of the map.
const packFlush = 16

// packOrder puts chunks on a metadata sector last, so that they move first.
func (v *Volume) packOrder(a, b alloc.Phys) int {
	la, lb := v.onLastSector(a), v.onLastSector(b)
	switch {
	case la && !lb:
		return 1
	case lb && !la:
		return -1
	}
	return a.Compare(b)
}

func (v *Volume) onLastSector(p alloc.Phys) bool {
	c := v.component(p.Comp)
	return p.Chunk >= c.usable()
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
		if v.countSafely(c, &m); m == c.meta() {
			continue
		}
		if err := v.storeMetaLocked(c, m); err != nil {
			return err
		}
	}
	return nil
}
