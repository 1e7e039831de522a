package nbd

import "time"

// sweepEvery is how often connections are looked at that ask for nothing.
const sweepEvery = 5 * time.Second

// lull is what the sweeper knows of how long a connection has asked for nothing.
// It costs requests nothing.
type lull struct {
	requests uint64    // seen when it was looked at last
	since    time.Time // there have been no more
}

// sweep disconnects clients that ask for nothing for too long, says how many were
// rude since that was said last, and gives memory back that no request needed
// since it looked last. It ends with Shutdown.
func (s *Server) sweep() {
	every := min(sweepEvery, s.cfg.FirstRequest/4)
	if s.cfg.Idle > 0 {
		every = min(every, s.cfg.Idle/4)
	}
	tick := time.NewTicker(max(every, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			s.sweepOnce(now)
		case <-s.swept:
			return
		}
	}
}

func (s *Server) sweepOnce(now time.Time) {
	for _, c := range s.idlers(now) {
		c.close(errIdle)
	}
	s.pool.mapped.trim()
	if n, say := s.rude.rest(now); say {
		s.cfg.Log.Warn("NBD clients disconnected", "times", n)
	}
	if n, say := s.crowded.rest(now); say {
		s.cfg.Log.Warn("too many NBD connections", "times", n)
	}
}

// idlers are the connections whose time is over.
func (s *Server) idlers(now time.Time) (out []*conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if c.exp == nil {
			continue // HandshakeTimeout sees to it
		}
		n := c.counters.requests()
		if n != c.lull.requests || c.outstanding.Load() > 0 {
			c.lull = lull{n, now}
			continue
		}
		limit := s.cfg.Idle
		if n == 0 && !c.asked {
			limit = s.cfg.FirstRequest
		}
		if limit > 0 && now.Sub(c.lull.since) >= limit {
			out = append(out, c)
		}
	}
	return out
}
