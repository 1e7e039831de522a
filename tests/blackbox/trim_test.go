package blackbox

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// asFile makes the volume a regular file through FUSE, until the returned
// function is called.
func (s *site) asFile(size int64) (path string, leave func()) {
	s.t.Helper()
	return s.asFileNamed("disk", s.uri(), size)
}

// asFileNamed is asFile with the name of the file, and of the export that it is.
func (s *site) asFileNamed(name, uri string, size int64) (path string, leave func()) {
	s.t.Helper()
	need(s.t, "nbdfuse", "fusermount3")
	path = filepath.Join(s.dir, name)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		s.t.Fatal(err)
	}
	stop := background(s.t, "nbdfuse", path, uri)
	left := false
	s.t.Cleanup(func() {
		if !left { // the test has failed, and may have a loop device on the file
			_, _ = try(s.t, "fusermount3", "-u", "-z", path)
		}
	})
	s.until("the volume is a file", func() bool {
		fi, err := os.Stat(path)
		return err == nil && fi.Size() == size
	})
	return path, func() {
		command(s.t, "fusermount3", "-u", path)
		left = true
		stop()
	}
}

// hostBytes is what the components take on the host's file system.
func (s *site) hostBytes() int64 {
	s.t.Helper()
	var n int64
	for _, f := range s.files {
		var st syscall.Stat_t
		if err := syscall.Stat(f, &st); err != nil {
			s.t.Fatal(err)
		}
		n += st.Blocks * 512
	}
	return n
}

// noise makes a file that no file system can make small.
func noise(t testing.TB, path string, seed uint64, size int) []byte {
	t.Helper()
	b := make([]byte, size)
	rng := rand.NewChaCha8([32]byte{byte(seed), 1})
	if _, err := rng.Read(b); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return b
}

// trimmed waits until chunks and blocks have come back.
func (s *site) trimmed(free, bytes int64) {
	s.t.Helper()
	s.until("the free chunks are back", func() bool { return s.status().FreeChunks >= free })
	s.until("the host's blocks are back", func() bool { return s.hostBytes() <= bytes })
}

func TestFstrimOfExt4GivesChunksAndBlocksBack(t *testing.T) {
	need(t, "mkfs.ext4", "losetup", "mount", "umount", "fstrim", "e2fsck")
	if os.Geteuid() != 0 {
		t.Skip("only root can mount")
	}
	s := newSite(t, 192*mib, 192*mib)
	s.label("-s", "2g", "-m", "1m")
	s.start()
	disk, leave := s.asFile(2 * gib)
	loop := strings.TrimSpace(command(t, "losetup", "-f", "--show", disk))
	undone := false
	undo := func() {
		if !undone {
			undone = true
			_, _ = try(t, "umount", filepath.Join(s.dir, "mnt"))
			unloop(t, loop)
			leave()
		}
	}
	defer undo()
	command(t, "mkfs.ext4", "-q", "-F", loop)
	mnt := filepath.Join(s.dir, "mnt")
	if err := os.Mkdir(mnt, 0o700); err != nil {
		t.Fatal(err)
	}
	command(t, "mount", loop, mnt)
	kept := noise(t, filepath.Join(mnt, "kept"), 1, 20*mib)
	command(t, "sync")
	free, host := s.status().FreeChunks, s.hostBytes()
	noise(t, filepath.Join(mnt, "gone"), 2, 200*mib) // reaches the second component
	command(t, "sync")
	if used := free - s.status().FreeChunks; used < 195 {
		t.Fatalf("a file of 200 MiB has taken %d chunks", used)
	}
	if err := os.Remove(filepath.Join(mnt, "gone")); err != nil {
		t.Fatal(err)
	}
	command(t, "sync")
	command(t, "fstrim", mnt)
	// The file system's own notes may have grown by a chunk or two.
	s.trimmed(free-4, host+8*mib)
	got, err := os.ReadFile(filepath.Join(mnt, "kept"))
	if err != nil || !bytes.Equal(got, kept) {
		t.Fatalf("the file that was kept: %v", err)
	}
	command(t, "umount", mnt)
	command(t, "e2fsck", "-f", "-n", loop)
	undo()
	s.handedBack()
}

