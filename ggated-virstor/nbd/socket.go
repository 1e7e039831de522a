package nbd

import (
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/gather"
)

// soon is how long a reader waits in poll(2) for the rest of a payload, or for
// the client to take more of a reply. The
// runtime's poller puts the goroutine away, looks for another, and wakes a
// thread when input comes: 1 MiB writes became an eighth faster without. For
// the next request its poller is better: its thread looks again for a while
// before it sleeps.
const soon = time.Millisecond

// socket reads what will come soon, and sends what is taken soon. It allocates
// nothing, and belongs to the reader. The connection's deadlines hold.
type socket struct {
	nc      net.Conn
	pollers *atomic.Int32   // how many more readers may wait in poll(2)
	rc      syscall.RawConn // nil: the connection has no descriptor
	try     func(fd uintptr) bool
	send    func(fd uintptr) bool
	check   func(fd uintptr)

	// Of the call that runs.
	p     []byte
	n     int
	err   error
	waits bool

	// Of whoever writes at the moment.
	vec     gather.Message
	room    roomWait // how it still waits for room
	sent    int
	sendErr error
}

func newSocket(nc net.Conn, pollers *atomic.Int32) *socket {
	s := &socket{nc: nc, pollers: pollers}
	s.try = s.readSoon
	s.send = s.trySend
	s.check = func(fd uintptr) { s.waits = inputWaits(fd) }
	if sc, ok := nc.(syscall.Conn); ok {
		if rc, err := sc.SyscallConn(); err == nil {
			s.rc = rc
		}
	}
	return s
}

// Read is that of net.Conn.
func (s *socket) Read(p []byte) (int, error) {
	if s.rc == nil || len(p) == 0 {
		return s.nc.Read(p)
	}
	s.p = p
	err := s.rc.Read(s.try)
	s.p = nil
	switch {
	case err != nil:
		return 0, err
	case s.err != nil:
		return 0, s.err
	case s.n == 0:
		return 0, io.EOF
	}
	return s.n, nil
}

// readSoon reads. It reports false, and the runtime's poller takes over, when
// nothing comes soon.
func (s *socket) readSoon(fd uintptr) bool {
	waited := false
	for {
		s.n, s.err = unix.Read(int(fd), s.p)
		switch {
		case s.err == unix.EINTR:
		case s.err != unix.EAGAIN:
			return true
		case waited:
			return false
		default:
			waited = s.await(fd, awaitInput, soon)
			if !waited {
				return false
			}
		}
	}
}

// canSend tells whether there is sendSoon on this system and connection.
func (s *socket) canSend() bool { return gather.Can && s.rc != nil }

// roomWait is how long to wait for a peer that takes nothing, and how often.
type roomWait struct {
	each  time.Duration
	turns int
	first bool // it waits for the first bytes alone
}

// sendSoon writes the slices of vec, at most maxVec. It returns early, without
// an error, when the peer does not take more of it as soon as w says.
func (s *socket) sendSoon(vec [][]byte, w roomWait) (n int, err error) {
	s.vec.Set(vec)
	s.sent, s.sendErr, s.room = 0, nil, w
	err = s.rc.Write(s.send)
	s.vec.Reset()
	if err == nil {
		err = s.sendErr
	}
	return s.sent, err
}

// trySend never reports false, which would leave the waiting to the runtime.
func (s *socket) trySend(fd uintptr) bool {
	waited := false
	for s.vec.Left() {
		n, err := s.vec.Send(fd)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			if waited || s.room.turns == 0 || s.room.first && s.sent > 0 || !s.await(fd, awaitRoom, s.room.each) {
				return true
			}
			waited = true
			s.room.turns--
		case err != nil:
			s.sendErr = err
			return true
		default:
			s.sent += n
			waited = false
		}
	}
	return true
}

// await waits in poll(2), if there may be one more who does.
func (s *socket) await(fd uintptr, event func(uintptr, time.Duration), d time.Duration) bool {
	defer s.pollers.Add(1)
	if s.pollers.Add(-1) < 0 {
		return false
	}
	event(fd, d)
	return true
}

// inputWaits asks whether there is unread input. It says yes when it cannot
// know.
func (s *socket) inputWaits() bool {
	s.waits = true
	return s.rc == nil || s.rc.Control(s.check) != nil || s.waits
}
