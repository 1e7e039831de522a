package nbdcomp

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
)

const sector = 512

// forgetful is an NBD server of a disk in memory. What it has not been asked to flush is
// lost when it dies, or some of it. Requests are done in any order.
type forgetful struct {
	t    *testing.T
	path string

	mu     sync.Mutex
	flags  uint16
	hooks  hooks
	now    []byte // what is read
	stable []byte // what is there after a death
	life   int
	ln     net.Listener
	conns  map[net.Conn]bool
	done   map[uint16]int // requests, by their kind
	tasks  sync.WaitGroup
}

// hooks are what a test has happen with requests.
type hooks struct {
	// before is called before a request is done, and may block; what it returns is
	// answered when it is not 0.
	before func(r proto.Request) (errno uint32)
	after  func(r proto.Request) // it is done, and not answered yet
}

// hook replaces the hooks for what comes from now on.
func (s *forgetful) hook(h hooks) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hooks = h
}

// newForgetful serves a disk of so many sectors until the test ends.
func newForgetful(t *testing.T, sectors int) *forgetful {
	s := &forgetful{t: t, path: filepath.Join(t.TempDir(), "s"), conns: make(map[net.Conn]bool), done: make(map[uint16]int),
		flags: proto.SendHasFlags | proto.SendFlush | proto.SendTrim | proto.SendWriteZeroes | proto.SendMultiConn,
		now:   make([]byte, sectors*sector), stable: make([]byte, sectors*sector)}
	s.rise()
	t.Cleanup(func() {
		s.die(nil)
		s.tasks.Wait()
	})
	return s
}

func (s *forgetful) uri() string { return "nbd+unix:///disk?socket=" + s.path }

// rise begins to serve.
func (s *forgetful) rise() {
	ln, err := net.Listen("unix", s.path)
	if err != nil {
		s.t.Error(err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ln = ln
	life := s.life
	s.tasks.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			if s.life != life {
				s.mu.Unlock()
				c.Close()
				return
			}
			s.conns[c] = true
			s.mu.Unlock()
			s.tasks.Go(func() { s.serve(c, life) })
		}
	})
}

// die ends all connections at an instant. Of what was not flushed those sectors are kept
// that survive says so of; nil: none.
func (s *forgetful) die(survive func(i int) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.life++
	s.ln.Close()
	for c := range s.conns {
		c.Close()
	}
	clear(s.conns)
	for i := 0; i < len(s.now); i += sector {
		if survive != nil && survive(i/sector) {
			copy(s.stable[i:], s.now[i:i+sector])
		}
	}
	copy(s.now, s.stable)
}

// putBack makes the disk what it was when it held that.
func (s *forgetful) putBack(old []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	copy(s.now, old)
	copy(s.stable, old)
}

// holds is what the disk holds.
func (s *forgetful) holds() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]byte(nil), s.now...)
}

// count is how many requests of a kind were done.
func (s *forgetful) count(kind uint16) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.done[kind]
}

// serve serves one connection.
func (s *forgetful) serve(c net.Conn, life int) {
	defer c.Close()
	in := bufio.NewReader(c)
	if !s.greet(in, c) {
		return
	}
	var out sync.Mutex
	for {
		var h [proto.RequestSize]byte
		if _, err := io.ReadFull(in, h[:]); err != nil {
			return
		}
		r, err := proto.DecodeRequest(h[:])
		if err != nil || r.Type == proto.CmdDisc {
			return
		}
		var data []byte
		if r.Type == proto.CmdWrite {
			data = make([]byte, r.Length)
			if _, err := io.ReadFull(in, data); err != nil {
				return
			}
		}
		s.tasks.Go(func() {
			answer, ok := s.answer(r, data, life)
			if !ok {
				return
			}
			out.Lock()
			defer out.Unlock()
			_, _ = c.Write(answer) // the client may be gone
		})
	}
}

// greet negotiates: an export by GO, and nothing else.
func (s *forgetful) greet(in io.Reader, c net.Conn) bool {
	b := binary.BigEndian.AppendUint64(nil, proto.MagicInit)
	b = binary.BigEndian.AppendUint64(b, proto.MagicOption)
	b = binary.BigEndian.AppendUint16(b, proto.FlagFixedNewstyle|proto.FlagNoZeroes)
	var flags [4]byte
	if _, err := c.Write(b); err != nil {
		return false
	}
	if _, err := io.ReadFull(in, flags[:]); err != nil {
		return false
	}
	for {
		var h [proto.OptionSize]byte
		if _, err := io.ReadFull(in, h[:]); err != nil {
			return false
		}
		opt, n := binary.BigEndian.Uint32(h[8:]), binary.BigEndian.Uint32(h[12:])
		if _, err := io.CopyN(io.Discard, in, int64(n)); err != nil {
			return false
		}
		b = proto.AppendOptReply(nil, opt, proto.RepErrUnsup, 0)
		if opt == proto.OptGo {
			b = proto.AppendOptReply(nil, opt, proto.RepInfo, 2+proto.ExportInfoSize)
			b = binary.BigEndian.AppendUint16(b, proto.InfoExport)
			b = s.appendOffer(b)
			b = proto.AppendOptReply(b, opt, proto.RepAck, 0)
		}
		if _, err := c.Write(b); err != nil {
			return false
		}
		if opt == proto.OptGo {
			return true
		}
	}
}

// appendOffer appends the size of the disk and its flags.
func (s *forgetful) appendOffer(b []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint64(b, uint64(len(s.now))), s.flags)
}

// offer changes the flags for who connects from now on.
func (s *forgetful) offer(flags uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flags = flags
}

// answer does a request. It is not ok when the server has died.
func (s *forgetful) answer(r proto.Request, data []byte, life int) (answer []byte, ok bool) {
	s.mu.Lock()
	h := s.hooks
	s.mu.Unlock()
	var errno uint32
	if h.before != nil {
		errno = h.before(r)
	}
	if answer, ok = s.do(r, data, errno, life); ok && h.after != nil {
		h.after(r)
	}
	return answer, ok
}

func (s *forgetful) do(r proto.Request, data []byte, errno uint32, life int) (answer []byte, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life != life {
		return nil, false
	}
	s.done[r.Type]++
	answer = proto.AppendSimple(nil, errno, r.Cookie)
	if errno != 0 {
		return answer, true
	}
	end := r.Offset + r.Length
	switch r.Type {
	case proto.CmdRead:
		answer = append(answer, s.now[r.Offset:end]...)
	case proto.CmdWrite:
		copy(s.now[r.Offset:end], data)
	case proto.CmdWriteZeroes, proto.CmdTrim:
		clear(s.now[r.Offset:end])
	case proto.CmdFlush:
		copy(s.stable, s.now)
	}
	return answer, true
}
