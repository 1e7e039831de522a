package nbd

import (
	"bytes"
	"errors"
	"io"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
)

// TestABatchIsSentWholeAndInOrder whatever the socket takes at a time.
func TestABatchIsSentWholeAndInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var want, got []byte
		var batch, last *request
		for i := range rapid.IntRange(1, batchReplies).Draw(t, "replies") {
			r := &request{headLen: rapid.IntRange(1, 32).Draw(t, "head")}
			for j := range r.headLen {
				r.head[j] = byte(i)
			}
			if n := rapid.SampledFrom([]int{0, 0, 1, 4096, 100_000, maxWrite - 1, maxWrite, maxWrite + 1}).Draw(t, "body"); n > 0 && len(want) < 4<<20 {
				r.body = bytes.Repeat([]byte{byte(i), 1, 2}, n/3+1)[:n]
			}
			want = append(append(want, r.head[:r.headLen]...), r.body...)
			if last == nil {
				batch = r
			} else {
				last.next = r
			}
			last = r
		}
		var o outgoing
		o.begin(batch)
		for len(o.piece) > 0 || o.more() {
			size := 0
			for _, b := range o.piece {
				size += len(b)
			}
			if size > maxWrite+32*batchReplies {
				t.Fatalf("a piece of %d bytes", size)
			}
			n := rapid.IntRange(0, size).Draw(t, "taken")
			left := n
			for _, b := range o.piece {
				m := min(left, len(b))
				got = append(got, b[:m]...)
				left -= m
			}
			o.wrote(n)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("sent %d bytes, want %d, or others", len(got), len(want))
		}
		if o.end() != batch || o.end() != nil {
			t.Fatal("the batch is not returned once")
		}
	})
}

func TestSocketSendsWhatIsTakenSoon(t *testing.T) {
	for _, pollers := range []int32{0, 1} {
		here, there := socketPair(t)
		var free atomic.Int32
		free.Store(pollers)
		s := newSocket(here, &free)
		if !s.canSend() {
			t.Skip("not on this system")
		}
		a, b := bytes.Repeat([]byte("a"), 4<<20), bytes.Repeat([]byte("b"), 4<<20)
		n, err := s.sendSoon([][]byte{a, nil, b}, roomWait{each: soon, turns: math.MaxInt})
		if err != nil || n <= 0 || n >= len(a) {
			t.Fatalf("%d pollers: sent %d bytes to a peer that reads nothing: %v", pollers, n, err)
		}
		got := make(chan []byte, 1)
		go func() {
			all, _ := io.ReadAll(there)
			got <- all
		}()
		sent, begun := n, time.Now()
		for sent < len(a)+len(b) && time.Since(begun) < patience {
			vec := [][]byte{a[min(sent, len(a)):], b[max(0, sent-len(a)):]}
			if n, err = s.sendSoon(vec, roomWait{each: soon, turns: math.MaxInt}); err != nil {
				t.Fatal(err)
			}
			sent += n
		}
		here.Close()
		if all := <-got; !bytes.Equal(all, append(a, b...)) {
			t.Errorf("%d pollers: %d bytes arrived, or others", pollers, len(all))
		}
		if _, err := s.sendSoon([][]byte{a}, roomWait{each: soon, turns: math.MaxInt}); err == nil {
			t.Errorf("%d pollers: sent on a closed connection", pollers)
		}
		if got := free.Load(); got != pollers {
			t.Errorf("%d pollers became %d", pollers, got)
		}
	}
}

func TestSocketToldThatThePeerIsGone(t *testing.T) {
	here, there := socketPair(t)
	var free atomic.Int32
	s := newSocket(here, &free)
	if !s.canSend() {
		t.Skip("not on this system")
	}
	there.Close()
	if n, err := s.sendSoon([][]byte{{1}}, roomWait{each: soon, turns: math.MaxInt}); n != 0 || err == nil {
		t.Errorf("sent %d bytes to nobody: %v", n, err)
	}
	here.SetWriteDeadline(longAgo)
	if _, err := s.sendSoon([][]byte{{1}}, roomWait{each: soon, turns: math.MaxInt}); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("after the deadline: %v", err)
	}
}

// TestAClientMaySendMuchBeforeItReads: the reader goes on taking its writes
// while the replies to its reads are not taken.
func TestAClientMaySendMuchBeforeItReads(t *testing.T) {
	for _, inline := range []bool{false, true} {
		r := newRig(t, Config{})
		r.inline = inline
		p := r.connect()
		p.enter("disk")
		const reads, n = 8, 1 << 20
		for i := range reads {
			p.request(proto.CmdRead, uint64(i), 0, n, nil)
		}
		for i := range 4 { // more than sockets hold
			p.request(proto.CmdWrite, uint64(reads+i), 0, n, make([]byte, n))
		}
		seen := map[uint64]bool{}
		for range reads + 4 {
			errno, cookie := p.expectReply()
			if errno != 0 || seen[cookie] {
				t.Fatalf("inline %v: error %d in reply to %d", inline, errno, cookie)
			}
			seen[cookie] = true
			if cookie < reads {
				p.expect(n)
			}
		}
		r.expectMemoryBack()
	}
}

// TestEverySizeOfReplyArrivesEitherWay: sent by the reader, or by the writer
// goroutine.
func TestEverySizeOfReplyArrivesEitherWay(t *testing.T) {
	for _, inline := range []bool{false, true} {
		r := newRig(t, Config{})
		r.inline = inline
		p := r.connect()
		p.enter("disk")
		want := make([]byte, 3<<20)
		for i := range want {
			want[i] = byte(i ^ i>>8 ^ i>>16)
		}
		p.request(proto.CmdWrite, 1, 0, len(want), want)
		p.expectReply()
		for i, n := range []int{1, 512, 4096, much - 1, much, much + 1, maxWrite, maxWrite + 512, len(want)} {
			p.request(proto.CmdRead, uint64(i), 0, n, nil)
			if errno, cookie := p.expectReply(); errno != 0 || cookie != uint64(i) {
				t.Fatalf("reply %d to %d", errno, cookie)
			}
			if !bytes.Equal(p.expect(n), want[:n]) {
				t.Fatalf("inline %v: a read of %d bytes returned others", inline, n)
			}
		}
		r.expectMemoryBack()
	}
}
