package geomlib

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// testRings makes rings, or skips the test where there are none.
func testRings(t *testing.T, until *os.File) *Rings {
	t.Helper()
	rs, err := NewRings(until)
	if errors.Is(err, ErrNotSupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rs.Close(); err != nil {
			t.Error(err)
		}
	})
	return rs
}

// ringed is a file of n bytes that is opened with rings.
func ringed(t *testing.T, n int64, o OpenOptions) (Starter, *file) {
	t.Helper()
	o.Direct, o.SectorSize, o.Rings = true, 4096, testRings(t, nil)
	p, err := Open(newFile(t, n), o)
	if errors.Is(err, ErrNotSupported) {
		t.Skip("the file system of temporary files has no O_DIRECT: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	if s, ok := p.(startingSparse); ok {
		return s, s.file
	}
	return p.(Starter), p.(startingFile).file
}

// pages is memory that a device can be read into.
func pages(n int) []byte {
	b := make([]byte, n+alignment)
	skip := -int(uintptr(unsafe.Pointer(&b[0]))) & (alignment - 1)
	return b[skip : skip+n : skip+n]
}

// transfer is one whose end can be waited for.
type transfer struct {
	Transfer
	ended chan struct{}
}

func newTransfer(b []byte, off int64) *transfer {
	x := &transfer{Transfer: Transfer{Data: b, Offset: off}, ended: make(chan struct{}, 1)}
	x.End = x
	return x
}

func (x *transfer) Ended(*Transfer) { x.ended <- struct{}{} }

func (x *transfer) wait() error { <-x.ended; return x.Err }

// two begins two transfers of two pages each, so that they are not alone, and sends them.
func two(t *testing.T, begin func(*Transfer) bool, s Starter, b []byte, off int64) (first, second *transfer) {
	t.Helper()
	half := len(b) / 2
	first, second = newTransfer(b[:half], off), newTransfer(b[half:], off+int64(half))
	if !begin(&first.Transfer) || !begin(&second.Transfer) {
		t.Fatal("not begun")
	}
	s.Push()
	return first, second
}

// TestRingsDoWhatPreadAndPwriteDo: many at once, of any length, and what they wrote is read
// by the other way.
func TestRingsDoWhatPreadAndPwriteDo(t *testing.T) {
	const area, areas, rounds = 64 * 4096, 8, 60
	s, p := ringed(t, areas*area, OpenOptions{})
	var all sync.WaitGroup
	for k := range int64(areas) {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(k), 20))
			model := make([]byte, area)
			for range rounds {
				var under []*transfer
				var want [][]byte
				for at := 0; at < area; { // pieces that do not meet
					n := min((1+r.IntN(8))*4096, area-at)
					b := pages(n)
					x := newTransfer(b, k*area+int64(at))
					write := r.IntN(2) == 0
					begin, other := s.StartRead, p.ReadAt
					if write {
						begin, other = s.StartWrite, p.WriteAt
						for i := range b {
							b[i] = byte(r.Uint32())
						}
						copy(model[at:], b)
					}
					if begin(&x.Transfer) {
						under = append(under, x)
						want = append(want, model[at:at+n])
					} else if _, err := other(b, x.Offset); err != nil || !bytes.Equal(b, model[at:at+n]) {
						t.Errorf("%d bytes at %d by the other way: %v, or something else", n, x.Offset, err)
					}
					if r.IntN(4) == 0 {
						s.Push()
					}
					at += n
				}
				s.Push()
				for i, x := range under {
					if err := x.wait(); err != nil || !bytes.Equal(x.Data, want[i]) {
						t.Errorf("%d bytes at %d: %v, or something else", len(x.Data), x.Offset, err)
					}
				}
			}
			b := pages(area)
			if _, err := p.ReadAt(b, k*area); err != nil || !bytes.Equal(b, model) {
				t.Errorf("area %d: %v, or it holds something else", k, err)
			}
		})
	}
	all.Wait()
}

