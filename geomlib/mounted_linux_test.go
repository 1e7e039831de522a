package geomlib

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// mounted mounts a file system until the test ends, and returns its folder.
func mounted(t *testing.T, args ...string) string {
	t.Helper()
	needRoot(t)
	dir := filepath.Join(t.TempDir(), "mnt")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", append(args, dir)...).CombinedOutput(); err != nil {
		t.Skipf("cannot mount %v here: %v: %s", args, err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir
}

// made mounts a new file system of size bytes, made by a command.
func made(t *testing.T, size int64, mkfs ...string) string {
	t.Helper()
	if _, err := exec.LookPath(mkfs[0]); err != nil {
		if os.Getenv("GVIRSTOR_REQUIRE_TOOLS") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	image := newFile(t, size)
	if out, err := exec.Command(mkfs[0], append(mkfs[1:], image)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", mkfs, err, out)
	}
	return mounted(t, "-o", "loop", image)
}

// The disk-based file systems that holesAreTrusted names are made and put to
// the test, because the engine hands out as new chunks, without zeroing them,
// what NextData skips. What only the disk has, not the page cache, counts too.
func TestHolesOfEveryTrustedFileSystemReadAsZeros(t *testing.T) {
	for name, mount := range map[string]func(t *testing.T) string{
		"ext2":          func(t *testing.T) string { return made(t, 32*mib, "mkfs.ext2", "-q") },
		"ext4-1k-block": func(t *testing.T) string { return made(t, 32*mib, "mkfs.ext4", "-q", "-b", "1024") },
		"xfs":           func(t *testing.T) string { return made(t, 320*mib, "mkfs.xfs", "-q") },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(mount(t), "component")
			rapid.Check(t, func(t *rapid.T) { holesOfANewFile(t, path) })
		})
	}
}

func holesOfANewFile(t *rapid.T, path string) {
	const size, sector = 256 << 10, 512
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(path)
	p, err := Open(path, OpenOptions{SectorSize: sector})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, ok := p.(HoleFinder); !ok {
		t.Fatal("holes are not trusted")
	}
	model := make([]byte, size)
	for i := range rapid.IntRange(1, 10).Draw(t, "steps") {
		off := rapid.Int64Range(0, size/sector-1).Draw(t, "from") * sector
		n := rapid.Int64Range(1, min(64, size/sector-off/sector)).Draw(t, "sectors") * sector
		part := model[off : off+n]
		switch rapid.SampledFrom([]string{"write", "write", "delete", "zero", "drop cache"}).Draw(t, "what") {
		case "write":
			copy(part, bytes.Repeat([]byte{byte(i + 1)}, int(n)))
			_, err = p.WriteAt(part, off)
		case "delete":
			clear(part)
			err = p.Delete(off, n)
		case "zero":
			clear(part)
			err = p.(Zeroer).WriteZeroes(off, n)
		case "drop cache":
			of, _, _ := DescriptorOf(p)
			err = errors.Join(p.Flush(), unix.Fadvise(int(of.Fd()), 0, 0, unix.FADV_DONTNEED))
		}
		if err != nil {
			t.Fatal(err)
		}
		checkHoles(t, p, model, 0, size)
		checkHoles(t, p, model, off, off+n)
	}
	got := make([]byte, size)
	if _, err := p.ReadAt(got, 0); err != nil || !bytes.Equal(got, model) {
		t.Fatal("the file holds something else", err)
	}
}

// A full file system below a component is not a broken disk, and the engine
// must be able to tell.
func TestAFullFileSystemIsToldAsENOSPC(t *testing.T) {
	path := filepath.Join(mounted(t, "-t", "tmpfs", "-o", "size=1m", "tmpfs"), "component")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 4*mib)); err != nil {
		t.Fatal(err)
	}
	p, err := Open(path, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close() // before the file system is unmounted
	n, err := p.WriteAt(bytes.Repeat([]byte{1}, 4*mib), 0)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), path) {
		t.Fatal("4 MiB on a file system of 1 MiB:", err)
	}
	if n <= 0 || n > mib {
		t.Errorf("%d bytes are said to be written", n)
	}
	if err := p.Delete(0, 4*mib); err != nil {
		t.Fatal(err)
	}
	if _, err := p.WriteAt(make([]byte, 4096), 0); err != nil {
		t.Error("after a delete made room:", err)
	}
}
