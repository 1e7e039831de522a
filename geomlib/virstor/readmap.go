package virstor

import (
	"fmt"
	"runtime"
	"sync"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/mapscan"
)

// mapPiece is a piece of the map as it is on component 0.
type mapPiece struct {
	number int
	off    int64 // bytes from the start of the map
	b      []byte
	pages  []pageState // of each part that eachPage gives
}

// mapReader reads the map of component 0, but for holes. Several goroutines each
// read pieces of it and look at them, so that the disk and the processors work at
// the same time, and take them in, one after the other, in the order of the map.
type mapReader struct {
	p      geomlib.Provider
	size   int64 // of a piece, in bytes
	total  int64 // of the map
	takeIn func(p *mapPiece) error

	next     sync.Mutex // guards what is to be read
	off, end int64      // what is left of the data that was found last
	given    int        // pieces

	mu    sync.Mutex
	turn  sync.Cond // taken or err changed
	taken int       // pieces
	err   error     // the first one, in the order of the map
}

// readMap reads the map and passes it piece by piece to takeIn, in order. It
// returns the first error, which ends it.
func (v *Volume) readMap(takeIn func(*mapPiece) error) error {
	zero := v.component(0)
	total := zero.meta().MapBytes()
	r := &mapReader{p: zero.prov(), size: min(v.cfg.mapPiece, total), total: total, takeIn: takeIn}
	r.turn.L = &r.mu
	readers := 1
	if !v.cfg.serial {
		readers = min(max(2, runtime.GOMAXPROCS(0)), 4)
		readers = int(min(int64(readers), (total+r.size-1)/r.size))
	}
	var others sync.WaitGroup
	for range readers - 1 {
		others.Go(r.run)
	}
	r.run()
	others.Wait()
	return r.err
}

// run reads pieces until there are no more.
func (r *mapReader) run() {
	p := mapPiece{b: make([]byte, r.size)}
	for r.give(&p) {
		_, err := r.p.ReadAt(p.b, p.off)
		if err != nil {
			err = fmt.Errorf("read the allocation map from %s: %w", r.p.Name(), err)
		} else {
			p.look()
		}
		if !r.take(&p, err) {
			return
		}
	}
}

// give makes p the next piece, as long as its memory allows. It reports whether
// there is one.
func (r *mapReader) give(p *mapPiece) bool {
	r.next.Lock()
	defer r.next.Unlock()
	if r.off == r.end && !r.findLocked() {
		return false
	}
	p.number, p.off, p.b = r.given, r.off, p.b[:min(int64(cap(p.b)), r.end-r.off)]
	r.off += int64(len(p.b))
	r.given++
	return true
}

// findLocked looks for data behind r.off; r.next is held.
func (r *mapReader) findLocked() bool {
	r.off, r.end = mapscan.NextData(r.p, r.off, r.total)
	return r.off < r.end
}

// take waits until all earlier pieces have been taken in, and takes in this one,
// unless it could not be read. It reports whether to go on.
func (r *mapReader) take(p *mapPiece, err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.taken != p.number && r.err == nil {
		r.turn.Wait()
	}
	if r.err != nil {
		return false
	}
	if err == nil {
		err = r.takeIn(p)
	}
	r.taken, r.err = p.number+1, err
	r.turn.Broadcast()
	return err == nil
}
