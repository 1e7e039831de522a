package virstor

import (
	"bytes"
	"sync"
	"unsafe"
)

// zeroBytes is what is written where zeros are needed. It is only read. Like
// every buffer that is written from, it begins at a page's border: the first
// use of one of its pages is a page fault in the middle of a write(2), which a
// process that is being killed does not survive. What is written by then ends
// at a border of a page of this memory, which has to be a border of a sector.
var zeroBytes = zeroMemory()

// zeroAlign is a multiple of the usual sector sizes, and divides every page size.
const zeroAlign = 4096

func zeroMemory() []byte {
	const size = 1 << 20
	mem := make([]byte, size+zeroAlign)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(mem))) % zeroAlign
	return mem[skip : skip+size : skip+size]
}

// isZero reports whether b holds only zeros.
func isZero(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), len(zeroBytes))
		if !bytes.Equal(b[:n], zeroBytes[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}

// sectorPool lends buffers of one sector.
type sectorPool struct{ pool sync.Pool }

func newSectorPool(size int64) *sectorPool {
	return &sectorPool{sync.Pool{New: func() any { b := make([]byte, size); return &b }}}
}

func (s *sectorPool) get() *[]byte { return s.pool.Get().(*[]byte) }

func (s *sectorPool) put(b *[]byte) { s.pool.Put(b) }
