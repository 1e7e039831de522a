package virstor

import (
	"math/bits"
	"math/rand/v2"
	"sync/atomic"
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
