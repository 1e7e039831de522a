package mapio

import (
	"fmt"
	"runtime"
	"sync"

	"github.com/gvirstor/gvirstor/geomlib"
)

// Reader reads the bytes [0, Size) of a provider as a map with several goroutines. Each
// reads pieces of it and classifies their pages, so that the disk and the processors work
// at the same time, and takes them in, one after the other, in the order of the map.
type Reader struct {
	Provider geomlib.Provider
	Size     int64
	Piece    int64 // bytes of one, whole sectors; 0: BlockSize
	Serial   bool  // on the caller's goroutine alone
}

// Each passes the map but for its holes, piece by piece and in order, to takeIn, which is
// called by one goroutine at a time and must not keep its argument. It returns the first
// error, which ends it.
func (r Reader) Each(takeIn func(*Piece) error) error {
	if r.Piece == 0 {
		r.Piece = BlockSize
	}
	r.Piece = min(r.Piece, r.Size)
	run := &reading{Reader: r, takeIn: takeIn}
	run.turn.L = &run.mu
	readers := 1
	if !r.Serial {
		readers = min(max(2, runtime.GOMAXPROCS(0)), 4)
		readers = int(min(int64(readers), (r.Size+r.Piece-1)/r.Piece))
	}
	var others sync.WaitGroup
	for range readers - 1 {
		others.Go(run.read)
	}
	run.read()
	others.Wait()
	return run.err
}

// reading is one call of Reader.Each.
type reading struct {
	Reader
	takeIn func(*Piece) error

	next     sync.Mutex // guards what is to be read
	off, end int64      // what is left of the data that was found last
	given    int        // pieces

	mu    sync.Mutex
	turn  sync.Cond // taken or err changed
	taken int       // pieces
	err   error     // the first one, in the order of the map
}

// read reads pieces until there are no more.
func (r *reading) read() {
	p := Piece{B: make([]byte, r.Piece)}
	for r.give(&p) {
		_, err := r.Provider.ReadAt(p.B, p.Off)
		if err != nil {
			err = fmt.Errorf("read the allocation map from %s: %w", r.Provider.Name(), err)
		} else {
			p.classify()
		}
		if !r.take(&p, err) {
			return
		}
	}
}

// give makes p the next piece, as long as its memory allows. It reports whether
// there is one.
func (r *reading) give(p *Piece) bool {
	r.next.Lock()
	defer r.next.Unlock()
	if r.off == r.end {
		if r.off, r.end = nextData(r.Provider, r.off, r.Size); r.off >= r.end {
			return false
		}
	}
	p.number, p.Off, p.B = r.given, r.off, p.B[:min(int64(cap(p.B)), r.end-r.off)]
	r.off += int64(len(p.B))
	r.given++
	return true
}

// take waits until all earlier pieces have been taken in, and takes in this one,
// unless it could not be read. It reports whether to go on.
func (r *reading) take(p *Piece, err error) bool {
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
