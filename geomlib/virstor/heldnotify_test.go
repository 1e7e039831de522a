package virstor

import (
	"slices"
	"sync"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
)

// toldRequest notes what its Completer is told, in order.
type toldRequest struct {
	r    Request
	mu   sync.Mutex
	told []string
	done chan struct{}
	held chan struct{}
}

func newToldRequest(op Op, off int64, data []byte) *toldRequest {
	q := &toldRequest{done: make(chan struct{}), held: make(chan struct{}, 10)}
	q.r = Request{Op: op, Offset: off, Length: int64(len(data)), Data: data, Done: q}
	return q
}

func (q *toldRequest) note(what string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.told = append(q.told, what)
}

func (q *toldRequest) Held(r *Request) bool {
	r.Data = slices.Clone(r.Data) // allowed
	q.note("held")
	q.held <- struct{}{}
	return true
}

func (q *toldRequest) Resumed(*Request) bool {
	q.note("resumed")
	return true
}

func (q *toldRequest) Complete(*Request) {
	q.note("complete")
	close(q.done)
}

func TestACompleterIsToldOfEveryHoldAndResume(t *testing.T) {
	const chunk = 128 << 10
	a, b := newMem("a", 1<<20, 512), newMem("b", 1<<20, 512)
	label(t, 4<<20, chunk, a)
	v := open(t, Config{}, a)
	data := make([]byte, chunk)
	var last *toldRequest
	for off := int64(0); last == nil; off += chunk {
		q := newToldRequest(OpWrite, off, data)
		v.Submit(&q.r)
		select {
		case <-q.done:
		case <-q.held:
			last = q
		}
	}
	v.RetryHeld() // no space yet: nothing to tell
	if err := v.Add([]geomlib.Provider{b}, AddOptions{}); err != nil {
		t.Fatal(err)
	}
	<-last.done
	if last.r.Err != nil {
		t.Fatal(last.r.Err)
	}
	if want := []string{"held", "resumed", "complete"}; !slices.Equal(last.told, want) {
		t.Fatalf("told %v, want %v", last.told, want)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}
