package confine

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// confinedEnv has a copy of the test program enter capability mode and play a worker
// that was taken over, in the folder that it names.
const confinedEnv = "CONFINE_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(confinedEnv); dir != "" {
		if err := playWorker(dir); err != nil {
			os.Stdout.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func playWorker(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, "component"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		return err
	}
	c, err := net.Dial("unix", filepath.Join(dir, "s"))
	if err != nil {
		return err
	}
	if err := OS().CapabilityMode(); err != nil {
		return err
	}
	return errors.Join(works(f, l, c), reachesNothing(dir))
}

// works is what a worker does: I/O on what it has, connections that it is given, many
// threads and timers, and what the runtime asks the system for.
func works(f *os.File, l net.Listener, c net.Conn) error {
	a, err := l.Accept()
	if err != nil {
		return err
	}
	b := make([]byte, 4096)
	_, err = f.WriteAt(b, 0)
	_, err2 := f.ReadAt(b, 0)
	_, err3 := f.Stat()
	_, err4 := unix.SysctlRaw("kern.maxphys")
	err = errors.Join(err, err2, err3, err4, f.Sync())
	procs := runtime.GOMAXPROCS(0)
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			runtime.LockOSThread() // a thread of its own
			time.Sleep(time.Millisecond)
			_ = make([]byte, 1<<20)
		})
	}
	all.Wait()
	runtime.GC()
	time.Sleep(2 * time.Second) // the runtime counts the processors every second
	if n := runtime.GOMAXPROCS(0); n != procs {
		err = errors.Join(err, errors.New("the runtime counts other processors"))
	}
	if _, werr := c.Write([]byte("x")); werr != nil {
		err = errors.Join(err, werr)
	}
	_, rerr := a.Read(b[:1])
	return errors.Join(err, rerr, a.Close(), c.Close(), l.Close())
}

func reachesNothing(dir string) (all error) {
	secret := filepath.Join(dir, "secret")
	for what, try := range map[string]func() error{
		"open a file":     func() error { _, err := os.Open(secret); return err },
		"make a file":     func() error { _, err := os.Create(filepath.Join(dir, "new")); return err },
		"open a disk":     func() error { _, err := os.Open("/dev/ada0"); return err },
		"look at a file":  func() error { _, err := os.Stat(secret); return err },
		"remove a file":   func() error { return unix.Unlink(secret) },
		"connect":         func() error { _, err := net.Dial("unix", filepath.Join(dir, "s")); return err },
		"start a program": func() error { return exec.Command("/usr/bin/true").Run() },
	} {
		if err := try(); !errors.Is(err, unix.ECAPMODE) {
			all = errors.Join(all, errors.New(what+": not refused by capability mode"), err)
		}
	}
	return all
}

func TestAProcessInCapabilityModeWorksAndReachesNothingElse(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"component", "secret"} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.CommandContext(t.Context(), os.Args[0])
	c.Env = append(os.Environ(), confinedEnv+"="+dir)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
}
