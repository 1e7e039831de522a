package blackbox

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// devices has the site reach images as disks of its own, each with a cache of its own.
func (s *site) devices(t *testing.T, images []string) {
	t.Helper()
	for _, image := range images {
		device, _ := loop(t, image, "--direct-io=on")
		t.Cleanup(func() {
			s.kill()
			unloop(t, device)
		})
		s.files = append(s.files, device)
	}
}

// stale has the cache of the disk hold all of it, as it is now.
func stale(t *testing.T, device string) *os.File {
	t.Helper()
	f, err := os.Open(device)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.WriteTo(new(bytes.Buffer)); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestADiskThatTwoHostsReachIsServedByOneAtATime: with --shared, by disks of which each host
// has a cache of its own, which is not believed. The second takes over from one that is
// stopped, reads what that wrote, and the first sends nothing any more when it goes on.
func TestADiskThatTwoHostsReachIsServedByOneAtATime(t *testing.T) {
	need(t, "losetup", "fio")
	if os.Geteuid() != 0 {
		t.Skip("only root can make loop devices")
	}
	store := newSite(t, 64<<20, 64<<20)
	a, b := newSite(t), newSite(t)
	a.devices(t, store.files)
	b.devices(t, store.files)
	for _, d := range b.files {
		stale(t, d)
	}
	a.label("-m", "1m", "-s", "256m")
	flags := append([]string{"--shared"}, leaseFlags...)
	a.start(append([]string{"--supervise=no"}, flags...)...)
	a.until("the status of the owner says so", func() bool { return strings.Contains(a.gvirstor("status"), "leased to this host") })
	b.launch(flags...)
	b.said("stop the volume there first")
	b.term()
	for _, d := range b.files {
		if err := drop(d); err != nil {
			t.Fatal(err)
		}
	}
	b.launch(leaseFlags...) // somebody has forgotten --shared
	b.said("serve it with --shared")
	<-b.done
	where := []string{"--offline", strings.Join(b.files, ","), "--run-dir", b.dir, "--state-dir", filepath.Join(b.dir, "state")}
	for _, args := range [][]string{append(append([]string{"rename"}, where...), "vol", "other"), append([]string{"clear", "--run-dir", b.dir}, b.files...), append([]string{"repair", "-y", "--run-dir", b.dir}, b.files...)} {
		if out, err := b.tryGvirstor(args...); err == nil || !strings.Contains(out, "another host has the lease") {
			t.Errorf("%q beside the owner: %v\n%s", args, err, out)
		}
	}
	fio := func(s *site, rw string) {
		t.Helper()
		command(t, "fio", "--name=v", "--ioengine=nbd", "--uri="+s.uri(), "--rw="+rw, "--bs=16k", "--iodepth=16",
			"--size=32M", "--verify=crc32c", "--verify_fatal=1", "--fsync=64", "--output-format=terse", "--aux-path="+s.dir)
	}
	for _, d := range b.files {
		stale(t, d)
	}
	fio(a, "randwrite")
	client := a.dial()
	if err := a.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	b.start(flags...)
	fio(b, "read") // what the first has written, which is not what the cache has
	fio(b, "randwrite")
	images := make([][]byte, len(store.files))
	for i, image := range store.files {
		var err error
		if images[i], err = os.ReadFile(image); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if _, err := client.WriteAt(make([]byte, 4096), 1<<20); err == nil {
		t.Error("the first host acknowledges a write")
	}
	a.said("another host has the volume")
	a.until("the first host serves nothing", a.servesNothing)
	for i, before := range images {
		now, err := os.ReadFile(store.files[i])
		if err != nil {
			t.Fatal(err)
		}
		if first, last := changed(before, now); first/4096 != last/4096 {
			t.Errorf("image %d was changed from %d to %d, when the second host did nothing but renew its lease", i, first, last)
		}
	}
	a.term()
	b.term()
	a.start(flags...)
	fio(a, "read")
	a.kill()
	a.launch(leaseFlags...) // its own lease would run out
	a.said("serve it with --shared")
	<-a.done
	a.start(flags...)
	a.term()
	if out := b.gvirstor(append([]string{"check"}, b.files...)...); !strings.Contains(out, "No errors.") {
		t.Errorf("check:\n%s", out)
	}
}

// drop has the cache of a disk forget what it holds.
func drop(device string) error {
	f, err := os.Open(device)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.IoctlSetInt(int(f.Fd()), unix.BLKFLSBUF, 0)
}

// TestWhatCannotBeSharedIsRefused: a file of a file system that has nothing but its cache.
func TestWhatCannotBeSharedIsRefused(t *testing.T) {
	s := newSite(t, 64<<20)
	dir := t.TempDir()
	if err := unix.Mount("ramfs", dir, "ramfs", 0, ""); err != nil {
		t.Skipf("mount a ramfs: %v", err)
	}
	t.Cleanup(func() { s.kill(); _ = unix.Unmount(dir, unix.MNT_DETACH) })
	cached := filepath.Join(dir, "component")
	if err := os.WriteFile(cached, make([]byte, 64<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	s.files = append(s.files, cached)
	s.label("-m", "1m", "-s", "256m")
	s.launch("--shared")
	<-s.done
	if out := s.log.String(); s.cmd.ProcessState.ExitCode() == 0 || !strings.Contains(out, cached) || !strings.Contains(out, "past the caches of this host") {
		t.Errorf("%v:\n%s", s.cmd.ProcessState, out)
	}
}
