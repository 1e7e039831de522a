package serve

// dispatch submits what had to wait.
func (p *Publication) dispatch() {
	for {
		p.mu.Lock()
		for p.ready.len == 0 && !p.ended {
			p.wake.Wait()
		}
		s := p.ready.pop()
		p.mu.Unlock()
		if s == nil {
			return
		}
		if p.submitSlot(s, false) {
			p.recycle(s)
		}
	}
}

func (p *Publication) wakeDispatcherLocked() {
	if p.ready.len > 0 {
		p.wake.Signal()
	}
}

// over takes s, which is answered or never will be, out of the order, where it is
// there. ending: p.ending counts it.
func (p *Publication) over(s *slot, ending bool) {
	if s.place.Load() == placeNone && s.place.CompareAndSwap(placeNone, placeOver) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.held {
		p.unholdLocked(s)
	}
	p.unanswered.Add(-1)
	if ending {
		p.ending.Add(-1)
	}
	p.order.leave(s, &p.ready)
	p.wakeDispatcherLocked()
	p.checkDoneLocked()
}

// unholdLocked counts a held request as under way again.
func (p *Publication) unholdLocked(s *slot) {
	s.held = false
	p.held--
	p.heldBytes -= s.io.Length
	p.unanswered.Add(1)
}
