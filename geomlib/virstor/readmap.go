package virstor

import "github.com/gvirstor/gvirstor/geomlib"

// mapPiece is a piece of the map as it is on component 0, or why there is none.
type mapPiece struct {
	off  int64 // bytes from the start of the map
	b    []byte
	free chan<- []byte // takes b back
	err  error
}

// readMap reads the map, but for holes, in order and ahead of who takes it in:
// the disk and the processor work at the same time. The channel ends
// with the map or with an error. stop must be called.
func (v *Volume) readMap() (pieces <-chan mapPiece, stop func()) {
	zero := v.component(0)
	total := zero.meta().MapBytes()
	const ahead = 2
	free := make(chan []byte, ahead+1)
	for range ahead + 1 {
		free <- make([]byte, min(512<<10, total))
	}
	out := make(chan mapPiece)
	quit := make(chan struct{})
	ended := make(chan struct{})
	r := mapReader{p: zero.p(), sector: v.sector, total: total, free: free, out: out, quit: quit}
	go func() {
		defer close(ended)
		defer close(out)
		r.run()
	}()
	return out, func() {
		close(quit)
		<-ended
	}
}

// mapReader is the goroutine of readMap.
type mapReader struct {
	p             geomlib.Provider
	sector, total int64
	free          chan []byte
	out           chan<- mapPiece
	quit          <-chan struct{}
}

func (r *mapReader) run() {
	holes, sparse := r.p.(geomlib.HoleFinder)
	for off := int64(0); off < r.total; {
		end := r.total
		if sparse {
			start, stop, err := holes.NextData(off, r.total)
			if err == nil {
				off = start &^ (r.sector - 1)
				end = min(r.total, (stop+r.sector-1)&^(r.sector-1))
			}
		}
		for off < end {
			n, ok := r.piece(off, end)
			if !ok {
				return
			}
			off += n
		}
	}
}

// piece reads what fits into a buffer of [off, end) and passes it on.
func (r *mapReader) piece(off, end int64) (n int64, ok bool) {
	var b []byte
	select {
	case b = <-r.free:
	case <-r.quit:
		return 0, false
	}
	b = b[:min(int64(len(b)), end-off)]
	_, err := r.p.ReadAt(b, off)
	select {
	case r.out <- mapPiece{off: off, b: b, free: r.free, err: err}:
	case <-r.quit:
		return 0, false
	}
	return int64(len(b)), err == nil
}
