package geomlib

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gvirstor/gvirstor/ondisk"
)

const mib = 1 << 20

// newFile makes an empty file of size bytes.
func newFile(t testing.TB, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "component")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustOpen(t testing.TB, path string, o OpenOptions) Provider {
	t.Helper()
	p, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func TestRegularFileGivesBackWhatWasWritten(t *testing.T) {
	path := newFile(t, mib)
	p := mustOpen(t, path, OpenOptions{})
	if p.Name() != path || p.MediaSize() != mib || p.SectorSize() != 512 {
		t.Fatalf("opened as %s, %d bytes in sectors of %d", p.Name(), p.MediaSize(), p.SectorSize())
	}
	if !IsRegular(p) {
		t.Fatalf("kind is %s", KindOf(p))
	}
	want := bytes.Repeat([]byte("gvirstor"), 512)
	if n, err := p.WriteAt(want, mib-4096); n != 4096 || err != nil {
		t.Fatal(n, err)
	}
	if err := p.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p = mustOpen(t, path, OpenOptions{ReadOnly: true})
	got := make([]byte, 4096)
	if n, err := p.ReadAt(got, mib-4096); n != 4096 || err != nil {
		t.Fatal(n, err)
	}
	if !bytes.Equal(got, want) {
		t.Fatal("read back something else")
	}
}

func TestSectorSizeOfAFileIsFoundByItsMetadata(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		path := newFile(t, 8*mib)
		p := mustOpen(t, path, OpenOptions{SectorSize: sector})
		m := ondisk.Metadata{Name: "mydata", VirtualSize: 64 * mib, ChunkSize: mib, ID: 1, Count: 1,
			ProviderSize: 8 * mib, ChunkCount: 7, ChunkReserved: 2, ChunkNext: 2, Flags: 3}
		if err := StoreMetadata(p, m); err != nil {
			t.Fatal(err)
		}
		p.Close()
		p = mustOpen(t, path, OpenOptions{})
		if p.SectorSize() != sector {
			t.Errorf("metadata in a sector of %d: opened with %d", sector, p.SectorSize())
		}
		if _, err := ReadMetadata(p); err != nil {
			t.Error(err)
		}
		if err := ClearMetadata(p); err != nil {
			t.Error(err)
		}
		if _, err := ReadMetadata(p); !errors.Is(err, ErrNoMetadata) {
			t.Errorf("after ClearMetadata: %v", err)
		}
		p.Close()
	}
}

func TestOpenRefusesWhatCannotBeAProvider(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	odd := newFile(t, 1000)
	for _, c := range []struct {
		name string
		o    OpenOptions
		want string
	}{
		{"", OpenOptions{}, "without a name"},
		{"no-such-provider", OpenOptions{}, "no such provider in /dev"},
		{"/nonexistent/file", OpenOptions{}, "/nonexistent/file: no such file"},
		{odd, OpenOptions{}, "is it the right file?"},
		{newFile(t, mib+512), OpenOptions{SectorSize: 4096}, "not a multiple of the sector size 4096"},
		{newFile(t, 0), OpenOptions{}, "is empty"},
		{newFile(t, mib), OpenOptions{SectorSize: 513}, "power of two"},
		{newFile(t, mib), OpenOptions{SectorSize: 256}, "power of two"},
		{newFile(t, mib), OpenOptions{SectorSize: -4096}, "power of two"},
		{t.TempDir(), OpenOptions{}, "neither a disk nor a regular file"},
		{fifo, OpenOptions{}, "neither a disk nor a regular file"},
		{"/dev/null", OpenOptions{}, "neither a disk nor a regular file"},
		{"null", OpenOptions{}, "neither a disk nor a regular file"},
	} {
		p, err := Open(c.name, c.o)
		if err == nil {
			p.Close()
			t.Errorf("%q was opened", c.name)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v; want %q in it", c.name, err, c.want)
		}
	}
}

func TestABareWordMeansTheFileIfThereIsOne(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("null", make([]byte, 1024), 0o600); err != nil {
		t.Fatal(err)
	}
	p := mustOpen(t, "./null", OpenOptions{})
	if p.Name() != "null" || !IsRegular(p) {
		t.Fatalf("opened %s, a %s", p.Name(), KindOf(p))
	}
}

