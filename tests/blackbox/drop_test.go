package blackbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

// cut is how a client's connection goes wrong.
type cut int

const (
	cutClose cut = iota // closed
	cutHalf             // its writing half closed, its reading half left open
	cutStall            // left open, without a word and without an ear
)

// requestHeader is the length of an NBD request without its payload.
const requestHeader = 28

// cutConn is a connection that goes wrong after so many bytes. A nbdclient.Conn
// writes the header of a request by itself.
type cutConn struct {
	net.Conn
	kind cut
	over chan struct{} // closed when the client gives the connection up
	end  sync.Once

	mu      sync.Mutex
	armed   bool
	writes  int64 // that are left, bytes; -1: without limit
	reads   int64
	header  []byte // last
	torn    []byte // header of the request that was not sent whole
	dropped bool
}

var errCut = errors.New("cut on purpose")

func newCutConn(nc net.Conn, kind cut) *cutConn {
	return &cutConn{Conn: nc, kind: kind, over: make(chan struct{})}
}

// arm has the connection go wrong after so many more bytes; -1 is never.
func (c *cutConn) arm(writes, reads int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armed, c.writes, c.reads = true, writes, reads
}

func (c *cutConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	n := len(p)
	if c.dropped {
		n = 0
	} else if c.armed && c.writes >= 0 {
		n = int(min(int64(n), c.writes))
		c.writes -= int64(n)
	}
	if len(p) == requestHeader {
		c.header = slices.Clone(p)
	}
	if n < len(p) && c.torn == nil {
		c.torn, c.dropped = c.header, true
	}
	c.mu.Unlock()
	done, err := c.Conn.Write(p[:n])
	if err != nil || n == len(p) {
		return done, err
	}
	c.goWrong()
	return done, errCut
}

func (c *cutConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	limit := len(p)
	if c.armed && c.reads >= 0 {
		limit = int(min(int64(limit), c.reads))
	}
	c.mu.Unlock()
	if limit == 0 {
		c.goWrong()
		return 0, errCut
	}
	n, err := c.Conn.Read(p[:limit])
	c.mu.Lock()
	if c.armed && c.reads >= 0 {
		c.reads -= int64(n)
	}
	c.mu.Unlock()
	return n, err
}

// goWrong does to the connection what is to be done. It returns once the client
// may know.
func (c *cutConn) goWrong() {
	switch c.kind {
	case cutClose:
		c.Conn.Close()
	case cutHalf:
		if u, ok := c.Conn.(*net.UnixConn); ok {
			u.CloseWrite()
		}
		<-c.over
	case cutStall:
		<-c.over
	}
}

// Close is the client's: it closes when it meets an error, which a cut of
// another kind than cutClose keeps from it.
func (c *cutConn) Close() error {
	c.giveUp()
	return c.Conn.Close()
}

func (c *cutConn) giveUp() { c.end.Do(func() { close(c.over) }) }

// tornRange is the range of the write that was not sent whole, if there is one.
func (c *cutConn) tornRange() (off, n int64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	const cmdWrite = 1 // NBD_CMD_WRITE
	if c.torn == nil || binary.BigEndian.Uint16(c.torn[6:]) != cmdWrite {
		return 0, 0, false
	}
	return int64(binary.BigEndian.Uint64(c.torn[16:])), int64(binary.BigEndian.Uint32(c.torn[24:])), true
}

// dropArea is what one dropped connection writes to.
const dropArea = 256 << 10

// drop is one connection that goes wrong with requests in flight. It returns
// when the client has given it up.
func (s *session) drop(l *ledger, generation uint64, rng *rand.Rand) error {
	nc, err := net.Dial("unix", s.socket)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	cc := newCutConn(nc, cut(rng.IntN(3)))
	c, err := nbdclient.New(s.t.Context(), cc, nbdclient.Options{Export: s.name, Simple: rng.IntN(2) == 0})
	if err != nil {
		nc.Close()
		return fmt.Errorf("negotiate: %w", err)
	}
	writes, reads := int64(-1), int64(-1)
	if rng.IntN(2) == 0 {
		writes = rng.Int64N(300 << 10)
	} else {
		reads = rng.Int64N(300 << 10)
	}
	cc.arm(writes, reads)
	base := l.base + int64(generation%uint64(l.size/dropArea))*dropArea
	const depth = 16
	const each = dropArea / depth
	var wg sync.WaitGroup
	for i := range int64(depth) {
		off := base + i*each
		n := (1 + rng.Int64N(each/sectorSize)) * sectorSize
		wg.Go(func() {
			b := make([]byte, n)
			stampSectors(b, off, generation)
			l.begin(off, n, generation)
			if _, err := c.WriteAt(b, off); err != nil {
				return
			}
			l.acknowledged(off, n, generation)
			for { // replies to be cut off in
				if _, err := c.ReadAt(b, off); err != nil {
					return
				}
			}
		})
	}
	// A connection that stalls is left alone for a while.
	wait := time.NewTimer(time.Duration(rng.IntN(30)) * time.Millisecond)
	select {
	case <-c.Done():
	case <-wait.C:
	}
	c.Abort()
	wg.Wait()
	if off, n, ok := cc.tornRange(); ok {
		l.withdraw(off, n, generation) // it writes nothing
	}
	return nil
}

// dropRound drops connections while others work on.
func (s *session) dropRound() {
	s.t.Helper()
	before := s.usage()
	l := s.begin(500)
	s.some(20)
	for range 2 + s.rng.IntN(3) {
		var wg sync.WaitGroup
		for range 1 + s.rng.IntN(8) {
			s.dropped++
			g, rng := s.dropped, rand.New(rand.NewPCG(s.rng.Uint64(), 3))
			wg.Go(func() { l.note(s.drop(s.dropLedger, g, rng)) })
			s.counts.drops.Add(1)
		}
		wg.Wait()
		s.some(20)
	}
	s.alive(l)
	s.until("the connections are gone", func() bool { return s.status().Published[0].Connections == 0 })
	s.back(before)
}

// openFiles counts the descriptors of the process that serves, 0 where the
// system does not tell.
func (s *session) openFiles() int {
	es, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.worker()))
	if err != nil {
		return 0
	}
	return len(es)
}