func TestRingsRefuseWhatOthersAreFor(t *testing.T) {
	s, p := ringed(t, mib, OpenOptions{})
	for what, x := range map[string]Transfer{
		"nothing":                    {},
		"memory of any address":      {Data: pages(8192)[1:4097]},
		"a part of a sector":         {Data: pages(4096)[:512]},
		"what is past the end":       {Data: pages(4096), Offset: mib},
		"what begins before a start": {Data: pages(4096), Offset: -4096},
	} {
		if s.StartRead(&x) || s.StartWrite(&x) {
			t.Errorf("%s is begun", what)
		}
	}
	p.readOnly = true
	if s.StartWrite(&newTransfer(pages(4096), 0).Transfer) {
		t.Error("a write to what is read-only is begun")
	}
	var all []*transfer
	for {
		x := newTransfer(pages(4096), 0)
		if !s.StartRead(&x.Transfer) {
			break
		}
		all = append(all, x)
	}
	if len(all) != ringEntries {
		t.Errorf("%d transfers at a time", len(all))
	}
	s.Push()
	for _, x := range all {
		if err := x.wait(); err != nil {
			t.Error(err)
		}
	}
}

// TestErrorsOfRingsAreThoseOfPread, and of pwrite.
func TestErrorsOfRingsAreThoseOfPread(t *testing.T) {
	s, p := ringed(t, mib, OpenOptions{})
	b := pages(32 << 10)
	if err := p.f.Truncate(24 << 10); err != nil {
		t.Fatal(err)
	}
	whole, short := two(t, s.StartRead, s, b, 0)
	if err := whole.wait(); err != nil {
		t.Error(err)
	}
	_, want := p.ReadAt(b[16<<10:], 16<<10)
	if err := short.wait(); !errors.Is(err, io.ErrUnexpectedEOF) || err.Error() != want.Error() {
		t.Errorf("a file that was cut short: %v, and not %v", err, want)
	}
	fd := p.fd
	p.fd = 1 << 20 // nothing is open there
	defer func() { p.fd = fd }()
	for what, begin := range map[string]func(*Transfer) bool{"read": s.StartRead, "write": s.StartWrite} {
		for _, x := range pair(two(t, begin, s, b, 0)) {
			want := p.failed(what, x.Offset, int64(len(x.Data)), syscall.EBADF)
			if err := x.wait(); !errors.Is(err, syscall.EBADF) || err.Error() != want.Error() {
				t.Errorf("a descriptor that is not open: %v, and not %v", err, want)
			}
		}
	}
}

func pair(a, b *transfer) []*transfer { return []*transfer{a, b} }

// TestWhatARingDidInPartIsFinished, whatever is left of it, and what it could not begin is
// done without it.
func TestWhatARingDidInPartIsFinished(t *testing.T) {
	s, p := ringed(t, mib, OpenOptions{})
	data := pages(16 << 10)
	for i := range data {
		data[i] = byte(i / 512)
	}
	if _, err := p.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	finish := func(x *transfer, write bool, n int, errno syscall.Errno) error {
		p.starting.pending.Add(1)
		b := begun{p, &x.Transfer, write}
		if b.end(n, errno, new(Batch)) {
			return errors.New("it is taken to have ended")
		}
		b.finish(n, errno)
		return x.wait()
	}
	for _, errno := range []syscall.Errno{0, syscall.EINTR, syscall.EAGAIN, syscall.ECANCELED, syscall.EINVAL} {
		n := 0
		if errno == 0 {
			n = 4096
		}
		x := newTransfer(pages(len(data)), 0)
		copy(x.Data[:n], data)
		if err := finish(x, false, n, errno); err != nil || !bytes.Equal(x.Data, data) {
			t.Errorf("read, %d bytes and %v: %v, or something else", n, errno, err)
		}
		x = newTransfer(data, 512<<10)
		if err := finish(x, true, n, errno); err != nil {
			t.Errorf("write, %d bytes and %v: %v", n, errno, err)
		}
		got := pages(len(data))
		if _, err := p.ReadAt(got, 512<<10); err != nil || !bytes.Equal(got[n:], data[n:]) || n > 0 && bytes.Equal(got[:n], data[:n]) {
			t.Errorf("write, %d bytes and %v: %v, or it wrote something else, or again what was written", n, errno, err)
		}
		if err := p.WriteZeroes(512<<10, 64<<10); err != nil {
			t.Fatal(err)
		}
	}
	if s.StartRead(&newTransfer(data, 0).Transfer) {
		t.Error("a device that refuses memory of most addresses is asked again")
	}
}

