package nbdcomp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

// connections is how many are used where the server says that a flush on one is for all
// (NBD_FLAG_CAN_MULTI_CONN).
const connections = 4

// session is the connections to a server from when they are made until one is lost: then
// all are given up, since what the others do may be undone by what the server still has
// of that one.
type session struct {
	conns []*nbdclient.Conn
	ends  []*geomlib.Batch // of each of them: the transfers that end together
	turns atomic.Uint32
	max   int64 // of a read, bytes
	// silence is how long a request had had no answer when all was given up for that, or 0.
	silence atomic.Int64
}

// connectAll makes the connections of a session, as many as are of use.
func connectAll(ctx context.Context, by geomlib.Connector, u nbdclient.URI) (*session, error) {
	s := &session{max: defaultMax}
	for {
		batch := new(geomlib.Batch)
		c, err := negotiate(ctx, by, u, batch)
		if err != nil {
			return nil, errors.Join(err, s.reset())
		}
		s.conns, s.ends = append(s.conns, c), append(s.ends, batch)
		if first, is := offerOf(s.conns[0]), offerOf(c); !first.same(is) {
			return nil, errors.Join(fmt.Errorf("%s: its connections are to different exports: %s, and then %s", u, first, is), s.reset())
		}
		if !c.Info().MultiConn() || len(s.conns) == connections {
			return s, nil
		}
	}
}

// offer is what a server says of an export.
type offer struct {
	nbdclient.Info
	extended bool // lengths may have 64 bits
	extents  bool // it tells what reads as zeros
	liesOn   []uint32
}

func offerOf(c *nbdclient.Conn) offer {
	return offer{c.Info(), c.Extended(), c.DescribesExtents(), c.LiesOn()}
}

func (o offer) same(b offer) bool {
	return o.Info == b.Info && o.extended == b.extended && o.extents == b.extents && slices.Equal(o.liesOn, b.liesOn)
}

// String has what two offers may differ in.
func (o offer) String() string {
	return fmt.Sprintf("%d bytes, blocks of %d to %d, flags %#x, extended %t, block status %t, on volumes %x",
		o.Size, o.Min, o.Max, o.Flags, o.extended, o.extents, o.liesOn)
}

// conn is the connection whose turn it is.
func (s *session) conn() *nbdclient.Conn {
	return s.conns[s.turns.Add(1)%uint32(len(s.conns))]
}

// gathering is the connection that is sent more than one request at a time, until push.
func (s *session) gathering() (c *nbdclient.Conn, ends *geomlib.Batch) {
	i := s.turns.Load() % uint32(len(s.conns))
	return s.conns[i], s.ends[i]
}

// push has what was started sent. The next ones go by the next connection.
func (s *session) push() {
	s.turns.Add(1)
	for _, c := range s.conns {
		c.Push()
	}
}

// ended reports whether a connection is lost.
func (s *session) ended() bool {
	for _, c := range s.conns {
		select {
		case <-c.Done():
			return true
		default:
		}
	}
	return false
}

// watch gives a session up when a request has no answer for that long. It returns when
// a connection is lost, or ctx ends.
func (s *session) watch(ctx context.Context, silence time.Duration) {
	look := time.NewTicker(max(silence/8, time.Millisecond))
	defer look.Stop()
	for !s.ended() {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
		for _, c := range s.conns {
			if wait := c.Oldest(); wait >= silence {
				s.silence.Store(int64(wait))
				_ = s.reset() // it is of no more use, whatever that says
				return
			}
		}
	}
}

func (s *session) read(b []byte, off int64) error {
	_, err := s.conn().ReadAt(b, off)
	return err
}

// change does a change; b is the data of a write.
func (s *session) change(k kind, off, n int64, b []byte) error {
	switch k {
	case kindZero:
		return s.conn().WriteZeroes(off, n, 0)
	case kindTrim:
		return s.conn().Trim(off, n, 0)
	}
	_, err := s.conn().WriteAt(b, off)
	return err
}

// goodbyes is how long the others may take to be closed by a server that has closed one
// of its connections.
const goodbyes = time.Second

// reset gives all connections up, so that nothing of them is sent later.
func (s *session) reset() error {
	var err error
	for _, c := range s.conns {
		err = errors.Join(err, c.Abort())
		<-c.Done()
	}
	return err
}

// giveUp is reset, and reports whether the server may still do something that was sent.
// A server that has closed a connection does not.
func (s *session) giveUp() (doubt bool) {
	patience := time.NewTimer(goodbyes)
	defer patience.Stop()
	for _, c := range s.conns {
		select {
		case <-c.Done():
		case <-patience.C:
			patience.Reset(0)
		}
	}
	_ = s.reset() // they are of no more use, whatever it says
	for _, c := range s.conns {
		doubt = doubt || c.LeftBehind()
	}
	return doubt
}

// close says goodbye on all connections.
func (s *session) close() error {
	var all sync.WaitGroup
	errs := make([]error, len(s.conns))
	for i, c := range s.conns {
		all.Go(func() { errs[i] = c.Close() })
	}
	all.Wait()
	return errors.Join(errs...)
}
