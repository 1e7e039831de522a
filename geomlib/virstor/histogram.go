package virstor

import (
	"math/bits"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// HistogramBuckets is the number of buckets of a Histogram.
const HistogramBuckets = 40

// Histogram counts values in buckets by powers of two: bucket i has those of
// 2^(i-1) up to, but not including, 2^i; bucket 0 has zeros, the last one also
// what is larger.
type Histogram struct {
	Buckets [HistogramBuckets]uint64
	Sum     uint64
}

// Count is the number of values.
func (h *Histogram) Count() uint64 {
	var n uint64
	for _, b := range h.Buckets {
		n += b
	}
	return n
}

// histogramShards keeps processors from writing to one cache line. A power of
// two.
const histogramShards = 8

// histogram is a Histogram that many goroutines add to at once.
type histogram [histogramShards]struct {
	buckets [HistogramBuckets]atomic.Uint64
	sum     atomic.Uint64
	_       [7]uint64 // to whole cache lines
}

func (h *histogram) add(n uint64) {
	s := &h[rand.Uint32()%histogramShards]
	s.buckets[min(bits.Len64(n), HistogramBuckets-1)].Add(1)
	s.sum.Add(n)
}

// read sums the shards up. What is added meanwhile may be counted in part.
func (h *histogram) read() (out Histogram) {
	for i := range h {
		for b := range h[i].buckets {
			out.Buckets[b] += h[i].buckets[b].Load()
		}
		out.Sum += h[i].sum.Load()
	}
	return out
}

// timedOneIn is how many reads and writes there are to one that is timed: a
// look at the clock costs as much as all other counting. Other requests are
// all timed. A power of two.
const timedOneIn = 16

// opCounters count the requests of one kind.
type opCounters struct {
	latency histogram // nanoseconds from Submit to Complete, of those that are timed
	shards  [histogramShards]struct {
		count, bytes, errors atomic.Uint64
		_                    [5]uint64 // to a whole cache line
	}
}

// tally is what a request carries to be counted.
type tally struct {
	started time.Duration // on the volume's clock
	timed   bool
	shard   uint8
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
	c := &v.stats.ops[op-1]
	o := OpStats{Latency: c.latency.read()}
	for i := range c.shards {
		s := &c.shards[i]
		o.Count += s.count.Load()
		o.Bytes += s.bytes.Load()
		o.Errors += s.errors.Load()
	}
	return o
}

// CommitSizes are the numbers of chunks of the group commits so far.
func (v *Volume) CommitSizes() Histogram { return v.stats.commitSizes.read() }

// tallyOf begins to count a request.
func (v *Volume) tallyOf(op Op) tally {
	if v.cfg.uncounted {
		return tally{}
	}
	n := rand.Uint32()
	t := tally{shard: uint8(n % histogramShards)}
	if op > OpWrite || n/histogramShards%timedOneIn == 0 {
		// From the monotonic clock alone, which is cheaper than time.Now.
		t.timed, t.started = true, time.Since(v.life.opened)
	}
	return t
}

// account counts r, which ends with err.
func (v *Volume) account(r *Request, err error) {
	if r.Op < OpRead || r.Op > OpWriteZeroes || v.cfg.uncounted {
		return
	}
	c, t := &v.stats.ops[r.Op-1], &r.req.tally
	if t.timed {
		c.latency.add(uint64(max(0, time.Since(v.life.opened)-t.started)))
	}
	s := &c.shards[t.shard]
	s.count.Add(1)
	if err != nil {
		s.errors.Add(1)
	} else if r.Length > 0 {
		s.bytes.Add(uint64(r.Length))
	}
}

// requests is how many requests have ended.
func (v *Volume) requests() (n uint64) {
	for i := range v.stats.ops {
		for s := range v.stats.ops[i].shards {
			n += v.stats.ops[i].shards[s].count.Load()
		}
	}
	return n
}
