package blackbox

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for _, dir := range []string{programs} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// proc are the fields of /proc/PID/status.
func proc(t *testing.T, pid int) map[string][]string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := make(map[string][]string)
	for line := range strings.Lines(string(b)) {
		name, rest, _ := strings.Cut(line, ":")
		fields[name] = strings.Fields(rest)
	}
	return fields
}

// as runs gvirstor as another user.
func (s *site) as(uid uint32, args ...string) (string, error) {
	s.t.Helper()
	var out bytes.Buffer
	c := exec.CommandContext(s.t.Context(), filepath.Join(programs, "gvirstor"), append([]string{"--control", s.control}, args...)...)
	c.Stdout, c.Stderr = &out, &out
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	err := c.Run()
	return out.String(), err
}

func TestADaemonStartedAsRootServesFromAWorkerThatMayDoLittle(t *testing.T) {
	needRoot(t)
	if runtime.GOOS != "linux" {
		t.Skip("looks into /proc")
	}
	s := newSite(t, 96*mib)
	s.label("-s", "1g", "-m", "1m")
	s.start("--supervise=auto", "--http", "127.0.0.1:0")
	worker := s.worker()
	if worker == s.cmd.Process.Pid {
		t.Fatal("there is no worker")
	}
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", worker))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks { // each thread has its own
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			t.Fatal(err)
		}
		st := proc(t, tid)
		for field, want := range map[string]string{"NoNewPrivs": "1", "Seccomp": "2", "CapInh": "0000000000000000", "CapPrm": "0000000000000000",
			"CapEff": "0000000000000000", "CapBnd": "0000000000000000", "CapAmb": "0000000000000000"} {
			if got := st[field]; len(got) != 1 || got[0] != want {
				t.Errorf("thread %d: %s is %v, not %s", tid, field, got, want)
			}
		}
		for _, uid := range st["Uid"] {
			if uid == "0" {
				t.Errorf("thread %d runs as root", tid)
			}
		}
	}
	s.everyVerb()
	// The supervisor reads what the system says of its worker.
	if n := figure(t, s.scrape(), "process_resident_memory_bytes"); n < mib {
		t.Errorf("the worker has %v bytes of memory", n)
	}
	s.term()
}

func TestADaemonStartedAsAUserServesFromOneProcess(t *testing.T) {
	needRoot(t)
	s := newSite(t, 96*mib)
	s.label("-s", "1g", "-m", "1m")
	s.own(plainUser)
	s.user = &syscall.Credential{Uid: plainUser, Gid: plainUser}
	s.start("--supervise=auto")
	if s.worker() != s.cmd.Process.Pid {
		t.Error("there are two processes")
	}
	if out, err := s.as(plainUser, "status"); err != nil {
		t.Errorf("its owner may not ask: %v\n%s", err, out)
	}
	s.strangersAreRefused(stranger)
	s.term()
}

// strangersAreRefused opens the socket to all; the daemon looks for itself.
func (s *site) strangersAreRefused(uid uint32) {
	s.t.Helper()
	for path, mode := range map[string]os.FileMode{s.dir: 0o755, s.control: 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			s.t.Fatal(err)
		}
	}
	if out, err := s.as(uid, "status"); err == nil {
		s.t.Errorf("a stranger is answered:\n%s", out)
	}
	s.said(fmt.Sprintf("uid %d", uid))
	s.gvirstor("status") // root may
}

func TestStrangersAreRefusedAtAControlSocketThatWasOpenedToThem(t *testing.T) {
	needRoot(t)
	for _, mode := range []string{"--supervise=no", "--supervise=yes"} {
		s := newSite(t, 96*mib)
		s.label("-s", "1g", "-m", "1m")
		s.start(mode)
		s.strangersAreRefused(stranger)
		s.term()
	}
}

// everyVerb has a daemon do all that its filter and its user could be in the way of.
func (s *site) everyVerb() {
	s.t.Helper()
	c := s.dial()
	b := bytes.Repeat([]byte{0xa5}, int(mib))
	for off := int64(0); off < 8*mib; off += mib {
		if _, err := c.WriteAt(b, off); err != nil {
			s.t.Fatal(err)
		}
	}
	more, other, spare := s.file("more", 32*mib), s.file("other", 32*mib), s.file("spare", 32*mib)
	s.gvirstor("add", "vol", more)
	s.gvirstor("replace", "vol", more, other)
	s.until("the job is done", func() bool {
		v := s.status()
		return v.Job == nil || v.Job.State != "running"
	})
	s.gvirstor("spare", "vol", spare)
	s.gvirstor("spare", "--remove", "vol", spare)
	s.gvirstor("evacuate", "vol", other)
	s.until("the job is done", func() bool {
		v := s.status()
		return v.Job == nil || v.Job.State != "running"
	})
	for _, args := range [][]string{{"status"}, {"list"}, {"list", "--json"}, {"reserve", "vol", "3"}, {"reserve", "--release", "vol"}} {
		s.gvirstor(args...)
	}
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		s.t.Fatal(err)
	}
	s.said("configuration read again")
	got := make([]byte, mib)
	if _, err := c.ReadAt(got, 7*mib); err != nil || !bytes.Equal(got, b) {
		s.t.Fatalf("what was written is not there: %v", err)
	}
	c.Close()
	s.gvirstor("stop", "-f", "vol")
	s.gvirstor("label", "-s", "1g", "-m", "1m", "vol2", s.file("fresh", 32*mib))
	s.said("Device vol2 created")
}

func TestAWorkerReadsItsConfigurationThroughItsSupervisor(t *testing.T) {
	needRoot(t)
	s := newSite(t, 96*mib)
	s.label("-s", "1g", "-m", "1m")
	conf, later := filepath.Join(s.dir, "conf"), s.file("later", 32*mib)
	write := func(text string) {
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil { // the worker's user may not read it
			t.Fatal(err)
		}
	}
	write("reserve = 1\n")
	s.start("--supervise=auto", "--config", conf)
	hangup := func() {
		if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	write("reserve = 5\n")
	hangup()
	s.until("the reserve is another", func() bool { return s.status().ReservedChunks == 5 })
	write("reserve = many\n")
	hangup()
	s.said("configuration not applied")
	s.said("conf:1")
	// What the configuration names from now on may be opened.
	s.gvirstor("--control", filepath.Join(s.dir, "none"), "label", "-s", "1g", "-m", "1m", "vol2", later)
	write("reserve = 5\nprovider = " + later + "\n")
	hangup()
	s.said("Device vol2 created")
	s.term()
}
