package nbd

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
)

// order decides which requests of an export wait for others. A change is a write,
// a trim or a write of zeros; an orphan is a change at work whose connection has
// ended.
//
//   - What overlaps an orphan waits until that is done, reads and block status
//     too: the client that comes back must not see it, or its own later change
//     undone by it.
//   - A change that overlaps one of another connection waits for it as well, since
//     that the other client is gone may not have been noticed yet.
//   - A write that the disk holds for space is waited for by nobody. What is
//     changed meanwhile counts as later: when the write goes on it leaves that
//     alone (Disk.Supersede), and it does not go on beside such a change.
//   - When its connection ends, what is held ends, what waits never begins, and
//     what is at work is not held any more.
//
// Requests wait for earlier ones only, and those at work wait for nobody here: so
// none waits for ever. A change without another in its way costs its place among
// the spans; a read costs a look at orphans.
type order struct {
	disk       Disk
	limit      int64           // bytes of requests of ended connections
	goroutines *sync.WaitGroup // counts the one that submits

	orphans atomic.Int64

	mu         sync.Mutex
	numbers    uint64
	spans      []span // changes that wait or are at work, in no order
	waiting    queue  // what has blockers, by number
	ready      queue  // waits no more, and is to be submitted
	held       queue
	submitting bool
	idle       sync.Cond          // submitting ended
	ended      map[*conn]struct{} // connections that ended, while anything of theirs is in flight
	room       chan struct{}      // non-nil while they are over the limit; closed when that is over
	none       chan struct{}      // non-nil while somebody waits for no orphans; closed then

	breaks orderRule
}

// orderRule is a rule that a test breaks on purpose.
type orderRule uint8

const (
	breakOrphans  orderRule = 1 << iota // nobody waits for an orphan
	breakHeldEnds                       // what a dead client had held is done later
	breakLater                          // a held write overwrites what came later
	breakFree                           // what a dead client had held is kept, and never done
)

// span is a range under way, close to its neighbours in memory.
type span struct {
	lo, hi int64
	r      *request
}

// orderEntry is a request's place in the order. order.mu guards it, except that the
// connection's reader sets lo and hi before it arrives.
type orderEntry struct {
	lo, hi        int64 // the range [lo, hi)
	stage         turnStage
	number        uint64 // of arrival
	index         int    // in order.spans, or -1
	blockers      int    // earlier requests that this one waits for
	orphaned      uint64 // the last number given when its connection ended, or 0
	putOff        bool   // held, and could go on but for a change at work
	before, after *request
}

type turnStage uint8

const (
	unordered turnStage = iota
	waiting
	ready
	atWork
	held
)

func newOrder(d Disk, limit int64, goroutines *sync.WaitGroup) *order {
	o := &order{disk: d, limit: limit, goroutines: goroutines, ended: make(map[*conn]struct{})}
	o.idle.L = &o.mu
	return o
}

// changes says whether the request changes the disk.
func (r *request) changes() bool {
	return r.cmd == proto.CmdWrite || r.cmd == proto.CmdWriteZeroes || r.cmd == proto.CmdTrim
}

func (r *request) overlaps(b *request) bool { return r.lo < b.hi && b.lo < r.hi }

// blocks reports whether the later b must wait for the change r.
func (r *request) blocks(b *request) bool {
	return r.overlaps(b) && (r.orphaned != 0 && b.number > r.orphaned || b.changes() && r.conn != b.conn)
}

// verdict is what becomes of a request that arrives.
type verdict uint8

const (
	begins  verdict = iota
	waits           // and is submitted by submitReady
	tooLate         // its connection has ended
)

