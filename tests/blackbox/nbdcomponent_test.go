package blackbox

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

// exporting serves files of the site by qemu-nbd, which anybody may reach, and has the
// site's volume be made of the exports.
func (s *site) exporting() {
	s.t.Helper()
	need(s.t, "qemu-nbd")
	s.t.Cleanup(func() {
		s.kill() // first, as it would wait for its components
		for i := range s.servers {
			s.endServer(i)
		}
	})
	for i, image := range s.files {
		s.serveImage(i, image)
		s.files[i] = fmt.Sprintf("nbd+unix:///image%d?socket=%s", i, s.serverSocket(i))
	}
}

func (s *site) serverSocket(i int) string { return filepath.Join(s.dir, fmt.Sprint("server", i)) }

// serveImage starts the server of a file, and waits until it serves.
func (s *site) serveImage(i int, image string) {
	s.t.Helper()
	pid := filepath.Join(s.dir, fmt.Sprint("pid", i))
	for _, left := range []string{pid, s.serverSocket(i)} { // by one that was killed
		if err := os.RemoveAll(left); err != nil {
			s.t.Fatal(err)
		}
	}
	server := exec.Command("qemu-nbd", "--persistent", "-e", "16", "-x", fmt.Sprint("image", i), "-k", s.serverSocket(i),
		"-f", "raw", "--discard=unmap", "--pid-file="+pid, image)
	if err := server.Start(); err != nil {
		s.t.Fatal(err)
	}
	if s.servers == nil {
		s.servers = make(map[int]*exec.Cmd)
	}
	s.servers[i] = server
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(pid); err == nil {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("the server of %s does not serve", image)
		}
	}
}

// endServer kills the server of a file.
func (s *site) endServer(i int) {
	s.t.Helper()
	if err := s.servers[i].Process.Kill(); err != nil {
		s.t.Fatal(err)
	}
	_ = s.servers[i].Wait() // it was killed
	delete(s.servers, i)
}

// TestAVolumeOnExportsOfAnotherServer: it is labelled, served, grown, evacuated from one
// export to another under load, and checked without a daemon.
func TestAVolumeOnExportsOfAnotherServer(t *testing.T) {
	for _, front := range []string{"no", "yes"} {
		t.Run("supervise="+front, func(t *testing.T) {
			if front == "yes" && os.Geteuid() != 0 {
				t.Skip("not root")
			}
			need(t, "fio")
			s := newSite(t, 96<<20, 96<<20, 96<<20)
			s.exporting()
			third := s.files[2]
			s.files = s.files[:2]
			s.label("-m", "1m", "-s", "512m")
			s.start("--supervise=" + front)
			for _, name := range s.files {
				if out := s.gvirstor("status"); !strings.Contains(out, name) {
					t.Errorf("status does not name %s:\n%s", name, out)
				}
			}
			load := func(rw string) {
				command(t, "fio", "--name=v", "--ioengine=nbd", "--uri="+s.uri(), "--rw="+rw, "--bs=16k", "--iodepth=16",
					"--size=48M", "--verify=crc32c", "--verify_fatal=1", "--fsync=64", "--output-format=terse", "--aux-path="+s.dir)
			}
			load("randwrite")
			s.gvirstor("add", "vol", third)
			var job sync.WaitGroup
			job.Go(func() { s.gvirstor("remove", "-e", "vol", s.files[1]) })
			load("randrw")
			job.Wait()
			load("read")
			s.files = []string{s.files[0], third}
			if out := s.gvirstor("status"); strings.Contains(out, "image1") || !strings.Contains(out, third) {
				t.Errorf("after the evacuation:\n%s", out)
			}
			s.term()
			if out := s.gvirstor(append([]string{"check"}, s.files...)...); !strings.Contains(out, "No errors.") {
				t.Errorf("check:\n%s", out)
			}
			if out := s.gvirstor("dump", third); !strings.Contains(out, "Metadata on "+third) {
				t.Errorf("dump:\n%s", out)
			}
		})
	}
}

