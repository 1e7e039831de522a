package serve

// kind is what a request is to the order.
type kind uint8

const (
	kindRead kind = iota
	kindWrite
	kindDelete
	kindFlush
)

// orderEntry is a request's place in the order.
type orderEntry struct {
	kind        kind
	untilActive bool   // kept back, and not in the way of reads
	lo, hi      int64  // the range [lo, hi)
	number      uint64 // higher than that of what came before; its receiver's
	index       int    // in order.spans, or -1
	blockers    int    // earlier requests that this one waits for
}

// precludes reports whether the later b must wait while a is unanswered.
func (a *orderEntry) precludes(b *orderEntry) bool {
	switch {
	case b.kind == kindFlush:
		return a.kind == kindWrite
	case b.kind == kindRead && (a.kind == kindRead || a.untilActive):
		return false
	}
	return a.lo < b.hi && b.lo < a.hi
}

// order knows the requests that are under way and decides which of them wait.
// It allocates nothing once its slices have grown, and a request that meets no
// other costs a look through the ranges under way. The owner's lock guards it.
type order struct {
	spans     []span // reads, writes and deletes, running or waiting, in no order
	waiting   list   // what has blockers, by number
	readsOnly bool   // keep back what does not read; from the start, or never
}

// span is a range under way, close to its neighbours in memory.
type span struct {
	lo, hi int64
	s      *slot
}

// arrive gives s its place. It reports whether s may run; if not, s is waiting.
func (o *order) arrive(s *slot) bool {
	s.untilActive = o.readsOnly && s.kind != kindRead
	s.blockers = 0
	s.index = -1
	if s.kind == kindFlush {
		for i := range o.spans {
			if o.spans[i].s.kind == kindWrite {
				s.blockers++
			}
		}
	} else {
		for i := range o.spans {
			sp := &o.spans[i]
			if sp.lo < s.hi && s.lo < sp.hi && sp.s.precludes(&s.orderEntry) {
				s.blockers++
			}
		}
		o.insert(s)
	}
	if s.untilActive {
		s.blockers++
	}
	if s.blockers == 0 {
		return true
	}
	o.waiting.push(s)
	return false
}

// leave takes s out, because it is answered or held, and moves what waited for
// it alone to ready.
func (o *order) leave(s *slot, ready *list) {
	if s.index < 0 {
		return
	}
	last := len(o.spans) - 1
	o.spans[s.index] = o.spans[last]
	o.spans[s.index].s.index = s.index
	o.spans[last] = span{}
	o.spans = o.spans[:last]
	s.index = -1
	var next *slot
	for w := o.waiting.first; w != nil; w = next {
		next = w.next
		if w.number > s.number && s.precludes(&w.orderEntry) {
			o.unblock(w, ready)
		}
	}
}

// rejoin puts back s, which was held and runs again, at its old place: what
// waits and came later than s waits for it, what runs goes on.
func (o *order) rejoin(s *slot) {
	o.insert(s)
	for w := o.waiting.first; w != nil; w = w.next {
		if w.number > s.number && s.precludes(&w.orderEntry) {
			w.blockers++
		}
	}
}

// activate lets run what was kept back, in its order. Reads that have begun
// meanwhile go on beside it.
func (o *order) activate(ready *list) {
	o.readsOnly = false
	var next *slot
	for s := o.waiting.first; s != nil; s = next {
		next = s.next
		if s.untilActive {
			s.untilActive = false
			o.unblock(s, ready)
		}
	}
}

// enroll gives s, which came last and runs, its place. What waits goes on waiting for
// others alone.
func (o *order) enroll(s *slot) {
	s.untilActive = false
	s.blockers = 0
	o.insert(s)
}

func (o *order) insert(s *slot) {
	s.index = len(o.spans)
	o.spans = append(o.spans, span{s.lo, s.hi, s})
}

func (o *order) unblock(s *slot, ready *list) {
	s.blockers--
	if s.blockers == 0 {
		o.waiting.remove(s)
		ready.push(s)
	}
}

// list is a list through the slots.
type list struct {
	first, last *slot
	len         int
}

func (l *list) push(s *slot) {
	s.prev, s.next = l.last, nil
	if l.last != nil {
		l.last.next = s
	} else {
		l.first = s
	}
	l.last = s
	l.len++
}

func (l *list) remove(s *slot) {
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		l.first = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	} else {
		l.last = s.prev
	}
	s.prev, s.next = nil, nil
	l.len--
}

func (l *list) pop() *slot {
	s := l.first
	if s != nil {
		l.remove(s)
	}
	return s
}
