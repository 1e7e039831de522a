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

// opCounters count the requests of one kind.
type opCounters struct {
	latency histogram // nanoseconds from Submit to Complete
	bytes   histogramSum
	errors  atomic.Uint64
}

// histogramSum is a sum that many goroutines add to at once.
type histogramSum [histogramShards]struct {
	n atomic.Uint64
	_ [7]uint64
}

func (s *histogramSum) add(n uint64) { s[rand.Uint32()%histogramShards].n.Add(n) }

func (s *histogramSum) read() (n uint64) {
	for i := range s {
		n += s[i].n.Load()
	}
	return n
}

// OpStats count the requests of one kind since the volume was opened.
type OpStats struct {
	Latency Histogram // nanoseconds from Submit to Complete; also counts the requests
	Bytes   uint64    // of requests that succeeded
	Errors  uint64    // requests that failed
}

// Ops are the operations that OpStats are kept of.
func Ops() []Op { return []Op{OpRead, OpWrite, OpFlush, OpDelete, OpWriteZeroes} }

// OpStats tells of the requests of one kind that were completed. It is zero for
// what is no Op. A held write's time includes its wait.
func (v *Volume) OpStats(op Op) OpStats {
	if op < OpRead || op > OpWriteZeroes {
		return OpStats{}
	}
	c := &v.ops[op-1]
	return OpStats{Latency: c.latency.read(), Bytes: c.bytes.read(), Errors: c.errors.Load()}
}

// CommitSizes are the numbers of chunks of the group commits so far.
func (v *Volume) CommitSizes() Histogram { return v.commitSizes.read() }

// clock is the time since the volume was made, from the monotonic clock alone,
// which is cheaper than time.Now.
func (v *Volume) clock() time.Duration { return time.Since(v.opened) }

// account counts r, which ends with err.
func (v *Volume) account(r *Request, err error) {
	if r.Op < OpRead || r.Op > OpWriteZeroes {
		return
	}
	c := &v.ops[r.Op-1]
	c.latency.add(uint64(max(0, v.clock()-r.req.started)))
	if err != nil {
		c.errors.Add(1)
		return
	}
	if r.Length > 0 {
		c.bytes.add(uint64(r.Length))
	}
}
