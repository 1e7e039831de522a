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
	if err := v.settleFreed(); err != nil {
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
		end := phys{c.no(), c.first() + uint32(take)}
		for _, pl := range used {
			if pl.at.comp == c.no() && before(pl.at, end) >= 0 {
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
	slices.SortFunc(places, func(a, b place) int { return v.packOrder(b.at, a.at) })
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
			if err := v.settleFreed(); err != nil {
				return n, err
			}
		}
	}
	return n, v.settleFreed()
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

// Rebalance starts a job that moves chunks until all components are equally full.
func (v *Volume) Rebalance(opt JobOptions) error {
	task := ondisk.Task{Kind: ondisk.TaskRebalance, Arg: [8]uint64{uint64(opt.Rate)}}
	return v.startJob(jobRebalance, task, opt, v.rebalance)
}

// surplus is how many chunks each component has above (or below) its share. The
// shares are whole chunks, and what rounding them down leaves over stays where
// most is: the surplusses sum up to nothing.
func (v *Volume) surplus() []int64 {
	figures := v.alloc.figures()
	s := make([]int64, len(figures))
	var used, room int64
	for i, f := range figures {
		s[i] = int64(f.total - f.free)
		used += s[i]
		room += int64(f.total)
	}
	if room == 0 {
		return s
	}
	over := used
	order := make([]int, len(figures))
	for i, f := range figures {
		share := used * int64(f.total) / room
		s[i] -= share
		over -= share
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(s[b], s[a]) })
	for _, i := range order[:over] {
		s[i]--
	}
	return s
}

func (v *Volume) rebalance(j *jobHandle) error {
	if err := v.settleFreed(); err != nil {
		return err
	}
	surplus := v.surplus()
	var n int64
	for _, s := range surplus {
		n += max(0, s)
	}
	j.total(n * v.chunk)
	if j.opt.DryRun {
		j.wouldMove(n)
		return nil
	}
	// A component may have been added since.
	places := v.chunksWhere(func(p phys) bool { return int(p.comp) < len(surplus) && surplus[p.comp] > 0 })
	slices.SortFunc(places, func(a, b place) int { return before(b.at, a.at) })
	buf := make([]byte, min(moveBuffer, v.chunk))
	var done int64
	for _, pl := range places {
		if done == n {
			break
		}
		if surplus[pl.at.comp] <= 0 {
			continue
		}
		to := slices.Index(surplus, slices.Min(surplus))
		if surplus[to] >= 0 {
			break // those with room have their share
		}
		target, ok := v.alloc.takeFrom(uint16(to))
		if !ok {
			surplus[to] = 0 // full, whatever its share
			continue
		}
		moved, err := v.moveChunk(pl.vc, pl.at, target, buf)
		if err != nil {
			return err
		}
		now := int64(0)
		if moved {
			now = 1
		}
		surplus[pl.at.comp] -= now
		surplus[to] += now
		done += now
		if err := j.step(v.chunk, now); err != nil {
			return err
		}
	}
	j.result("%d chunks moved", done)
	return v.settleFreed()
}
