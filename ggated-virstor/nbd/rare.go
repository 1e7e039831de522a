package nbd

import (
	"sync"
	"time"
)

// sayEvery is how often the same is said at most.
const sayEvery = time.Minute

// rare counts what happens often and is said once a minute. Its zero value is
// ready.
type rare struct {
	mu     sync.Mutex
	said   time.Time
	unsaid uint64 // times since then
}

// note counts once. When it is to be said, n is how often it happened since it was
// said last, this time included.
func (r *rare) note(now time.Time) (n uint64, say bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unsaid++
	return r.dueLocked(now)
}

// rest is how often it happened since it was said last, when that is to be said
// now.
func (r *rare) rest(now time.Time) (n uint64, say bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.unsaid == 0 {
		return 0, false
	}
	return r.dueLocked(now)
}

func (r *rare) dueLocked(now time.Time) (n uint64, say bool) {
	if !r.said.IsZero() && now.Sub(r.said) < sayEvery {
		return 0, false
	}
	n, r.said, r.unsaid = r.unsaid, now, 0
	return n, true
}
