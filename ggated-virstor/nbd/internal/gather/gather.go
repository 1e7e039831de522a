//go:build linux || freebsd

package gather

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Can reports whether Message works on this system.
const Can = true

// untold is how much, in bytes, is sent without telling the scheduler of the system call: see
// package nowait.
const untold = 64 << 10

// Message is what sendmsg(2) sends in one call without blocking.
type Message struct {
	iov  [Most]unix.Iovec
	r, w int // iov[r:w] is to be sent
	left int // of it, bytes
	msg  unix.Msghdr
}

// Set takes the slices of vec, which must stay as they are until Reset.
func (g *Message) Set(vec [][]byte) {
	g.r, g.w, g.left = 0, 0, 0
	for _, b := range vec {
		if len(b) > 0 {
			g.iov[g.w].Base = &b[0]
			g.iov[g.w].SetLen(len(b))
			g.w++
			g.left += len(b)
		}
	}
}

// Reset keeps no memory of others alive.
func (g *Message) Reset() {
	clear(g.iov[:g.w])
	g.r, g.w = 0, 0
	g.msg.Iov = nil
}

// Left reports whether anything is left to send.
func (g *Message) Left() bool { return g.r < g.w }

// Send sends what the socket takes now, and returns how much: EAGAIN where that is nothing.
func (g *Message) Send(fd uintptr) (int, error) {
	g.msg.Iov = &g.iov[g.r]
	g.msg.SetIovlen(g.w - g.r)
	var n uintptr
	var errno syscall.Errno
	if g.left <= untold {
		n, _, errno = unix.RawSyscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&g.msg)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	} else {
		n, _, errno = unix.Syscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&g.msg)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	}
	if errno != 0 {
		return 0, errno
	}
	g.sent(int(n))
	return int(n), nil
}

// sent takes n bytes off.
func (g *Message) sent(n int) {
	g.left -= n
	for n > 0 {
		first := &g.iov[g.r]
		have := int(first.Len)
		if n < have {
			first.Base = (*byte)(unsafe.Add(unsafe.Pointer(first.Base), n))
			first.SetLen(have - n)
			return
		}
		n -= have
		g.r++
	}
}
