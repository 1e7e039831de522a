package geomlib

import (
	"os"

	"golang.org/x/sys/unix"
)

// bootClock goes on while the system is suspended (clock_gettime(2)).
const bootClock = unix.CLOCK_BOOTTIME

// hostUUID is machine-id(5).
func hostUUID() string {
	id, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		return ""
	}
	return string(id)
}
