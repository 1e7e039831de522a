//go:build linux || freebsd

// Package nowait reads what sockets have, by system calls that the scheduler is not told of.
package nowait

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// most is how much, in bytes, is read without telling the scheduler: nobody else can use
	// the processor while it is copied, some microseconds.
	most = 128 << 10
	// turns is how often so in succession where there always is something to read. Who never
	// tells it may run for long before it looks whether others should.
	turns = 64
)

// reader reads from a socket. A call that the scheduler is told of wakes its watching thread
// whenever the process had nothing to do before: of a server that waits for each answer of
// another one that takes as much as the rest of the read.
type reader struct {
	rc  syscall.RawConn
	try func(fd uintptr) bool

	// Of the call that runs.
	p     []byte
	n     int
	errno syscall.Errno

	turn int // calls since it had to wait
}

// Reader returns a reader of nc, which is nc itself where there is no other way. It is for one
// goroutine at a time, and allocates nothing. nc's deadlines hold.
func Reader(nc net.Conn) io.Reader {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nc
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return nc
	}
	r := &reader{rc: rc}
	r.try = r.receive
	return r
}

// Read is that of net.Conn.
func (r *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	r.p = p
	err := r.rc.Read(r.try)
	r.p = nil
	switch {
	case err != nil:
		return 0, err
	case r.errno != 0:
		return 0, os.NewSyscallError("recvfrom", r.errno)
	case r.n == 0:
		return 0, io.EOF
	}
	return r.n, nil
}

// receive reports false, and the runtime's poller takes over, when there is nothing to read.
func (r *reader) receive(fd uintptr) bool {
	r.turn++
	for {
		var n uintptr
		if r.turn <= turns && len(r.p) <= most {
			n, _, r.errno = unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&r.p[0])), uintptr(len(r.p)), unix.MSG_DONTWAIT, 0, 0)
		} else {
			r.turn = 0
			n, _, r.errno = unix.Syscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&r.p[0])), uintptr(len(r.p)), unix.MSG_DONTWAIT, 0, 0)
		}
		switch r.errno {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			r.turn = 0
			return false
		case 0:
			r.n = int(n)
		}
		return true
	}
}
