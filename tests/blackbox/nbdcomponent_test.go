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

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

// exporting serves files of the site by qemu-nbd, which anybody may reach, and has the
// site's volume be made of the exports.
func (s *site) exporting() {
	s.t.Helper()
	need(s.t, "qemu-nbd")
	for i, image := range s.files {
		socket, pid := filepath.Join(s.dir, fmt.Sprint("server", i)), filepath.Join(s.dir, fmt.Sprint("pid", i))
		command(s.t, "qemu-nbd", "--fork", "--persistent", "-e", "16", "-x", fmt.Sprint("image", i), "-k", socket,
			"-f", "raw", "--discard=unmap", "--pid-file="+pid, image)
		s.t.Cleanup(func() { s.endServer(pid) })
		s.files[i] = fmt.Sprintf("nbd+unix:///image%d?socket=%s", i, socket)
	}
}

// endServer kills the server whose process id is in that file.
func (s *site) endServer(pid string) {
	s.t.Helper()
	b, err := os.ReadFile(pid)
	if err != nil {
		s.t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		s.t.Fatal(err)
	}
	_ = syscall.Kill(n, syscall.SIGKILL) // it may have ended before
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
	s.start("--when-full=error", "--alloc=spread")
	c, err := nbdclient.Dial(t.Context(), s.uri(), nbdclient.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Abort()
	block := make([]byte, 1<<20)
	for i := range int64(8) {
		block[0] = byte(i + 1)
		if _, err := c.WriteAt(block, i<<20); err != nil {
			t.Fatal(err)
		}
	}
	s.endServer(filepath.Join(s.dir, "pid1"))
	good, bad := 0, 0
	for i := range int64(8) {
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
	s.until("the log names the component", func() bool {
		return strings.Contains(s.log.String(), "image1") && strings.Contains(s.log.String(), "was lost")
	})
}