// TestAWorkerThatDiesOverExportsIsReplaced: the next one has connections of its own, and
// what was acknowledged is there.
func TestAWorkerThatDiesOverExportsIsReplaced(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	s := newSite(t, 96<<20)
	s.exporting()
	s.label("-m", "1m", "-s", "256m")
	s.start("--supervise=yes")
	c, err := nbdclient.Dial(t.Context(), s.uri(), nbdclient.Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := []byte(strings.Repeat("acknowledged", 1000))
	if _, err := c.WriteAt(want, 5<<20+7); err != nil {
		t.Fatal(err)
	}
	old := s.worker()
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.nextWorker(old)
	c, err = nbdclient.Dial(t.Context(), s.uri(), nbdclient.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Abort()
	got := make([]byte, len(want))
	if _, err := c.ReadAt(got, 5<<20+7); err != nil || string(got) != string(want) {
		t.Errorf("read after the worker's death: %v, or something else", err)
	}
}

// TestAServerThatIsGoneIsAComponentThatFailed: what is on the others is served, and the
// status names it.
func TestAServerThatIsGoneIsAComponentThatFailed(t *testing.T) {
	s := newSite(t, 64<<20, 64<<20)
	s.exporting()
	s.label("-m", "1m", "-s", "256m")
	s.start("--when-full=error", "--alloc=spread", "--nbd-component-timeout=1s")
	s.outlivesAServer(filepath.Join(s.dir, "component1"))
}

// outlivesAServer ends the server of the second component, of two that chunks are spread
// on: what the first holds is served, and when it is back everything is.
func (s *site) outlivesAServer(image string) {
	t := s.t
	t.Helper()
	c := s.dial()
	const blocks = 32
	block := make([]byte, 1<<20)
	for n := range int64(blocks) {
		block[0] = byte(n + 1)
		if _, err := c.WriteAt(block, n<<20); err != nil {
			t.Fatal(err)
		}
	}
	s.endServer(1)
	good, bad := 0, 0
	for i := range int64(blocks) {
		_, err := c.ReadAt(block, i<<20)
		switch {
		case err != nil:
			bad++
		case block[0] != byte(i+1):
			t.Errorf("block %d holds %d", i, block[0])
		default:
			good++
		}
	}
	if good == 0 || bad == 0 {
		t.Errorf("%d blocks were read, %d not, where half of them are gone", good, bad)
	}
	s.said("component is not reached in time: requests fail")
	s.said("has no connection")
	if out := s.gvirstor("status", "vol"); !strings.Contains(out, "waiting for "+s.files[1]) || strings.Contains(out, "waiting for "+s.files[0]) {
		t.Errorf("status:\n%s", out)
	}
	s.serveImage(1, image)
	s.said("component is reached again")
	for i := range int64(blocks) {
		if _, err := c.ReadAt(block, i<<20); err != nil || block[0] != byte(i+1) {
			t.Errorf("block %d holds %d: %v", i, block[0], err)
		}
	}
}

// TestAServerThatIsKilledAndStartedAgainIsNotNoticed: the client that writes meanwhile has
// no error, and reads what it wrote.
func TestAServerThatIsKilledAndStartedAgainIsNotNoticed(t *testing.T) {
	for _, front := range []string{"no", "yes"} {
		t.Run("supervise="+front, func(t *testing.T) {
			if front == "yes" && os.Geteuid() != 0 {
				t.Skip("not root")
			}
			need(t, "fio")
			s := newSite(t, 64<<20, 64<<20)
			images := slices.Clone(s.files)
			s.exporting()
			s.label("-m", "1m", "-s", "256m")
			s.start("--alloc=spread", "--supervise="+front)
			t.Logf("%d deaths", s.killServers(images, 100, s.load("48M")))
			s.term()
			if out := s.gvirstor(append([]string{"check"}, s.files...)...); !strings.Contains(out, "No errors.") {
				t.Errorf("check:\n%s", out)
			}
		})
	}
}

// load begins to write so many bytes, and to read and verify them. The channel is closed
// when that has ended.
func (s *site) load(bytes string) (done chan struct{}) { return s.loadOf(s.uri(), bytes) }

// loadOf is load of what uri names.
func (s *site) loadOf(uri, bytes string) (done chan struct{}) {
	done = make(chan struct{})
	go func() {
		defer close(done)
		out, err := try(s.t, "fio", "--name=v", "--ioengine=nbd", "--uri="+uri, "--rw=randrw", "--bs=16k", "--iodepth=16",
			"--size=32M", "--io_size="+bytes, "--verify=crc32c", "--verify_fatal=1", "--fsync=64", "--output-format=terse", "--aux-path="+s.dir)
		if err != nil {
			s.t.Errorf("fio: %v\n%s\n%s", err, out, s.log)
		}
	}()
	return done
}

// killServers kills the servers of two images in turn, and starts them again, up to that
// often, until done is closed. Between two deaths the clients have requests done. It returns
// how many it killed.
func (s *site) killServers(images []string, most int, done chan struct{}) (deaths int) {
	s.t.Helper()
	for deaths < most {
		i := deaths % 2
		was := s.regained(i)
		s.endServer(i)
		s.serveImage(i, images[i])
		s.until("it is reached again", func() bool { return s.regained(i) > was })
		deaths++
		before, ended := s.requests(), false
		s.until("requests are done", func() bool {
			select {
			case <-done:
				ended = true
			default:
			}
			return ended || s.requests() >= before+20 // more than fio has on their way
		})
		if ended {
			return deaths
		}
	}
	<-done
	return deaths
}

// requests is how many reads and writes of clients have been done.
func (s *site) requests() uint64 {
	s.t.Helper()
	ops := s.status().Operations
	return ops["read"].Requests + ops["write"].Requests
}

// regained is how often the server of a file was reached again, by the log.
func (s *site) regained(i int) int {
	n := 0
	for line := range strings.SplitSeq(s.log.String(), "\n") {
		if strings.Contains(line, "component is reached again") && strings.Contains(line, fmt.Sprintf("image%d", i)) {
			n++
		}
	}
	return n
}

// TestAUsersNameInAURIIsToldToNobody: it may be a secret, and none is of use.
func TestAUsersNameInAURIIsToldToNobody(t *testing.T) {
	s := newSite(t, 16<<20)
	s.label("-m", "1m", "-s", "64m")
	const uri = "nbds://alice:hush@127.0.0.1:1/x"
	for _, line := range []string{"provider = " + uri, "spare = vol=" + uri} {
		config := filepath.Join(s.dir, "conf")
		if err := os.WriteFile(config, []byte(line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := try(t, filepath.Join(programs, "ggated-virstor"), "--config", config, "--check-config")
		if err == nil || strings.Contains(out, "hush") || !strings.Contains(out, "nbds://127.0.0.1:1/x: a URI with a user's name") {
			t.Errorf("%v:\n%s", err, out)
		}
	}
	s.start()
	for _, args := range [][]string{
		{"add", "vol", uri}, {"replace", "vol", s.files[0], uri}, {"spare", "vol", uri}, {"status", "-a"}, {"list", "-a"}, {"status", "--json"},
		{"remove", "vol", uri}, {"evacuate", "vol", uri}, {"load", uri}, {"stop", uri}, {"status", uri},
		{"dump", uri}, {"check", uri}, {"label", "v", uri}, {"clear", uri}, {"scan", uri}, {"expand", uri}, {"repair", uri}, {"backup", uri}, {"map", uri},
	} {
		if out, err := s.tryGvirstor(args...); strings.Contains(out, "hush") || (err == nil) == slices.Contains(args, uri) {
			t.Errorf("gvirstor %s:\n%s", args[0], out)
		}
	}
	if strings.Contains(s.log.String(), "hush") {
		t.Errorf("the log:\n%s", s.log)
	}
}
