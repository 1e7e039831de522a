package blackbox

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// firstRelease is the commit of the release whose volumes this one takes over.
const firstRelease = "1c2dfe8"

// buildFirstRelease builds that release's programs from the history of this tree and
// returns their folder.
func buildFirstRelease(t *testing.T) string {
	t.Helper()
	src, bin := t.TempDir(), t.TempDir()
	archive := exec.CommandContext(t.Context(), "git", "-C", "../..", "archive", firstRelease)
	extract := exec.CommandContext(t.Context(), "tar", "-x", "-C", src)
	var said logBuffer
	pipe, err := archive.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	archive.Stderr, extract.Stderr, extract.Stdin = &said, &said, pipe
	if err := errors.Join(archive.Start(), extract.Run(), archive.Wait()); err != nil {
		if os.Getenv("GVIRSTOR_REQUIRE_TOOLS") == "1" {
			t.Fatalf("the first release is not in this tree's history: %v\n%s", err, &said)
		}
		t.Skipf("NOT TESTED: the first release is not in this tree's history (a shallow clone?): %v\n%s", err, &said)
	}
	// Without the folder's name in it, what one test has compiled is there for the next.
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", bin, "./ggated-virstor", "./gvirstor")
	build.Dir, build.Env = src, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the first release: %v\n%s", err, out)
	}
	for _, dir := range []string{filepath.Dir(bin), bin} {
		if err := os.Chmod(dir, 0o755); err != nil { // for the worker's user
			t.Fatal(err)
		}
	}
	return bin
}

// firstReleases are the flags that the first release knows.
func (s *site) firstReleases() []string {
	return []string{"--nbd", "unix:" + s.socket, "--control", s.control, "--run-dir", s.dir, "--backup-dir", filepath.Join(s.dir, "backups")}
}

// launchFirst starts the first release's daemon.
func (s *site) launchFirst(daemon string, flags ...string) {
	s.t.Helper()
	s.cmd = exec.Command(daemon, append(append(s.firstReleases(), flags...), s.files...)...)
	s.run()
}

func (s *site) startFirst(daemon string, flags ...string) {
	s.t.Helper()
	s.launchFirst(daemon, flags...)
	s.said("msg=ready")
}

// Whatever the first release has written is served by this one, however its daemon
// ended; the way back leads through a stop, and without one is refused.
func TestVolumesOfTheFirstReleaseAreServedAndHandedBack(t *testing.T) {
	bin := buildFirstRelease(t)
	daemon, gvirstor := filepath.Join(bin, "ggated-virstor"), filepath.Join(bin, "gvirstor")
	for name, end := range map[string]func(s *site){
		"ended in order": (*site).term,
		"killed":         (*site).kill,
		"stopped": func(s *site) {
			command(t, gvirstor, "stop", "--control", s.control, "-f", "vol")
			s.term()
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, 96*mib, 96*mib)
			command(t, gvirstor, append([]string{"label", "-s", "1g", "-m", "1m", "vol"}, s.files...)...)
			l := newLedger("through the upgrade", 0, 48*mib, cells(sectorSize))
			write := func(from, to int64, generation uint64) {
				t.Helper()
				c := s.dial()
				for off := from; off < to; off += mib {
					if err := l.put(c, off, 64<<10, generation); err != nil {
						t.Fatalf("%v\n%s", err, s.log)
					}
				}
				if err := errors.Join(c.Flush(), c.Close()); err != nil {
					t.Fatal(err)
				}
			}
			s.startFirst(daemon)
			write(0, 16*mib, 1)
			end(s)

			s.start()
			s.mustBe(l, "served by this release", false)
			write(8*mib, 32*mib, 2)
			s.gvirstor("check", "vol")
			s.term()

			// Not yet: the first release knows nothing of members.
			s.launchFirst(daemon)
			<-s.done
			if said := s.log.String(); s.cmd.ProcessState.Success() || !strings.Contains(said, "extension record of an unknown version") {
				t.Fatalf("the first release, on a volume that was not handed back: %v\n%s", s.cmd.ProcessState, said)
			}
			s.cmd = nil
			s.start()
			s.mustBe(l, "after the first release has refused it", false)
			s.gvirstor("stop", "-f", "vol")
			s.term()

			s.startFirst(daemon)
			s.mustBe(l, "handed back, and served by the first release", false)
			write(24*mib, 48*mib, 3)
			end(s)
			s.start()
			s.mustBe(l, "served by this release again", false)
		})
	}
}

// startFirstToUpgrade starts the first release's daemon under its supervisor. upgrade has
// that go on with this program, under the daemon's clients.
func (s *site) startFirstToUpgrade(bin string) (upgrade func()) {
	t := s.t
	t.Helper()
	// The place of the program, and what its configuration says, change under the daemon.
	daemon, conf := filepath.Join(bin, "daemon"), filepath.Join(s.dir, "conf")
	replace(t, filepath.Join(bin, "ggated-virstor"), daemon)
	if err := os.WriteFile(conf, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.startFirst(daemon, "--supervise", "--config", conf)
	return func() {
		t.Helper()
		replace(t, filepath.Join(programs, "ggated-virstor"), daemon)
		if err := os.WriteFile(conf, []byte("state-dir = "+filepath.Join(s.dir, "state")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		s.until("this release serves", func() bool { return strings.Count(s.log.String(), "msg=ready") == 2 })
	}
}

// The first release's supervisor goes on with this program, and the volume stays where
// its clients find it.
func TestTheFirstReleasesDaemonIsUpgradedWhileItServes(t *testing.T) {
	bin := buildFirstRelease(t)
	s := newSite(t, 96*mib, 96*mib)
	s.label("-s", "1g", "-m", "1m")
	upgrade := s.startFirstToUpgrade(bin)
	w := newWriter(0, 64, 1500000)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { w.runThrough(s, stop) })
	more := func() {
		t.Helper()
		before := w.total()
		s.until("the client writes again", func() bool { return w.total() > before+50 })
	}
	more()
	upgrade()
	more()
	for range 2 { // and goes on being one that can be replaced
		s.upgradeAgain(s.worker())
		more()
	}
	close(stop)
	wg.Wait()
	w.verify(t, s.dial())
	s.term()
	s.start()
	w.verify(t, s.dial())
}

// replace puts a copy of a program in the place of another, as an upgrade does.
func replace(t testing.TB, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to+".new", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close(), os.Rename(to+".new", to)); err != nil {
		t.Fatal(err)
	}
}
