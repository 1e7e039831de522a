package virstor

import "sync"

// sectorPool lends buffers of one sector.
type sectorPool struct{ pool sync.Pool }

func newSectorPool(size int64) *sectorPool {
	return &sectorPool{sync.Pool{New: func() any { b := make([]byte, size); return &b }}}
}

func (s *sectorPool) get() *[]byte  { return s.pool.Get().(*[]byte) }
func (s *sectorPool) put(b *[]byte) { s.pool.Put(b) }
