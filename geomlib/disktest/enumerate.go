package disktest

import (
	"fmt"
	"iter"
	"math"
	"math/bits"
	"math/rand/v2"
	"strings"
)

// Tear says into which pieces a pending request may fall.
type Tear int

const (
	Whole      Tear = iota // it survives or does not
	Prefix                 // its first sectors may survive alone
	AnySectors             // any of its sectors may survive alone
)

// PowerLoss is one loss of power: when, and what it left of what was pending.
// Its Pick gives Recorder.State those disks.
type PowerLoss struct {
	At   int      // position in the log
	Kept [][]Part // by disk
}

// Pick chooses what Kept says, whatever it is given.
func (l PowerLoss) Pick(disk int, _ []Op) []Part { return l.Kept[disk] }

// String tells the loss as a failed test should report it.
func (l PowerLoss) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "power lost at %d", l.At)
	for disk, parts := range l.Kept {
		fmt.Fprintf(&b, "; of disk %d kept", disk)
		for _, p := range parts {
			fmt.Fprintf(&b, " #%d", p.Index)
			if p.From != 0 || p.To != 0 {
				fmt.Fprintf(&b, "[%d:%d]", p.From, p.To)
			}
		}
	}
	return b.String()
}

// Count returns in how many ways a loss of power at position k can end if what
// survives is written in order, math.MaxUint64 if in more than that.
func (r *Recorder) Count(k int, tear Tear) uint64 {
	n := uint64(1)
	for _, v := range r.views(k) {
		for _, op := range v.ops {
			high, low := bits.Mul64(n, ways(op, tear))
			if high != 0 {
				return math.MaxUint64
			}
			n = low
		}
	}
	return n
}

// PowerLoss returns one of those ways: number is from 0, where nothing pending
// survives, to Count(k, tear)-1, where all of it does.
func (r *Recorder) PowerLoss(k int, tear Tear, number uint64) PowerLoss {
	l := PowerLoss{At: k}
	for _, v := range r.views(k) {
		var parts []Part
		for i, op := range v.ops {
			n := ways(op, tear)
			parts = append(parts, survivors(i, op, tear, number%n)...)
			number /= n
		}
		l.Kept = append(l.Kept, parts)
	}
	return l
}

// PowerLosses yields losses of power at every position of the log so far: all
// there are where Count is at most limit, else none, all, and limit-2 random
// ones, which are also out of order.
func (r *Recorder) PowerLosses(tear Tear, limit uint64, rng *rand.Rand) iter.Seq[PowerLoss] {
	return func(yield func(PowerLoss) bool) {
		for k := range r.Len() + 1 {
			n := r.Count(k, tear)
			for i := range min(n, limit) {
				var l PowerLoss
				switch {
				case n <= limit:
					l = r.PowerLoss(k, tear, i)
				case i == 0:
					l = r.chosen(k, None)
				case i == 1:
					l = r.chosen(k, All)
				default:
					l = r.chosen(k, Random(rng))
				}
				if !yield(l) {
					return
				}
			}
		}
	}
}

func (r *Recorder) chosen(k int, pick Pick) PowerLoss {
	l := PowerLoss{At: k}
	for i, v := range r.views(k) {
		l.Kept = append(l.Kept, pick(i, v.ops))
	}
	return l
}

// ways returns how many parts of op, none and all among them, may survive.
func ways(op Op, tear Tear) uint64 {
	sectors := op.Len / op.Sector
	switch {
	case tear == Whole:
		return 2
	case tear == Prefix:
		return uint64(sectors) + 1
	case sectors < 64:
		return 1 << sectors
	}
	return math.MaxUint64
}

// survivors returns one of the ways for the request at an index: nothing for 0.
func survivors(index int, op Op, tear Tear, number uint64) []Part {
	switch {
	case number == 0:
		return nil
	case tear == Whole:
		return []Part{{Index: index}}
	case tear == Prefix:
		return []Part{{Index: index, To: int64(number) * op.Sector}}
	}
	var parts []Part
	for from := int64(0); from < 64; from++ { // runs of ones
		if number>>from&1 == 0 {
			continue
		}
		to := from + int64(bits.TrailingZeros64(^(number >> from)))
		parts = append(parts, Part{Index: index, From: from * op.Sector, To: to * op.Sector})
		from = to
	}
	return parts
}
