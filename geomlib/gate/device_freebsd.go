package gate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const ctlPath = "/dev/ggctl"

// Open opens /dev/ggctl, and loads the kernel module geom_gate first when there
// is none. The error says why it cannot: not root, in a jail, securelevel.
func Open() (*Gate, error) {
	f, err := os.OpenFile(ctlPath, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		if err := loadModule(); err != nil {
			return nil, err
		}
		f, err = os.OpenFile(ctlPath, os.O_RDWR, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("open the control device of geom_gate: %w", err)
	}
	return FromFile(f)
}

// FromFile makes a Gate of an open descriptor of /dev/ggctl, which it then
// owns; after an error too, f is closed.
func FromFile(f *os.File) (*Gate, error) {
	d := &ctl{f: f, fd: f.Fd(), signals: make(chan os.Signal, 1)}
	if err := d.prepareSignal(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	g, err := New(d)
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return g, nil
}

// MaxPhys is kern.maxphys: the length in bytes of the longest request that
// drivers and file systems normally make.
func MaxPhys() int {
	b, err := unix.SysctlRaw("kern.maxphys")
	if err != nil {
		return DefaultMaxPhys
	}
	var n uint64
	switch len(b) { // an int until FreeBSD 12, a long since
	case 4:
		n = uint64(binary.NativeEndian.Uint32(b))
	case 8:
		n = binary.NativeEndian.Uint64(b)
	}
	if n < 4096 || n > 1<<30 {
		return DefaultMaxPhys
	}
	return int(n)
}

// loadModule is kldload(2) of geom_gate. A module that came meanwhile is fine.
func loadModule() error {
	name, err := unix.BytePtrFromString("geom_gate")
	if err != nil {
		return err
	}
	_, _, e := unix.Syscall(unix.SYS_KLDLOAD, uintptr(unsafe.Pointer(name)), 0, 0)
	if e == 0 || e == unix.EEXIST {
		return nil
	}
	why := "see dmesg(8)"
	switch {
	case sysctlIs("security.jail.jailed", func(v uint32) bool { return v != 0 }):
		why = "a jail cannot load modules: load it on the host, and show /dev/ggctl to the jail"
	case os.Geteuid() != 0:
		why = "only root can load modules"
	case e == unix.EPERM && sysctlIs("kern.securelevel", func(v uint32) bool { return int32(v) > 0 }):
		why = "kern.securelevel forbids it: set geom_gate_load=\"YES\" in /boot/loader.conf"
	case e == unix.ENOENT:
		why = "there is no such module in kern.module_path"
	}
	return fmt.Errorf("load the kernel module geom_gate (%s): %w", why, e)
}

func sysctlIs(name string, is func(uint32) bool) bool {
	v, err := unix.SysctlUint32(name)
	return err == nil && is(v)
}

// ctl is /dev/ggctl.
type ctl struct {
	f       *os.File
	fd      uintptr
	signals chan os.Signal

	// users counts the calls under way; closedBias is added when closed.
	users atomic.Int64
}

const closedBias = math.MinInt64 / 2

func (c *ctl) enter() bool {
	if c.users.Add(1) < 0 {
		c.exit()
		return false
	}
	return true
}

func (c *ctl) exit() {
	if c.users.Add(-1) == closedBias {
		_ = c.release() // Close has returned
	}
}

func (c *ctl) Close() error {
	for {
		n := c.users.Load()
		if n < 0 {
			return fmt.Errorf("close the control device: %w", os.ErrClosed)
		}
		if !c.users.CompareAndSwap(n, n+closedBias) {
			continue
		}
		if n == 0 {
			return c.release()
		}
		return nil
	}
}

// release may run twice when a late call meets the close; the second finds the
// file closed.
func (c *ctl) release() error {
	signal.Stop(c.signals)
	return c.f.Close()
}

func (c *ctl) File() (*os.File, error) { return c.f, nil }

func (c *ctl) Ioctl(cmd Command, arg unsafe.Pointer) Errno {
	if !c.enter() {
		return EBADF
	}
	var e unix.Errno
	if cmd == CmdDone { // does not sleep: the scheduler need not know
		_, _, e = unix.RawSyscall(unix.SYS_IOCTL, c.fd, uintptr(cmd), uintptr(arg))
	} else {
		// A thread that sleeps in a RawSyscall cannot be stopped, and the garbage
		// collector would wait for the next request.
		_, _, e = unix.Syscall(unix.SYS_IOCTL, c.fd, uintptr(cmd), uintptr(arg))
	}
	c.exit()
	return Errno(e)
}

// prepareSignal arranges that SIGIO ends a sleep in the kernel. The runtime
// installs its handlers so that the kernel resumes interrupted calls by itself
// (SA_RESTART), which newer kernels do with START; for this one signal, which
// nothing else here uses, that flag is taken away. The handler stays the
// runtime's.
func (c *ctl) prepareSignal() error {
	signal.Notify(c.signals, unix.SIGIO)
	// struct sigaction of 64-bit FreeBSD (sys/sys/signal.h).
	var act struct {
		handler uintptr
		flags   int32
		mask    [4]uint32
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SIGACTION, uintptr(unix.SIGIO), 0, uintptr(unsafe.Pointer(&act))); e != 0 {
		return fmt.Errorf("read the action of SIGIO: %w", e)
	}
	const saRestart = 2
	act.flags &^= saRestart
	if _, _, e := unix.RawSyscall(unix.SYS_SIGACTION, uintptr(unix.SIGIO), uintptr(unsafe.Pointer(&act)), 0); e != 0 {
		return fmt.Errorf("let SIGIO interrupt system calls: %w", e)
	}
	return nil
}

func (c *ctl) NewThread() Thread { return &thread{c: c} }

// thread tells which OS thread is in Ioctl, for as long as it is.
type thread struct {
	c    *ctl
	self int64        // of who entered; written by thr_self(2)
	in   atomic.Int64 // the OS thread in Ioctl, or 0
}

func (t *thread) Enter() {
	runtime.LockOSThread()
	_, _, _ = unix.RawSyscall(unix.SYS_THR_SELF, uintptr(unsafe.Pointer(&t.self)), 0, 0)
}

func (t *thread) Leave() { runtime.UnlockOSThread() }

func (t *thread) Ioctl(cmd Command, arg unsafe.Pointer) Errno {
	t.in.Store(t.self)
	e := t.c.Ioctl(cmd, arg)
	t.in.Store(0)
	return e
}

// Interrupt may meet a thread that just left Ioctl: an extra SIGIO then
// interrupts some other call, which Go's own calls stand.
func (t *thread) Interrupt() {
	if id := t.in.Load(); id != 0 {
		_, _, _ = unix.RawSyscall(unix.SYS_THR_KILL, uintptr(id), uintptr(syscall.SIGIO), 0)
	}
}
