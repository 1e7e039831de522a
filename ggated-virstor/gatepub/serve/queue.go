package serve

// dispatch submits what had to wait.
func (p *Publication) dispatch() {
	for {
		p.mu.Lock()
		for p.ready.len == 0 && !p.over {
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

// finished takes s, which is answered or never will be, out of the order.
func (p *Publication) finished(s *slot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.held {
		p.unholdLocked(s)
	}
	p.unanswered--
	p.order.leave(s, &p.ready)
	p.wakeDispatcherLocked()
	p.checkDoneLocked()
}

// unholdLocked counts a held request as under way again.
func (p *Publication) unholdLocked(s *slot) {
	s.held = false
	p.held--
	p.heldBytes -= s.io.Length
	p.unanswered++
}
