package geomlib

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// lendingDir is a folder for temporary files of which something is lent, whatever the file
// system of the others is; without one the test is skipped.
func lendingDir(t *testing.T) string {
	t.Helper()
	shm, err := os.MkdirTemp("/dev/shm", "geomlib")
	if err == nil {
		t.Cleanup(func() { os.RemoveAll(shm) })
	}
	for _, dir := range []string{t.TempDir(), shm} {
		path := filepath.Join(dir, "tried")
		if os.WriteFile(path, make([]byte, 4096), 0o600) != nil {
			continue
		}
		if l, ok := mustOpen(t, path, OpenOptions{}).(Lender).Lend(0, 4096, true); ok {
			l.End()
			return dir
		}
	}
	t.Skip("nothing is lent of files here")
	return ""
}

// lendingFile is a file of size bytes that lends, and what it holds.
func lendingFile(t *testing.T, size int64) (*file, []byte) {
	t.Helper()
	path := filepath.Join(lendingDir(t), "lent")
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i/4096 + i)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	var f *file
	switch p := mustOpen(t, path, OpenOptions{}).(type) {
	case *file:
		f = p
	case sparseFile:
		f = p.file
	}
	return f, data
}

// passed is what a system call finds in memory that is lent.
func passed(t *testing.T, l Loan) ([]byte, error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	var got []byte
	for left := l.Memory; len(left) > 0; {
		n, err := unix.Write(int(w.Fd()), left[:min(len(left), 4096)])
		if err != nil {
			return got, err
		}
		b := make([]byte, n)
		if _, err := r.Read(b); err != nil {
			t.Fatal(err)
		}
		got, left = append(got, b...), left[n:]
	}
	return got, nil
}

func TestWhatIsLentIsWhatIsRead(t *testing.T) {
	f, data := lendingFile(t, windowSize+512)
	for _, r := range [][2]int64{{0, 512}, {512, 1 << 20}, {windowSize - 4096, 4096}, {windowSize, 512}, {4096 + 512, 8192}} {
		for _, wait := range []bool{true, false} {
			l, ok := f.Lend(r[0], r[1], wait)
			if !ok {
				t.Fatalf("%d bytes at %d are not lent, wait %v", r[1], r[0], wait)
			}
			got, err := passed(t, l)
			l.End()
			if err != nil || !bytes.Equal(got, data[r[0]:r[0]+r[1]]) {
				t.Errorf("%d bytes at %d: %d others, %v", r[1], r[0], len(got), err)
			}
		}
	}
	for _, r := range [][2]int64{{-512, 512}, {0, 0}, {0, mostLent + 512}, {windowSize - 512, 1024}, {windowSize, 1024}, {windowSize + 512, 512}} {
		if _, ok := f.Lend(r[0], r[1], true); ok {
			t.Errorf("%d bytes at %d are lent", r[1], r[0])
		}
	}
	// What is written while it is lent may be seen.
	l, _ := f.Lend(0, 512, true)
	defer l.End()
	if _, err := f.WriteAt(bytes.Repeat([]byte("x"), 512), 0); err != nil {
		t.Fatal(err)
	}
	if got, err := passed(t, l); err != nil || !bytes.Equal(got, bytes.Repeat([]byte("x"), 512)) {
		t.Errorf("what is lent and what is read are different pages: %q, %v", got[:8], err)
	}
}

// TestWhatIsNotInTheCacheIsLentToWhoWaits, and is forgotten by DropCache though it was lent.
func TestWhatIsNotInTheCacheIsLentToWhoWaits(t *testing.T) {
	f, _ := lendingFile(t, 8<<20)
	if !f.ReadCached(make([]byte, 4096), 4<<20) {
		t.Skip("this file system does not tell what it has in its cache")
	}
	if err := PassCache(f); err != nil {
		t.Skip(err)
	}
	if f.ReadCached(make([]byte, 4096), 4<<20) {
		t.Skip("this file system's cache forgets nothing")
	}
	if l, ok := f.Lend(4<<20, 1<<20, false); ok {
		l.End()
		t.Error("lent without waiting for the device")
	}
	l, ok := f.Lend(4<<20, 1<<20, true)
	if !ok {
		t.Fatal("not lent to who waits")
	}
	l.End()
	if !f.ReadCached(make([]byte, 1<<20), 4<<20) {
		t.Error("not fetched")
	}
	if err := f.DropCache(); err != nil {
		t.Fatal(err)
	}
	if f.ReadCached(make([]byte, 4096), 4<<20) {
		t.Error("what was lent stays in the cache when that is dropped")
	}
}

