package geomlib

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ringEntries is how many transfers a ring has at a time. Those beyond are not begun.
const ringEntries = 256

// ring is an io_uring, with one goroutine that ends what the kernel has done.
type ring struct {
	uring uring
	enter func(n uint32) (taken uint32, errno syscall.Errno) // uring.enter
	f     *os.File                                           // of its descriptor, in the runtime's poller
	done  chan struct{}
	batch Batch          // the goroutine's
	tasks sync.WaitGroup // of what may wait

	mu      sync.Mutex
	slots   [ringEntries]begun // they keep alive what the kernel has the addresses of
	free    []uint16           // of slots
	put     uint32             // what was put for the kernel, and it was not told of
	lone    lone
	telling int   // goroutines that tell it
	broken  error // it takes nothing more
}

// newRing makes one, that keeps until open if that is not nil.
func newRing(until *os.File) (*ring, error) {
	r := &ring{done: make(chan struct{})}
	r.enter = r.uring.enter
	if err := r.uring.open(ringEntries, until, uringRead, uringWrite); err != nil {
		return nil, fmt.Errorf("io_uring: %w", err)
	}
	for i := range uint16(ringEntries) {
		r.free = append(r.free, i)
	}
	r.f = os.NewFile(uintptr(r.uring.fd), "io_uring")
	conn, err := r.f.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("io_uring: %w", err), r.f.Close(), r.uring.unmap())
	}
	go func() {
		defer close(r.done)
		_ = conn.Read(func(uintptr) bool { r.reap(); return false }) // until it is closed
	}()
	return r, nil
}

// start puts b for the kernel, which is told of it by push, and reports whether it did.
func (r *ring) start(b begun) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.free) == 0 || r.broken != nil || len(r.free) == ringEntries && r.lone.refuses() {
		return false
	}
	slot := r.free[len(r.free)-1]
	r.free = r.free[:len(r.free)-1]
	r.slots[slot] = b
	op := uint8(uringRead)
	if b.write {
		op = uringWrite
	}
	r.uring.put(op, b.p.fd, b.t.Data, b.t.Offset, uint64(slot))
	r.put++
	return true
}

// lone knows who asks for one thing at a time. That is done sooner by somebody who waits
// for it, since the kernel has two others woken for each end: 0.6 of the rate at queue depth
// one, where with 32 under way a ring has two to five times as much.
type lone struct {
	streak int // transfers that were alone
	skip   int // how many more are refused when they would be
}

const (
	loneEnough = 8   // transfers that were alone: the next ones are taken to be
	loneSkip   = 128 // transfers after which it is tried again
)

// note looks at what is pushed.
func (l *lone) note(alone bool) {
	l.streak++
	if !alone {
		l.streak = 0
	}
	if l.streak == loneEnough {
		*l = lone{skip: loneSkip}
	}
}

// refuses is asked about one that would be alone.
func (l *lone) refuses() bool {
	if l.skip == 0 {
		return false
	}
	l.skip--
	return true
}

// push tells the kernel of what was put.
func (r *ring) push() {
	r.mu.Lock()
	n := r.put
	r.put = 0
	if n == 0 {
		r.mu.Unlock()
		return
	}
	r.lone.note(len(r.free) == ringEntries-1)
	r.telling++
	r.mu.Unlock()
	r.told(r.tell(n))
}

// tell tells the kernel of n entries, whoever put them, and returns how many it did not
// take. Others may do so at the same time.
func (r *ring) tell(n uint32) (left uint32, err error) {
	for n > 0 {
		taken, errno := r.enter(n)
		switch errno {
		case 0:
			if taken == 0 {
				return 0, nil // there are no more
			}
			n -= taken
		case unix.EINTR:
		default:
			return n, errno
		}
	}
	return 0, nil
}

// told is the end of tell. A kernel that is short of memory is told again, and again. What
// one does not take that refuses is done without it.
func (r *ring) told(left uint32, err error) {
	if err == unix.EAGAIN || err == unix.EBUSY || err == unix.ENOMEM {
		r.tasks.Go(func() {
			time.Sleep(time.Millisecond)
			r.told(r.tell(left))
		})
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.telling--
	if err != nil {
		r.broken = err
	}
	if r.broken == nil || r.telling > 0 {
		return
	}
	r.put = 0
	for slot := range r.uring.takeBack {
		b := r.freeLocked(slot)
		r.tasks.Go(func() { b.finish(0, unix.ECANCELED) })
	}
}

// freeLocked frees a slot. r.mu is held.
func (r *ring) freeLocked(slot uint64) begun {
	b := r.slots[slot]
	r.slots[slot] = begun{}
	r.free = append(r.free, uint16(slot))
	return b
}

// reap ends what the kernel has done.
func (r *ring) reap() {
	type result struct {
		begun
		n     int
		errno syscall.Errno
	}
	for {
		var some [32]result
		n := 0
		r.mu.Lock()
		for ; n < len(some); n++ {
			slot, res, ok := r.uring.take()
			if !ok {
				break
			}
			some[n] = result{begun: r.freeLocked(slot), n: int(max(res, 0)), errno: syscall.Errno(max(-res, 0))}
		}
		r.mu.Unlock()
		for _, x := range some[:n] {
			if !x.end(x.n, x.errno, &r.batch) {
				r.tasks.Go(func() { x.finish(x.n, x.errno) })
			}
		}
		if n < len(some) {
			break
		}
	}
	r.batch.End()
}

// end ends b, of which n bytes are done, or nothing for errno. It is called by the ring's
// own goroutine, in a batch, and reports false when b is for one that may wait: finish.
func (b begun) end(n int, errno syscall.Errno, batch *Batch) bool {
	switch errno {
	case 0:
		if n < len(b.t.Data) {
			return false
		}
		b.tell(nil, batch)
	case syscall.EINTR, syscall.EAGAIN, syscall.EINVAL, syscall.ECANCELED:
		return false
	default:
		b.tell(b.p.failed(b.what(), b.t.Offset, int64(len(b.t.Data)), errno), batch)
	}
	return true
}

// finish does what is left of b, as ReadAt and WriteAt do it. Nothing is done for errno, and
// nothing that was done is done again.
func (b begun) finish(n int, errno syscall.Errno) {
	p, t := b.p, b.t
	var err error
	switch {
	case errno == syscall.EINVAL:
		p.starting.refused.Store(true)
		fallthrough
	case errno != 0:
		if b.write {
			_, err = p.writeDirect(t.Data, t.Offset)
		} else {
			_, err = p.readDirect(t.Data, t.Offset)
		}
	case b.write:
		_, err = p.transfer("write", unix.Pwrite, writePiece, t.Data, t.Offset, n, nil)
	default:
		_, err = p.transfer("read", unix.Pread, maxTransfer, t.Data, t.Offset, n, nil)
	}
	b.tell(err, nil)
}

// tell tells whoever began b of its end.
func (b begun) tell(err error, batch *Batch) {
	b.t.Err, b.t.Batch = err, batch
	b.t.End.Ended(b.t)
	b.p.starting.pending.Done()
}

func (b begun) what() string {
	if b.write {
		return "write"
	}
	return "read"
}

// errUnderWay: memory that the kernel writes to must stay.
var errUnderWay = errors.New("io_uring: something is under way")

func (r *ring) close() error {
	r.tasks.Wait()
	r.mu.Lock()
	busy := len(r.free) < ringEntries
	r.broken = os.ErrClosed
	r.mu.Unlock()
	if busy {
		return errUnderWay
	}
	err := r.f.Close()
	<-r.done
	return errors.Join(err, r.uring.unmap())
}
