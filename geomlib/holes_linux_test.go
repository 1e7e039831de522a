package geomlib

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// holeDirs are folders whose file systems' holes are put to the test: the
// disk's, tmpfs, and those listed in GVIRSTOR_TEST_DIRS, with colons between.
func holeDirs(t *testing.T) []string {
	t.Helper()
	dirs := []string{t.TempDir()}
	shm, err := os.MkdirTemp("/dev/shm", "geomlib")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(shm) })
	dirs = append(dirs, shm)
	for _, d := range filepath.SplitList(os.Getenv("GVIRSTOR_TEST_DIRS")) {
		dir, err := os.MkdirTemp(d, "geomlib")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		dirs = append(dirs, dir)
	}
	return dirs
}

// trusted opens a new file in dir that is a HoleFinder, or skips: TempDir may
// be on a file system whose holes are not trusted.
func trusted(t *testing.T, dir string, size int64, sector int) Provider {
	t.Helper()
	path := filepath.Join(dir, "holes")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		t.Fatal(err)
	}
	p := mustOpen(t, path, OpenOptions{SectorSize: sector})
	if _, ok := p.(HoleFinder); !ok {
		t.Skipf("the holes of the file system of %s are not trusted", dir)
	}
	return p
}

type fataler interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// checkHoles: what p calls a hole in [off, limit) is zeros in model, and what
// is not is whole sectors.
func checkHoles(t fataler, p Provider, model []byte, off, limit int64) {
	t.Helper()
	sector := int64(p.SectorSize())
	for off < limit {
		start, end, err := p.(HoleFinder).NextData(off, limit)
		if err != nil {
			t.Fatal(err)
		}
		if start < off || end > limit || start < limit && end <= start || start%sector != 0 || end%sector != 0 {
			t.Fatalf("NextData(%d, %d) = %d, %d", off, limit, start, end)
		}
		if !bytes.Equal(model[off:start], make([]byte, start-off)) {
			t.Fatalf("[%d, %d) is called a hole and holds data", off, start)
		}
		if start == limit {
			return
		}
		off = end
	}
}

// TestHolesReadAsZeros: after any sequence of writes, punches and flushes.
func TestHolesReadAsZeros(t *testing.T) {
	for _, dir := range holeDirs(t) {
		for _, sector := range []int{512, 4096} {
			const size = 256 << 10
			p := trusted(t, dir, size, sector)
			rapid.Check(t, func(t *rapid.T) {
				if err := p.Delete(0, size); err != nil {
					t.Fatal(err)
				}
				model := make([]byte, size)
				got := make([]byte, size)
				for range rapid.IntRange(1, 25).Draw(t, "steps") {
					from := rapid.IntRange(0, size/sector-1).Draw(t, "from") * sector
					n := min(size-from, rapid.IntRange(1, 64).Draw(t, "sectors")*sector)
					part := model[from : from+n]
					var err error
					switch rapid.IntRange(0, 4).Draw(t, "what") {
					case 0, 1:
						copy(part, bytes.Repeat([]byte{rapid.ByteRange(1, 255).Draw(t, "byte")}, n))
						_, err = p.WriteAt(part, int64(from))
					case 2:
						clear(part)
						err = p.Delete(int64(from), int64(n))
					case 3:
						clear(part)
						err = p.(Zeroer).WriteZeroes(int64(from), int64(n))
					case 4:
						err = p.Flush()
					}
					if err != nil {
						t.Fatal(err)
					}
					checkHoles(t, p, model, 0, size)
					checkHoles(t, p, model, int64(from), int64(from+n))
				}
				if _, err := p.ReadAt(got, 0); err != nil || !bytes.Equal(got, model) {
					t.Fatal("the file holds something else", err)
				}
			})
			p.Close()
		}
	}
}

