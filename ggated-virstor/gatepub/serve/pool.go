package serve

import "github.com/gvirstor/gvirstor/geomlib/gate"

// takeSlot takes an empty slot, or waits for one; nil when the publication
// stops. The caller holds the turn.
func (p *Publication) takeSlot() *slot {
	for {
		p.mu.Lock()
		if n := len(p.pool); n > 0 {
			s := p.pool[n-1]
			p.pool = p.pool[:n-1]
			p.mu.Unlock()
			return s
		}
		p.starved = true
		p.mu.Unlock()
		select {
		case <-p.freed:
		case <-p.stop:
			return nil
		}
	}
}

// recycle ends a request's use of its slot. One that gave up its buffer ends.
func (p *Publication) recycle(s *slot) {
	s.shrink()
	if s.buf == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.putSlotLocked(s)
	p.checkDoneLocked()
}

func (p *Publication) putSlotLocked(s *slot) {
	p.pool = append(p.pool, s)
	if p.starved {
		p.starved = false
		select {
		case p.freed <- struct{}{}:
		default: // left over from a receiver that stopped
		}
	}
}

// freeMemory gives back what the slots' buffers are parts of; nobody uses it.
func (p *Publication) freeMemory() {
	p.pool = nil
	if err := gate.FreeBuffer(p.memory); err != nil {
		p.log.Error("buffers not returned", "unit", p.unit, "error", err)
	}
}
