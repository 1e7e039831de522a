package geomlib

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// gatekeeper is a Guard that a test opens and shuts.
type gatekeeper struct {
	may    atomic.Bool
	waited atomic.Int32
	wait   func() error
}

func (g *gatekeeper) MaySend() bool { return g.may.Load() }
func (g *gatekeeper) Wait() error   { g.waited.Add(1); return g.wait() }
func (g *gatekeeper) Regained(context.Context, Guarded, Once) error {
	return errors.New("nothing was lost")
}

func openShared(t *testing.T, path string) Guarded {
	t.Helper()
	p, err := Shared{}.Open(path, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	g, ok := p.(Guarded)
	if !ok {
		t.Fatalf("%T is not guarded", p)
	}
	return g
}

// TestWhatCouldNotBeSharedGoesByTheCacheAgain: else its owner could read nothing of it, whose
// memory is not aligned.
func TestWhatCouldNotBeSharedGoesByTheCacheAgain(t *testing.T) {
	path := newFile(t, mib)
	p, err := Open(path, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	if err := os.Truncate(path, 512); err != nil {
		t.Fatal(err)
	}
	if _, err := Share(p); !errors.Is(err, ErrNotShared) {
		t.Fatalf("shared without its end: %v", err)
	}
	f, _, _ := DescriptorOf(p)
	if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0); err != nil || flags&unix.O_DIRECT != 0 {
		t.Errorf("flags %#x, %v", flags, err)
	}
}

// TestASharedProviderIsReadPastTheCache: pages that another opener of the file keeps are not
// what it reads, and what it writes leaves none.
func TestASharedProviderIsReadPastTheCache(t *testing.T) {
	p := openShared(t, newFile(t, mib))
	f, _, _ := DescriptorOf(p)
	if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0); err != nil || flags&unix.O_DIRECT == 0 {
		t.Fatalf("flags %#x, %v", flags, err)
	}
	// Neither the memory nor the length is what a device asks for.
	memory := make([]byte, bounceSize+2*alignment)
	for _, skip := range []int{0, 8, 512, alignment - 1} {
		b := memory[skip : skip+bounceSize+512]
		for i := range b {
			b[i] = byte(i*7 + skip)
		}
		if n, err := p.WriteAt(b, 512); n != len(b) || err != nil {
			t.Fatal(n, err)
		}
		got := make([]byte, len(b)+1)[1:]
		if n, err := p.ReadAt(got, 512); n != len(b) || err != nil || !bytes.Equal(got, b) {
			t.Errorf("memory at %d: read %d bytes, %v, the same: %t", skip, n, err, bytes.Equal(got, b))
		}
		if err := p.WriteOnce(b[:512], 0); err != nil {
			t.Fatal(err)
		}
		if err := p.ReadOnce(got[:512], 0); err != nil || !bytes.Equal(got[:512], b[:512]) {
			t.Errorf("at once: %v", err)
		}
	}
	if c, ok := p.(CachedReader); ok && c.ReadCached(memory[:512], 0) {
		t.Error("it reads from a cache")
	}
}

func TestASharedProviderSendsNothingWithoutItsGuard(t *testing.T) {
	p := openShared(t, newFile(t, mib))
	lost := errors.New("lost")
	g := &gatekeeper{wait: func() error { return lost }}
	p.Guard(g)
	changes := map[string]func() error{
		"write":  func() error { _, err := p.WriteAt(make([]byte, 512), 0); return err },
		"zero":   func() error { return p.(Zeroer).WriteZeroes(0, 512) },
		"delete": func() error { return p.Delete(0, 512) },
	}
	for what, do := range changes {
		if err := do(); !errors.Is(err, lost) {
			t.Errorf("%s while the guard says no: %v", what, err)
		}
	}
	if err := p.WriteOnce(bytes.Repeat([]byte{1}, 512), 0); err != nil {
		t.Errorf("what the guard itself writes: %v", err)
	}
	// The guard is asked before each piece.
	g.wait = func() error { g.may.Store(true); return nil }
	g.waited.Store(0)
	if n, err := p.WriteAt(make([]byte, 3*bounceSize), 0); n != 3*bounceSize || err != nil || g.waited.Load() != 1 {
		t.Errorf("%d, %v, waited %d times", n, err, g.waited.Load())
	}
	p.Abandon(lost)
	changes["read"] = func() error { _, err := p.ReadAt(make([]byte, 512), 0); return err }
	changes["flush"] = p.Flush
	for what, do := range changes {
		if err := do(); !errors.Is(err, lost) {
			t.Errorf("%s of what is abandoned: %v", what, err)
		}
	}
}

func TestADescriptorThatWasSharedIsNoMore(t *testing.T) {
	path := newFile(t, mib)
	f, _, _ := DescriptorOf(openShared(t, path))
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	p, err := FromFile(os.NewFile(uintptr(fd), "passed"), path, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.WriteAt(make([]byte, 513)[1:], 0); err != nil {
		t.Error(err)
	}
}

// TestWhatCannotBePastTheCachesIsNotShared: ramfs has nothing but its cache.
func TestWhatCannotBePastTheCachesIsNotShared(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("ramfs", dir, "ramfs", 0, ""); err != nil {
		t.Skipf("mount a ramfs: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, 0) })
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, make([]byte, mib), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (Shared{}).Open(path, OpenOptions{}); !errors.Is(err, ErrNotShared) || !strings.Contains(err.Error(), path) {
		t.Error(err)
	}
	p, err := Open(path, OpenOptions{}) // the lock was given back
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func TestSharedTransfersAllocateNothing(t *testing.T) {
	p := openShared(t, newFile(t, mib))
	b := make([]byte, 4097)[1:]
	if allocs := testing.AllocsPerRun(100, func() {
		if _, err := p.WriteAt(b, 65536); err != nil {
			t.Fatal(err)
		}
		if _, err := p.ReadAt(b, 65536); err != nil {
			t.Fatal(err)
		}
	}); allocs > 0.1 && !raceEnabled { // a pool that the collector has emptied
		t.Fatalf("%v allocations per write and read", allocs)
	}
}

// failingOnce is a medium whose next flush fails, as the system tells of what was lost.
type failingOnce struct {
	medium
	lost bool
}

func (m *failingOnce) flush(fd int) error {
	if m.lost {
		m.lost = false
		return unix.EIO
	}
	return m.medium.flush(fd)
}

// What a lease's flush was told of was lost of what others had written.
func TestAFlushOfASharedProviderTellsWhatTheGuardsFlushWasTold(t *testing.T) {
	p := openShared(t, newFile(t, mib))
	f := p.(*shared).file
	f.medium = &failingOnce{f.medium, true}
	if err := p.WriteOnce(make([]byte, 512), 0); !errors.Is(err, unix.EIO) {
		t.Errorf("the guard writes: %v", err)
	}
	if err := p.Flush(); !errors.Is(err, unix.EIO) {
		t.Errorf("flush: %v", err)
	}
	if err := p.Flush(); err != nil {
		t.Errorf("flush: %v", err)
	}
}
