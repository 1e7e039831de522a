package geomlib

import (
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What reads and writes need of linux/io_uring.h.
const (
	uringRead  = 22 // IORING_OP_READ
	uringWrite = 23 // IORING_OP_WRITE

	uringDisabled = 1 << 6 // IORING_SETUP_R_DISABLED

	uringRegisterFiles        = 2  // IORING_REGISTER_FILES
	uringRegisterRestrictions = 11 // IORING_REGISTER_RESTRICTIONS
	uringRegisterEnable       = 12 // IORING_REGISTER_ENABLE_RINGS
	uringRestrictOp           = 1  // IORING_RESTRICTION_SQE_OP

	uringOffSQ   = 0         // IORING_OFF_SQ_RING
	uringOffCQ   = 0x8000000 // IORING_OFF_CQ_RING
	uringOffSQEs = 0x10000000
)

// uringParams is struct io_uring_params.
type uringParams struct {
	sqEntries, cqEntries, flags, cpu, idle, features, wqFD uint32

	_  [3]uint32
	sq struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

// uringEntry is struct io_uring_sqe, as reads and writes have it.
type uringEntry struct {
	op, flags uint8
	_         uint16
	fd        int32
	off, addr uint64
	n         uint32
	_         uint32
	user      uint64
	_         [3]uint64
}

// uringResult is struct io_uring_cqe.
type uringResult struct {
	user uint64
	res  int32
	_    uint32
}

// uringRestriction is struct io_uring_restriction.
type uringRestriction struct {
	kind uint16
	op   uint8
	_    uint8
	_    [3]uint32
}

// uring is an io_uring: memory that is shared with the kernel, and its calls. One goroutine
// at a time puts entries or takes them back, one takes results, and all may enter.
type uring struct {
	fd             int
	sq, cq, sqes   []byte // mapped
	sqHead, sqTail *atomic.Uint32
	cqHead, cqTail *atomic.Uint32
	sqMask, cqMask uint32
	cqesAt         uint32 // in cq
}

// open makes u, which takes so many entries at a time and does these operations alone. The
// kernel keeps until open, if that is not nil, while u has something under way, be it after
// the death of this process.
func (u *uring) open(entries uint32, until *os.File, ops ...uint8) (err error) {
	p := uringParams{flags: uringDisabled}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return notMade(errno)
	}
	u.fd = int(fd)
	defer func() {
		if err != nil {
			_ = u.unmap() // the first error is the one to tell
			_ = unix.Close(u.fd)
		}
	}()
	if err := u.restrict(until, ops); err != nil {
		return err
	}
	if err := u.share(&p); err != nil {
		return err
	}
	if _, errno := u.enter(0); errno != 0 { // what makes rings may be allowed, and this not
		return fmt.Errorf("enter: %w: %w", ErrNotSupported, errno)
	}
	return unix.SetNonblock(u.fd, true) // for the runtime's poller
}

// notMade says why there is no ring: a container or kernel.io_uring_disabled keeps it from
// this process, the kernel is too old, or something went wrong.
func notMade(errno syscall.Errno) error {
	switch errno {
	case unix.EPERM, unix.EACCES, unix.ENOSYS, unix.EINVAL:
		return fmt.Errorf("set up: %w: %w", ErrNotSupported, errno)
	}
	return fmt.Errorf("set up: %w", errno)
}

// restrict allows u nothing but these operations, of no flags, and enables it. Nothing can be
// registered any more: no file, no memory, and no other user's rights.
func (u *uring) restrict(until *os.File, ops []uint8) error {
	if until != nil {
		fd := int32(until.Fd())
		if errno := u.register(uringRegisterFiles, unsafe.Pointer(&fd), 1); errno != 0 {
			return fmt.Errorf("register a file: %w", errno)
		}
	}
	only := make([]uringRestriction, 0, len(ops))
	for _, op := range ops {
		only = append(only, uringRestriction{kind: uringRestrictOp, op: op})
	}
	if errno := u.register(uringRegisterRestrictions, unsafe.Pointer(unsafe.SliceData(only)), len(only)); errno != 0 {
		return fmt.Errorf("restrict: %w: %w", ErrNotSupported, errno)
	}
	if errno := u.register(uringRegisterEnable, nil, 0); errno != 0 {
		return fmt.Errorf("enable: %w", errno)
	}
	return nil
}

func (u *uring) register(what uintptr, of unsafe.Pointer, n int) syscall.Errno {
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(u.fd), what, uintptr(of), uintptr(n), 0, 0)
	return errno
}