// TestDroppingTheCacheWaitsForLoans, and lends nothing meanwhile.
func TestDroppingTheCacheWaitsForLoans(t *testing.T) {
	f, _ := lendingFile(t, 1<<20)
	l, ok := f.Lend(0, 4096, true)
	if !ok {
		t.Fatal("not lent")
	}
	dropped := make(chan error, 1)
	go func() { dropped <- f.DropCache() }()
	for {
		other, ok := f.Lend(4096, 4096, true)
		if !ok {
			break // it is waiting
		}
		other.End()
	}
	select {
	case err := <-dropped:
		t.Errorf("dropped while it is lent: %v", err)
	default:
	}
	if _, err := passed(t, l); err != nil {
		t.Error(err)
	}
	l.End()
	if err := <-dropped; err != nil && !errors.Is(err, ErrNotSupported) {
		t.Error(err)
	}
	l, ok = f.Lend(0, 4096, true)
	if !ok {
		t.Fatal("nothing is lent afterwards")
	}
	l.End()
}

// TestTheCacheMayBeDroppedByTwoAtOnce: what one has unmapped the other does not unmap again,
// where something else may lie by then.
func TestTheCacheMayBeDroppedByTwoAtOnce(t *testing.T) {
	f, _ := lendingFile(t, 1<<20)
	l, ok := f.Lend(0, 4096, true)
	if !ok {
		t.Fatal("not lent")
	}
	const droppers = 2
	dropped := make(chan error, droppers)
	for range droppers {
		go func() { dropped <- f.DropCache() }()
	}
	for all := false; !all; {
		f.windows.mu.Lock()
		all = f.windows.dropping == droppers
		f.windows.mu.Unlock()
	}
	l.End()
	for range droppers {
		if err := <-dropped; err != nil && !errors.Is(err, ErrNotSupported) {
			t.Error(err)
		}
	}
}

// TestAFileThatIsCutShortIsNoSignal: who passes its memory on is told, and what is gone is
// not lent to who waits for it.
func TestAFileThatIsCutShortIsNoSignal(t *testing.T) {
	f, _ := lendingFile(t, 1<<20)
	l, ok := f.Lend(512<<10, 8192, true)
	if !ok {
		t.Fatal("not lent")
	}
	defer l.End()
	if err := f.f.Truncate(4096); err != nil {
		t.Fatal(err)
	}
	if _, err := passed(t, l); err != unix.EFAULT {
		t.Errorf("passed on with %v", err)
	}
	if _, ok := f.Lend(512<<10, 8192, true); ok {
		t.Error("lent again")
	}
	if _, err := f.ReadAt(make([]byte, 512), 512<<10); err == nil {
		t.Error("it can be read")
	}
}

// TestLendingMapsAFewWindows, whichever parts of a file are lent, and those that are lent
// stay.
func TestLendingMapsAFewWindows(t *testing.T) {
	path := filepath.Join(lendingDir(t), "large")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, (maxWindows+4)*windowSize)); err != nil {
		t.Fatal(err)
	}
	p := mustOpen(t, path, OpenOptions{})
	first, ok := p.(Lender).Lend(0, 4096, true)
	if !ok {
		t.Fatal("nothing is lent")
	}
	defer first.End()
	var loans []Loan
	for i := int64(1); i < maxWindows+4; i++ {
		l, ok := p.(Lender).Lend(i*windowSize, 4096, true)
		if !ok {
			t.Fatalf("window %d is not lent", i)
		}
		l.End()
	}
	for i := int64(1); i < maxWindows+4; i++ {
		l, ok := p.(Lender).Lend(i*windowSize, 4096, true)
		if ok != (i < maxWindows) {
			t.Errorf("window %d is lent beside %d: %v", i, i, ok)
		}
		if ok {
			loans = append(loans, l)
		}
	}
	if n := len(first.from.of.list); n != maxWindows {
		t.Errorf("%d windows", n)
	}
	if got, err := passed(t, first); err != nil || !bytes.Equal(got, make([]byte, 4096)) {
		t.Errorf("what was lent all the time: %v", err)
	}
	for _, l := range loans {
		l.End()
	}
}

func TestNothingIsLentPastTheCache(t *testing.T) {
	path := filepath.Join(t.TempDir(), "direct")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := Open(path, OpenOptions{Direct: true, SectorSize: 4096})
	if err != nil {
		t.Skip(err)
	}
	defer p.Close()
	if _, ok := p.(Lender).Lend(0, 4096, true); ok {
		t.Error("lent")
	}
}
