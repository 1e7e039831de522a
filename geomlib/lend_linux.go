package geomlib

import (
	"errors"
	"os"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// windowSize is how much of a file one window maps, bytes. What goes beyond its end is
	// not lent.
	windowSize = 32 << 20
	// maxWindows bounds the windows of a file. A page of 4 KiB that was lent once takes 8
	// bytes of page tables: 1 MiB in all.
	maxWindows = 16
	// mostLent bounds a loan, bytes.
	mostLent = 4 << 20
)

// windows map parts of a file. They are of pages of the page cache, which is what read(2)
// copies from.
type windows struct {
	mu   sync.Mutex
	cond sync.Cond // a loan ended while somebody waits for that

	refused  bool // the file cannot be mapped, or is not to be
	asked    bool // whether it is was asked
	tells    bool // the system tells which pages it has; to others it says all
	dropping int  // who wants nothing mapped
	list     []*window
	clock    uint64 // counts loans
}

// window is a part of a file that is mapped.
type window struct {
	of    *windows
	index int64 // of windowSize
	mem   []byte
	loans int
	used  uint64 // windows.clock when it was lent last
}

// Lend implements Lender for files and devices that the page cache holds.
func (p *file) Lend(off, n int64, wait bool) (l Loan, ok bool) {
	index, in := off/windowSize, off%windowSize
	if p.direct || off < 0 || n <= 0 || n > mostLent || in+n > windowSize || n > p.size-off {
		return Loan{}, false
	}
	w := p.windows.take(p, index, wait)
	if w == nil {
		return Loan{}, false
	}
	l = Loan{w.mem[in : in+n : in+n], lent{w}}
	if !present(l.Memory, wait) {
		l.End()
		return Loan{}, false
	}
	return l, true
}

// lent is the window that a loan is of, or nil where another provider lends.
type lent struct{ from *window }

// End ends the loan.
func (l lent) End() {
	if l.from == nil {
		return
	}
	ws := l.from.of
	ws.mu.Lock()
	defer ws.mu.Unlock()
	l.from.loans--
	if ws.dropping > 0 {
		ws.cond.Broadcast()
	}
}

// take returns the window of an index, lent, or nil.
func (ws *windows) take(p *file, index int64, wait bool) *window {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if !ws.asked {
		ws.askLocked(p)
	}
	if ws.refused || ws.dropping > 0 || !wait && !ws.tells {
		return nil
	}
	w := ws.findLocked(p, index)
	if w != nil {
		ws.clock++
		w.used = ws.clock
		w.loans++
	}
	return w
}

// askLocked finds out what may be lent of p. Where the page cache is another host's as
// well, read(2) asks that one, and what is mapped does not.
func (ws *windows) askLocked(p *file) {
	ws.asked = true
	var st unix.Stat_t
	err := ignoringEINTR(func() error { return unix.Fstat(p.fd, &st) })
	if err != nil || unsafe.Sizeof(uintptr(0)) < 8 || p.kind != KindDevice && !local(p.fd) {
		ws.refused = true
		return
	}
	ws.tells = os.Geteuid() == int(st.Uid) // root may have lost what makes it more (mincore(2))
}

// local reports whether a file is on one of the file systems of disks that are known to
// keep what is mapped and what is read in the same pages.
func local(fd int) bool {
	var st unix.Statfs_t
	if err := ignoringEINTR(func() error { return unix.Fstatfs(fd, &st) }); err != nil {
		return false
	}
	switch uint32(st.Type) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC:
		return true
	}
	return false
}

// findLocked returns a window, which it maps if it must, or nil.
func (ws *windows) findLocked(p *file, index int64) *window {
	var idle *window
	for _, w := range ws.list {
		if w.index == index {
			return w
		}
		if w.loans == 0 && (idle == nil || w.used < idle.used) {
			idle = w
		}
	}
	if len(ws.list) >= maxWindows {
		if idle == nil || ws.unmapLocked(idle) != nil {
			return nil
		}
	}
	start := index * windowSize
	mem, err := unix.Mmap(p.fd, start, int(min(windowSize, p.size-start)), unix.PROT_READ, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		ws.refused = len(ws.list) == 0 // else it is too much for the process just now
		return nil
	}
	w := &window{of: ws, index: index, mem: mem}
	ws.list = append(ws.list, w)
	return w
}

func (ws *windows) unmapLocked(w *window) error {
	i := slices.Index(ws.list, w)
	ws.list = slices.Delete(ws.list, i, i+1)
	return unix.Munmap(w.mem)
}

// drop runs do while nothing is mapped: the page cache forgets no page that is.
func (ws *windows) drop(do func() error) error {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.cond.L = &ws.mu
	ws.dropping++
	defer func() { ws.dropping-- }()
	var err error
	for len(ws.list) > 0 && err == nil {
		w := ws.list[len(ws.list)-1]
		if w.loans > 0 {
			ws.cond.Wait() // somebody else who drops may unmap it meanwhile
			continue
		}
		err = ws.unmapLocked(w)
	}
	if err != nil {
		return err
	}
	ws.mu.Unlock()
	defer ws.mu.Lock()
	return do()
}

// close unmaps all. Nothing is lent.
func (ws *windows) close() error {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	var err error
	for len(ws.list) > 0 {
		err = errors.Join(err, ws.unmapLocked(ws.list[0]))
	}
	ws.refused, ws.asked = true, true
	return err
}

// present reports whether mem is in the page cache. With wait it is fetched.
func present(mem []byte, wait bool) bool {
	page := uintptr(os.Getpagesize())
	start := uintptr(unsafe.Pointer(unsafe.SliceData(mem)))
	first := start &^ (page - 1)
	n := start + uintptr(len(mem)) - first
	if wait {
		// It fails where touching the memory would be a signal (madvise(2)).
		_, _, errno := unix.Syscall(unix.SYS_MADVISE, first, n, unix.MADV_POPULATE_READ)
		return errno == 0
	}
	var in [mostLent/minPage + 1]byte
	_, _, errno := unix.RawSyscall(unix.SYS_MINCORE, first, n, uintptr(unsafe.Pointer(&in)))
	if errno != 0 {
		return false
	}
	for _, b := range in[:(n+page-1)/page] {
		if b&1 == 0 {
			return false
		}
	}
	return true
}

// minPage is the least size that pages have, bytes.
const minPage = 4096
