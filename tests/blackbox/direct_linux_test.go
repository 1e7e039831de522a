package blackbox

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
)

// TestDisksPastTheCacheAreServed: fio verifies, the worker dies and is replaced, and a disk
// and a file are added, on sectors of either size.
func TestDisksPastTheCacheAreServed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	need(t, "losetup", "fio")
	for _, sector := range []string{"512", "4096"} {
		t.Run(sector, func(t *testing.T) {
			s := newSite(t, 64*mib, 64*mib)
			disk := func(path string) (string, func()) { return loop(t, path, "--sector-size="+sector) }
			for i, file := range s.files {
				device, leave := disk(file)
				defer leave()
				s.files[i] = device
			}
			more, leave := disk(s.file("more", 96*mib))
			defer leave()
			defer s.kill() // first
			s.label("-m", "1m", "-s", "256m")
			s.start("--supervise", "--direct")
			for _, disk := range s.files {
				if !s.opensPastTheCache(disk) {
					t.Errorf("the worker has %s in the cache", disk)
				}
			}
			if has, may := s.hasRings(), mayHaveRings(t); has != may {
				t.Errorf("the worker has rings: %t, and could have: %t\n%s", has, may, s.log)
			}
			<-s.load("24M")
			worker := s.worker()
			if err := syscall.Kill(worker, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			s.nextWorker(worker)
			s.gvirstor("add", "vol", more)
			if !s.opensPastTheCache(more) {
				t.Errorf("the worker has %s, which was added, in the cache", more)
			}
			<-s.load("24M")
			s.term()
			if out := s.gvirstor("check", s.files[0], s.files[1], more); !strings.Contains(out, "No errors.") {
				t.Errorf("check:\n%s", out)
			}
		})
	}
}

// mayHaveRings reports whether this system has io_uring, and lets us use it.
func mayHaveRings(t *testing.T) bool {
	t.Helper()
	rings, err := geomlib.NewRings(nil)
	if errors.Is(err, geomlib.ErrNotSupported) {
		return false
	}
	if err := errors.Join(err, rings.Close()); err != nil {
		t.Fatal(err)
	}
	return true
}

// hasRings reports whether the process that serves has an io_uring.
func (s *site) hasRings() bool {
	s.t.Helper()
	fds, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(s.worker()), "fd", "*"))
	if err != nil || len(fds) == 0 {
		s.t.Fatalf("no descriptors are seen: %v\n%s", err, s.log)
	}
	return slices.ContainsFunc(fds, func(fd string) bool {
		of, err := os.Readlink(fd)
		return err == nil && of == "anon_inode:[io_uring]"
	})
}

// TestRingsAreForWhatGoesPastTheCache, and can be done without.
func TestRingsAreForWhatGoesPastTheCache(t *testing.T) {
	need(t, "fio")
	for _, flags := range [][]string{{"--direct"}, {"--direct", "--io-uring=false"}, {"--supervise", "--direct"}, {"--supervise", "--direct", "--io-uring=false"}, {}} {
		t.Run(strings.Join(flags, " "), func(t *testing.T) {
			s := newSite(t, 64*mib)
			s.label("-m", "1m", "-s", "64m")
			s.launch(flags...)
			s.until("the daemon answers, or refuses", func() bool {
				select {
				case <-s.done:
					return true
				default:
					return s.worker() != 0
				}
			})
			if strings.Contains(s.log.String(), "past the system's cache (direct)") && strings.Contains(s.log.String(), geomlib.ErrNotSupported.Error()) {
				t.Skip("the file system of temporary files has no O_DIRECT")
			}
			if has, want := s.hasRings(), slices.Contains(flags, "--direct") && !slices.Contains(flags, "--io-uring=false") && mayHaveRings(t); has != want {
				t.Errorf("rings: %t\n%s", has, s.log)
			}
			<-s.load("24M")
			s.term()
			if out := s.gvirstor("check", s.files[0]); !strings.Contains(out, "No errors.") {
				t.Errorf("check:\n%s", out)
			}
		})
	}
}

