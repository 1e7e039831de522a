package serve

import (
	"sync/atomic"
	"time"
)

// mode is who serves requests.
type mode int

const (
	workers mode = iota // the volume's workers
	inline              // the receiver that took them, waiting for the disk
)

// other is the mode that m is compared with.
func (m mode) other() mode { return 1 - m }

// servePolicy decides who serves. A receiver serves one request after the other and
// nobody is woken for it, which is best for what is in memory and for a client that
// waits for each request. Workers serve many side by side, which is best where
// the disk takes its time.
//
// A client that has one request under way is not tried, but seen: to hand over what
// nothing else is there to be done beside can win nothing, whatever the disk. While
// workers serve, each request that is taken shows whether the one before it is done
// with; for a receiver that serves one after the other it does not show, so now and
// then a few requests are handed over to see. For a client that has several, it depends
// on the disk, the processors and the client which of the two serves more, so that is
// tried out: for a few windows of requests in turn.
//
//	┌──────► look ─── some are handed over: each was the only one ───► alone
//	│         │                                                         │ the receiver serves,
//	│         │ several at once                                         │ and reads no clock
//	│         ▼                                                         │
//	│       trial                                                       │
//	│         │ windows of either mode in turn; the fastest one's       │
//	│         ▼ mode, and the interval doubles when that changes nothing│
//	├────── watch ─── workers serve a window of lone requests ────────► alone
//	│   the interval is over, or requests take much longer              │
//	└─── the interval is over: sooner, if requests take their time ◄────┘
//
// From a request that is stuck the turn is taken, and workers serve until what they
// serve decides.
type servePolicy struct {
	standIns atomic.Int32 // receivers that would go on taking requests meanwhile

	phase    phase
	mode     mode // in force
	since    int  // requests since the last look, or trial
	interval int  // requests from one trial to the next
	patience int  // requests from one look at a lone client to the next

	looked int  // requests of this look
	met    int  // of these, or of those of a lone client, that were not the only one
	lone   int  // one after the other that were, while workers serve
	before mode // the look

	windows int              // of the trial, that are over
	best    [2]time.Duration // what a window took in the last trial, by mode
	cut     [2]int           // windows of the trial that were too slow to be ended, by mode

	window // that is open
}

// phase is what a policy is at.
type phase int

const (
	look phase = iota
	alone
	trial
	watch
)

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
	// lookLength is how many requests are handed over to see whether the client has
	// several under way, and company how many of them are not to be the only one: one may
	// be somebody else's.
	lookLength = 16
	company    = 2
	// A lone client is looked at after so many requests first, and at last; where they
	// take their time, soon enough that a client that has several waits for no more
	// than seconds.
	firstPatience = 512
	lastPatience  = 16384
	slowPatience  = 128

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

// straight decides about a request that was taken and has no place among others yet:
// the receiver serves it, without a look at anything else. slow: requests have taken
// their time lately.
func (a *servePolicy) straight(slow bool) bool {
	if a.phase != alone || a.standIns.Load() < 1 {
		return false
	}
	a.since++
	if a.since >= a.patience || slow && a.since >= slowPatience {
		a.beginLook()
		return false
	}
	return true
}

// inline decides about the request that was taken at now. only: nothing else was under
// way then.
func (a *servePolicy) inline(now time.Duration, only bool) bool {
	if a.standIns.Load() < 1 {
		if a.phase != watch {
			a.phase, a.n = watch, 0
		}
		a.since, a.lone = 0, 0
		return false
	}
	took := a.add(now)
	switch a.phase {
	case look:
		a.look(only)
	case alone:
		if !only {
			a.met++
		}
		if a.met == company {
			a.beginLook()
		}
	case trial:
		if a.n > windowStart {
			a.judge(took)
		}
	case watch:
		a.watch(took, only)
	}
	return a.mode == inline
}

// beginLook has the next requests handed over.
func (a *servePolicy) beginLook() {
	a.before = a.mode
	a.phase, a.mode, a.looked, a.met = look, workers, 0, 0
}

// look counts a request of a look, the last of which ends it.
func (a *servePolicy) look(only bool) {
	if a.looked++; !only {
		a.met++
	}
	switch {
	case a.met == company:
		a.phase, a.mode, a.patience = trial, a.before, 0
		a.windows, a.n, a.best, a.cut = 0, 0, [2]time.Duration{}, [2]int{}
	case a.looked == lookLength:
		a.foundAlone()
	}
}

// foundAlone notes that the client has one request under way at a time.
func (a *servePolicy) foundAlone() {
	a.phase, a.mode, a.since, a.met, a.interval = alone, inline, 0, 0, 0
	a.patience = min(max(2*a.patience, firstPatience), lastPatience)
}

// watch begins a look when it is time, or when requests take much longer than
// they did in the last trial.
func (a *servePolicy) watch(took time.Duration, only bool) {
	a.since++
	over := a.n == windowLength
	if over {
		a.n = 0
	}
	if a.lone++; !only || a.mode == inline {
		a.lone = 0
	}
	// The longest step may be a pause of the client.
	lags := over && a.since >= max(soonest, a.interval/64) && took-a.longest > slower*a.best[a.mode]
	switch {
	case a.lone == windowLength:
		a.foundAlone()
	case lags || a.since >= a.interval:
		a.beginLook()
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
	a.phase, a.since, a.n, a.lone, a.mode = watch, 0, 0, 0, m
	if a.interval == 0 || before != m {
		a.interval = firstInterval
	} else {
		a.interval = min(2*a.interval, lastInterval)
	}
}

// stuck notes that a request that a receiver serves does not come to its end.
func (a *servePolicy) stuck() {
	a.standIns.Add(-1)
	a.phase, a.since, a.n, a.lone, a.mode = watch, 0, 0, 0, workers
	a.interval = min(max(2*a.interval, firstInterval), lastInterval)
}

// back notes that it did. The receiver need not have the turn.
func (a *servePolicy) back() { a.standIns.Add(1) }
