package nbd

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// maxUnackTime is TCP_MAXUNACKTIME of sys/netinet/tcp.h, in seconds.
const maxUnackTime = 68

// limitUnacked has the system end a connection when what was sent is not
// acknowledged for so long. A stack that does not know that sends it again for
// as long as it likes; StallTimeout ends what waits to be sent.
func limitUnacked(fd uintptr, span time.Duration) error {
	err := unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, maxUnackTime, int(max(span.Seconds(), 1)))
	if errors.Is(err, unix.ENOPROTOOPT) {
		return nil
	}
	return err
}
