package confine

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

type system struct{}

// Capabilities: a process that became another user has none.
func (system) Capabilities() error { return nil }

func (system) Calls(bool) error { return ErrUnsupported }

// CapabilityMode enters capability mode (cap_enter(2)), and makes sure of it by
// asking: a call that is refused may be answered with SIGTRAP
// (kern.trap_enotcap, sys/kern/subr_syscall.c).
func (system) CapabilityMode() error {
	//lint:ignore SA4017 it reads the zone's file, once, which later nobody may open
	time.Now().Zone()
	if err := unix.CapEnter(); err != nil { // ENOSYS of a kernel without options CAPABILITY_MODE
		return fmt.Errorf("enter capability mode: %w", err)
	}
	in, err := InCapabilityMode()
	if err == nil && !in {
		err = errors.New("capability mode does not hold")
	}
	return err
}

// InCapabilityMode reports whether this process is in capability mode.
func InCapabilityMode() (bool, error) {
	var mode uint32 // u_int
	if _, _, e := unix.Syscall(unix.SYS_CAP_GETMODE, uintptr(unsafe.Pointer(&mode)), 0, 0); e != 0 {
		return false, fmt.Errorf("ask for capability mode: %w", e)
	}
	return mode != 0, nil
}
