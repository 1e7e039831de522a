package blackbox

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

// needFUSE skips the test where this user may not make file systems.
func needFUSE(t testing.TB) {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("NOT TESTED: no FUSE for this user: %v", err)
	}
	f.Close()
}

// failingFile makes a file of size bytes whose reads and writes fail with EIO while the
// file bad is there: a disk of nbdkit's behind FUSE.
func (s *site) failingFile(size string) (path, bad string) {
	t := s.t
	t.Helper()
	need(t, "nbdkit", "nbdfuse", "fusermount3")
	needFUSE(t)
	path, bad = filepath.Join(s.dir, "component"), filepath.Join(s.dir, "bad")
	socket := filepath.Join(s.dir, "failing")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	background(t, "nbdkit", "-f", "-U", socket, "--filter=error", "memory", size, "error=EIO", "error-rate=100%", "error-file="+bad)
	exists := func(what, path string, ok func(os.FileInfo) bool) {
		s.until(what, func() bool {
			fi, err := os.Stat(path)
			return err == nil && ok(fi)
		})
	}
	exists("nbdkit listens", socket, func(os.FileInfo) bool { return true })
	mount := []string{path, "nbd+unix:///?socket=" + socket}
	if os.Getuid() == 0 { // the worker is another user, whom the kernel keeps off otherwise
		mount = append([]string{"-o", "allow_other"}, mount...)
	}
	background(t, "nbdfuse", mount...)
	exists("the disk is a file", path, func(fi os.FileInfo) bool { return fi.Size() > 0 })
	t.Cleanup(func() {
		s.kill()
		if out, err := exec.Command("fusermount3", "-u", path).CombinedOutput(); err != nil {
			t.Errorf("unmount: %v: %s", err, out)
		}
	})
	return path, bad
}

func TestAComponentThatFailsReadsAndWritesIsToldOfEverywhere(t *testing.T) {
	s := newSite(t)
	path, bad := s.failingFile("32M")
	s.files = []string{path}
	s.label("-s", "1g", "-m", "1m")
	flags := s.hookFlags()
	s.start(flags...)
	l := newLedger("data", 0, 4*mib, cells(sectorSize))
	c := s.dial()
	if err := errors.Join(l.put(c, 0, 4*mib, 1), c.Flush()); err != nil {
		t.Fatal(err)
	}
	s.term()
	s.start(flags...) // so that reads are not answered by a cache
	c = s.dial()
	if page := s.page("/readyz"); page != "ready\n" {
		t.Errorf("/readyz says %q", page)
	}

	if err := os.WriteFile(bad, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		_, read := c.ReadAt(make([]byte, 4096), mib)
		for what, err := range map[string]error{"read": read, "write": l.put(c, 0, 4096, 2)} {
			if e := (*nbdclient.Error)(nil); !errors.As(err, &e) || e.Errno != 5 {
				t.Fatalf("%s of a component that fails: %v, want EIO", what, err)
			}
		}
	}
	s.mustTellOfErrors()
	if err := os.Remove(bad); err != nil {
		t.Fatal(err)
	}
	s.mustBe(l, "when the component works again", true)
	if err := errors.Join(l.put(c, 0, mib, 3), c.Flush()); err != nil {
		t.Errorf("when the component works again: %v", err)
	}
	s.gvirstor("stop", "-f", "vol")
	s.gvirstor("check", path)
}

// mustTellOfErrors makes sure that errors of the one component are told of everywhere,
// and not once for each request.
func (s *site) mustTellOfErrors() {
	t := s.t
	t.Helper()
	v := s.status()
	for _, want := range []control.Condition{control.ReadErrors, control.WriteErrors} {
		if !slices.Contains(v.Conditions, want) || !slices.Contains(v.Components[0].State, want) {
			t.Errorf("%s is no condition: %q, of the component %q", want, v.Conditions, v.Components[0].State)
		}
		for _, args := range [][]string{{"status"}, {"list"}, {"status", "--json"}} {
			if out := s.gvirstor(args...); !strings.Contains(out, string(want)) {
				t.Errorf("gvirstor %s does not tell of %s:\n%s", args, want, out)
			}
		}
		for where, text := range map[string]string{"gvirstor status": s.gvirstor("status"), "/readyz": s.page("/readyz")} {
			if !strings.Contains(text, string(want)+"; "+want.Remedy()) {
				t.Errorf("%s does not say what to do about %s:\n%s", where, want, text)
			}
		}
		if n := figure(t, s.scrape(), "gvirstor_component_trouble", v.Components[0].Name, string(want)); n != 1 {
			t.Errorf("the metric of %s is %v", want, n)
		}
	}
	s.until("an alert tells of it", func() bool { return slices.Contains(levels(s.alerts(), false), "component-errors") })
	said := func() int { return strings.Count(s.log.String(), "component fails") }
	s.until("reads and writes are told of", func() bool { return said() >= 2 })
	if n := said(); n != 2 {
		t.Errorf("%d lines tell of 200 failures, want 2:\n%s", n, s.log)
	}
}
