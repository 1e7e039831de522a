package nbd

import (
	"math/bits"
	"sync"
	"unsafe"
)

const (
	pageSize   = 4096
	minClass   = 12 // 4 KiB
	maxClass   = 25 // 32 MiB
	maxPayload = 1 << maxClass
)

// buffer is a page-aligned piece of memory of a power of two.
type buffer struct {
	mem    []byte
	class  int
	mapped bool // from the system, by mappedPool
}

// bufferPool keeps buffers by size. What nobody uses goes back after a while,
// the small ones' memory to the garbage collector, the others' to the system.
type bufferPool struct {
	small  [mappedClass - minClass]sync.Pool
	mapped mappedPool
}

// classOf is the binary logarithm of the buffer that holds n bytes.
func classOf(n int) int {
	return max(minClass, bits.Len(uint(n-1)))
}

// bufferSize is what a payload of n > 0 bytes occupies.
func bufferSize(n int) int64 { return 1 << classOf(n) }

// get returns a buffer for n bytes, 0 < n <= maxPayload, with any contents.
func (p *bufferPool) get(n int) *buffer {
	class := classOf(n)
	if class >= mappedClass {
		return p.mapped.get(class)
	}
	if b, ok := p.small[class-minClass].Get().(*buffer); ok {
		return b
	}
	return &buffer{mem: alignedBytes(1 << class), class: class}
}

func (p *bufferPool) put(b *buffer) {
	if b.class >= mappedClass {
		p.mapped.put(b)
		return
	}
	p.small[b.class-minClass].Put(b)
}

// alignedBytes allocates n bytes that start at a page's border. The allocator
// aligns such sizes by itself today, without a promise.
func alignedBytes(n int) []byte {
	mem := make([]byte, n)
	if misalignment(mem) == 0 {
		return mem
	}
	mem = make([]byte, n+pageSize)
	skip := pageSize - misalignment(mem)
	return mem[skip : skip+n : skip+n]
}

// misalignment is how far mem starts behind a page's border.
func misalignment(mem []byte) int {
	return int(uintptr(unsafe.Pointer(unsafe.SliceData(mem))) % pageSize)
}
