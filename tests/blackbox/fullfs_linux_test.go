package blackbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

// inside is set in the environment of a test in a name space of its own.
const inside = "GVIRSTOR_TEST_INSIDE"

// withMounts runs a test where file systems can be mounted: as root here, else
// in a name space in which the test is root. Only a user whom the system
// denies that is let off.
func withMounts(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	if os.Geteuid() == 0 {
		test(t)
		return
	}
	if os.Getenv(inside) != "" {
		t.Fatal("not root in a name space of its own")
	}
	c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1")
	c.Env = append(os.Environ(), inside+"=1")
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := c.CombinedOutput()
	var ended *exec.ExitError
	switch {
	case errors.As(err, &ended):
		t.Fatalf("in a name space of its own: %v\n%s", err, out)
	case err != nil:
		t.Skipf("NOT TESTED: mounting needs root, and this user may not have a name space of its own: %v", err)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skipf("NOT TESTED: mounting needs root, and is denied in a name space of this user's:\n%s", out)
	}
}

// smallFS mounts a file system of so many bytes and returns its directory.
func smallFS(t *testing.T, s *site, options string) string {
	t.Helper()
	dir := filepath.Join(s.dir, "fs")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	err := unix.Mount("tmpfs", dir, "tmpfs", 0, options)
	if os.Getenv(inside) != "" && (errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES)) {
		t.Skipf("mount a small tmpfs: %v", err)
	}
	if err != nil {
		t.Fatalf("mount a small tmpfs: %v", err)
	}
	t.Cleanup(func() {
		s.kill()
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// ballast is a file that takes the rest of its file system.
func ballast(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 4096)
	for {
		_, err := f.Write(b)
		if errors.Is(err, syscall.ENOSPC) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// isNoSpace reports whether a client was told ENOSPC.
func isNoSpace(err error) bool {
	var e *nbdclient.Error
	return errors.As(err, &e) && e.Errno == 28
}

func TestAFullFileSystemUnderSparseComponentsLosesNothing(t *testing.T) {
	withMounts(t, func(t *testing.T) { atFronts(t, fullFileSystem) })
}

func TestWritesWaitWhileTheFileSystemUnderSparseComponentsIsFull(t *testing.T) {
	withMounts(t, func(t *testing.T) { atFronts(t, waitForRoom) })
}

// atFronts is atBothFronts where there are two: a name space of a user's own has no
// other user to start the daemon as.
func atFronts(t *testing.T, do func(t *testing.T, begin func(s *site, flags ...string))) {
	if os.Getenv(inside) != "" {
		do(t, (*site).start)
		return
	}
	atBothFronts(t, do)
}

// mustTellOfFullStorage makes sure that a component without room below it is told of
// everywhere, and not once for each write.
func (s *site) mustTellOfFullStorage() {
	t := s.t
	t.Helper()
	v := s.status()
	if !slices.Contains(v.Conditions, control.StorageFull) || !strings.Contains(v.State, "storage full") || slices.Contains(v.Conditions, control.Full) {
		t.Errorf("conditions %q, state %q", v.Conditions, v.State)
	}
	failing := slices.IndexFunc(v.Components, func(c control.ComponentStatus) bool { return slices.Contains(c.State, control.StorageFull) })
	if failing < 0 {
		t.Fatalf("no component says so: %+v", v.Components)
	}
	if out := s.gvirstor("status"); !strings.Contains(out, "storage full; make room on") {
		t.Errorf("gvirstor status does not say what to do:\n%s", out)
	}
	if page := s.page("/readyz"); !strings.Contains(page, "storage full; make room on") {
		t.Errorf("/readyz says %q", page)
	}
	if n := figure(t, s.scrape(), "gvirstor_component_trouble", v.Components[failing].Name, "storage full"); n != 1 {
		t.Errorf("the metric of the trouble is %v", n)
	}
	for _, args := range [][]string{{"status"}, {"list"}, {"status", "--json"}} {
		if out := s.gvirstor(args...); !strings.Contains(out, "storage full") {
			t.Errorf("gvirstor %s does not say so:\n%s", args, out)
		}
	}
	s.until("an alert tells of it", func() bool { return slices.Contains(levels(s.alerts(), false), "storage-full") })
	s.said("make room there")
	if n := strings.Count(s.log.String(), "component fails"); n == 0 || n > 4 {
		t.Errorf("%d lines tell of failures:\n%s", n, s.log)
	}
}

// thin is a volume of sparse components on a file system of 40 MiB, of which the file
// extra takes 16.
func thin(t *testing.T) (s *site, dir, extra string, flags []string) {
	s = newSite(t)
	dir = smallFS(t, s, "size=40m")
	for _, name := range []string{"fs/component0", "fs/component1"} {
		s.files = append(s.files, s.file(name, 96*mib))
	}
	extra = filepath.Join(dir, "extra")
	if err := os.WriteFile(extra, make([]byte, 16*mib), 0o600); err != nil {
		t.Fatal(err)
	}
	s.label("-s", "64g", "-m", "1m")
	return s, dir, extra, append(s.hookFlags(), "--backup-dir", filepath.Join(s.dir, "backups"))
}

// each is what is written of every MiB, bytes.
const each = 192 << 10

func waitForRoom(t *testing.T, begin func(s *site, flags ...string)) {
	s, dir, extra, flags := thin(t)
	begin(s, flags...) // the default waits
	l := newLedger("clients", 0, 160*mib, cells(sectorSize))
	const clients = 4
	failed := make(chan error, clients)
	var next atomic.Int64 // is shared, or a fast client is done before the file system is full and does not wait
	for range clients {
		c := s.dial()
		go func() {
			for off := next.Add(mib) - mib; off < l.size; off = next.Add(mib) - mib {
				if err := l.put(c, off, each, 1); err != nil {
					failed <- fmt.Errorf("write at %d: %w", off, err)
					return
				}
			}
			failed <- nil
		}()
	}
	held := func(n int) {
		t.Helper()
		s.until(fmt.Sprintf("%d writes wait", n), func() bool { return s.status().Held.Count == n })
	}
	held(clients)
	s.mustTellOfFullStorage()

	// Reads, flushes and what needs no room go on; a write into a hole waits, too.
	c := s.dial()
	if err := l.put(c, 0, each, 2); err != nil {
		t.Fatalf("write over what is there: %v", err)
	}
	if err := c.Flush(); err != nil {
		t.Fatalf("flush beside writes that wait: %v", err)
	}
	s.mustBe(l, "full", false)
	ballast(t, filepath.Join(dir, "ballast"))
	filler, filled := s.dial(), make(chan error, 1)
	go func() { filled <- l.put(filler, 512<<10, 64<<10, 3) }()
	held(clients + 1)

	// What a client that dies waited for is not done later.
	dies := s.dial()
	gone := make(chan error, 1)
	far := newLedger("far away", 3*gib, mib, cells(sectorSize))
	go func() { gone <- far.put(dies, far.base, 4096, 4) }()
	held(clients + 2)
	dies.Abort()
	if err := <-gone; err == nil {
		t.Fatal("the write of a client that died was acknowledged")
	}
	held(clients + 1)
	far.withdraw(far.base, 4096, 4)

	for _, path := range []string{extra, filepath.Join(dir, "ballast")} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	for range clients {
		if err := <-failed; err != nil {
			t.Fatalf("%v\n%s", err, s.log)
		}
	}
	if err := <-filled; err != nil {
		t.Fatalf("write into a hole: %v", err)
	}
	held(0)
	s.mustBe(l, "with room again", true)
	s.mustBe(far, "with room again", true)

	// Nobody waits longer than is said.
	s.kill()
	ballast(t, filepath.Join(dir, "ballast"))
	begin(s, append(flags, "--full-timeout", "1s")...)
	s.mustBe(l, "after a death", true)
	if err := far.put(s.dial(), far.base, 4096, 5); !isNoSpace(err) {
		t.Errorf("a write that waited for too long: %v, want ENOSPC", err)
	}
	if err := os.Remove(filepath.Join(dir, "ballast")); err != nil {
		t.Fatal(err)
	}
	s.mustBe(far, "after a write that waited for too long", false)
	s.gvirstor("stop", "-f", "vol")
	s.gvirstor(append([]string{"check"}, s.files...)...)
}

func fullFileSystem(t *testing.T, begin func(s *site, flags ...string)) {
	s, dir, extra, flags := thin(t)
	flags = append(flags, "--when-full", "error")
	begin(s, flags...)

	// Allocation meets the end of the file system, under several clients.
	l := newLedger("clients", 0, 160*mib, cells(sectorSize))
	var wg sync.WaitGroup
	var refused atomic.Int64
	for i := range int64(4) {
		c := s.dial()
		wg.Go(func() {
			for off := i * mib; off < l.size; off += 4 * mib {
				switch err := l.put(c, off, each, 1); {
				case isNoSpace(err):
					refused.Add(1)
				case err != nil:
					t.Errorf("write at %d: %v, want ENOSPC", off, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if refused.Load() == 0 {
		t.Fatal("the file system was not full")
	}
	if v := s.status(); v.FreeChunks == 0 {
		t.Fatalf("the volume is full, not the file system: %+v", v)
	}
	s.mustTellOfFullStorage()
	c := s.dial()
	if err := c.Flush(); err != nil {
		t.Fatalf("flush after writes failed for space: %v", err)
	}
	s.mustBe(l, "full", false)

	// So does a write into a hole of a chunk that is allocated; what is there stays.
	ballast(t, filepath.Join(dir, "ballast"))
	if err := l.put(c, 512<<10, 64<<10, 2); !isNoSpace(err) {
		t.Fatalf("write into a hole: %v, want ENOSPC", err)
	}
	if err := l.put(c, 8192, each-8192, 3); err != nil {
		t.Fatalf("write over what is there: %v", err)
	}
	s.mustBe(l, "after a write into a hole", false)

	// A daemon that dies now comes back.
	s.kill()
	begin(s, flags...)
	s.mustBe(l, "after a restart on a full file system", true)
	c = s.dial()
	if err := l.put(c, 0, each, 4); err != nil {
		t.Fatalf("write over what is there: %v", err)
	}

	// There is space for the data, and none for the sector of the map: pages of
	// either are taken one by one until it comes to that.
	ballast(t, filepath.Join(dir, "ballast"))
	const mapPage = 4096 / 8 * mib // is mapped by a page of the map
	far := newLedger("far away", 3*gib, mib, cells(sectorSize))
	left := int64(16 * mib)
	for at := far.base; !strings.Contains(s.status().State, "degraded"); at += mapPage {
		if at >= 64*gib {
			t.Fatalf("the map was always written\n%s", s.log)
		}
		if err := far.put(c, at, 4096, 5); err != nil && !isNoSpace(err) {
			t.Fatalf("write at %d: %v, want ENOSPC", at, err)
		}
		far = newLedger("far away", at+mapPage, mib, cells(sectorSize))
		left -= 4096
		if err := os.Truncate(extra, left); err != nil {
			t.Fatal(err)
		}
	}
	if v := s.status(); !strings.Contains(v.State, "degraded") {
		t.Errorf("state %q does not say degraded", v.State)
	}
	s.until("the degradation is told", func() bool { return slices.Contains(levels(s.alerts(), false), "degraded") })
	if err := l.put(c, 4*mib, each, 6); err != nil && !isNoSpace(err) {
		t.Fatalf("write over what is there while degraded: %v", err)
	}
	if err := l.put(c, 0, each, 7); err != nil {
		t.Fatalf("write over what is there while degraded: %v", err)
	}
	s.mustBe(l, "degraded", false)

	// Space is made.
	for _, path := range []string{extra, filepath.Join(dir, "ballast")} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	s.until("the volume recovers", func() bool { return !strings.Contains(s.status().State, "degraded") })
	s.until("the recovery is told", func() bool { return slices.Contains(levels(s.alerts(), true), "degraded") })
	if err := far.put(c, far.base, 4096, 8); err != nil {
		t.Fatal(err)
	}
	for off := int64(0); off < 16*mib; off += mib {
		if err := l.put(c, off+256<<10, each, 9); err != nil {
			t.Fatalf("write at %d with space again: %v", off, err)
		}
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	s.mustBe(l, "with space again", false)
	s.kill()
	begin(s, flags...)
	s.mustBe(l, "after a last death", true)
	s.mustBe(far, "after a last death", true)
	s.gvirstor("stop", "-f", "vol")
	s.gvirstor(append([]string{"check"}, s.files...)...)
}