// TestNoWorkerFollowsBeforeTheDisksHaveWhatTheLastBegan: a disk does nothing while the file
// system that it lies on is frozen, and the kernel, which has writes of a ring, goes on with
// them after the worker's death.
func TestNoWorkerFollowsBeforeTheDisksHaveWhatTheLastBegan(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	need(t, "losetup", "mkfs.ext4", "fsfreeze", "mount", "umount", "fio")
	if !mayHaveRings(t) {
		t.Skip("the system has no io_uring")
	}
	s := newSite(t)
	below, unloop := loop(t, s.file("below", 192*mib))
	command(t, "mkfs.ext4", "-q", "-F", below)
	folder, _ := s.mounted("fs", below, "rw")
	unmount := func() { command(t, "umount", "-l", folder) } // be it in use, when something went wrong
	image := filepath.Join(folder, "image")
	command(t, "truncate", "-s", "64M", image)
	device, leave := loop(t, image)
	var thaw func()
	kill := s.kill
	last(t, &thaw, &kill, &leave, &unmount, &unloop)
	s.files = []string{device}
	s.label("-m", "1m", "-s", "64m")
	s.start("--supervise", "--direct")
	<-s.load("16M") // there are chunks
	worker := s.worker()
	const depth = 16
	fio := exec.Command("fio", "--name=v", "--thread", "--ioengine=nbd", "--uri="+s.uri(), "--rw=randwrite", "--bs=4k", "--iodepth="+strconv.Itoa(depth),
		"--size=8M", "--time_based", "--runtime=600", "--aux-path="+s.dir)
	if err := fio.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = fio.Process.Kill()
		_ = fio.Wait() // that it was killed
	}()
	// One that is alone may have a thread that waits, and keeps the process alive.
	for tries := 0; ; tries++ {
		s.until("writes are under way", func() bool { return writesUnderWay(t, device) > 1 })
		thaw = frozen(t, folder)
		s.until("the disk has all that the client asks for", func() bool { return writesUnderWay(t, device) >= depth })
		if !waitsForADisk(t, worker) {
			break
		}
		if tries == 20 {
			t.Fatal("the worker always waits for the disk itself")
		}
		thaw()
	}
	if err := syscall.Kill(worker, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	follows := func() bool { return strings.Contains(s.log.String(), "is started again") }
	s.until("the supervisor awaits what is under way", func() bool {
		return strings.Contains(s.log.String(), "what the worker had begun is awaited") || follows()
	})
	if _, err := os.Stat(filepath.Join("/proc", strconv.Itoa(worker))); err == nil {
		t.Error("the worker itself is there still")
	}
	if n := writesUnderWay(t, device); n < depth {
		t.Errorf("%d writes are under way after the worker's death", n)
	}
	if follows() {
		t.Fatalf("another worker follows while writes of worker %d are under way:\n%s", worker, s.log)
	}
	thaw()
	thaw = nil
	s.nextWorker(worker)
	<-s.load("24M")
	s.term()
	if out := s.gvirstor("check", device); !strings.Contains(out, "No errors.") {
		t.Errorf("check:\n%s", out)
	}
}

// frozen freezes the file system of a folder until the returned function is called, the test
// ends, be it killed, or a minute has passed.
func frozen(t *testing.T, folder string) (thaw func()) {
	t.Helper()
	c := exec.Command("sh", "-c", `fsfreeze -f "$0" && echo frozen && { timeout 60 cat; fsfreeze -u "$0"; }`, folder)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	thaw = func() {
		in.Close()
		if err := c.Wait(); err != nil {
			t.Errorf("thaw %s: %v", folder, err)
		}
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		thaw()
		t.Fatalf("freeze %s: %v, %q", folder, err, line)
	}
	return thaw
}

// writesUnderWay is how many writes a disk has that are not done.
func writesUnderWay(t *testing.T, disk string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(disk), "inflight"))
	if err != nil {
		t.Fatal(err)
	}
	var reads, writes int
	if _, err := fmt.Sscan(string(b), &reads, &writes); err != nil {
		t.Fatalf("%q: %v", b, err)
	}
	return writes
}

// waitsForADisk reports whether any thread of a process does, which no signal ends.
func waitsForADisk(t *testing.T, pid int) bool {
	t.Helper()
	threads, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task", "*", "stat"))
	if err != nil || len(threads) == 0 {
		t.Fatalf("no threads of %d are seen: %v", pid, err)
	}
	return slices.ContainsFunc(threads, func(path string) bool {
		b, err := os.ReadFile(path)
		_, state, _ := bytes.Cut(b, []byte(") ")) // behind its name
		return err == nil && bytes.HasPrefix(state, []byte("D"))
	})
}

// opensPastTheCache reports whether the process that serves has a disk open with O_DIRECT.
func (s *site) opensPastTheCache(disk string) bool {
	s.t.Helper()
	folder := filepath.Join("/proc", strconv.Itoa(s.worker()))
	fds, err := os.ReadDir(filepath.Join(folder, "fd"))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, fd := range fds {
		if path, err := os.Readlink(filepath.Join(folder, "fd", fd.Name())); err != nil || path != disk {
			continue
		}
		info, err := os.ReadFile(filepath.Join(folder, "fdinfo", fd.Name()))
		if err != nil {
			s.t.Fatal(err)
		}
		for line := range strings.Lines(string(info)) {
			if flags, ok := strings.CutPrefix(line, "flags:"); ok {
				n, err := strconv.ParseInt(strings.TrimSpace(flags), 8, 64)
				return err == nil && n&syscall.O_DIRECT != 0
			}
		}
	}
	s.t.Fatalf("the worker does not have %s", disk)
	return false
}

// TestWhatCannotBeServedPastTheCacheIsRefused, with its name and what to leave out.
func TestWhatCannotBeServedPastTheCacheIsRefused(t *testing.T) {
	s := newSite(t)
	f, err := os.CreateTemp("/dev/shm", "gv")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { os.Remove(f.Name()) })
	if err := f.Truncate(64 * mib); err != nil {
		t.Fatal(err)
	}
	f.Close()
	s.files = []string{f.Name()}
	s.label("-m", "1m", "-s", "64m")
	s.launch("--direct")
	<-s.done
	if !strings.Contains(s.log.String(), f.Name()+": read and written past the system's cache") {
		t.Errorf("the log:\n%s", s.log)
	}
}
