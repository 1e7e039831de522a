package blackbox

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
)

func TestNothingTakesAFileSystemWithoutForce(t *testing.T) {
	need(t, "mkfs.ext4")
	s := newSite(t, 24*mib, 24*mib)
	s.label("-s", "1g", "-m", "1m")
	s.start()
	ext4 := s.file("ext4", 32*mib)
	command(t, "mkfs.ext4", "-q", "-F", ext4)
	was, err := os.ReadFile(ext4)
	if err != nil {
		t.Fatal(err)
	}
	verbs := [][]string{
		{"label", "-m", "1m", "-s", "1g", "other", ext4},
		{"label", "-n", "-m", "1m", "-s", "1g", "other", ext4},
		{"spare", "vol", ext4},
		{"add", "vol", ext4},
		{"replace", "-n", "vol", s.files[1], ext4},
		{"replace", "vol", s.files[1], ext4},
	}
	for _, verb := range verbs {
		out, err := s.tryGvirstor(verb...)
		if err == nil || !strings.Contains(out, ext4+" holds an ext4 file system; with -f ") {
			t.Errorf("%s: %v\n%s", strings.Join(verb, " "), err, out)
		}
	}
	if is, err := os.ReadFile(ext4); err != nil || !bytes.Equal(is, was) {
		t.Fatalf("the file system was written to (%v)", err)
	}
	if n := len(s.status().Components); n != 2 {
		t.Errorf("the volume has %d components", n)
	}
	s.gvirstor("spare", "-f", "vol", ext4)
	p, err := geomlib.Open(ext4, geomlib.OpenOptions{ReadOnly: true, NoLock: true})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if l, err := geomlib.ReadSpare(p); err != nil || l.Name != "vol" {
		t.Errorf("%v, %v", l, err)
	}
	s.gvirstor("spare", "-r", "vol", ext4)
	s.gvirstor("replace", "-f", "vol", s.files[1], ext4)
	s.term()
}

func TestALabelBesideADaemonTellsWhereTheVolumeIs(t *testing.T) {
	s := newSite(t, 24*mib)
	s.label("-s", "1g", "-m", "1m")
	s.start()
	out := s.gvirstor("label", "-s", "1g", "-m", "1m", "other", s.file("new", 24*mib))
	if want := "other is served as nbd+unix:///other?socket=" + s.socket + "\n"; out != want {
		t.Errorf("%q, want %q", out, want)
	}
	s.term()
}

// alone starts the daemon as a user would who says nothing but what he must.
func (s *site) alone(env []string, args ...string) {
	s.t.Helper()
	s.cmd = exec.Command(filepath.Join(programs, "ggated-virstor"), args...)
	s.cmd.Env, s.cmd.Dir = env, s.dir
	if s.user != nil {
		s.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.user}
	}
	s.log = new(logBuffer)
	s.cmd.Stderr = s.log
	done := make(chan struct{})
	s.done = done
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		_ = s.cmd.Wait()
		close(done)
	}()
}

func TestAUserWhoIsNotRootNeedsToSayNothingOfSockets(t *testing.T) {
	needRoot(t) // to be somebody else
	for variable, socket := range map[string]string{"XDG_RUNTIME_DIR": "ggated-virstor.sock", "TMPDIR": fmt.Sprintf("ggated-virstor-%d.sock", plainUser), "GVIRSTOR_CONTROL": ""} {
		t.Run(variable, func(t *testing.T) {
			s := newSite(t, 24*mib)
			s.label("-s", "1g", "-m", "1m")
			s.own(plainUser)
			s.user = &syscall.Credential{Uid: plainUser, Gid: plainUser}
			value := s.dir
			if socket == "" {
				socket = "mine"
				value = filepath.Join(s.dir, socket)
			}
			env := []string{variable + "=" + value}
			s.alone(env, "--nbd", "unix:"+s.socket, "--run-dir", s.dir, s.files[0])
			s.said("ready")
			c := exec.CommandContext(t.Context(), filepath.Join(programs, "gvirstor"), "status", "-s")
			c.Env, c.SysProcAttr = env, &syscall.SysProcAttr{Credential: s.user}
			if out, err := c.CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "virstor/vol") {
				t.Errorf("%v: %s", err, out)
			}
			if _, err := os.Stat(filepath.Join(s.dir, socket)); err != nil {
				t.Error(err)
			}
			s.term()
		})
	}
}

func TestADaemonThatNobodyCanReachSaysSo(t *testing.T) {
	s := newSite(t, 24*mib)
	s.label("-s", "1g", "-m", "1m")
	s.alone(nil, "--supervise=no", "--gate=false", "--control", s.control, "--run-dir", s.dir, "--backup-dir=", "--state-dir=", s.files[0])
	s.said("no client can reach the volumes")
	s.said("ready")
	if err := s.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	s.said("no upgrade: SIGUSR2 is for a daemon with --supervise")
	s.term()
}

func TestASocketThatAnotherUserPutThereIsNotAsked(t *testing.T) {
	needRoot(t)
	s := newSite(t, 24*mib)
	s.label("-s", "1g", "-m", "1m")
	s.user = &syscall.Credential{Uid: stranger, Gid: stranger}
	s.own(stranger)
	env := []string{"GVIRSTOR_CONTROL=" + filepath.Join(s.dir, "ggated-virstor.sock")}
	s.alone(env, "--nbd", "unix:"+s.socket, "--run-dir", filepath.Join(s.dir, "run"), s.files[0])
	s.said("ready")
	if err := errors.Join(os.Chmod(s.dir, 0o755), os.Chmod(filepath.Join(s.dir, "ggated-virstor.sock"), 0o666)); err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), filepath.Join(programs, "gvirstor"), "status")
	c.Env, c.SysProcAttr = []string{"XDG_RUNTIME_DIR=" + s.dir}, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: plainUser, Gid: plainUser}}
	if out, err := c.CombinedOutput(); err == nil || !strings.Contains(string(out), "belongs to another user") {
		t.Errorf("%v: %s", err, out)
	}
	s.term()
}
