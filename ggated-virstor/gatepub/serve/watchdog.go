package serve

import (
	"sync/atomic"
	"time"
)

// patience is how long a receiver may keep the turn for one request at least;
// at most it is twice as long. A disk that was quick until now may stand still at
// any moment, and what other disks can serve shall not wait for it.
const patience = 10 * time.Millisecond

// fewRequests is how many a client that waits for each has served in patience at least, where
// requests do not take their time.
const fewRequests = 20

// watchdog takes the turn from a receiver whose request does not come to an end.
type watchdog struct {
	// serving is the number of the request that a receiver serves inline, or 0.
	// Whoever sets it to 0 has the turn.
	serving atomic.Uint64
	numbers uint64 // the last one given; the turn's holder's

	slow   atomic.Bool   // when it last looked, requests took their time
	asleep atomic.Bool   // nobody looks
	rouse  chan struct{} // capacity 1: whoever ended the sleep says so
}

// begin notes that a request is served inline.
func (d *watchdog) begin() (number uint64) {
	d.numbers++
	number = d.numbers
	d.serving.Store(number)
	if d.asleep.Load() && d.asleep.CompareAndSwap(true, false) {
		d.rouse <- struct{}{}
	}
	return number
}

// end reports whether the turn is still the caller's.
func (d *watchdog) end(number uint64) bool { return d.serving.CompareAndSwap(number, 0) }

// watch passes t on when one request keeps it for too long, until stop is
// closed. It sleeps while there are no requests, which taken counts.
func (d *watchdog) watch(stop <-chan struct{}, taken *atomic.Uint64, passOn func()) {
	tick := time.NewTicker(patience)
	defer tick.Stop()
	var seen, count uint64
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		serving, n := d.serving.Load(), taken.Load()
		switch {
		case serving != 0 && serving == seen:
			if d.end(serving) {
				passOn()
			}
		case serving == 0 && n == count:
			tick.Stop()
			if !d.sleep(stop) {
				return
			}
			tick.Reset(patience)
		}
		d.slow.Store(serving != 0 && n-count < fewRequests)
		seen, count = serving, n
	}
}

// sleep returns when a request is served inline, or false when stop is closed.
func (d *watchdog) sleep(stop <-chan struct{}) bool {
	d.asleep.Store(true)
	if d.serving.Load() != 0 && d.asleep.CompareAndSwap(true, false) {
		return true // it began before it could see that nobody looks
	}
	select {
	case <-d.rouse:
		return true
	case <-stop:
		return false
	}
}
