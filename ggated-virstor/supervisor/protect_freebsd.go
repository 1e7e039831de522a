package supervisor

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sys/sys/procctl.h, sys/sys/wait.h
const (
	pPID         = 0
	procSPROTECT = 1
	pprotSet     = 1
)

type systemProtector struct{}

func (systemProtector) LockMemory() error {
	// The daemon class of rc(8) allows 128 MiB; Go maps more than it uses.
	limit := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return fmt.Errorf("raise the limit on locked memory: %w", err)
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE); err != nil {
		return fmt.Errorf("lock memory (sysctl vm.max_user_wired): %w", err)
	}
	return nil
}

func (systemProtector) FromKill(pid int) error {
	flags := int32(pprotSet)
	_, _, e := unix.Syscall6(unix.SYS_PROCCTL, pPID, uintptr(pid), procSPROTECT, uintptr(unsafe.Pointer(&flags)), 0, 0)
	if e != 0 {
		return fmt.Errorf("procctl(PROC_SPROTECT) of process %d: %w", pid, e)
	}
	return nil
}
