package supervisor

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// struct kinfo_proc of 64-bit FreeBSD (sys/sys/user.h), P_WEXIT and SZOMB
// (sys/sys/proc.h).
const (
	kinfoSize  = 1088
	kinfoPID   = 72
	kinfoFlags = 368
	kinfoStat  = 388
	pWExit     = 0x2000
	sZomb      = 5
)

// ending reports whether a process is on its way out: exit1 sets P_WEXIT when
// the process has one thread left, which will not return from the kernel.
func ending(pid int) bool {
	b, err := unix.SysctlRaw("kern.proc.pid", pid)
	if err == unix.ESRCH {
		return true
	}
	if err != nil || len(b) < kinfoStat+1 || binary.NativeEndian.Uint32(b) != kinfoSize ||
		binary.NativeEndian.Uint32(b[kinfoPID:]) != uint32(pid) {
		return false
	}
	return binary.NativeEndian.Uint64(b[kinfoFlags:])&pWExit != 0 || b[kinfoStat] == sZomb
}
