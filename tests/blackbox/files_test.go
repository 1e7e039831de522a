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
	"time"
)

// Users that the daemon is started as, and one that is neither.
const (
	plainUser = 65534
	stranger  = 12345
)

// asUsers runs do for root, where the test is root's, and for a user that is not.
func asUsers(t *testing.T, do func(t *testing.T, uid int)) {
	if os.Geteuid() != 0 {
		do(t, os.Geteuid())
		return
	}
	if err := os.Chmod(programs, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, uid := range []int{0, plainUser} {
		t.Run(fmt.Sprint("uid ", uid), func(t *testing.T) { do(t, uid) })
	}
}

// atBothFronts runs do for a daemon that root starts, which serves from a worker that
// may do little, and for one that a user starts, which is one process; without
// root for the latter. begin starts it on a site.
func atBothFronts(t *testing.T, do func(t *testing.T, begin func(s *site, flags ...string))) {
	asUsers(t, func(t *testing.T, uid int) {
		do(t, func(s *site, flags ...string) {
			t.Helper()
			if uid != os.Geteuid() {
				s.own(uid)
				s.user = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
			}
			s.start(append([]string{"--supervise=auto"}, flags...)...)
			if alone := s.worker() == s.cmd.Process.Pid; alone != (uid != 0) {
				t.Fatalf("started by uid %d it is one process: %v", uid, alone)
			}
		})
	})
}

// own gives everything in the site's folder to a user.
func (s *site) own(uid int) {
	s.t.Helper()
	err := filepath.WalkDir(s.dir, func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, uid, uid))
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// daemonAs is the daemon as that user, not started yet.
func (s *site) daemonAs(uid int, args ...string) (*exec.Cmd, *logBuffer) {
	all := append([]string{"--control", s.control, "--run-dir", s.dir, "--backup-dir", "", "--state-dir", "", "--nbd", "unix:" + s.socket}, args...)
	c := exec.Command(filepath.Join(programs, "ggated-virstor"), append(all, s.files...)...)
	log := new(logBuffer)
	c.Stdout, c.Stderr = log, log
	if uid != os.Geteuid() {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	return c, log
}

// refusedTime is how long the daemon may take to say what it refuses. Most of it is
// for a machine that does other things.
const refusedTime = 20 * time.Second

// mustRefuse makes sure that a daemon ends soon, and says why.
func mustRefuse(t *testing.T, c *exec.Cmd, log *logBuffer, says string) {
	t.Helper()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(log.String(), says) {
			t.Errorf("ended with %v, said %q, want %q", err, log, says)
		}
	case <-time.After(refusedTime):
		_ = c.Process.Kill()
		<-done
		t.Errorf("not refused in %v: %s", refusedTime, log)
	}
}

// TestNoFileOfAnotherIsTaken: what somebody can put in the place of a file of the
// daemon's is neither followed nor waited for.
func TestNoFileOfAnotherIsTaken(t *testing.T) {
	held := func(s *site, path string) []string {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(func() { f.Close() })
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
			s.t.Fatal(err)
		}
		return nil
	}
	file := func(s *site, name, text string, mode os.FileMode) string {
		path := filepath.Join(s.dir, name)
		if err := errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil {
			s.t.Fatal(err)
		}
		return path
	}
	link := func(s *site, name string) []string {
		if err := os.Symlink(filepath.Join(s.dir, "victim"), name); err != nil {
			s.t.Fatal(err)
		}
		return nil
	}
	fifo := func(s *site, name string) string {
		path := filepath.Join(s.dir, name)
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			s.t.Fatal(err)
		}
		return path
	}
	rows := []struct {
		name string
		do   func(s *site) (args []string) // prepares the folder
		says string
	}{
		{"a link for the lock of the control socket", func(s *site) []string { return link(s, s.control+".lock") }, "it is a link"},
		{"a link for the worker's lock", func(s *site) []string {
			link(s, s.control+".worker")
			return []string{"--supervise"}
		}, "it is a link"},
		{"a link for the supervisor's lock", func(s *site) []string {
			link(s, s.control+".supervisor")
			return []string{"--supervise"}
		}, "it is a link"},
		{"a held lock", func(s *site) []string { return held(s, s.control+".lock") }, "another process holds it"},
		{"a configuration that is a FIFO", func(s *site) []string { return []string{"--config", fifo(s, "conf")} }, "it is a FIFO"},
		{"a component that is a FIFO", func(s *site) []string {
			s.files = []string{fifo(s, "pipe")}
			return nil
		}, "neither a disk nor a regular file"},
		{"a configuration that all can write to", func(s *site) []string {
			return []string{"--config", file(s, "conf", "on-alert = /bin/false\n", 0o666)}
		}, "chmod go-w"},
		{"a command that all can write to", func(s *site) []string {
			return []string{"--on-alert", file(s, "hook", "#!/bin/sh\n", 0o777) + " now"}
		}, "chmod go-w"},
		{"a key that all can read", func(s *site) []string {
			return []string{"--tls-cert", file(s, "cert", "", 0o644), "--tls-key", file(s, "key", "", 0o644)}
		}, "chmod o-r"},
		{"a run-dir that all can write to", func(s *site) []string {
			dir := filepath.Join(s.dir, "run")
			if err := errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777)); err != nil {
				s.t.Fatal(err)
			}
			return []string{"--run-dir", dir}
		}, "others can write to the folder"},
		{"a folder of backups that all can write to", func(s *site) []string {
			dir := filepath.Join(s.dir, "backups")
			if err := errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777)); err != nil {
				s.t.Fatal(err)
			}
			return []string{"--backup-dir", dir}
		}, "others can write to the folder"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			asUsers(t, func(t *testing.T, uid int) {
				s := newSite(t, 16*mib)
				s.label("-s", "64m", "-m", "1m")
				victim := file(s, "victim", "keep this", 0o600)
				args := row.do(s)
				s.own(uid)
				c, log := s.daemonAs(uid, args...)
				mustRefuse(t, c, log, row.says)
				if b, err := os.ReadFile(victim); err != nil || string(b) != "keep this" {
					t.Errorf("what the link led to holds %q, %v", b, err)
				}
			})
		})
	}
}

