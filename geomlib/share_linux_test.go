package geomlib

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func freeIn(t *testing.T, dir string) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := errors.Join(unix.Syncfs(openDir(t, dir)), unix.Statfs(dir, &st)); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bfree) * st.Bsize
}

func openDir(t *testing.T, dir string) int {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return int(f.Fd())
}

func TestSharedBlocksTakeNoSpaceAndAreApartOnceEitherIsWritten(t *testing.T) {
	for name, mount := range map[string]func(t *testing.T) string{
		"btrfs": func(t *testing.T) string { return made(t, 256*mib, "mkfs.btrfs", "-q") },
		"xfs":   func(t *testing.T) string { return made(t, 320*mib, "mkfs.xfs", "-q", "-m", "reflink=1") },
	} {
		t.Run(name, func(t *testing.T) {
			dir := mount(t)
			files := make([]Provider, 2)
			for i := range files {
				path := filepath.Join(dir, []string{"a", "b"}[i])
				if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 64*mib)); err != nil {
					t.Fatal(err)
				}
				files[i] = mustOpen(t, path, OpenOptions{})
			}
			a, b := files[0], files[1]
			data := bytes.Repeat([]byte("shared"), 8*mib/6+1)[:8*mib]
			if _, err := a.WriteAt(data, mib); err != nil {
				t.Fatal(err)
			}
			before := freeIn(t, dir)
			for _, to := range []struct {
				p   Provider
				off int64
			}{{a, 16 * mib}, {b, 32 * mib}} {
				if err := to.p.(BlockSharer).ShareBlocks(to.off, a, mib, int64(len(data))); err != nil {
					t.Fatal(err)
				}
				mustHold(t, to.p, to.off, data)
			}
			if took := before - freeIn(t, dir); took > 2*mib {
				t.Errorf("%d bytes are taken for %d that are shared twice", took, len(data))
			}
			other := bytes.Repeat([]byte{9}, 512)
			if _, err := a.WriteAt(other, 2*mib+512); err != nil {
				t.Fatal(err)
			}
			mustHold(t, a, 16*mib, data)
			if _, err := b.WriteAt(other, 33*mib); err != nil {
				t.Fatal(err)
			}
			mustHold(t, a, 16*mib, data)
			mustHold(t, b, 33*mib+512, data[mib+512:])
			if err := errors.Join(a.Flush(), b.Flush()); err != nil {
				t.Fatal(err)
			}
			if err := b.(BlockSharer).ShareBlocks(512, a, mib, 512); !errors.Is(err, ErrNotSupported) {
				t.Errorf("less than a block is shared: %v", err)
			}
		})
	}
}

func TestFilesOfTwoFileSystemsShareNothing(t *testing.T) {
	a := mustOpen(t, newFile(t, mib), OpenOptions{})
	dir := mounted(t, "-t", "tmpfs", "tmpfs")
	path := filepath.Join(dir, "b")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, mib)); err != nil {
		t.Fatal(err)
	}
	b := mustOpen(t, path, OpenOptions{})
	if err := b.(BlockSharer).ShareBlocks(0, a, 0, mib); !errors.Is(err, ErrNotSupported) {
		t.Errorf("%v", err)
	}
	for off, n := range map[int64]int64{mib: 4096, -4096: 4096, 100: 4096} {
		if err := b.(BlockSharer).ShareBlocks(off, b, 0, n); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%d bytes at %d: %v", n, off, err)
		}
	}
	b.Close()
}

func mustHold(t *testing.T, p Provider, off int64, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := p.ReadAt(got, off); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s does not hold what it should at byte %d: %v", p.Name(), off, err)
	}
}
