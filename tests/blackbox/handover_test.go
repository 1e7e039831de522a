package blackbox

import (
	"sync"
	"testing"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

// TestNBDClientsNoticeNothingOfUpgrades: connections of our own client, of every kind and
// idle ones, last through all of them, and fio, which connects again and again, verifies
// what it writes.
func TestNBDClientsNoticeNothingOfUpgrades(t *testing.T) {
	need(t, "fio")
	upgrades := 30
	if testing.Short() {
		upgrades = 5
	}
	s := newSite(t, 96*mib, 96*mib)
	s.label("-s", "1g", "-m", "1m")
	s.start("--supervise")
	connect := func(opt nbdclient.Options) *nbdclient.Conn {
		t.Helper()
		c, err := nbdclient.Dial(t.Context(), s.uri(), opt)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Abort() })
		return c
	}
	idle := connect(nbdclient.Options{})
	if err := idle.Flush(); err != nil {
		t.Fatal(err)
	}
	var writers []*writer
	var conns []*nbdclient.Conn
	var running sync.WaitGroup
	for i, opt := range []nbdclient.Options{{}, {Compact: true}, {Simple: true}} {
		w, c := newWriter(uint64(1000*(i+1)), 64, 50000), connect(opt)
		writers, conns = append(writers, w), append(conns, c)
		running.Go(func() { w.run(c, 0) })
	}
	stop := make(chan struct{})
	running.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				<-s.load("8M")
			}
		}
	})
	worker := s.worker()
	for n := range upgrades {
		var before []uint64
		for _, w := range writers {
			before = append(before, w.total())
		}
		worker = s.upgradeAgain(worker)
		s.until("every client writes again", func() bool {
			for i, w := range writers {
				select {
				case <-conns[i].Done():
					t.Fatalf("upgrade %d ends connection %d", n+1, i)
				default:
				}
				if w.total() < before[i]+5 {
					return false
				}
			}
			return true
		})
	}
	if err := idle.Flush(); err != nil {
		t.Errorf("the idle connection: %v", err)
	}
	close(stop)
	for _, c := range conns {
		c.Abort()
	}
	running.Wait()
	c := connect(nbdclient.Options{})
	for _, w := range writers {
		w.verify(t, c)
	}
	s.said("NBD clients of the process before are served")
}