func TestALinkForAVolumesLockIsNotFollowed(t *testing.T) {
	s := newSite(t, 16*mib)
	s.label("-s", "64m", "-m", "1m")
	var id uint32
	for line := range strings.Lines(s.gvirstor("dump", s.files[0])) {
		if _, err := fmt.Sscanf(strings.TrimSpace(line), "Device ID: %d", &id); err == nil {
			break
		}
	}
	victim := filepath.Join(s.dir, "victim")
	if err := errors.Join(os.WriteFile(victim, []byte("keep this"), 0o600), os.Symlink(victim, filepath.Join(s.dir, fmt.Sprintf("%08x.lock", id)))); err != nil {
		t.Fatal(err)
	}
	c, log := s.daemonAs(os.Geteuid())
	mustRefuse(t, c, log, "it is a link")
	if b, _ := os.ReadFile(victim); !bytes.Equal(b, []byte("keep this")) {
		t.Errorf("the victim holds %q", b)
	}
}

func TestRootTakesNothingOfAnotherUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("root is needed")
	}
	s := newSite(t, 16*mib)
	s.label("-s", "64m", "-m", "1m")
	grown := filepath.Join(s.dir, "grown")
	run := filepath.Join(s.dir, "run")
	conf := filepath.Join(s.dir, "conf")
	if err := errors.Join(os.Mkdir(grown, 0o700), os.Mkdir(run, 0o700), os.WriteFile(conf, nil, 0o644), os.Chown(conf, stranger, -1),
		os.Symlink(run, run+"-link")); err != nil {
		t.Fatal(err)
	}
	c, log := s.daemonAs(0, "--config", conf)
	mustRefuse(t, c, log, "chown root "+conf)
	c, log = s.daemonAs(0, "--run-dir", run+"-link")
	mustRefuse(t, c, log, "the folder is a link")
	// What a stranger put beside the files of --grow is no component, whatever it says.
	theirs := filepath.Join(grown, "vol.1.grown")
	s.gvirstor("label", "-s", "64m", "-m", "1m", "theirs", s.file("grown/vol.1.grown", 16*mib))
	if err := os.Chown(theirs, stranger, -1); err != nil {
		t.Fatal(err)
	}
	s.start("--grow", "vol="+grown+":16m", "--grow-max", "1g")
	s.said("belongs to another user (uid 12345)")
	if out := s.gvirstor("status", "-ag"); strings.Contains(out, "theirs") {
		t.Errorf("it is opened:\n%s", out)
	}
	s.term()
	if err := os.Chown(grown, stranger, -1); err != nil {
		t.Fatal(err)
	}
	c, log = s.daemonAs(0, "--grow", "vol="+grown+":16m", "--grow-max", "1g")
	mustRefuse(t, c, log, "the folder belongs to another user (uid 12345)")
}

// TestASupervisorSaysWhatItWaitsFor: a lock of an earlier worker is waited for in
// words, and SIGTERM ends that.
func TestASupervisorSaysWhatItWaitsFor(t *testing.T) {
	s := newSite(t, 16*mib)
	s.label("-s", "64m", "-m", "1m")
	f, err := os.OpenFile(s.control+".worker", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	s.launch("--supervise")
	s.said("waiting for a process of an earlier daemon to end")
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.done:
	case <-time.After(refusedTime):
		t.Error("SIGTERM is not obeyed")
	}
}
