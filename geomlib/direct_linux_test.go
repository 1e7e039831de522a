package geomlib

import (
	"bytes"
	"errors"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// direct opens a file past the cache, or skips the test where its file system cannot.
func direct(t *testing.T, path string) Provider {
	t.Helper()
	p, err := Open(path, OpenOptions{Direct: true, SectorSize: 4096})
	if errors.Is(err, ErrNotSupported) {
		t.Skip("the file system of temporary files has no O_DIRECT: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// TestAFilePastTheCacheIsReadAndWrittenAtAnyAddressOfMemory, by many at once and in one
// piece or many.
func TestAFilePastTheCacheIsReadAndWrittenAtAnyAddressOfMemory(t *testing.T) {
	path := newFile(t, 16*mib)
	p := direct(t, path)
	if b, ok := p.(BufferedWriter); !ok || b.WritesAreBuffered() {
		t.Error("its writes are buffered")
	}
	var wg sync.WaitGroup
	for i, n := range []int{512 * 8, 64 << 10, bounceSize, bounceSize + 8192, mib} {
		for skip, at := range map[int]int64{0: 0, 1: 8 * mib, 512: 4 * mib, 4095: 12 * mib} {
			wg.Go(func() {
				off := at + int64(i)*512<<10
				if n == mib {
					off = at + 2*mib + 512<<10
				}
				memory := make([]byte, n+2*4096)
				b := memory[skip : skip+n]
				for k := range b {
					b[k] = byte(k*7 + i + skip)
				}
				want := bytes.Clone(b)
				if done, err := p.WriteAt(b, off); err != nil || done != n {
					t.Errorf("%d of %d bytes at address %d written: %v", done, n, skip, err)
				}
				clear(b)
				if done, err := p.ReadAt(b, off); err != nil || done != n || !bytes.Equal(b, want) {
					t.Errorf("%d of %d bytes at address %d read, or something else: %v", done, n, skip, err)
				}
			})
		}
	}
	wg.Wait()
	if c, ok := p.(CachedReader); ok && c.ReadCached(make([]byte, 4096), 0) {
		t.Error("something was read from a cache")
	}
}

// TestWhatIsOpenPastTheCacheStaysSoInAnotherProcess: its sectors are found, too.
func TestWhatIsOpenPastTheCacheStaysSoInAnotherProcess(t *testing.T) {
	path := newFile(t, mib)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("GEOM::VIRSTOR\x00\x00\x00"), mib-4096); err != nil {
		t.Fatal(err)
	}
	f.Close()
	p := direct(t, path)
	d, _, _ := DescriptorOf(p)
	fd, err := unix.Dup(int(d.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	q, err := Files{Direct: true}.Adopt(os.NewFile(uintptr(fd), path), path, nil, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if q.SectorSize() != 4096 || q.(BufferedWriter).WritesAreBuffered() {
		t.Errorf("sectors of %d bytes; buffered %v", q.SectorSize(), q.(BufferedWriter).WritesAreBuffered())
	}
	if _, err := q.ReadAt(make([]byte, 4097)[1:], 4096); err != nil {
		t.Error(err)
	}
}

// TestWhatCannotBeUsedPastTheCacheIsRefused, and says why.
func TestWhatCannotBeUsedPastTheCacheIsRefused(t *testing.T) {
	f, err := os.CreateTemp("/dev/shm", "component")
	if err != nil {
		t.Skip(err)
	}
	defer os.Remove(f.Name())
	if err := errors.Join(f.Truncate(mib), f.Close()); err != nil {
		t.Fatal(err)
	}
	p, err := Files{Direct: true}.Open(f.Name(), OpenOptions{})
	if !errors.Is(err, ErrNotSupported) {
		if err == nil {
			p.Close()
		}
		t.Errorf("a file on a tmpfs: %v", err)
	}
}

func TestADevicePastTheCache(t *testing.T) {
	for _, option := range []string{"--sector-size=512", "--sector-size=4096"} {
		p := mustOpen(t, loop(t, option), OpenOptions{Direct: true})
		for _, skip := range []int{0, 1, 512} {
			b := bytes.Repeat([]byte{byte(skip + 3)}, mib+4096)[skip : skip+mib]
			want := bytes.Clone(b)
			if _, err := p.WriteAt(b, 4*mib+4096); err != nil {
				t.Fatal(option, err)
			}
			clear(b)
			if _, err := p.ReadAt(b, 4*mib+4096); err != nil || !bytes.Equal(b, want) {
				t.Fatal(option, "read back something else: ", err)
			}
		}
		if err := p.Flush(); err != nil {
			t.Fatal(err)
		}
		if p.(CachedReader).ReadCached(make([]byte, 4096), 0) {
			t.Error("something was read from a cache")
		}
	}
}
