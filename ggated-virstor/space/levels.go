package space

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Thresholds is where the levels are. The zero value watches nothing but what has no
// threshold; Defaults are on.
type Thresholds struct {
	// FreeChunks on the component being filled: at this number or fewer. 0: off.
	FreeChunks int64
	// SpareComponents is the number of components left to fill after the one
	// that allocation goes on to: at this number or fewer. -1: off.
	SpareComponents int
	// Percent of the physical space that is allocated, ascending. Chunks in the
	// reserve count as not there.
	Percent []int
	// TimeToFull: less is predicted. 0: off.
	TimeToFull time.Duration
	// Window is how far back the rate of allocation is looked at.
	Window time.Duration
	// Margin is by how much, in percent points, a percentage, or being full, must
	// be left before it is told of again.
	Margin int
}

// Defaults are the kernel class's watermarks, and 80, 90 and 95 percent, and a
// day, looking back an hour.
func Defaults() Thresholds {
	return Thresholds{FreeChunks: 100, SpareComponents: 1, Percent: []int{80, 90, 95},
		TimeToFull: 24 * time.Hour, Window: time.Hour, Margin: 2}
}

// Check refuses what makes no sense.
func (c Thresholds) Check() error {
	switch {
	case c.FreeChunks < 0:
		return fmt.Errorf("alert at %d free chunks: must not be negative", c.FreeChunks)
	case c.SpareComponents < -1:
		return fmt.Errorf("alert at %d components: at least -1, which means never", c.SpareComponents)
	case c.TimeToFull < 0:
		return fmt.Errorf("alert at %s to full: must not be negative", c.TimeToFull)
	case c.TimeToFull > 0 && c.Window < time.Second:
		return fmt.Errorf("alert window %s: at least 1s", c.Window)
	case c.Margin < 0:
		return fmt.Errorf("alert margin %d: must not be negative", c.Margin)
	case len(c.Percent) > 16:
		return fmt.Errorf("%d alert percentages, at most 16", len(c.Percent))
	}
	for i, p := range c.Percent {
		if p < 1 || p > 100 {
			return fmt.Errorf("alert at %d percent: from 1 to 100", p)
		}
		if i > 0 && p <= c.Percent[i-1] {
			return fmt.Errorf("alert percentages must ascend, %d follows %d", p, c.Percent[i-1])
		}
	}
	return nil
}

// Percent is the level of n percent.
func Percent(n int) Level { return Level("percent-" + strconv.Itoa(n)) }

// Levels are those that have a state, in the order in which they are told of.
func (c Thresholds) Levels() []Level {
	var ls []Level
	if c.SpareComponents >= 0 {
		ls = append(ls, Components)
	}
	if c.FreeChunks > 0 {
		ls = append(ls, Chunks)
	}
	for _, p := range c.Percent {
		ls = append(ls, Percent(p))
	}
	if c.TimeToFull > 0 {
		ls = append(ls, TimeToFull)
	}
	return append(ls, Full, Degraded, ComponentFailed, Errors, StorageFull)
}

func (c Thresholds) clone() Thresholds {
	c.Percent = slices.Clone(c.Percent)
	return c
}