// TestAFullVolumeUnderExt4IsGivenSpaceAndGivesItBack is what the manual says to do, with
// more on its way than the reserve has room for.
func TestAFullVolumeUnderExt4IsGivenSpaceAndGivesItBack(t *testing.T) {
	need(t, "mkfs.ext4", "losetup", "mount", "umount", "fstrim", "e2fsck")
	if os.Geteuid() != 0 {
		t.Skip("only root can mount")
	}
	s := newSite(t, 64*mib, 64*mib)
	s.label("-s", "2g", "-m", "1m")
	s.start("--reserve", "auto")
	if v := s.status(); v.ReservedChunks != 4 {
		t.Fatalf("%d chunks are kept", v.ReservedChunks)
	}
	disk, leave := s.asFile(2 * gib)
	loop := strings.TrimSpace(command(t, "losetup", "-f", "--show", disk))
	mnt, mounted := filepath.Join(s.dir, "mnt"), false
	defer func() {
		if mounted {
			_, _ = try(t, "umount", mnt)
		}
		unloop(t, loop)
		leave()
	}()
	command(t, "mkfs.ext4", "-q", "-F", loop)
	if err := os.Mkdir(mnt, 0o700); err != nil {
		t.Fatal(err)
	}
	command(t, "mount", loop, mnt)
	mounted = true
	kept := noise(t, filepath.Join(mnt, "kept"), 1, 20*mib)
	command(t, "sync", "-f", mnt)
	noise(t, filepath.Join(mnt, "gone"), 2, 150*mib) // in memory, most of it
	synced := background(t, "sync", "-f", mnt)
	s.until("writes wait", func() bool { return s.status().Held.Count > 0 })
	if out := s.gvirstor("status"); !strings.Contains(out, " 0% physical free, full") || !strings.Contains(out, "`gvirstor reserve --release vol`") {
		t.Errorf("status says %s", out)
	}
	s.gvirstor("reserve", "--release", "vol")
	s.until("the reserve is used up", func() bool { v := s.status(); return v.FreeChunks == 0 && v.Held.Count > 0 })
	lent := s.file("lent", 128*mib)
	s.gvirstor("add", "vol", lent)
	synced()
	if err := os.Remove(filepath.Join(mnt, "gone")); err != nil {
		t.Fatal(err)
	}
	command(t, "sync", "-f", mnt)
	command(t, "fstrim", mnt)
	s.until("the chunks are free", func() bool { return s.status().AllocatedChunks < 90 })
	s.gvirstor("remove", "-e", "vol", lent)
	s.gvirstor("reserve", "vol", "auto")
	if v := s.status(); len(v.Components) != 2 || v.ReservedChunks != 4 || len(v.Conditions) != 0 {
		t.Errorf("at last %+v", v)
	}
	if got, err := os.ReadFile(filepath.Join(mnt, "kept")); err != nil || !bytes.Equal(got, kept) {
		t.Errorf("the file that was kept: %v", err)
	}
	command(t, "umount", mnt)
	mounted = false
	command(t, "e2fsck", "-f", "-n", loop)
}

func TestDiscardingWhatExt4DeletedGivesChunksAndBlocksBack(t *testing.T) {
	need(t, "mkfs.ext4", "debugfs", "e2fsck")
	s := newSite(t, 96*mib, 96*mib)
	s.label("-s", "1g", "-m", "1m")
	s.start()
	disk, leave := s.asFile(gib)
	command(t, "mkfs.ext4", "-q", "-F", disk)
	noise(t, filepath.Join(s.dir, "kept"), 1, 5*mib)
	noise(t, filepath.Join(s.dir, "gone"), 2, 100*mib)
	debugfs := func(what string) { command(t, "debugfs", "-w", "-R", what, disk) }
	debugfs("write " + filepath.Join(s.dir, "kept") + " kept")
	free, host := s.status().FreeChunks, s.hostBytes()
	debugfs("write " + filepath.Join(s.dir, "gone") + " gone")
	if used := free - s.status().FreeChunks; used < 99 {
		t.Fatalf("a file of 100 MiB has taken %d chunks", used)
	}
	debugfs("rm gone")
	// 1 says that it mended something: counts that debugfs leaves alone.
	if out, err := try(t, "e2fsck", "-f", "-y", "-E", "discard", disk); err != nil && !strings.Contains(err.Error(), "status 1") {
		t.Fatalf("e2fsck: %v\n%s", err, out)
	}
	s.trimmed(free-4, host+8*mib)
	command(t, "debugfs", "-R", "dump kept "+filepath.Join(s.dir, "back"), disk)
	same(t, filepath.Join(s.dir, "kept"), filepath.Join(s.dir, "back"))
	leave()
	s.handedBack()
}

func TestQemuIoDiscardGivesChunksAndBlocksBack(t *testing.T) {
	need(t, "qemu-io", "qemu-img")
	s := newSite(t, 96*mib, 96*mib)
	s.label("-s", "1g", "-m", "1m")
	s.start()
	free, host := s.status().FreeChunks, s.hostBytes()
	command(t, "qemu-io", "-f", "raw", "-d", "unmap", "-c", "write -P 5 0 150m", s.uri())
	if n := free - s.status().FreeChunks; n != 150 {
		t.Fatalf("%d chunks", n)
	}
	command(t, "qemu-io", "-f", "raw", "-d", "unmap", "-c", "discard 0 100m", "-c", "discard 110m 512k", s.uri())
	s.trimmed(free-50, host+50*mib)
	out := command(t, "qemu-io", "-f", "raw", "-c", "read -P 0 0 100m", "-c", "read -P 5 100m 10m",
		"-c", "read -P 0 110m 512k", "-c", "read -P 5 113152k 38m", s.uri())
	if strings.Contains(out, "failed") {
		t.Error(out)
	}
	s.handedBack()
}
