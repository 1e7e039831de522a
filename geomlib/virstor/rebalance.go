package virstor

import (
	"cmp"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Rebalance starts a job that moves chunks until all components are equally full.
func (v *Volume) Rebalance(opt JobOptions) error {
	task := ondisk.Task{Kind: ondisk.TaskRebalance, Arg: [8]uint64{uint64(opt.Rate)}}
	return v.startJob(jobRebalance, task, opt, v.rebalance)
}

// surplus is how many chunks each component has above (or below) its share. The
// shares are whole chunks, and what rounding them down leaves over stays where
// most is: the surplusses sum up to nothing.
func (v *Volume) surplus() []int64 {
	figures := v.alloc.Figures()
	s := make([]int64, len(figures))
	var used, room int64
	for i, f := range figures {
		s[i] = int64(f.Total - f.Free)
		used += s[i]
		room += int64(f.Total)
	}
	if room == 0 {
		return s
	}
	over := used
	order := make([]int, len(figures))
	for i, f := range figures {
		share := used * int64(f.Total) / room
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
	if err := v.waitFreed(); err != nil {
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
	places := v.placesWhere(func(p alloc.Phys) bool { return int(p.Comp) < len(surplus) && surplus[p.Comp] > 0 })
	slices.SortFunc(places, func(a, b mapping) int { return b.at.Compare(a.at) })
	m := v.newMover(j, func(alloc.Phys) bool { return false })
	defer m.end()
	var done int64
	for _, pl := range places {
		if done == n {
			break
		}
		if surplus[pl.at.Comp] <= 0 {
			continue
		}
		to := slices.Index(surplus, slices.Min(surplus))
		if surplus[to] >= 0 {
			break // those with room have their share
		}
		target, ok := v.alloc.TakeFrom(uint16(to))
		if !ok {
			surplus[to] = 0 // full, whatever its share
			continue
		}
		moved, err := m.move(pl, target)
		if err != nil {
			return err
		}
		if moved {
			surplus[pl.at.Comp]--
			surplus[to]++
			done++
		}
	}
	if err := m.settle(); err != nil {
		return err
	}
	j.result("%d chunks moved", done)
	return v.waitFreed()
}
