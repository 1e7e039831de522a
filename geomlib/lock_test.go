package geomlib

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// lockerEnv tells a copy of the test program what to hold: "open PATH",
// "read PATH" or "volume DIR".
const lockerEnv = "GEOMLIB_TEST_LOCKER"

func TestMain(m *testing.M) {
	if order := os.Getenv(lockerEnv); order != "" {
		if err := holdLock(order); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// holdLock says "held" and holds until its input ends.
func holdLock(order string) error {
	what, where, _ := strings.Cut(order, " ")
	var c io.Closer
	var err error
	switch what {
	case "open":
		c, err = Open(where, OpenOptions{})
	case "read":
		c, err = Open(where, OpenOptions{ReadOnly: true})
	case "volume":
		c, err = LockVolume(where, 0x4f2a91c0)
	}
	if err != nil {
		return err
	}
	defer c.Close()
	fmt.Println("held")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// anotherProcess holds a lock until end is called. It returns its process id.
func anotherProcess(t *testing.T, order string) (pid int, end func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	// The race detector would hold up the exit by a second.
	cmd.Env = append(os.Environ(), lockerEnv+"="+order, "GORACE=atexit_sleep_ms=0")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if line != "held\n" {
		t.Fatalf("the other process says %q, %v", line, err)
	}
	return cmd.Process.Pid, func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

func TestProvidersAreLockedAgainstOtherProcesses(t *testing.T) {
	path := newFile(t, mib)
	try := func(o OpenOptions) error {
		p, err := Open(path, o)
		if err == nil {
			p.Close()
		}
		return err
	}
	for _, c := range []struct {
		holder string
		o      OpenOptions
		locked bool
	}{
		{"open", OpenOptions{}, true},
		{"open", OpenOptions{ReadOnly: true}, true},
		{"open", OpenOptions{NoLock: true, ReadOnly: true}, false},
		{"read", OpenOptions{}, true},
		{"read", OpenOptions{ReadOnly: true}, false},
		{"read", OpenOptions{ReadOnly: true, KeepWritersOff: true}, false},
	} {
		_, end := anotherProcess(t, c.holder+" "+path)
		err := try(c.o)
		if c.locked != errors.Is(err, ErrLocked) || !c.locked && err != nil {
			t.Errorf("held by %q, opened with %+v: %v", c.holder, c.o, err)
		}
		if c.locked && !strings.Contains(err.Error(), path) {
			t.Errorf("the error does not name the provider: %v", err)
		}
		end()
		if err := try(c.o); err != nil {
			t.Errorf("after the other process ended: %v", err)
		}
	}
}

func TestVolumesAreLockedAgainstOtherProcesses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	pid, end := anotherProcess(t, "volume "+dir)
	_, err := LockVolume(dir, 0x4f2a91c0)
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "process "+strconv.Itoa(pid)) {
		t.Errorf("locked by process %d: %v", pid, err)
	}
	other, err := LockVolume(dir, 0x4f2a91c1)
	if err != nil {
		t.Errorf("another volume: %v", err)
	} else {
		other.Close()
	}
	end()
	l, err := LockVolume(dir, 0x4f2a91c0)
	if err != nil {
		t.Fatalf("after the other process ended: %v", err)
	}
	if _, err := LockVolume(dir, 0x4f2a91c0); !errors.Is(err, ErrLocked) ||
		!strings.Contains(err.Error(), "process "+strconv.Itoa(os.Getpid())) {
		t.Errorf("locked twice by one process: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l, err = LockVolume(dir, 0x4f2a91c0); err != nil {
		t.Fatalf("after Close: %v", err)
	}
	l.Close()
}

func TestRunDirOfAUserIsHisOwn(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/1000")
	want := "/run/user/1000/ggated-virstor"
	if os.Geteuid() == 0 {
		want = "/var/run/ggated-virstor"
	}
	if got := DefaultRunDir(); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
