package gatepub

import (
	"sync/atomic"
	"time"
)

// reliefAfter is how long a receiver may keep the turn for one request at least;
// at most it is twice as long. A disk that was quick until now may stand still at
// any moment, and what other disks can serve shall not wait for it.
const reliefAfter = 10 * time.Millisecond

// relief takes the turn from a receiver whose request does not come to an end.
type relief struct {
	// serving is the number of the request that a receiver serves inline, or 0.
	// Whoever sets it to 0 has the turn.
	serving atomic.Uint64
	numbers uint64 // the last one given; the turn's holder's

	asleep atomic.Bool   // nobody looks
	rouse  chan struct{} // capacity 1: whoever ended the sleep says so
}

// begin notes that a request is served inline.
func (f *relief) begin() (number uint64) {
	f.numbers++
	number = f.numbers
	f.serving.Store(number)
	if f.asleep.Load() && f.asleep.CompareAndSwap(true, false) {
		f.rouse <- struct{}{}
	}
	return number
}

// end reports whether the turn is still the caller's.
func (f *relief) end(number uint64) bool { return f.serving.CompareAndSwap(number, 0) }

// watch passes t on when one request keeps it for too long, until stop is
// closed. It sleeps while there are no requests, which taken counts.
func (f *relief) watch(stop <-chan struct{}, taken *atomic.Uint64, passOn func()) {
	tick := time.NewTicker(reliefAfter)
	defer tick.Stop()
	var seen, count uint64
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		serving, n := f.serving.Load(), taken.Load()
		switch {
		case serving != 0 && serving == seen:
			if f.end(serving) {
				passOn()
			}
		case serving == 0 && n == count:
			tick.Stop()
			if !f.sleep(stop) {
				return
			}
			tick.Reset(reliefAfter)
		}
		seen, count = serving, n
	}
}

// sleep returns when a request is served inline, or false when stop is closed.
func (f *relief) sleep(stop <-chan struct{}) bool {
	f.asleep.Store(true)
	if f.serving.Load() != 0 && f.asleep.CompareAndSwap(true, false) {
		return true // it began before it could see that nobody looks
	}
	select {
	case <-f.rouse:
		return true
	case <-stop:
		return false
	}
}
