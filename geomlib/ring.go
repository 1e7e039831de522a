package geomlib

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Rings have the kernel do reads and writes of files and devices that go past its cache,
// without a thread that waits for each (io_uring(7)). Files that are opened with them are
// Starters. Their methods may be called by many goroutines at once.
//
// Rings can do nothing that pread(2) and pwrite(2) cannot: a filter of system calls does not
// see what a ring is asked for, so they are restricted, for good, to reads and writes at the
// descriptors that the process has. They are to be made before the filter is loaded, which
// must allow io_uring_enter(2) and nothing else of it.
//
// A flush needs no order with what they are asked for: it covers writes that ended before it
// began, and those are done.
type Rings struct {
	all  []*ring
	next atomic.Uint32
}

// MaxRings bounds the rings of a process, each of which has a descriptor. One serves the
// files of many components; those on different ones share no lock.
const MaxRings = 4

// NewRings makes the rings of a process. ErrNotSupported: the kernel has none, or keeps
// them from this process.
//
// What a process had begun goes on after its death, and does not delay that, unlike a call
// that waits for a disk. The kernel keeps the files open meanwhile, and so their locks. A
// process whose files another one has open, too, has rings keep until open as well, which
// it may close: when nobody has that open any more, all is done. It may be nil.
func NewRings(until *os.File) (*Rings, error) {
	rs := new(Rings)
	for range min(runtime.NumCPU(), MaxRings) {
		r, err := newRing(until)
		if err != nil {
			return nil, errors.Join(err, rs.Close())
		}
		rs.all = append(rs.all, r)
	}
	return rs, nil
}

// Close gives the rings back, which fails while they have something under way. Files that
// were opened with them are to be closed before.
func (rs *Rings) Close() error {
	var err error
	for _, r := range rs.all {
		err = errors.Join(err, r.close())
	}
	return err
}

// take is the ring of a further file.
func (rs *Rings) take() *ring { return rs.all[int(rs.next.Add(1)-1)%len(rs.all)] }

// starting is what a file has of a ring.
type starting struct {
	ring    *ring          // nil: none
	pending sync.WaitGroup // transfers
	refused atomic.Bool    // the device asks for other memory than most
}

// end waits for the transfers that are under way, and those that were never sent.
func (s *starting) end() {
	if s.ring == nil {
		return
	}
	s.ring.push()
	s.pending.Wait()
}

// startingFile is a file whose reads and writes a ring does.
type startingFile struct {
	*file
	starter
}

// startingSparse is a sparseFile whose reads and writes a ring does.
type startingSparse struct {
	sparseFile
	starter
}

var _, _ Starter = startingFile{}, startingSparse{}

// starter implements Starter.
type starter struct{ of *file }

// StartRead is Starter's.
func (s starter) StartRead(t *Transfer) bool {
	return s.of.suitsRing(t) && s.of.check("read", t.Offset, int64(len(t.Data))) == nil && s.of.start(t, false)
}

// StartWrite is Starter's.
func (s starter) StartWrite(t *Transfer) bool {
	return s.of.suitsRing(t) && s.of.checkWrite("write", t.Offset, int64(len(t.Data))) == nil && s.of.start(t, true)
}

// Push is Starter's.
func (s starter) Push() { s.of.starting.ring.push() }

// suitsRing reports whether all of t can go between memory and the device.
func (p *file) suitsRing(t *Transfer) bool {
	return len(t.Data) > 0 && len(t.Data) <= maxTransfer && suits(t.Data) && !p.starting.refused.Load()
}

func (p *file) start(t *Transfer, write bool) bool {
	p.starting.pending.Add(1)
	if p.starting.ring.start(begun{p, t, write}) {
		return true
	}
	p.starting.pending.Done()
	return false
}

// begun is a transfer that a ring has.
type begun struct {
	p     *file
	t     *Transfer
	write bool
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
