package serve

import (
	"sync/atomic"
	"time"
)

// mode is who serves requests.
type mode int

const (
	inline  mode = iota // the receiver that took them, waiting for the disk
	workers             // the volume's workers
)

// other is the mode that m is compared with.
func (m mode) other() mode { return 1 - m }

// servePolicy decides who serves. A receiver serves one request after the other and
// nobody is woken for it, which is best for what is in memory and for a client that
// waits for each request. Workers serve many side by side, which is best where
// the disk takes its time. Which of the two serves more depends on the disk, the
// processors and the client, so it is tried out: for a few windows of requests in
// turn, now and then.
//
//	watch ──the interval is over, or requests take much longer──► trial
//	  ▲                                                             │ windows of
//	  │                                                             │ either mode
//	  │                                                             │ in turn: judge
//	  └──decide: the mode of the fastest window; the interval ◄─────┘
//	     doubles when that changes nothing
//
// From a request that is stuck the turn is taken, and workers serve until the next
// trial.
type servePolicy struct {
	standIns atomic.Int32 // receivers that would go on taking requests meanwhile

	mode     mode // in force
	since    int  // requests since the last trial
	interval int  // requests from one trial to the next

	trial   bool
	windows int              // of the trial, that are over
	best    [2]time.Duration // what a window took in the last trial, by mode
	cut     [2]int           // windows of the trial that were too slow to be ended, by mode

	window // that is open
}

// window is a run of requests that are measured together.
type window struct {
	n       int           // requests in it
	begun   time.Duration // when what counts of it began
	last    time.Duration // when the last request was taken
	longest time.Duration // from one request to the next
}

// add counts a request that was taken at now, and returns how long what counts of
// the window has taken.
func (w *window) add(now time.Duration) time.Duration {
	switch w.n++; {
	case w.n == windowStart:
		w.begun, w.longest = now, 0
	case w.n > windowStart:
		w.longest = max(w.longest, now-w.last)
	}
	w.last = now
	return now - w.begun
}

const (
	// Of a window the first requests do not count: with the workers it takes some
	// until as many are under way as the client has.
	windowStart  = 16
	windowLength = 48
	trialWindows = 8 // the fastest of each kind counts

	firstInterval = 8192
	lastInterval  = 65536
	// soonest is when a trial may follow another because requests take longer than
	// they did then; where trials change nothing, it takes a 64th of the interval.
	soonest = 512

	// tooSlow is how many times longer than the other way a window may take before
	// it is cut short. The second of one way decides the trial: a first may have
	// met something else that the machine had to do.
	tooSlow = 2
	maxCut  = 2
	// slower is how many times longer than in the last trial a window may take.
	slower = 3
)

// inline decides about the request that was taken at now.
func (a *servePolicy) inline(now time.Duration) bool {
	if a.standIns.Load() < 1 {
		a.trial, a.since = false, 0
		return false
	}
	if took := a.add(now); a.trial && a.n > windowStart {
		a.judge(took)
	} else if !a.trial {
		a.watch(took)
	}
	return a.mode == inline
}

// watch begins a trial when it is time, or when requests take much longer than
// they did in the last one.
func (a *servePolicy) watch(took time.Duration) {
	a.since++
	over := a.n == windowLength
	if over {
		a.n = 0
	}
	// The longest step may be a pause of the client.
	lags := over && a.since >= max(soonest, a.interval/64) && took-a.longest > slower*a.best[a.mode]
	if lags || a.since >= a.interval {
		a.trial, a.windows, a.n, a.best, a.cut = true, 0, 0, [2]time.Duration{}, [2]int{}
	}
}

// judge looks at the window of a trial, which has taken so long.
func (a *servePolicy) judge(took time.Duration) {
	mine, other := a.mode, a.mode.other()
	switch {
	case a.n == windowLength:
		if a.best[mine] == 0 || took < a.best[mine] {
			a.best[mine] = max(took, 1)
		}
	case a.best[other] > 0 && took-a.longest > tooSlow*a.best[other]:
		if a.cut[mine]++; a.cut[mine] == maxCut {
			a.decide(other)
			return
		}
	default:
		return
	}
	a.n = 0
	a.windows++
	a.mode = other
	if a.windows == trialWindows {
		if a.best[workers] < a.best[inline] {
			a.decide(workers)
		} else {
			a.decide(inline)
		}
	}
}

// decide ends a trial. One that changes nothing is not repeated soon.
func (a *servePolicy) decide(m mode) {
	before := a.mode
	if a.windows%2 == 1 {
		before = before.other()
	}
	a.trial, a.since, a.n, a.mode = false, 0, 0, m
	if a.interval == 0 || before != m {
		a.interval = firstInterval
	} else {
		a.interval = min(2*a.interval, lastInterval)
	}
}

// stuck notes that a request that a receiver serves does not come to its end.
func (a *servePolicy) stuck() {
	a.standIns.Add(-1)
	a.trial, a.since, a.n, a.mode = false, 0, 0, workers
	a.interval = min(max(2*a.interval, firstInterval), lastInterval)
}

// back notes that it did. The receiver need not have the turn.
func (a *servePolicy) back() { a.standIns.Add(1) }
