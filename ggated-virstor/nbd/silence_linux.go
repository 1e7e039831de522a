package nbd

import (
	"time"

	"golang.org/x/sys/unix"
)

// limitUnacked has the system end a connection when what was sent is not
// acknowledged for so long.
func limitUnacked(fd uintptr, span time.Duration) error {
	return unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(span.Milliseconds()))
}
