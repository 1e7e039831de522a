package blackbox

import (
	"bytes"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

// wrong connects a client whose connection goes wrong as kind says.
func (s *site) wrong(kind cut) (*cutConn, *nbdclient.Conn) {
	s.t.Helper()
	nc, err := net.Dial("unix", s.socket)
	if err != nil {
		s.t.Fatal(err)
	}
	cc := newCutConn(nc, kind)
	c, err := nbdclient.New(s.t.Context(), cc, nbdclient.Options{Export: s.name})
	if err != nil {
		s.t.Fatal(err)
	}
	return cc, c
}

func TestAWriteWhosePayloadIsTornWritesNothing(t *testing.T) {
	s := newSite(t, 64*mib)
	s.label("-s", "1g", "-m", "1m")
	s.start()
	c := s.dial()
	old := bytes.Repeat([]byte{0xa1}, 2*mib)
	if _, err := c.WriteAt(old, 0); err != nil {
		t.Fatal(err)
	}
	var some sync.WaitGroup
	turns := make(chan bool, 8) // a client that stalls waits a while
	for _, n := range []int64{512, 4096, 64 << 10, mib + 512} {
		for _, sent := range []int64{0, 1, requestHeader - 1, requestHeader, requestHeader + 1,
			requestHeader + n/2, requestHeader + n - 512, requestHeader + n - 1} {
			for kind := cutClose; kind <= cutStall; kind++ {
				for _, off := range []int64{0, 8 * mib} { // over data, and where a chunk would be needed
					cc, broken := s.wrong(kind)
					cc.arm(sent, -1)
					time.AfterFunc(2*time.Millisecond, cc.giveUp)
					turns <- true
					some.Go(func() {
						if _, err := broken.WriteAt(bytes.Repeat([]byte{0xb2}, int(n)), off); err == nil {
							t.Errorf("a write of which %d bytes were sent succeeds", sent)
						}
						broken.Abort()
						<-turns
					})
				}
			}
		}
	}
	some.Wait()
	s.until("the connections are gone", func() bool { return s.status().Published[0].Connections == 1 })
	b := make([]byte, len(old))
	if _, err := c.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, old) {
		t.Error("a torn write over data wrote something")
	}
	if n := s.status().AllocatedChunks; n != 2 {
		t.Errorf("torn writes allocated: %d chunks, want 2", n)
	}
}

// TestDroppedConnectionsLeaveNothingBehind has more data on connections that go
// wrong than all connections together may have in flight.
func TestDroppedConnectionsLeaveNothingBehind(t *testing.T) {
	s := newSite(t, 64*mib, 64*mib)
	s.label("-s", "1g", "-m", "1m")
	s.start("--http", "127.0.0.1:0")
	calm := s.dial()
	b := make([]byte, mib)
	for off := int64(0); off < 32*mib; off += mib {
		if _, err := calm.WriteAt(b, off); err != nil {
			t.Fatal(err)
		}
	}
	goroutines := func() float64 { return figure(t, s.scrape(), "go_goroutines") }
	files := func() float64 { return figure(t, s.scrape(), "process_open_fds") }
	before, filesBefore := goroutines(), files()

	// One client that behaves works all the time.
	stop := make(chan struct{})
	var calmly sync.WaitGroup
	var slowest time.Duration
	var done atomic.Int64
	var calmErr atomic.Pointer[error]
	fail := func(err error) { calmErr.Store(&err) }
	calmly.Go(func() {
		p := make([]byte, 64<<10)
		for i := int64(0); ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			begin := time.Now()
			off := 40*mib + i%64*65536
			stampSectors(p, off, uint64(i+1))
			if _, err := calm.WriteAt(p, off); err != nil {
				fail(err)
				return
			}
			q := make([]byte, len(p))
			if _, err := calm.ReadAt(q, off); err != nil {
				fail(err)
				return
			}
			if !bytes.Equal(p, q) {
				fail(fmt.Errorf("read at %d: not what was written", off))
				return
			}
			slowest = max(slowest, time.Since(begin))
			done.Add(1)
		}
	})
	for round := range 12 {
		var gone sync.WaitGroup
		var conns []*nbdclient.Conn
		for i := range 30 {
			kind := cut(i % 3)
			cc, c := s.wrong(kind)
			conns = append(conns, c)
			if i%2 == 0 {
				cc.arm(requestHeader+mib-1, -1) // all of a write but its last byte
				gone.Go(func() { _, _ = c.WriteAt(make([]byte, mib), int64(round)*mib) })
				continue
			}
			cc.arm(-1, 100<<10) // of 8 MiB of replies
			for k := range int64(8) {
				gone.Go(func() { _, _ = c.ReadAt(make([]byte, mib), k*mib) })
			}
		}
		at := done.Load()
		s.until("the calm client goes on", func() bool { return done.Load() > at+20 || calmErr.Load() != nil })
		for _, c := range conns {
			c.Abort()
		}
		gone.Wait()
	}
	close(stop)
	calmly.Wait()
	if err := calmErr.Load(); err != nil {
		t.Fatalf("the calm client: %v\n%s", *err, s.log)
	}
	t.Logf("slowest write and read of the calm client: %s", slowest)
	if slowest > 20*time.Second {
		t.Errorf("the calm client waited %s", slowest)
	}
	s.until("the connections are gone", func() bool { return s.status().Published[0].Connections == 1 })
	s.until("their goroutines are gone", func() bool { return goroutines() <= before+4 })
	s.until("their descriptors are gone", func() bool { return files() <= filesBefore+2 })
	// The largest requests find their memory: none of it was lost.
	large := make([]byte, 32*mib)
	var all sync.WaitGroup
	for range 8 { // 256 MiB, all that there is
		c := s.dial()
		all.Go(func() {
			if _, err := c.ReadAt(make([]byte, len(large)), 0); err != nil {
				t.Errorf("read of 32 MiB: %v", err)
			}
			if _, err := c.WriteAt(large, 0); err != nil {
				t.Errorf("write of 32 MiB: %v", err)
			}
		})
	}
	all.Wait()
}
