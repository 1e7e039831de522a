package blackbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

// worker is the process that answers on the control socket, or 0.
func (s *site) worker() int {
	c, err := control.Dial(s.control)
	if err != nil {
		return 0
	}
	defer c.Close()
	st, err := c.Status(s.t.Context())
	if err != nil || len(st.Volumes) == 0 {
		return 0
	}
	return st.PID
}

// nextWorker waits for another worker than this one.
func (s *site) nextWorker(old int) int {
	s.t.Helper()
	pid := 0
	s.until("another worker serves", func() bool {
		pid = s.worker()
		return pid != 0 && pid != old
	})
	return pid
}

// upgradeAgain has a daemon with that worker go on with the program that it is, and returns
// the next worker.
func (s *site) upgradeAgain(worker int) (next int) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
		s.t.Fatal(err)
	}
	return s.nextWorker(worker)
}

// runThrough is writer.run by a client that connects again.
func (w *writer) runThrough(s *site, stop <-chan struct{}) {
	for n := uint64(0); ; n += 1000 {
		select {
		case <-stop:
			return
		default:
		}
		c, err := nbdclient.Dial(s.t.Context(), s.uri(), nbdclient.Options{})
		if err != nil {
			select {
			case <-time.After(5 * time.Millisecond):
			case <-stop:
			}
			continue
		}
		done := make(chan struct{})
		go func() {
			select {
			case <-stop:
				c.Abort()
			case <-done:
			}
		}()
		w.run(c, n)
		close(done)
		c.Abort()
	}
}

func (w *writer) total() (n uint64) {
	for i := range w.acked {
		n += w.acked[i].Load()
	}
	return n
}

func TestTheSupervisorReplacesWorkersAndNothingAcknowledgedIsLost(t *testing.T) {
	s := newSite(t, 96*mib, 96*mib)
	s.label("-s", "1g", "-m", "1m")
	s.start("--supervise")
	supervisor := s.cmd.Process.Pid
	writers := []*writer{newWriter(0, 64, 1500000), newWriter(100, 64, 1500000)}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, w := range writers {
		wg.Go(func() { w.runThrough(s, stop) })
	}
	more := func() {
		t.Helper()
		before := []uint64{writers[0].total(), writers[1].total()}
		s.until("both clients write again", func() bool {
			return writers[0].total() > before[0]+50 && writers[1].total() > before[1]+50
		})
	}
	more()
	worker := s.worker()
	if worker == supervisor {
		t.Fatal("there is no worker")
	}
	for round := range 3 { // death
		if err := syscall.Kill(worker, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		worker = s.nextWorker(worker)
		more()
		if round == 1 { // a component that was added is not forgotten
			s.gvirstor("add", "vol", s.file("more", 32*mib))
		}
	}
	if n := len(s.status().Components); n != 3 {
		t.Fatalf("%d components", n)
	}
	for range 2 { // upgrade
		worker = s.upgradeAgain(worker)
		more()
	}
	s.said("upgraded")
	// Both die, the supervisor last: the next one finds everything free.
	if err := syscall.Kill(worker, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.kill()
	s.files = append(s.files, filepath.Join(s.dir, "more"))
	s.start("--supervise")
	more()
	// The supervisor alone dies: its worker leaves.
	s.kill()
	s.start("--supervise")
	more()
	close(stop)
	wg.Wait()
	c := s.dial()
	for _, w := range writers {
		w.verify(t, c)
	}
	c.Close()
	s.until("the clients are gone", func() bool {
		v := s.status()
		return len(v.Published) == 1 && v.Published[0].Connections == 0
	})
	s.gvirstor("stop", "vol")
	s.term()
	for _, path := range []string{s.socket, s.control} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is left", path)
		}
	}
}

func TestAnUpgradeThatCouldNotStartIsNone(t *testing.T) {
	s := newSite(t, 24*mib)
	s.label("-s", "1g", "-m", "1m")
	conf := filepath.Join(s.dir, "conf")
	configure := func(text string) {
		t.Helper()
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	configure("")
	s.start("--supervise", "--config", conf)
	worker, c := s.worker(), s.dial()
	upgrade := func() {
		t.Helper()
		if err := s.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
	}
	configure("nbd-max = many\n")
	upgrade()
	s.said("no upgrade")
	s.said("conf:1:")
	if _, err := c.WriteAt(make([]byte, 4096), 0); err != nil || s.worker() != worker {
		t.Errorf("a configuration that is wrong has changed the service: %v, worker %d was %d", err, s.worker(), worker)
	}
	configure("")
	upgrade()
	s.nextWorker(worker)
}

func TestAWorkerIsNotRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if err := os.Chmod(programs, 0o755); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, 96*mib)
	s.label("-s", "1g", "-m", "1m")
	s.start("--supervise", "--user", "nobody")
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.worker()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "Uid:"); ok {
			for _, f := range strings.Fields(rest) {
				if uid, err := strconv.Atoi(f); err != nil || uid == 0 {
					t.Fatalf("the worker runs as %s", line)
				}
			}
		}
	}
	c := s.dial()
	if _, err := c.WriteAt(make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	c.Close()
	s.gvirstor("add", "vol", s.file("more", 32*mib)) // the supervisor opens it
	s.gvirstor("stop", "-f", "vol")
	s.term()
}

func TestASupervisorThatCannotServeEnds(t *testing.T) {
	s := newSite(t, 96*mib)
	out, err := try(t, filepath.Join(programs, "ggated-virstor"), "--supervise", "--control", s.control, "--run-dir", s.dir, s.files[0])
	if err == nil || !strings.Contains(out, "no volume") {
		t.Fatalf("%v\n%s", err, out)
	}
}

func TestTwoSupervisorsDoNotShareAControlSocket(t *testing.T) {
	s := newSite(t, 96*mib)
	s.label("-s", "1g", "-m", "1m")
	s.start("--supervise")
	begin := time.Now()
	out, err := try(t, filepath.Join(programs, "ggated-virstor"), "--supervise", "--control", s.control, "--run-dir", s.dir)
	if err == nil || !strings.Contains(out, "another ggated-virstor") || time.Since(begin) > refusedTime {
		t.Fatalf("%v after %v\n%s", err, time.Since(begin), out)
	}
	s.term()
}