// share maps what is shared with the kernel.
func (u *uring) share(p *uringParams) error {
	for _, m := range []struct {
		to   *[]byte
		off  int64
		size uint32
	}{
		{&u.sq, uringOffSQ, p.sq.array + 4*p.sqEntries},
		{&u.cq, uringOffCQ, p.cq.cqes + uint32(unsafe.Sizeof(uringResult{}))*p.cqEntries},
		{&u.sqes, uringOffSQEs, uint32(unsafe.Sizeof(uringEntry{})) * p.sqEntries},
	} {
		mem, err := unix.Mmap(u.fd, m.off, int(m.size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
		if err != nil {
			return fmt.Errorf("map: %w", err)
		}
		*m.to = mem
	}
	u.sqHead, u.sqTail, u.sqMask = wordOf(u.sq, p.sq.head), wordOf(u.sq, p.sq.tail), p.sqEntries-1
	u.cqHead, u.cqTail, u.cqMask = wordOf(u.cq, p.cq.head), wordOf(u.cq, p.cq.tail), p.cqEntries-1
	u.cqesAt = p.cq.cqes
	for i := range p.sqEntries { // entry i is always at i
		wordOf(u.sq, p.sq.array+4*i).Store(i)
	}
	return nil
}

func wordOf(mem []byte, at uint32) *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&mem[at])) }

// unmap gives the memory back. The descriptor is somebody else's to close.
func (u *uring) unmap() error {
	var err error
	for _, m := range []*[]byte{&u.sq, &u.cq, &u.sqes} {
		if *m == nil {
			continue
		}
		if e := unix.Munmap(*m); err == nil {
			err = e
		}
		*m = nil
	}
	return err
}

func (u *uring) entry(i uint32) *uringEntry {
	return (*uringEntry)(unsafe.Pointer(&u.sqes[uintptr(i&u.sqMask)*unsafe.Sizeof(uringEntry{})]))
}

// put puts an entry. b must stay alive, and be the kernel's, until its result is taken,
// which has user, too; there must be room.
func (u *uring) put(op uint8, fd int, b []byte, off int64, user uint64) {
	tail := u.sqTail.Load()
	*u.entry(tail) = uringEntry{op: op, fd: int32(fd), off: uint64(off),
		addr: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))), n: uint32(len(b)), user: user}
	u.sqTail.Store(tail + 1)
}

// takeBack yields the users of the entries that the kernel did not take, and will not.
func (u *uring) takeBack(yield func(user uint64) bool) {
	head, tail := u.sqHead.Load(), u.sqTail.Load()
	u.sqTail.Store(head)
	for ; head != tail && yield(u.entry(head).user); head++ {
	}
}

// enter has the kernel take n entries, or fewer, and returns how many it took.
func (u *uring) enter(n uint32) (taken uint32, errno syscall.Errno) {
	t, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(u.fd), uintptr(n), 0, 0, 0, 0)
	return uint32(t), errno
}

// take takes the next result: bytes, or an errno value that is negative.
func (u *uring) take() (user uint64, res int32, ok bool) {
	head := u.cqHead.Load()
	if head == u.cqTail.Load() {
		return 0, 0, false
	}
	r := (*uringResult)(unsafe.Pointer(&u.cq[uintptr(u.cqesAt)+uintptr(head&u.cqMask)*unsafe.Sizeof(uringResult{})]))
	user, res = r.user, r.res
	u.cqHead.Store(head + 1)
	return user, res, true
}