// TestARingThatIsRefusedIsDoneWithout, and one whose kernel is short of memory is told again.
func TestARingThatIsRefusedIsDoneWithout(t *testing.T) {
	s, p := ringed(t, mib, OpenOptions{})
	r, b := p.starting.ring, pages(16<<10)
	enter, short := r.enter, 0
	r.enter = func(n uint32) (uint32, syscall.Errno) {
		if short++; short <= 3 {
			return 0, []syscall.Errno{unix.EAGAIN, unix.EINTR, unix.EBUSY}[short-1]
		}
		return enter(min(n, 1)) // and it takes one at a time
	}
	for i := range b {
		b[i] = 7
	}
	for _, x := range pair(two(t, s.StartWrite, s, b, 0)) {
		if err := x.wait(); err != nil {
			t.Error(err)
		}
	}
	if short != 5 {
		t.Errorf("the kernel was told %d times", short)
	}
	r.tasks.Wait()
	r.enter = func(uint32) (uint32, syscall.Errno) { return 0, unix.EPERM }
	got := pages(len(b))
	for _, x := range pair(two(t, s.StartRead, s, got, 0)) {
		if err := x.wait(); err != nil {
			t.Error(err)
		}
	}
	if !bytes.Equal(got, b) {
		t.Error("something else was read")
	}
	if s.StartRead(&newTransfer(got, 0).Transfer) {
		t.Error("it is asked again")
	}
}

// TestCloseWaitsForWhatARingHas, and has it sent that was not.
func TestCloseWaitsForWhatARingHas(t *testing.T) {
	s, p := ringed(t, mib, OpenOptions{})
	var all []*transfer
	for i := range 64 {
		x := newTransfer(pages(4096), int64(i)*4096)
		if !s.StartWrite(&x.Transfer) {
			t.Fatal("not begun")
		}
		all = append(all, x)
	}
	if err := p.starting.ring.close(); err != errUnderWay {
		t.Fatalf("a ring with something under way is closed: %v", err)
	}
	p.starting.ring.broken = nil
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	for _, x := range all {
		select {
		case <-x.ended:
			if x.Err != nil {
				t.Error(x.Err)
			}
		default:
			t.Fatal("the file was closed before a write had ended")
		}
	}
}

