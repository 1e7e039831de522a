package blackbox

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

var endings = flag.Int("endings", 0, "how many deaths of a worker, and as many upgrades, each client of TestNBDClientsThatReconnectLastThroughWorkers is to last through; 0 for a few")

// between is a server that passes requests on to the site's volume and connects again by
// itself, as one that people put a virtual machine or a kernel's client on. at is the site
// that sees a client's requests, and nothing of what connecting again needs.
type between func(t *testing.T, s *site) (uri string, at *site)

// throughQEMU is QEMU's own client with reconnect-delay, as a virtual machine has it.
func throughQEMU(t *testing.T, s *site) (string, *site) {
	need(t, "qemu-nbd")
	socket := filepath.Join(s.dir, "between")
	s.serveBetween(socket, "qemu-nbd", "--persistent", "-e", "16", "-x", "vol", "-k", socket, "--image-opts",
		"driver=nbd,server.type=unix,server.path="+s.socket+",export=vol,reconnect-delay=60")
	return "nbd+unix:///vol?socket=" + socket, s
}

// throughNBDKit is libnbd, opened again by nbdkit's filter.
func throughNBDKit(t *testing.T, s *site) (string, *site) {
	uri, _ := s.nbdkitBetween(t)
	return uri, s
}

// nbdkitBetween is throughNBDKit with a function that ends it before the test does.
func (s *site) nbdkitBetween(t *testing.T) (uri string, end func()) {
	need(t, "nbdkit")
	socket := filepath.Join(s.dir, "between")
	end = s.serveBetween(socket, "nbdkit", "-f", "-U", socket, "--filter=retry", "nbd", "socket="+s.socket, "export=vol", "retry=60",
		"retries=100", "retry-delay=1", "retry-exponential=no")
	return "nbd+unix:///?socket=" + socket, end
}

// throughAComponent is our own client, which a second volume has as its component.
func throughAComponent(t *testing.T, s *site) (string, *site) {
	above := newSite(t)
	above.files = []string{s.uri()}
	if os.Geteuid() == 0 { // its worker is somebody else
		if err := os.Chmod(s.socket, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	above.label("-s", "128m", "-m", "1m")
	above.start()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the daemon above: %s", above.log)
		}
		above.kill() // first, as it would wait for its component
	})
	return above.uri(), above
}

// serveBetween starts a server and waits for its socket. The server goes on until the
// returned function is called, or the test ends.
func (s *site) serveBetween(socket, name string, args ...string) (end func()) {
	s.t.Helper()
	server := exec.Command(name, args...)
	server.Stderr = os.Stderr
	if err := server.Start(); err != nil {
		s.t.Fatal(err)
	}
	end = sync.OnceFunc(func() {
		_ = server.Process.Kill()
		_ = server.Wait() // it was killed
	})
	s.t.Cleanup(end)
	s.until(name+" serves", func() bool {
		_, err := os.Stat(socket)
		return err == nil
	})
	return end
}

// TestNBDClientsThatReconnectLastThroughWorkers: a worker that dies takes its connections
// along, and what it has done of their requests is done. Who connects again and asks again
// for what was not answered has no error, and reads what it wrote.
func TestNBDClientsThatReconnectLastThroughWorkers(t *testing.T) {
	need(t, "fio")
	rounds := *endings
	if rounds == 0 {
		rounds = 8
		if testing.Short() {
			rounds = 3
		}
	}
	for name, through := range map[string]between{"QEMU": throughQEMU, "nbdkit": throughNBDKit, "component": throughAComponent} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, 96*mib, 96*mib)
			s.label("-s", "160m", "-m", "1m")
			s.start("--supervise")
			uri, at := through(t, s)
			done := s.loadOf(uri, "24M")
			verified := 0
			worker := s.worker()
			for n := range rounds {
				before := at.served()
				s.until("its client works", func() bool {
					select {
					case <-done:
						verified++
						done = s.loadOf(uri, "24M")
					default:
					}
					return at.served() > before+20
				})
				if err := syscall.Kill(worker, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				worker = s.nextWorker(worker)
				// An upgrade, which these clients do not notice, begins a new supervisor:
				// it does not make the next worker wait for the deaths before.
				worker = s.upgradeAgain(worker)
				if t.Failed() {
					t.Fatalf("in round %d", n+1)
				}
			}
			<-done
			t.Logf("%d deaths and upgrades; fio verified %d times 24 MiB", rounds, verified+1)
		})
	}
}

// served is how many reads and writes the worker has done.
func (s *site) served() uint64 {
	ops := s.status().Operations
	return ops["read"].Requests + ops["write"].Requests
}
