package virstor

import (
	"sync"
	"sync/atomic"
	"time"
)

// traffic is what is asked of the volume: which requests are in it, and what became of
// the others.
//
// Each request is counted in a lane, and keeps to it when its owner uses it again, so that
// requests of different processors seldom write to one cache line, and one that comes again
// finds the line that it had. All sums are made by who reads them.
type traffic struct {
	closing  atomic.Bool
	idle     chan struct{} // closed when closing and nothing is in flight
	idleOnce sync.Once
	opened   time.Time

	given atomic.Uint32                // lanes that were given to requests
	ops   [OpWriteZeroes + 1]opTraffic // by Op; 0 is for what is asked of snapshots, and for what is no Op
}

// opTraffic counts the requests of one kind.
type opTraffic struct {
	latency histogram // nanoseconds from Submit to Complete, of those that are timed
	lanes   [lanes]lane
}

// lanes is how many lanes there are of a kind.
const lanes = 8

// lane counts some of the requests of a kind.
type lane struct {
	entered  atomic.Uint64
	left     atomic.Uint64 // after Complete, those that were turned away included
	count    atomic.Uint64 // before Complete
	straight atomic.Uint64 // before Complete, by who submitted them, and in neither left nor count
	bytes    atomic.Uint64
	errors   atomic.Uint64
	_        [10]uint64 // wherever it lies, no cache line has two lanes
}

// timedOneIn is how many reads and writes there are to one that is timed: a
// look at the clock costs as much as all other counting. Other requests are
// all timed. A power of two.
const timedOneIn = 16

// tally is what a request carries to be counted.
type tally struct {
	lane    *lane
	started time.Duration // since the volume was opened
	timed   bool
}

// enter counts r in, as a request of kind op, in a lane, which is nil when the volume is
// closing. timed: r is one that is timed.
func (t *traffic) enter(r *Request, op Op) (l *lane, timed bool) {
	if r.lane == 0 {
		r.lane = uint8(t.given.Add(1)-1)%lanes + 1
	}
	l = &t.ops[op].lanes[r.lane-1]
	n := l.entered.Add(1)
	// Who closes the volume says so before he looks for what has entered: either he sees
	// this request, or it sees him.
	if t.closing.Load() {
		t.leave(l)
		return nil, false
	}
	return l, n%timedOneIn == 0 || op > OpWrite
}

// begin is what r carries from now on.
func (t *traffic) begin(l *lane, timed bool) tally {
	if !timed {
		return tally{lane: l}
	}
	// From the monotonic clock alone, which is cheaper than time.Now.
	return tally{lane: l, timed: true, started: time.Since(t.opened)}
}

// account counts r, which ends with err and is about to complete.
func (t *traffic) account(r *Request, err error) {
	l := r.req.tally.lane
	if r.req.tally.timed && r.Op <= OpWriteZeroes {
		t.ops[r.Op].latency.add(uint64(max(0, time.Since(t.opened)-r.req.tally.started)))
	}
	l.count.Add(1)
	if err != nil {
		l.errors.Add(1)
	} else if r.Length > 0 {
		l.bytes.Add(uint64(r.Length))
	}
}

// complete completes r and counts it out.
func (t *traffic) complete(r *Request) {
	l := r.req.tally.lane // r is its owner's again once it has completed
	r.Done.Complete(r)
	t.leave(l)
}

// straight counts a request of l for so many bytes as one that was done and out, which is
// about to complete.
func (t *traffic) straight(l *lane, bytes int64) {
	l.bytes.Add(uint64(bytes))
	l.straight.Add(1)
	if t.closing.Load() {
		t.noteIdle()
	}
}

// leave counts a request of l out, which has completed.
func (t *traffic) leave(l *lane) {
	l.left.Add(1)
	if t.closing.Load() {
		t.noteIdle()
	}
}

// close makes enter fail, and idle close once nothing is in flight.
func (t *traffic) close() {
	t.closing.Store(true)
	t.noteIdle()
}

// noteIdle closes idle when nothing is in flight.
func (t *traffic) noteIdle() {
	if t.inFlight() == 0 {
		t.idleOnce.Do(func() { close(t.idle) })
	}
}

// inFlight is how many requests have entered and not left: none, if it says so, at one
// moment of the call.
func (t *traffic) inFlight() uint64 {
	ended := t.ended()
	return t.sum(func(l *lane) uint64 { return l.entered.Load() }) - ended
}

// ended is how many requests have left.
func (t *traffic) ended() uint64 {
	return t.sum(func(l *lane) uint64 { return l.left.Load() + l.straight.Load() })
}

// sum adds up one of the counters of all lanes.
func (t *traffic) sum(counter func(*lane) uint64) (n uint64) {
	for op := range t.ops {
		for i := range t.ops[op].lanes {
			n += counter(&t.ops[op].lanes[i])
		}
	}
	return n
}

// OpStats count the requests of one kind since the volume was opened.
type OpStats struct {
	Count  uint64
	Bytes  uint64 // of requests that succeeded
	Errors uint64 // requests that failed
	// Latency is nanoseconds from Submit to Complete, of one read or write
	// in 16 and of all other requests.
	Latency Histogram
}

// Ops are the operations that OpStats are kept of.
func Ops() []Op { return []Op{OpRead, OpWrite, OpFlush, OpDelete, OpWriteZeroes} }

// OpStats tells of the requests of one kind that were completed. It is zero for
// what is no Op. A held write's time includes its wait.
func (v *Volume) OpStats(op Op) OpStats {
	if op < OpRead || op > OpWriteZeroes {
		return OpStats{}
	}
	c := &v.traffic.ops[op]
	o := OpStats{Latency: c.latency.read()}
	for i := range c.lanes {
		l := &c.lanes[i]
		o.Count += l.count.Load() + l.straight.Load()
		o.Bytes += l.bytes.Load()
		o.Errors += l.errors.Load()
	}
	return o
}

// CommitSizes are the numbers of chunks of the group commits so far.
func (v *Volume) CommitSizes() Histogram { return v.stats.commitSizes.read() }