func TestWhatIsAloneIsLeftToWhoWaits(t *testing.T) {
	s, _ := ringed(t, mib, OpenOptions{})
	x := newTransfer(pages(4096), 0)
	begun := func() (n int) {
		for s.StartRead(&x.Transfer) {
			s.Push()
			if err := x.wait(); err != nil {
				t.Fatal(err)
			}
			n++
		}
		return n
	}
	if n := begun(); n != loneEnough {
		t.Errorf("%d that were alone", n)
	}
	for n := 1; n < loneSkip; n++ {
		if s.StartRead(&x.Transfer) {
			t.Fatalf("tried again after %d", n)
		}
	}
	for range 3 * loneEnough {
		a, b := two(t, s.StartRead, s, pages(8192), 0)
		if err := errors.Join(a.wait(), b.wait()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTransfersOfARingAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	s, _ := ringed(t, mib, OpenOptions{})
	a, b := newTransfer(pages(4096), 0), newTransfer(pages(4096), 4096)
	n := testing.AllocsPerRun(500, func() {
		if !s.StartRead(&a.Transfer) || !s.StartWrite(&b.Transfer) {
			t.Error("not begun")
			return
		}
		s.Push()
		if err := errors.Join(a.wait(), b.wait()); err != nil {
			t.Error(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestARingDoesNothingButReadsAndWrites: what a filter of system calls would not see is
// refused by the kernel, and nothing makes it less strict again.
func TestARingDoesNothingButReadsAndWrites(t *testing.T) {
	testRings(t, nil)
	for _, what := range beyond(t, uringRead, uringWrite) {
		t.Error(what)
	}
}

// TestARingThatDoesMoreIsNoticed, by what the one before looks at.
func TestARingThatDoesMoreIsNoticed(t *testing.T) {
	testRings(t, nil)
	for _, op := range []uint8{18, 28, 16, 19} { // open, open by openat2, connect, close
		if len(beyond(t, uringRead, uringWrite, op)) == 0 {
			t.Errorf("a ring that does operation %d is not noticed", op)
		}
	}
}

// beyond is what a ring of these operations does that is no read or write.
func beyond(t *testing.T, ops ...uint8) (done []string) {
	t.Helper()
	var u uring
	if err := u.open(8, nil, ops...); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = u.unmap(), unix.Close(u.fd) }()
	path := append(pages(512)[:0], "/etc/passwd\x00"...)
	f, err := os.Open(newFile(t, mib))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	do := func(op, flags uint8, fd int, b []byte) int32 {
		u.put(op, fd, b, 0, 5)
		u.entry(u.sqTail.Load() - 1).flags = flags
		for taken, errno := u.enter(1); taken != 1; taken, errno = u.enter(1) {
			if errno != unix.EINTR {
				t.Fatal(errno)
			}
		}
		for {
			if user, res, ok := u.take(); ok {
				if user != 5 {
					t.Errorf("it is of another: %d", user)
				}
				return res
			}
			if _, err := unix.Poll([]unix.PollFd{{Fd: int32(u.fd), Events: unix.POLLIN}}, -1); err != nil && err != unix.EINTR {
				t.Fatal(err)
			}
		}
	}
	if res := do(uringRead, 0, int(f.Fd()), path[:4:4]); res != 4 {
		t.Errorf("a read: %d", res)
	}
	copy(path, "/etc")
	for op := range uint8(64) {
		if op == uringRead || op == uringWrite {
			continue
		}
		if res := do(op, 0, unix.AT_FDCWD, path); res != -int32(unix.EACCES) && (res != -int32(unix.EINVAL) || op < 34) { // Linux 5.10 has 34
			done = append(done, fmt.Sprintf("operation %d: %d", op, res))
		}
	}
	for bit := range 8 {
		if res := do(uringRead, 1<<bit, int(f.Fd()), path[:4:4]); res != -int32(unix.EACCES) && res != -int32(unix.EINVAL) {
			done = append(done, fmt.Sprintf("flag %d: %d", bit, res))
		}
	}
	fd := int32(f.Fd())
	for what := range uintptr(40) {
		if errno := u.register(what, unsafe.Pointer(&fd), 1); errno == 0 {
			done = append(done, fmt.Sprintf("register %d succeeds", what))
		}
	}
	return done
}

// TestRingsKeepAFileOpen: whoever has the other end of a pipe knows when all is done.
func TestRingsKeepAFileOpen(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fd := int(r.Fd())
	rs, err := NewRings(w)
	if errors.Is(err, ErrNotSupported) {
		t.Skip(err)
	}
	if err := errors.Join(err, w.Close(), unix.SetNonblock(fd, true)); err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Read(fd, make([]byte, 1)); err != unix.EAGAIN {
		t.Fatalf("%d bytes, %v: it is not open", n, err)
	}
	if err := rs.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Read(fd, make([]byte, 1)); n != 0 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestWhoHasNoRingsIsTold(t *testing.T) {
	testRings(t, nil)
	for _, errno := range []syscall.Errno{unix.EPERM, unix.ENOSYS} {
		if err := notMade(errno); !errors.Is(err, ErrNotSupported) || !strings.Contains(err.Error(), errno.Error()) {
			t.Error(err)
		}
	}
	if err := notMade(unix.EMFILE); errors.Is(err, ErrNotSupported) {
		t.Error(err)
	}
}
