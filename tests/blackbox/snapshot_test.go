package blackbox

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// snapshotURI is how clients name a snapshot.
func (s *site) snapshotURI(snapshot string) string {
	return s.uriOf(s.name + "@" + snapshot)
}

// loop makes a file a disk until the returned function is called.
func loop(t *testing.T, path string, options ...string) (device string, leave func()) {
	t.Helper()
	device = strings.TrimSpace(command(t, "losetup", append(options, "-f", "--show", path)...))
	return device, func() { unloop(t, device) }
}

// unloop ends a disk of loop's, and returns when its file is let go of: that is later than
// losetup says where somebody, such as udev, looks at the disk.
func unloop(t testing.TB, device string) {
	t.Helper()
	file := func() string {
		b, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(device), "loop", "backing_file"))
		if err != nil {
			return "" // there is none
		}
		return string(b)
	}
	was := file()
	command(t, "losetup", "-d", device)
	for end := time.Now().Add(patience); was != "" && file() == was; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s still has %s", device, was)
		}
	}
}

// mounted mounts a disk in a new folder until the returned function is called.
func (s *site) mounted(name, device, options string) (folder string, leave func()) {
	s.t.Helper()
	folder = filepath.Join(s.dir, name)
	if err := os.Mkdir(folder, 0o700); err != nil {
		s.t.Fatal(err)
	}
	command(s.t, "mount", "-o", options, device, folder)
	return folder, func() { command(s.t, "umount", folder) }
}

// last calls what is left of fs when the test ends, the last first.
func last(t *testing.T, fs ...*func()) {
	t.Cleanup(func() {
		for _, f := range fs {
			if *f != nil {
				(*f)()
			}
		}
	})
}

// writing has fio write in a folder until the returned function is called.
func writing(t *testing.T, folder string) (end func()) {
	t.Helper()
	c := exec.Command("fio", "--name=load", "--directory="+folder, "--rw=randwrite", "--bs=4k", "--size=24m", "--numjobs=2",
		"--fsync=64", "--time_based", "--runtime=600")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return func() {
		_ = c.Process.Signal(os.Interrupt)
		_ = c.Wait() // which tells that it was interrupted
	}
}

func TestASnapshotOfExt4UnderLoadIsWholeWhereverItIsRead(t *testing.T) {
	need(t, "mkfs.ext4", "losetup", "mount", "umount", "e2fsck", "debugfs", "fio", "qemu-img", "nbdfuse", "fusermount3")
	if os.Geteuid() != 0 {
		t.Skip("only root can mount")
	}
	s := newSite(t, 192*mib, 192*mib)
	s.label("-s", "1g", "-m", "1m")
	s.start()
	var unload, unmount, unloop, leave func()
	last(t, &unload, &unmount, &unloop, &leave)
	disk, leave0 := s.asFile(gib)
	leave = leave0
	device, unloop0 := loop(t, disk)
	unloop = unloop0
	command(t, "mkfs.ext4", "-q", "-F", device)
	folder, unmount0 := s.mounted("mnt", device, "rw")
	unmount = unmount0
	kept := noise(t, filepath.Join(folder, "kept"), 1, 20*mib)
	command(t, "sync", "-f", folder)
	before := s.status().AllocatedChunks
	unload = writing(t, folder)
	s.until("fio writes", func() bool { return s.status().AllocatedChunks > before+8 })

	s.gvirstor("snapshot", "vol@now")
	noise(t, filepath.Join(folder, "kept"), 2, 20*mib)
	command(t, "sync", "-f", folder)
	copied := filepath.Join(s.dir, "copy")
	command(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", s.snapshotURI("now"), copied)
	command(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", s.snapshotURI("now"), copied) // after more writes
	if out, err := s.tryGvirstor("delete", "-n", "vol@now"); err != nil || !strings.Contains(out, "would come free") {
		t.Errorf("%v, %s", err, out)
	}

	// Elsewhere it is a disk that can be read and not written to.
	frozen, unfreeze := s.asFileNamed("frozen", s.snapshotURI("now"), gib)
	second, unloop2 := loop(t, frozen, "-r")
	there, unmount2 := s.mounted("there", second, "ro,noload")
	got, err := os.ReadFile(filepath.Join(there, "kept"))
	unmount2()
	unloop2()
	unfreeze()
	if err != nil || !bytes.Equal(got, kept) {
		t.Errorf("the snapshot has another file: %v", err)
	}
	// As after a loss of power at that moment.
	if out, err := try(t, "e2fsck", "-f", "-p", copied); err != nil && !strings.Contains(err.Error(), "exit status 1") {
		t.Fatalf("%v: %s", err, out)
	}
	command(t, "e2fsck", "-f", "-n", copied)
	command(t, "debugfs", "-R", "dump /kept "+filepath.Join(s.dir, "back"), copied)
	if got, err = os.ReadFile(filepath.Join(s.dir, "back")); err != nil || !bytes.Equal(got, kept) {
		t.Errorf("the copy has another file: %v", err)
	}

	unload()
	unmount()
	unload, unmount = nil, nil
	command(t, "e2fsck", "-f", "-n", device)
	unloop()
	leave()
	unloop, leave = nil, nil
	if out, err := s.tryGvirstor("stop", "vol"); err != nil || !strings.Contains(out, "it has snapshots") {
		t.Fatalf("%v, %s", err, out)
	}
	s.term()
	if out := s.gvirstor(append([]string{"check"}, s.files...)...); !strings.Contains(out, "1 snapshot") {
		t.Errorf("check: %s", out)
	}
	s.start()
	s.gvirstor("delete", "-f", "vol@now")
	s.handedBack()
}
