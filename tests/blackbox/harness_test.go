// Package blackbox drives the built programs with the clients that people use.
package blackbox

import (
	"bytes"
	"cmp"
	"context"
	"errors"
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

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

// programs is where TestMain has built what is tested.
var programs string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "gvirstor-bin")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	programs = dir
	build := exec.Command("go", "build", "-o", dir, "../../ggated-virstor", "../../gvirstor")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as in packages
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the programs:", err)
		return 1
	}
	return m.Run()
}

// need finds a client. Without it the test is skipped, but fails where
// GVIRSTOR_REQUIRE_TOOLS=1 says that everything is installed.
func need(t testing.TB, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("GVIRSTOR_REQUIRE_TOOLS") == "1" {
				t.Fatalf("%s is not installed", tool)
			}
			t.Skipf("%s is not installed", tool)
		}
	}
}

// command runs a program to its end and returns what it printed.
func command(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := try(t, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return out
}

func try(t testing.TB, name string, args ...string) (string, error) {
	t.Helper()
	// Cleanups run programs, too, and t.Context has ended then.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	var out bytes.Buffer
	c := exec.CommandContext(ctx, name, args...)
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.String(), err
}

// gvirstor runs the control utility against a site's daemon.
func (s *site) gvirstor(args ...string) string {
	s.t.Helper()
	out, err := s.tryGvirstor(args...)
	if err != nil {
		s.t.Fatalf("gvirstor %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (s *site) tryGvirstor(args ...string) (string, error) {
	s.t.Helper()
	s.t.Setenv("GVIRSTOR_CONTROL", s.control)
	return try(s.t, filepath.Join(programs, "gvirstor"), args...)
}

// site is a folder with component files and a daemon that serves them.
type site struct {
	t       testing.TB
	dir     string
	control string
	socket  string
	flags   []string
	files   []string
	name    string // of the volume

	servers map[int]*exec.Cmd // of its components

	user *syscall.Credential // of the daemon, or nil for this one's

	cmd  *exec.Cmd
	log  *logBuffer
	done chan struct{}
}

// logBuffer is what the daemon has logged, to be read while it runs.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newSite(t testing.TB, sizes ...int64) *site {
	t.Helper()
	// Socket paths are short, test names are not.
	dir, err := os.MkdirTemp("", "gv")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, name: "vol", dir: dir, control: filepath.Join(dir, "control"), socket: filepath.Join(dir, "nbd")}
	for i, size := range sizes {
		s.files = append(s.files, s.file(fmt.Sprintf("component%d", i), size))
	}
	t.Cleanup(func() {
		s.kill()
		os.RemoveAll(dir)
	})
	return s
}

// file makes a sparse file.
func (s *site) file(name string, size int64) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	f, err := os.Create(path)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// label makes a volume named vol of the site's files.
func (s *site) label(args ...string) {
	s.t.Helper()
	s.gvirstor(append(append([]string{"label"}, args...), append([]string{"vol"}, s.files...)...)...)
}

// start starts the daemon on all files and waits until it answers.
func (s *site) start(flags ...string) {
	s.t.Helper()
	s.launch(flags...)
	s.until("the daemon answers", func() bool {
		c, err := control.Dial(s.control)
		if err != nil {
			return false
		}
		defer c.Close()
		st, err := c.Status(s.t.Context())
		return err == nil && len(st.Volumes) > 0
	})
}

// launch starts the daemon and does not wait for it.
func (s *site) launch(flags ...string) {
	s.t.Helper()
	s.flags = flags
	if !slices.ContainsFunc(flags, func(f string) bool { return strings.HasPrefix(f, "--supervise") }) {
		// One process, also where root runs the tests; GVIRSTOR_SUPERVISE=yes has all
		// of them served by a worker under its filter.
		flags = append([]string{"--supervise=" + cmp.Or(os.Getenv("GVIRSTOR_SUPERVISE"), "no")}, flags...)
	}
	if !slices.Contains(flags, "--config") {
		// What is full is counted to the chunk: no reserve, unless the test asks for one.
		flags = append([]string{"--reserve", "0"}, flags...)
	}
	args := append([]string{"--nbd", "unix:" + s.socket, "--control", s.control, "--run-dir", s.dir, "--backup-dir", filepath.Join(s.dir, "backups"), "--state-dir", filepath.Join(s.dir, "state")}, flags...)
	s.cmd = exec.Command(filepath.Join(programs, "ggated-virstor"), append(args, s.files...)...)
	if s.user != nil {
		s.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.user}
	}
	s.run()
}

// run starts the daemon that s.cmd is.
func (s *site) run() {
	s.t.Helper()
	s.log = new(logBuffer)
	s.cmd.Stderr = s.log
	s.done = make(chan struct{})
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		s.cmd.Wait()
		close(s.done)
	}()
}

// startNamed is start for a volume that is not called vol.
func (s *site) startNamed(name string, flags ...string) {
	s.t.Helper()
	s.name = name
	s.start(flags...)
}

func (s *site) dialName(name string) *nbdclient.Conn {
	s.t.Helper()
	s.name = name
	return s.dial()
}

// said waits until the log, which comes through a pipe, has what.
func (s *site) said(what string) {
	s.t.Helper()
	s.until(fmt.Sprintf("the log says %q", what), func() bool { return strings.Contains(s.log.String(), what) })
}

// patience is for what must happen, on a machine that has other things to do.
const patience = 3 * time.Minute

// until polls for what no event tells.
func (s *site) until(what string, ok func() bool) {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		select {
		case <-s.done:
			if ok() { // by its last words
				return
			}
			s.t.Fatalf("the daemon ended before %s:\n%s", what, s.log)
		default:
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s: not in %v\n%s", what, patience, s.log)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// kill ends the daemon as a crash does.
func (s *site) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		<-s.done
		s.cmd = nil
	}
}

// term ends the daemon in order.
func (s *site) term() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	select {
	case <-s.done:
	case <-time.After(60 * time.Second):
		s.t.Fatal("the daemon does not end")
	}
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		s.t.Fatalf("the daemon ended with %d:\n%s", code, s.log)
	}
	s.cmd = nil
}

func (s *site) uri() string { return s.uriOf(s.name) }

// uriOf is how clients name an export.
func (s *site) uriOf(export string) string { return "nbd+unix:///" + export + "?socket=" + s.socket }

func (s *site) dial() *nbdclient.Conn {
	s.t.Helper()
	c, err := nbdclient.Dial(s.t.Context(), s.uri(), nbdclient.Options{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Abort() })
	return c
}

// status is the volume as the daemon sees it.
func (s *site) status() control.VolumeStatus {
	s.t.Helper()
	c, err := control.Dial(s.control)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	v, err := c.Volume(s.t.Context(), s.name)
	if err != nil {
		s.t.Fatal(err)
	}
	return v
}
