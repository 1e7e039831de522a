package confine

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gvirstor/gvirstor/geomlib"
)

// confinedEnv has a copy of the test program confine itself and play a worker that
// was taken over, in the folder that it names.
const confinedEnv = "CONFINE_TEST_DIR"

// withoutEnv has it leave out a call that is needed.
const withoutEnv = "CONFINE_TEST_WITHOUT"

func TestMain(m *testing.M) {
	if dir := os.Getenv(confinedEnv); dir != "" {
		if err := playWorker(dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// playWorker does what a worker must be able to, and tries what it must not.
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
	for _, names := range []*[]string{&allowed, &ringCalls} {
		*names = slices.DeleteFunc(*names, func(name string) bool { return name == os.Getenv(withoutEnv) })
	}
	rings, err := playRings(dir)
	if err != nil {
		return err
	}
	if err := errors.Join(OS().Capabilities(), becomeNobody(), OS().Calls(rings != nil)); err != nil {
		return err
	}
	if err := errors.Join(work(f, l, c), status()); err != nil {
		return err
	}
	if rings != nil {
		// What a ring is kept from is done without it, and the ring not asked again.
		if err := errors.Join(readByRing(rings), readByRing(rings)); err != nil {
			return err
		}
	}
	var all error
	for what, try := range attempts(dir, f) {
		if err := try(); !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOSYS) {
			all = errors.Join(all, fmt.Errorf("%s: %v", what, err))
		}
	}
	return all
}

// ringsEnv has it have rings before.
const ringsEnv = "CONFINE_TEST_RINGS"

// playRings opens a component with rings, or returns nil where there are none.
func playRings(dir string) (geomlib.Starter, error) {
	if os.Getenv(ringsEnv) == "" {
		return nil, nil
	}
	rings, err := geomlib.NewRings(nil)
	if err != nil {
		return nil, err
	}
	p, err := geomlib.Open(filepath.Join(dir, "component"), geomlib.OpenOptions{Direct: true, Rings: rings, NoLock: true, SectorSize: 4096})
	if errors.Is(err, geomlib.ErrNotSupported) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return p.(geomlib.Starter), nil
}

// readByRing has two reads under way.
func readByRing(s geomlib.Starter) error {
	memory, err := unix.Mmap(-1, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	ends := make(ended, 2)
	a := &geomlib.Transfer{Data: memory[:4096], End: ends}
	b := &geomlib.Transfer{Data: memory[4096:], Offset: 4096, End: ends}
	if !s.StartRead(a) || !s.StartRead(b) {
		return errors.New("a ring begins nothing")
	}
	s.Push()
	<-ends
	<-ends
	return errors.Join(a.Err, b.Err)
}

type ended chan struct{}

func (e ended) Ended(*geomlib.Transfer) { e <- struct{}{} }

func becomeNobody() error {
	if os.Geteuid() != 0 {
		return nil
	}
	return errors.Join(syscall.Setgroups(nil), syscall.Setgid(65534), syscall.Setuid(65534))
}

// work is what a worker does: I/O on what it has, connections that it is given, and
// many threads and timers.
func work(f *os.File, l net.Listener, c net.Conn) error {
	a, err := l.Accept()
	if err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	b := make([]byte, 4096)
	_, err = f.WriteAt(b, 0)
	_, err2 := f.ReadAt(b, 0)
	fd := int(f.Fd())
	err = errors.Join(err, err2, unix.Fdatasync(fd), f.Sync(), unix.Flock(fd, unix.LOCK_EX), unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED),
		unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096))
	if err != nil {
		return err
	}
	if _, err := f.Stat(); err != nil {
		return err
	}
	// A file system that shares no blocks says so; the filter says EPERM.
	share := unix.FileCloneRange{Src_fd: int64(fd), Src_length: 4096, Dest_offset: 1 << 19}
	if err := unix.IoctlFileCloneRange(fd, &share); err == unix.EPERM {
		return fmt.Errorf("share blocks: %w", err)
	}
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			runtime.LockOSThread() // a thread of its own
			time.Sleep(time.Millisecond)
			_ = make([]byte, 1<<20)
		})
	}
	wg.Wait()
	runtime.GC()
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	if _, err := a.Read(b[:1]); err != nil {
		return err
	}
	return errors.Join(a.Close(), c.Close(), l.Close())
}

// status is what the kernel says of every thread.
func status() error {
	var hdr unix.CapUserHeader
	hdr.Version = unix.LINUX_CAPABILITY_VERSION_3
	var caps [2]unix.CapUserData
	if err := unix.Capget(&hdr, &caps[0]); err == nil && (caps[0].Effective|caps[0].Permitted|caps[0].Inheritable|caps[1].Effective) != 0 {
		return fmt.Errorf("capabilities left: %+v", caps)
	}
	return nil
}

