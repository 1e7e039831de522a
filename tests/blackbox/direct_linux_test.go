package blackbox

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
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
