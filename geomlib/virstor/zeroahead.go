package virstor

import (
	"time"
)

const (
	// aheadBytes bounds what is zeroed and not used, in a volume.
	aheadBytes = 64 << 20
	// aheadPiece is what a write may have to wait for at most, bytes.
	aheadPiece = 256 << 10
	// aheadIdle is how long nothing may have been asked of the volume.
	aheadIdle = 200 * time.Millisecond
)

// zeroAhead zeroes the chunks that are next to be allocated while nothing is asked
// of the volume, so that the first write to one costs no more than any other.
// What it did is known in memory alone. It leaves a volume alone in which
// nothing was allocated since it was opened: what is on its free chunks may be
// what somebody is looking for.
//
// The zeros are durable in time: the flush of the component that comes before a
// map entry covers them as well.
type zeroAhead struct {
	v     *Volume
	stock int           // chunks
	wake  chan struct{} // capacity 1: there may be something to do
	quit  chan struct{}
	done  chan struct{}
}

// newZeroAhead returns nil when there is nothing for it to do. The methods of
// nil do nothing.
func newZeroAhead(v *Volume) *zeroAhead {
	stock := int(min(int64(v.cfg.ZeroAhead), aheadBytes/v.chunk))
	if stock <= 0 || v.cfg.Zero != ZeroAuto || v.cfg.ReadOnly {
		return nil
	}
	return &zeroAhead{
		v:     v,
		stock: stock,
		wake:  make(chan struct{}, 1),
		quit:  make(chan struct{}),
		done:  make(chan struct{}),
	}
}

func (z *zeroAhead) start() {
	if z != nil {
		go z.run()
	}
}

// stop ends the goroutine.
func (z *zeroAhead) stop() {
	if z != nil {
		close(z.quit)
		<-z.done
	}
}

// notice takes note of what changes which chunks come next.
func (z *zeroAhead) notice(e Event) {
	if z == nil || e.Kind != EventAllocated && e.Kind != EventComponents {
		return
	}
	select {
	case z.wake <- struct{}{}:
	default:
	}
}

func (z *zeroAhead) run() {
	defer close(z.done)
	for {
		select {
		case <-z.wake:
		case <-z.quit:
			return
		}
		for z.awaitIdle() && z.one() {
		}
	}
}

// awaitIdle returns true when nothing has been asked of the volume for a while, false when it is
// to end.
func (z *zeroAhead) awaitIdle() bool {
	t := time.NewTicker(aheadIdle)
	defer t.Stop()
	for seen := z.v.traffic.ended(); ; {
		select {
		case <-t.C:
		case <-z.quit:
			return false
		}
		now := z.v.traffic.ended()
		if now == seen && z.v.traffic.inFlight() == 0 {
			return true
		}
		seen = now
	}
}

// one zeroes one chunk, and reports whether there may be more to do.
func (z *zeroAhead) one() bool {
	v := z.v
	// Whoever holds it may take the component away.
	if !v.metaMu.TryLock() {
		return true
	}
	defer v.metaMu.Unlock()
	if v.stats.committed.Load() == 0 || !v.cond.allows(deedAllocate) || !v.noneHeld() {
		return false // who is held for room comes first
	}
	p, at, ok := v.alloc.Prepare(z.stock)
	if !ok {
		return false
	}
	whole, err := z.clear(v.component(at.Comp), at.Chunk)
	v.alloc.Prepared(p, at.Chunk, whole || v.cfg.breaks(breakAheadWhole))
	if err != nil && !isStorageFull(err) { // of which the component tells, and which ends
		// The write that needs the chunk will fail and be heard.
		v.log.Warn("chunk not zeroed ahead", "component", v.component(at.Comp).name(), "chunk", at.Chunk, "error", err)
	}
	return err == nil
}

// clear zeroes a chunk, piece by piece, and reports whether it came to the end
// before it was in somebody's way.
func (z *zeroAhead) clear(c *component, chunk uint32) (whole bool, err error) {
	base := c.offset(chunk)
	for off := int64(0); off < z.v.chunk; off += aheadPiece {
		select {
		case <-z.quit:
			return false, nil
		default:
		}
		if z.v.alloc.IsWanted() || z.v.traffic.inFlight() != 0 {
			return false, nil
		}
		if err := c.clear(base+off, min(aheadPiece, z.v.chunk-off), z.v.zeros); err != nil {
			return false, err
		}
	}
	return true, nil
}