func TestTransfersOutsideOrOffTheSectorsAreRefused(t *testing.T) {
	p := mustOpen(t, newFile(t, mib), OpenOptions{SectorSize: 4096})
	for _, c := range []struct{ off, n int64 }{
		{-4096, 4096}, {mib, 4096}, {mib - 4096, 8192}, {512, 4096}, {0, 512}, {1 << 62, 4096},
	} {
		b := make([]byte, c.n)
		_, rerr := p.ReadAt(b, c.off)
		_, werr := p.WriteAt(b, c.off)
		for what, err := range map[string]error{"read": rerr, "write": werr, "delete": p.Delete(c.off, c.n),
			"zero": p.(Zeroer).WriteZeroes(c.off, c.n)} {
			if !errors.Is(err, syscall.EINVAL) || !strings.Contains(err.Error(), p.Name()) {
				t.Errorf("%s %d at %d: %v", what, c.n, c.off, err)
			}
		}
	}
	if st, err := os.Stat(p.Name()); err != nil || st.Size() != mib {
		t.Error("the file changed its size", err)
	}
}

func TestReadOnlyProviderRefusesToChangeAnything(t *testing.T) {
	for _, o := range []OpenOptions{{ReadOnly: true}, {ReadOnly: true, KeepWritersOff: true}} {
		p := mustOpen(t, newFile(t, mib), o)
		_, err := p.WriteAt(make([]byte, 512), 0)
		for what, err := range map[string]error{"write": err, "delete": p.Delete(0, 512),
			"zero": p.(Zeroer).WriteZeroes(0, 512)} {
			if !errors.Is(err, syscall.EROFS) {
				t.Errorf("%+v: %s: %v", o, what, err)
			}
		}
		p.Close()
	}
}

func TestKeepWritersOffOpensForWritingWhereItCan(t *testing.T) {
	p := mustOpen(t, newFile(t, mib), OpenOptions{ReadOnly: true, KeepWritersOff: true})
	f, _, ok := DescriptorOf(p)
	if !ok {
		t.Fatal("no file")
	}
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_ACCMODE != unix.O_RDWR {
		t.Fatalf("descriptor's mode is %#o, %v", flags&unix.O_ACCMODE, err)
	}
}

func TestReadOfAFileThatWasCutIsAnError(t *testing.T) {
	path := newFile(t, mib)
	p := mustOpen(t, path, OpenOptions{})
	if err := os.Truncate(path, 4096); err != nil {
		t.Fatal(err)
	}
	n, err := p.ReadAt(make([]byte, 8192), 0)
	if n != 4096 || !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), path) {
		t.Fatal(n, err)
	}
}

func TestErrnosOfTheSystemAreKept(t *testing.T) {
	p := mustOpen(t, newFile(t, mib), OpenOptions{})
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	low := old
	low.Cur = 4096 // beyond it write(2) fails with EFBIG; the runtime ignores SIGXFSZ
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &low); err != nil {
		t.Fatal(err)
	}
	n, err := p.WriteAt(make([]byte, 8192), 0)
	if rerr := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); rerr != nil {
		t.Fatal(rerr)
	}
	if n != 4096 || !errors.Is(err, syscall.EFBIG) || !strings.Contains(err.Error(), p.Name()) {
		t.Fatal(n, err)
	}
}

func TestFromFileServesADescriptorOpenedByAnother(t *testing.T) {
	path := newFile(t, mib)
	first := mustOpen(t, path, OpenOptions{})
	f, _, _ := DescriptorOf(first)
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	second, err := FromFile(os.NewFile(uintptr(fd), "passed"), path, OpenOptions{})
	if err != nil {
		t.Fatalf("the lock did not travel with the descriptor: %v", err)
	}
	first.Close()
	if _, err := Open(path, OpenOptions{}); !errors.Is(err, ErrLocked) {
		t.Fatalf("closing one of two descriptors gave the lock back: %v", err)
	}
	if _, err := second.WriteAt(make([]byte, 512), 0); err != nil {
		t.Fatal(err)
	}
	second.Close()
	mustOpen(t, path, OpenOptions{})
}

func TestFromFileRefusesADescriptorThatCannotWrite(t *testing.T) {
	f, err := os.Open(newFile(t, mib))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := FromFile(f, f.Name(), OpenOptions{}); !errors.Is(err, syscall.EBADF) {
		t.Fatal(err)
	}
	if _, err := FromFile(f, f.Name(), OpenOptions{ReadOnly: true}); err != nil {
		t.Fatal(err)
	}
}

func TestTransfersAllocateNothing(t *testing.T) {
	p := mustOpen(t, newFile(t, mib), OpenOptions{})
	b := make([]byte, 64<<10)
	cached, _ := p.(CachedReader)
	allocs := testing.AllocsPerRun(100, func() {
		if _, err := p.WriteAt(b, 65536); err != nil {
			t.Fatal(err)
		}
		if _, err := p.ReadAt(b, 65536); err != nil {
			t.Fatal(err)
		}
		if cached != nil {
			cached.ReadCached(b, 65536)
		}
	})
	if allocs != 0 {
		t.Fatalf("%v allocations per write and read", allocs)
	}
}
