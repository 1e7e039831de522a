package serve

import (
	"math"
	"sync"
	"sync/atomic"
)

// counter counts what is going on, until it is closed: then nothing begins any
// more, and idle is closed when the last has ended.
type counter struct {
	n      atomic.Int64
	closed atomic.Bool
	once   sync.Once
	idle   chan struct{}
}

const closedBias = math.MinInt64 / 2

func (c *counter) enter() bool {
	if c.n.Add(1) > 0 {
		return true
	}
	c.leave()
	return false
}

func (c *counter) leave() {
	if c.n.Add(-1) == closedBias {
		c.end()
	}
}

// close may be called more than once.
func (c *counter) close() {
	if c.closed.Swap(true) {
		return
	}
	if c.n.Add(closedBias) == closedBias {
		c.end()
	}
}

func newCounter() *counter { return &counter{idle: make(chan struct{})} }

// end may be reached again by a late enter that fails.
func (c *counter) end() { c.once.Do(func() { close(c.idle) }) }