// arrive gives r its place.
func (o *order) arrive(r *request) verdict {
	r.stage = unordered
	changes := r.changes()
	if !changes && o.orphans.Load() == 0 {
		return begins
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if r.conn.gone {
		return tooLate
	}
	o.numbers++
	r.number, r.index, r.blockers, r.orphaned, r.putOff = o.numbers, -1, 0, 0, false
	if len(o.spans) > r.conn.spans || o.orphans.Load() > 0 { // not only its own
		for i := range o.spans {
			sp := &o.spans[i]
			if sp.lo < r.hi && r.lo < sp.hi && sp.r.blocks(r) {
				r.blockers++
			}
		}
	}
	if changes {
		o.insertLocked(r)
	}
	if r.blockers > 0 {
		r.stage = waiting
		o.waiting.push(r)
		return waits
	}
	if changes {
		r.stage = atWork
	}
	return begins
}

func (o *order) insertLocked(r *request) {
	r.index = len(o.spans)
	r.conn.spans++
	o.spans = append(o.spans, span{r.lo, r.hi, r})
}

// leaveLocked takes r out of the spans, and lets go what waited for it alone.
// retry says that a held write was put off because of it.
func (o *order) leaveLocked(r *request) (retry bool) {
	if r.index < 0 {
		return false
	}
	last := len(o.spans) - 1
	o.spans[r.index] = o.spans[last]
	o.spans[r.index].r.index = r.index
	o.spans[last] = span{}
	o.spans = o.spans[:last]
	r.index = -1
	r.conn.spans--
	for w := o.waiting.first; w != nil; {
		next := w.after
		if w.number > r.number && r.blocks(w) {
			o.unblockLocked(w)
		}
		w = next
	}
	for h := o.held.first; h != nil; h = h.after {
		if h.putOff && h.overlaps(r) {
			h.putOff, retry = false, true
		}
	}
	if r.orphaned != 0 {
		o.adoptedLocked(r)
	}
	o.startLocked()
	return retry
}

func (o *order) unblockLocked(w *request) {
	if w.blockers--; w.blockers == 0 {
		o.waiting.remove(w)
		w.stage = ready
		o.ready.push(w)
	}
}

// adoptedLocked notes that r is an orphan no more.
func (o *order) adoptedLocked(r *request) {
	r.orphaned = 0
	if o.orphans.Add(-1) == 0 && o.none != nil {
		close(o.none)
		o.none = nil
	}
}

// finish takes out r, which the disk has completed. done: it changed what it was
// to change, so that held writes that came before leave it alone.
func (o *order) finish(r *request, done bool) {
	if r.stage == unordered { // set before it was submitted
		return
	}
	o.mu.Lock()
	if r.stage == held {
		o.held.remove(r)
	} else if done && o.breaks&breakLater == 0 {
		for h := o.held.first; h != nil; h = h.after {
			if h.number < r.number && h.overlaps(r) {
				lo, hi := max(h.lo, r.lo), min(h.hi, r.hi)
				o.disk.Supersede(&h.op, lo, hi-lo)
			}
		}
	}
	retry := o.leaveLocked(r)
	r.stage = unordered
	o.mu.Unlock()
	if retry {
		o.disk.RetryHeld()
	}
}

// hold lets go what waits for r, which the disk is about to hold. It reports false
// if nobody waits for r's answer.
func (o *order) hold(r *request) bool {
	o.mu.Lock()
	if r.conn.gone && o.breaks&breakHeldEnds == 0 {
		o.mu.Unlock()
		return false
	}
	r.stage = held
	retry := o.leaveLocked(r)
	o.held.push(r)
	o.mu.Unlock()
	if retry {
		o.disk.RetryHeld()
	}
	return true
}

// resume puts r, which was held, back at its old place: what waits and came later
// waits for it. It reports false if a change is at work that overlaps what is
// left of r to do, or if nobody waits for r.
func (o *order) resume(r *request) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if r.conn.gone && o.breaks&breakHeldEnds == 0 {
		return false // EndHeld follows
	}
	for i := range o.spans {
		sp := &o.spans[i]
		lo, hi := max(sp.lo, r.lo), min(sp.hi, r.hi)
		if sp.r.stage != waiting && lo < hi && o.breaks&breakLater == 0 && !o.disk.Superseded(&r.op, lo, hi-lo) {
			r.putOff = true
			return false
		}
	}
	o.held.remove(r)
	r.stage = atWork
	o.insertLocked(r)
	for w := o.waiting.first; w != nil; w = w.after {
		if w.number > r.number && r.blocks(w) {
			w.blockers++
		}
	}
	return true
}

