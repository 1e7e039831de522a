package virstor

import "time"

// fullRule is what happens to a write that finds no chunk. It can change while
// the volume is used.
type fullRule struct {
	policy  FullPolicy
	timeout time.Duration
}

// SetFull changes Config.WhenFull and Config.FullTimeout. Writes that are held
// obey at once. It may be called at any time by any goroutine.
func (v *Volume) SetFull(p FullPolicy, timeout time.Duration) {
	v.full.Store(&fullRule{p, timeout})
	v.committer.kick()
}

// SetHeldLimit changes Config.HeldLimit, in bytes, more than 0. Writes that are
// held stay so. It may be called at any time by any goroutine.
func (v *Volume) SetHeldLimit(bytes int64) { v.held.setLimit(bytes) }
