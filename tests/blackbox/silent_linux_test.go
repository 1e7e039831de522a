package blackbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// soon is within how long the daemon says what it waits for, and obeys SIGTERM. The tests
// give it more, for a machine that does other things.
const soon = 2 * time.Second

// silentFile is a file of 32 MiB on FUSE, and a function after which its file system
// answers nobody any more until the test ends.
func (s *site) silentFile() (path string, silence func()) {
	t := s.t
	t.Helper()
	needRoot(s.t.(*testing.T))
	need(t, "nbdkit", "nbdfuse", "fusermount3")
	needFUSE(t)
	path = filepath.Join(s.dir, "silent")
	socket := filepath.Join(s.dir, "memory")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	background(t, "nbdkit", "-f", "-U", socket, "memory", "32M")
	there := func(what, path string, ok func(os.FileInfo) bool) {
		s.until(what, func() bool {
			fi, err := os.Stat(path)
			return err == nil && ok(fi)
		})
	}
	there("nbdkit listens", socket, func(os.FileInfo) bool { return true })
	server := exec.Command("nbdfuse", "-o", "allow_other", path, "nbd+unix:///?socket="+socket)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := server.Process.Signal(syscall.SIGCONT) // else what waits for it may not die
		s.kill()
		err = errors.Join(err, exec.Command("fusermount3", "-u", "-z", path).Run(), server.Process.Kill())
		server.Wait() // is killed
		if err != nil {
			t.Errorf("end of the file system: %v", err)
		}
	})
	there("the disk is a file", path, func(fi os.FileInfo) bool { return fi.Size() > 0 })
	return path, func() {
		if err := server.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		s.until("the file system stands still", func() bool { // all of its threads: what one has taken waits for ever
			out, err := exec.Command("sh", "-c", fmt.Sprintf("cat /proc/%d/task/*/status | grep ^State: | grep -vc stopped", server.Process.Pid)).Output()
			return err != nil && strings.TrimSpace(string(out)) == "0" // grep counts none, and fails
		})
	}
}

// endsSoon sends SIGTERM.
func (s *site) endsSoon() {
	s.t.Helper()
	begun := time.Now()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	select {
	case <-s.done:
	case <-time.After(20 * time.Second):
		stacks, _ := exec.Command("sh", "-c", fmt.Sprintf("cat /proc/%d/task/*/stack", s.cmd.Process.Pid)).CombinedOutput()
		s.t.Fatalf("SIGTERM is not obeyed:\n%s\n%s", s.log, stacks)
	}
	took := time.Since(begun)
	s.t.Logf("it ended after %v", took)
	if took > 2*soon {
		s.t.Errorf("it ended after %v:\n%s", took, s.log)
	}
	s.cmd = nil
}

// TestAComponentThatDoesNotAnswerAtTheStartIsSaidAndEndsWithSIGTERM: in one process, and under a
// supervisor, which opens it for its worker.
func TestAComponentThatDoesNotAnswerAtTheStartIsSaidAndEndsWithSIGTERM(t *testing.T) {
	for _, mode := range []string{"--supervise=no", "--supervise=yes"} {
		t.Run(mode, func(t *testing.T) {
			s := newSite(t)
			path, silence := s.silentFile()
			s.files = []string{path}
			s.label("-s", "1g", "-m", "1m")
			silence()
			begun := time.Now()
			s.launch(mode)
			s.said("opening takes long")
			s.said(path)
			if took := time.Since(begun); took > 2*soon {
				t.Errorf("said after %v", took)
			}
			s.endsSoon()
		})
	}
}

// TestAnAddThatHangsDoesNotKeepADaemonFromEnding: nor what is written from being there after it.
func TestAnAddThatHangsDoesNotKeepADaemonFromEnding(t *testing.T) {
	for _, mode := range []string{"--supervise=no", "--supervise=yes"} {
		t.Run(mode, func(t *testing.T) {
			s := newSite(t, 32*mib)
			path, silence := s.silentFile()
			s.label("-s", "1g", "-m", "1m")
			s.start(mode)
			c := s.dial()
			if _, err := c.WriteAt([]byte("kept"), 0); err != nil {
				t.Fatal(err)
			}
			c.Close()
			silence()
			admin, err := control.Dial(s.control)
			if err != nil {
				t.Fatal(err)
			}
			defer admin.Close()
			added := make(chan error, 1)
			go func() { added <- admin.Add(t.Context(), "vol", control.AddRequest{Providers: []string{path}}) }()
			s.said("opening takes long")
			s.endsSoon()
			if err := <-added; err == nil {
				t.Error("it was added")
			}
			s.start(mode)
			got := make([]byte, 4)
			if _, err := s.dial().ReadAt(got, 0); err != nil || string(got) != "kept" {
				t.Errorf("read %q, %v", got, err)
			}
			s.term()
		})
	}
}