// end makes orphans of what is at work of c, which has ended, and ends what is
// held of it. What waits is forgotten, unless the client said goodbye, whose
// requests are carried out while the connection is drained.
func (o *order) end(c *conn, goodbye bool) {
	var forgone queue
	var ending []*request
	o.mu.Lock()
	c.gone = true
	o.ended[c] = struct{}{}
	for i := range o.spans {
		if r := o.spans[i].r; r.conn == c && r.orphaned == 0 && o.breaks&breakOrphans == 0 {
			r.orphaned = o.numbers
			o.orphans.Add(1)
		}
	}
	for h := o.held.first; h != nil; h = h.after {
		if h.conn == c {
			ending = append(ending, h)
		}
	}
	retry := false
	if !goodbye {
		for _, q := range []*queue{&o.waiting, &o.ready} {
			for r := q.first; r != nil; {
				next := r.after
				if r.conn == c {
					q.remove(r)
					forgone.push(r)
				}
				r = next
			}
		}
		for r := forgone.first; r != nil; r = r.after {
			retry = o.leaveLocked(r) || retry
			r.stage = unordered
		}
	}
	o.measureLocked()
	o.mu.Unlock()
	for r := forgone.pop(); r != nil; r = forgone.pop() {
		c.forgo(r)
	}
	if o.breaks&(breakHeldEnds|breakFree) == 0 {
		for _, h := range ending {
			o.disk.EndHeld(&h.op)
		}
	}
	if retry {
		o.disk.RetryHeld()
	}
}

// freed looks again at how much ended connections use, after c gave some back.
func (o *order) freed(c *conn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c.gone {
		o.ended[c] = struct{}{}
		o.measureLocked()
	}
}

// requestSize is what a request takes beside its payload, bytes, more or less.
const requestSize = 512

// measureLocked keeps room in step with what ended connections use.
func (o *order) measureLocked() {
	var used int64
	for c := range o.ended {
		n := c.outstanding.Load()
		if n == 0 {
			delete(o.ended, c)
			continue
		}
		used += n*requestSize + c.reads.used() + c.writes.used()
	}
	switch {
	case used >= o.limit && o.room == nil:
		o.room = make(chan struct{})
	case used < o.limit && o.room != nil:
		close(o.room)
		o.room = nil
	}
}

// full returns a channel, and true, while ended connections use their limit; it
// is closed when they use less.
func (o *order) full() (<-chan struct{}, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.room, o.room != nil
}

// startLocked has what is ready submitted, by a goroutine that ends with it: who
// completes a request may be what all others wait for.
func (o *order) startLocked() {
	if o.ready.first != nil && !o.submitting {
		o.submitting = true
		o.goroutines.Go(o.submitReady)
	}
}

func (o *order) submitReady() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for r := o.ready.pop(); r != nil; r = o.ready.pop() {
		r.stage = unordered
		if r.changes() {
			r.stage = atWork
		}
		o.mu.Unlock()
		r.conn.begin(r)
		o.mu.Lock()
	}
	o.submitting = false
	o.idle.Broadcast()
}

// awaitSubmitted returns when nothing of an ended connection is being submitted.
func (o *order) awaitSubmitted() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.submitting {
		o.idle.Wait()
	}
}

// AwaitOrphans returns when nothing of a client of the export that is gone is at
// work, or has been so at an instant since it was called. It fails with ctx's
// error.
func (s *Server) AwaitOrphans(ctx context.Context, name string) error {
	s.mu.Lock()
	e, ok := s.exports[name]
	s.mu.Unlock()
	if !ok {
		return nil
	}
	return e.order.awaitOrphans(ctx)
}

// awaitOrphans returns when there was an instant without orphans.
func (o *order) awaitOrphans(ctx context.Context) error {
	o.mu.Lock()
	if o.orphans.Load() == 0 {
		o.mu.Unlock()
		return nil
	}
	if o.none == nil {
		o.none = make(chan struct{})
	}
	none := o.none
	o.mu.Unlock()
	select {
	case <-none:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// queue is a list through the requests; each is in one at most.
type queue struct{ first, last *request }

func (q *queue) push(r *request) {
	r.before, r.after = q.last, nil
	if q.last != nil {
		q.last.after = r
	} else {
		q.first = r
	}
	q.last = r
}

func (q *queue) remove(r *request) {
	if r.before != nil {
		r.before.after = r.after
	} else {
		q.first = r.after
	}
	if r.after != nil {
		r.after.before = r.before
	} else {
		q.last = r.before
	}
	r.before, r.after = nil, nil
}

func (q *queue) pop() *request {
	r := q.first
	if r != nil {
		q.remove(r)
	}
	return r
}
