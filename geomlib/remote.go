package geomlib

import "time"

// Remote is implemented by providers that are reached by a network, and that can be out
// of reach for a while.
type Remote interface {
	// Reach tells how the provider is reached now.
	Reach() Reach
	// Watch has tell called whenever Reach is away from now on, or is not any more. It
	// must neither block nor use the provider. Whoever comes last is told.
	Watch(tell func())
}

// Reach is how a provider is reached.
type Reach struct {
	Away      time.Duration // for how long it has not been reached; 0: it is
	Gone      bool          // and it will not be, as long as it is open
	Regained  uint64        // how often it was reached again
	Unflushed int64         // bytes that are kept to be written again
}
