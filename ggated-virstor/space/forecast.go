package space

import (
	"math"
	"time"
)

// forecastSamples is how many samples a window is kept in.
const forecastSamples = 60

// sample is how much was allocated at a time, in chunks or bytes.
type sample struct {
	at   time.Time
	used int64
}

// forecast predicts from the rate of allocation over a sliding window.
type forecast struct {
	window  time.Duration
	samples []sample // by time; at most one more than forecastSamples
}

// predict notes how much is used now, and gives how many seconds what is free lasts; +Inf
// where there is no prediction.
func (f *forecast) predict(at time.Time, used, free int64) float64 {
	f.add(at, used)
	if left, ok := f.left(at, used, free); ok {
		return left.Seconds()
	}
	return math.Inf(1)
}

// add notes how much is used now.
func (f *forecast) add(at time.Time, used int64) {
	if f.window <= 0 {
		return
	}
	if n := len(f.samples); n > 0 && at.Sub(f.samples[n-1].at) < f.window/forecastSamples {
		return
	}
	f.samples = append(f.samples, sample{at, used})
	drop := 0
	// One sample at or before the window's start is kept to measure from.
	for drop+1 < len(f.samples) && !f.samples[drop+1].at.After(at.Add(-f.window)) {
		drop++
	}
	f.samples = append(f.samples[:0], f.samples[drop:]...)
}

// left is how long what is free lasts at the present rate. There is no prediction
// when nothing is allocated on balance, nor from less than a twelfth of the
// window: the burst that makes a file system is no trend.
func (f *forecast) left(at time.Time, used, free int64) (time.Duration, bool) {
	if len(f.samples) == 0 {
		return 0, false
	}
	first := f.samples[0]
	span := at.Sub(first.at)
	grown := used - first.used
	if span < f.window/12 || span <= 0 || grown <= 0 {
		return 0, false
	}
	left := float64(free) / float64(grown) * float64(span)
	if left >= math.MaxInt64 {
		return math.MaxInt64, true
	}
	return time.Duration(left), true
}
