package geomlib

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
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
