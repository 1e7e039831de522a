package blackbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// notified is what systemd is told: each message on the channel, one line each.
func notified(t *testing.T, path string) <-chan string {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	told := make(chan string, 1000)
	go func() {
		defer close(told)
		b := make([]byte, 4096)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			for line := range strings.Lines(string(b[:n])) {
				told <- strings.TrimSpace(line)
			}
		}
	}()
	return told
}

// awaitTold waits until something that begins so is told, and returns what was before.
func awaitTold(t *testing.T, told <-chan string, want string) (before []string) {
	t.Helper()
	for late := time.After(patience); ; {
		select {
		case line := <-told:
			if strings.HasPrefix(line, want) {
				return before
			}
			before = append(before, line)
		case <-late:
			t.Fatalf("%s is not told; before %q", want, before)
		}
	}
}

// TestTheServiceManagerOpensSocketsAndIsToldHowTheServiceStands at both fronts, by the
// protocols of systemd: sockets that it has opened, readiness, reloads, watchdog and end.
func TestTheServiceManagerOpensSocketsAndIsToldHowTheServiceStands(t *testing.T) {
	asUsers(t, func(t *testing.T, uid int) {
		s := newSite(t, 24*mib)
		s.label("-s", "64m", "-m", "1m")
		told := notified(t, filepath.Join(s.dir, "notify"))
		var sockets []*os.File
		for _, path := range []string{s.control, s.socket} {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			l.SetUnlinkOnClose(false)
			f, err := l.File()
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			defer l.Close()
			sockets = append(sockets, f)
		}
		pidFile := filepath.Join(s.dir, "pid")
		if uid != os.Geteuid() {
			s.own(uid)
		}
		// The number of the process is to be that of the program.
		s.cmd = exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, filepath.Join(programs, "ggated-virstor"),
			"--control", s.control, "--run-dir", s.dir, "--backup-dir", "", "--state-dir", "", "--pid-file", pidFile, "--log-format", "json", s.files[0])
		s.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(s.dir, "notify"), "LISTEN_FDS=2", "LISTEN_FDNAMES=control:nbd", "WATCHDOG_USEC=3000000")
		s.cmd.ExtraFiles = sockets
		if uid != os.Geteuid() {
			s.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
		}
		s.log, s.done = new(logBuffer), make(chan struct{})
		s.cmd.Stderr = s.log
		if err := s.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() {
			s.cmd.Wait()
			close(s.done)
		}()
		awaitTold(t, told, "READY=1")
		if b, err := os.ReadFile(pidFile); err != nil || string(b) != fmt.Sprintln(s.cmd.Process.Pid) {
			t.Errorf("the file of the number says %q, %v; it is %d", b, err, s.cmd.Process.Pid)
		}
		c := s.dial() // at the socket that was given
		if _, err := c.WriteAt(make([]byte, 4096), 0); err != nil {
			t.Error(err)
		}
		c.Close()
		if v := s.status(); len(v.Published) != 1 || !strings.Contains(v.Published[0].URI, s.socket) {
			t.Errorf("published %+v", v.Published)
		}
		awaitTold(t, told, "STATUS=vol 69% physical free") // with the chunk of that write
		awaitTold(t, told, "WATCHDOG=1")
		if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		awaitTold(t, told, "RELOADING=1")
		awaitTold(t, told, "MONOTONIC_USEC=")
		awaitTold(t, told, "READY=1")
		s.said("configuration read again")
		s.term()
		awaitTold(t, told, "STOPPING=1")
		if _, err := os.Lstat(pidFile); !os.IsNotExist(err) {
			t.Errorf("the file of the number: %v", err)
		}
		for line := range strings.Lines(s.log.String()) {
			if !json.Valid([]byte(line)) {
				t.Errorf("no object: %q", line)
			}
		}
		if _, err := os.Lstat(s.socket); err != nil {
			t.Errorf("the socket, which is not the daemon's: %v", err)
		}
	})
}

// runFor runs the daemon by itself to its end, and returns its exit status and output.
func (s *site) runFor(args ...string) (int, string) {
	s.t.Helper()
	all := append([]string{"--nbd", "unix:" + s.socket, "--control", s.control, "--run-dir", s.dir, "--backup-dir", "", "--state-dir", ""}, args...)
	out, err := try(s.t, filepath.Join(programs, "ggated-virstor"), append(all, s.files...)...)
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		s.t.Fatal(err)
	}
	if ended == nil {
		return 0, out
	}
	return ended.ExitCode(), out
}

func TestTheDaemonServesACommandAndEndsWithIt(t *testing.T) {
	need(t, "nbdinfo")
	s := newSite(t, 24*mib)
	s.label("-s", "64m", "-m", "1m")
	for command, want := range map[string]int{`nbdinfo --size "$uri"`: 0, `nbdinfo --size "$uri"; exit 7`: 7} {
		status, out := s.runFor("--run", command)
		if status != want || !strings.Contains(out, "67108864") {
			t.Errorf("%s: status %d, want %d\n%s", command, status, want, out)
		}
		if _, err := os.Lstat(s.socket); !os.IsNotExist(err) {
			t.Errorf("%s: the socket is still there: %v", command, err)
		}
	}
	if status, out := s.runFor("--supervise=yes", "--run", "true"); status != 1 || !strings.Contains(out, "--run serves from one process") {
		t.Errorf("with a supervisor: %d, %s", status, out)
	}
}

func TestTheDaemonEndsWithItsParentAndEndsItsCommand(t *testing.T) {
	s := newSite(t, 24*mib)
	s.label("-s", "64m", "-m", "1m")
	log := filepath.Join(s.dir, "log")
	// The shell ends when the command has begun, and nobody else tells the daemon to end.
	command(t, "/bin/sh", "-c", `"$@" 2>"$0" & until [ -e `+s.dir+`/begun ]; do sleep 0.1; done`, log,
		filepath.Join(programs, "ggated-virstor"), "--nbd", "unix:"+s.socket, "--control", s.control, "--run-dir", s.dir, "--backup-dir", "", "--state-dir", "",
		"--exit-with-parent", "--run", "trap 'touch "+s.dir+"/told; exit' TERM; touch "+s.dir+"/begun; while :; do sleep 0.1; done", s.files[0])
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		_, told := os.Lstat(filepath.Join(s.dir, "told"))
		if _, err := os.Lstat(s.control); os.IsNotExist(err) && told == nil {
			return
		}
		if time.Now().After(end) {
			text, _ := os.ReadFile(log)
			t.Fatalf("the daemon does not end\n%s", text)
		}
	}
}
