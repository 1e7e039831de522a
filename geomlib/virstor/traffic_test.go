package virstor

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Who closes a volume goes on when the last request is out, whichever way that one ended
// and however many begin meanwhile; later ones are turned away.
func TestTheVolumeIsIdleOnceTheLastRequestIsOut(t *testing.T) {
	for range 200 {
		tr := &traffic{opened: time.Now(), idle: make(chan struct{})}
		var inside atomic.Int64
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				var r Request
				for op := Op(g % 2); ; {
					inside.Add(1)
					l, _ := tr.enter(&r, op)
					if l == nil {
						inside.Add(-1)
						return
					}
					inside.Add(-1) // before it is counted out, so that idle means 0
					if g < 2 {
						tr.straight(l, 1)
					} else {
						tr.leave(l)
					}
				}
			})
		}
		held, _ := tr.enter(new(Request), OpWrite)
		tr.close()
		select {
		case <-tr.idle:
			t.Fatal("idle while a request is in flight")
		default:
		}
		if n := tr.inFlight(); n == 0 {
			t.Fatal("nothing in flight beside a request that is")
		}
		tr.leave(held)
		<-tr.idle
		wg.Wait()
		if n := inside.Load(); n != 0 || tr.inFlight() != 0 {
			t.Fatalf("%d inside, %d in flight", n, tr.inFlight())
		}
		if l, _ := tr.enter(new(Request), OpRead); l != nil {
			t.Fatal("a request enters a volume that is closed")
		}
	}
}

// What is done straight counts like what is not: each read once, with its bytes, and one in
// sixteen is timed.
func TestReadsAreCountedWhicheverWayTheyTake(t *testing.T) {
	const chunk = 128 << 10
	a := newMem("a", 2<<20, 512)
	label(t, 8<<20, chunk, a)
	v := open(t, Config{}, a)
	t.Cleanup(func() { v.Close() })
	b := make([]byte, 4096)
	if _, err := v.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
	const reads = 10 * timedOneIn
	r := &waiter{ch: make(chan struct{}, 1)}
	for i := range reads {
		r.r = Request{Op: OpRead, Flags: MayBlock, Data: b, Length: 4096, Offset: int64(i%2) * chunk, Done: r, lane: r.r.lane}
		v.Submit(&r.r)
		<-r.ch
	}
	s := v.OpStats(OpRead)
	if s.Count != reads || s.Bytes != reads*4096 || s.Errors != 0 || s.Latency.Count() != reads/timedOneIn {
		t.Errorf("%d reads, %d bytes, %d errors, %d timed", s.Count, s.Bytes, s.Errors, s.Latency.Count())
	}
}
