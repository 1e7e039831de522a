package control

import (
	"context"
	"slices"
	"sync"
)

const (
	hubBacklog        = 64 // events a slow subscriber may lag behind
	hubMaxSubscribers = 64
	hubLast           = 50 // events that Last tells
)

// Hub hands events to whoever listens. Publish never waits: a subscriber that lags behind
// misses events. The zero value is ready.
type Hub struct {
	mu   sync.Mutex
	subs map[chan Event]struct{}
	last []Event // the oldest first
}

// Last are the last events that were published, at most 50, the newest first.
func (h *Hub) Last() []Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	last := slices.Clone(h.last)
	slices.Reverse(last)
	return last
}

// Publish hands e to every subscriber that has room for it, and tells how many
// took it.
func (h *Hub) Publish(e Event) (took int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = append(h.last[max(0, len(h.last)+1-hubLast):], e)
	for c := range h.subs {
		select {
		case c <- e:
			took++
		default:
		}
	}
	return took
}

// Subscribe returns the events published from now on. The channel is closed
// when ctx ends. Busy: too many subscribers.
func (h *Hub) Subscribe(ctx context.Context) (<-chan Event, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.subs) >= hubMaxSubscribers {
		return nil, Errorf(Busy, "%d others watch already", hubMaxSubscribers)
	}
	if h.subs == nil {
		h.subs = make(map[chan Event]struct{})
	}
	c := make(chan Event, hubBacklog)
	h.subs[c] = struct{}{}
	context.AfterFunc(ctx, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.subs, c)
		close(c)
	})
	return c, nil
}