// TestHolesReadAsZerosBesideOtherWriters: each writer has blocks of its own,
// next to those of the others, as the chunks of a component are.
func TestHolesReadAsZerosBesideOtherWriters(t *testing.T) {
	const writers, block, blocks = 4, 4096, 64
	for _, dir := range holeDirs(t) {
		p := trusted(t, dir, writers*block*blocks, 512)
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				data := bytes.Repeat([]byte{byte(w + 1)}, block)
				got := make([]byte, block)
				for i := range 3 * blocks {
					off := int64((i%blocks)*writers+w) * block
					if _, err := p.WriteAt(data, off); err != nil {
						t.Error(err)
						return
					}
					if start, end, err := p.(HoleFinder).NextData(off, off+block); start != off || end != off+block || err != nil {
						t.Errorf("[%d, %d) was just written; NextData says %d, %d, %v", off, off+block, start, end, err)
					}
					if i%3 == 0 {
						continue
					}
					if err := p.Delete(off, block); err != nil {
						t.Error(err)
						return
					}
					if _, err := p.ReadAt(got, off); err != nil || !bytes.Equal(got, make([]byte, block)) {
						t.Errorf("punched [%d, %d) reads as %v, %v", off, off+block, got[:8], err)
					}
				}
			})
		}
		wg.Wait()
	}
}

func TestANewFileIsOneHole(t *testing.T) {
	for _, dir := range holeDirs(t) {
		p := trusted(t, dir, mib, 512)
		if start, end, err := p.(HoleFinder).NextData(512, mib); start != mib || end != mib || err != nil {
			t.Error(start, end, err)
		}
		if start, end, err := p.(HoleFinder).NextData(mib, mib); start != mib || end != mib || err != nil {
			t.Error("at the end:", start, end, err)
		}
		for _, c := range [][2]int64{{-512, 512}, {0, mib + 512}, {1024, 512}} {
			if _, _, err := p.(HoleFinder).NextData(c[0], c[1]); !errors.Is(err, unix.EINVAL) {
				t.Errorf("NextData(%d, %d): %v", c[0], c[1], err)
			}
		}
	}
}

func TestDeleteGivesSpaceBack(t *testing.T) {
	for _, dir := range holeDirs(t) {
		p := trusted(t, dir, 4*mib, 4096)
		if _, err := p.WriteAt(bytes.Repeat([]byte{1}, 4*mib), 0); err != nil {
			t.Fatal(err)
		}
		blocks := func() int64 {
			var st unix.Stat_t
			if err := errors.Join(p.Flush(), unix.Stat(p.Name(), &st)); err != nil {
				t.Fatal(err)
			}
			return st.Blocks * 512
		}
		full := blocks()
		if err := p.Delete(mib, 2*mib); err != nil {
			t.Fatal(err)
		}
		if left := blocks(); full < 4*mib || left > full-2*mib+64<<10 {
			t.Errorf("%s: %d bytes before, %d after", dir, full, left)
		}
		if st, err := os.Stat(p.Name()); err != nil || st.Size() != 4*mib {
			t.Error("the file changed its size", err)
		}
	}
}

// needRoot skips tests of what only root may do: mounts and loop devices.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func TestHolesOfOtherFileSystemsAreNotTrusted(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("ramfs", dir, "ramfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	path := filepath.Join(dir, "component")
	if err := os.WriteFile(path, make([]byte, mib), 0o600); err != nil {
		t.Fatal(err)
	}
	p := mustOpen(t, path, OpenOptions{})
	if _, ok := p.(HoleFinder); ok {
		t.Error("is a HoleFinder")
	}
	for what, err := range map[string]error{"delete": p.Delete(0, 4096), "zero": p.(Zeroer).WriteZeroes(0, 4096)} {
		if !errors.Is(err, ErrNotSupported) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := p.Flush(); err != nil {
		t.Error(err)
	}
}

func TestCachedReadsAreAnsweredFromTheCacheAlone(t *testing.T) {
	p := mustOpen(t, newFile(t, mib), OpenOptions{})
	want := bytes.Repeat([]byte{7}, 64<<10)
	if _, err := p.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if !p.(CachedReader).ReadCached(got, 0) || !bytes.Equal(got, want) {
		t.Fatal("what was just written is not in the cache")
	}
	if p.(CachedReader).ReadCached(got, mib-512) {
		t.Fatal("a read beyond the end was answered")
	}
	f, _, _ := DescriptorOf(p)
	if err := p.Flush(); err != nil {
		t.Fatal(err)
	}
	// The kernel drops what nobody has a hold on, which on a busy machine is not
	// all of it at once (posix_fadvise(2)).
	dropped := false
	for range 1000 {
		if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
			t.Fatal(err)
		}
		if dropped = !p.(CachedReader).ReadCached(got, 0); dropped {
			break
		}
	}
	if !dropped {
		t.Fatal("what the cache dropped was answered")
	}
	if _, err := p.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Fatal("a read that may wait failed", err)
	}
}