func attempts(dir string, f *os.File) map[string]func() error {
	secret := filepath.Join(dir, "secret")
	open := func(path string, flags int) func() error {
		return func() error {
			f, err := os.OpenFile(path, flags, 0o600)
			if err == nil {
				f.Close()
			}
			return err
		}
	}
	return map[string]func() error{
		"open a file for reading":  open(secret, os.O_RDONLY),
		"open a file for writing":  open(secret, os.O_WRONLY),
		"make a file":              open(filepath.Join(dir, "new"), os.O_WRONLY|os.O_CREATE),
		"open a disk":              open("/dev/vda", os.O_RDONLY),
		"look at a file":           func() error { _, err := os.Stat(secret); return err },
		"list a directory":         func() error { _, err := os.ReadDir(dir); return err },
		"remove a file":            func() error { return unix.Unlinkat(unix.AT_FDCWD, secret, 0) },
		"make a socket":            func() error { _, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0); return err },
		"make a pair of sockets":   func() error { _, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0); return err },
		"connect":                  func() error { return unix.Connect(int(f.Fd()), &unix.SockaddrUnix{Name: filepath.Join(dir, "s")}) },
		"start a program":          func() error { return syscall.Exec("/bin/true", []string{"true"}, nil) },
		"make a process":           func() error { _, _, e := unix.RawSyscall(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0); return errno(e) },
		"make a process by clone3": func() error { _, _, e := unix.RawSyscall(unix.SYS_CLONE3, 0, 0, 0); return errno(e) },
		"signal its supervisor":    func() error { return unix.Kill(os.Getppid(), 0) },
		"trace its supervisor":     func() error { return unix.PtraceAttach(os.Getppid()) },
		"become root":              func() error { _, _, e := unix.RawSyscall(unix.SYS_SETUID, 0, 0, 0); return errno(e) },
		"run memory": func() error {
			_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
			return err
		},
		"mount":               func() error { return unix.Mount("none", dir, "tmpfs", 0, "") },
		"load another filter": func() error { _, _, e := unix.RawSyscall(unix.SYS_SECCOMP, 1, 0, 0); return errno(e) },
		"another ioctl":       func() error { _, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS); return err },
		"set a limit":         func() error { return unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 10, Max: 10}) },
		"give memory a file":  func() error { _, err := unix.MemfdCreate("x", 0); return err },
		"read its own tasks":  open("/proc/self/mem", os.O_RDWR),
		"make an io_uring":    func() error { _, _, e := unix.RawSyscall(unix.SYS_IO_URING_SETUP, 1, 0, 0); return errno(e) },
		"widen an io_uring": func() error {
			_, _, e := unix.RawSyscall6(unix.SYS_IO_URING_REGISTER, 0, 0, 0, 0, 0, 0)
			return errno(e)
		},
		"link to another's file": func() error { return unix.Linkat(unix.AT_FDCWD, secret, unix.AT_FDCWD, filepath.Join(dir, "l"), 0) },
	}
}

func errno(e syscall.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

// confined is what a copy of the test program says that confines itself, with all
// calls or without one.
func confined(t *testing.T, without string, env ...string) ([]byte, error) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"component", "secret"} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(append(os.Environ(), confinedEnv+"="+dir, withoutEnv+"="+without), env...)
	return cmd.CombinedOutput()
}

func TestAFilterWithoutACallThatIsNeededIsNoticed(t *testing.T) {
	for _, name := range []string{"pread64", "pwrite64", "fsync", "fdatasync", "fallocate", "fadvise64", "fstat", "flock", "accept4", "read", "write", "close"} {
		t.Run(name, func(t *testing.T) {
			if _, err := confined(t, name); err == nil {
				t.Error("nothing fails")
			}
		})
	}
}

// TestAFilterThatKeepsRingsFromWorkingIsNoticed: they cannot be asked for anything.
func TestAFilterThatKeepsRingsFromWorkingIsNoticed(t *testing.T) {
	needRings(t)
	if _, err := confined(t, "io_uring_enter", ringsEnv+"=1"); err == nil {
		t.Error("nothing fails")
	}
}

func TestAConfinedProcessWorksAndReachesNothingElse(t *testing.T) {
	expectConfined(t)
}

// TestAConfinedProcessGoesOnWithItsRings, and makes no other.
func TestAConfinedProcessGoesOnWithItsRings(t *testing.T) {
	needRings(t)
	expectConfined(t, ringsEnv+"=1")
}

// needRings skips the test where the system has no io_uring.
func needRings(t *testing.T) {
	t.Helper()
	rings, err := geomlib.NewRings(nil)
	if errors.Is(err, geomlib.ErrNotSupported) {
		t.Skip(err)
	}
	if err := errors.Join(err, rings.Close()); err != nil {
		t.Fatal(err)
	}
}

func expectConfined(t *testing.T, env ...string) {
	t.Helper()
	out, err := confined(t, "", env...)
	if err != nil {
		t.Errorf("%v:", err)
		for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
			t.Error(s.Text())
		}
	}
}

func TestTheFilterAllowsNoCallThatTakesAPath(t *testing.T) {
	for _, name := range slices.Concat(allowed, ringCalls) {
		for _, part := range []string{"setup", "register", "open", "at2", "mkdir", "link", "rename", "exec", "mount", "socket", "connect", "bind", "listen", "ptrace", "kill", "clone", "bpf"} {
			if strings.Contains(name, part) && name != "getsockopt" && name != "setsockopt" {
				t.Errorf("%s is allowed", name)
			}
		}
	}
}
