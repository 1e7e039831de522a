package confine

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

type system struct{}

// lastCapability is above all that a kernel knows (linux/capability.h).
const lastCapability = 63

// Capabilities empties the bounding set, if this process may, in all threads. A
// program that is linked with C cannot do that: there no_new_privs, which comes with
// the filter, keeps privileges away alone.
func (system) Capabilities() error {
	for c := uintptr(0); c <= lastCapability; c++ {
		_, _, e := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c, 0, 0, 0, 0)
		if e == unix.EINVAL || e == unix.EPERM || e == unix.ENOTSUP {
			break // the kernel has no more, there is no privilege to lose, or C
		}
		if e != 0 {
			return fmt.Errorf("give up capability %d: %w", c, e)
		}
	}
	return nil
}

// dropCapabilities empties the sets of all threads. Who became another user has none
// in them; root that stays root loses them by this alone.
func dropCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	_, _, e := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none[0])), 0)
	if e == unix.ENOTSUP {
		var left [2]unix.CapUserData
		if err := unix.Capget(&header, &left[0]); err == nil && left == none {
			return nil
		}
	}
	if e != 0 {
		return fmt.Errorf("give up capabilities: %w", e)
	}
	return nil
}

// Calls loads the filter into all threads, and makes sure of it.
func (system) Calls(rings bool) error {
	//lint:ignore SA4017 it reads the zone's file, once, which later nobody may open
	time.Now().Zone()
	if err := dropCapabilities(); err != nil {
		return err
	}
	info, err := arch.GetInfo("")
	if err != nil {
		return fmt.Errorf("filter system calls: %w", err)
	}
	runtime.LockOSThread() // no_new_privs is set in the thread that loads the filter
	defer runtime.UnlockOSThread()
	err = seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: policy(info, rings)})
	if err != nil {
		return fmt.Errorf("filter system calls: %w", err)
	}
	// A thread that could not be synchronised is told of by no error number.
	f, err := os.Open(os.DevNull)
	if err == nil {
		f.Close()
	}
	if !errors.Is(err, unix.EPERM) {
		return errors.New("filter system calls: the filter does not hold")
	}
	return nil
}

// CapabilityMode: Linux has none; Calls does what it would.
func (system) CapabilityMode() error { return ErrUnsupported }
