package nbd

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// mappedClass is the first class of buffers that are mapped, 256 KiB. What lies
// in the garbage collector's heap doubles what that lets grow before it
// collects: payloads of a few hostile peers, 32 MiB each, cost as much again in
// garbage of others.
const mappedClass = 18

// keepMapped is how much memory is mapped, in use or idle, before buffers that
// are idle are given up for those of another class, bytes.
const keepMapped = 128 << 20

// mappedPool keeps buffers that are mapped from the system. At most as much is
// mapped as was in use at one time, and one buffer more, or keepMapped. The locks
// are held as long as a list takes.
type mappedPool struct {
	classes [maxClass - mappedClass + 1]idleBuffers
	mapped  atomic.Int64 // bytes, in use and idle
	closed  atomic.Bool
}

// idleBuffers are the buffers of one class that nobody uses.
type idleBuffers struct {
	mu     sync.Mutex
	list   []*buffer
	fewest int // there were, since trim looked
}

func (i *idleBuffers) pop() *buffer {
	i.mu.Lock()
	defer i.mu.Unlock()
	n := len(i.list)
	if n == 0 {
		return nil
	}
	b := i.list[n-1]
	i.list[n-1] = nil
	i.list = i.list[:n-1]
	i.fewest = min(i.fewest, n-1)
	return b
}

func (i *idleBuffers) push(b *buffer) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.list = append(i.list, b)
}

// unneeded is how many there were all the time since it was asked last.
func (i *idleBuffers) unneeded() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	n := i.fewest
	i.fewest = len(i.list)
	return n
}

// get returns a buffer of a class, with any contents. Where the system maps no
// more it is the garbage collector's.
func (p *mappedPool) get(class int) *buffer {
	if b := p.classes[class-mappedClass].pop(); b != nil {
		return b
	}
	size := int64(1) << class
	p.makeRoom(size)
	mem, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return &buffer{mem: alignedBytes(int(size)), class: class}
	}
	p.mapped.Add(size)
	return &buffer{mem: mem, class: class, mapped: true}
}

// put takes back a buffer that get returned, and that nobody uses.
func (p *mappedPool) put(b *buffer) {
	if !b.mapped {
		return
	}
	p.classes[b.class-mappedClass].push(b)
	if p.closed.Load() {
		p.empty()
	}
}

// makeRoom gives up idle buffers for n bytes that are to be mapped.
func (p *mappedPool) makeRoom(n int64) {
	most := max(keepMapped, p.mapped.Load()) - n
	for i := range p.classes {
		for p.mapped.Load() > most {
			b := p.classes[i].pop()
			if b == nil {
				break
			}
			p.unmap(b)
		}
	}
}

// trim gives up the buffers that nobody needed since it was called last.
func (p *mappedPool) trim() {
	for i := range p.classes {
		for range p.classes[i].unneeded() {
			if b := p.classes[i].pop(); b != nil {
				p.unmap(b)
			}
		}
	}
}

// close gives up all buffers, those in use when they are put.
func (p *mappedPool) close() {
	p.closed.Store(true)
	p.empty()
}

func (p *mappedPool) empty() {
	for i := range p.classes {
		for b := p.classes[i].pop(); b != nil; b = p.classes[i].pop() {
			p.unmap(b)
		}
	}
}

func (p *mappedPool) unmap(b *buffer) {
	p.mapped.Add(-int64(len(b.mem)))
	mem := b.mem
	b.mem = nil
	if err := unix.Munmap(mem); err != nil {
		panic("nbd: unmap a buffer: " + err.Error()) // it is not what was mapped
	}
}
