package disktest

// A store maps page numbers to pages. It is a radix tree whose nodes are
// shared between a store and its forks: a node or page may be changed only by
// the store whose owner mark it carries, others copy it first. So a fork costs
// nothing, and a write to one costs the path to one page.
type store struct {
	pageSize int64
	levels   int
	root     *node
	own      *owner
}

const (
	fanBits = 5
	fan     = 1 << fanBits
)

// owner's address is what counts, so it must not have size zero.
type owner struct{ _ byte }

// node has kids, or in the lowest level pages.
type node struct {
	own   *owner
	kids  []*node
	pages []*page
}

// page is one page's bytes; none means that it reads as zeros.
type page struct {
	own *owner
	b   []byte
}

func newStore(size, pageSize int64) store {
	levels := 1
	for last := (size - 1) / pageSize >> fanBits; last > 0; last >>= fanBits {
		levels++
	}
	return store{pageSize: pageSize, levels: levels, own: new(owner)}
}

// frozen returns a store with the same pages that nobody may write to.
func (s *store) frozen() store {
	f := *s
	f.own = nil
	s.own = new(owner)
	return f
}

// fork returns a store of its own with the pages of s, which is frozen.
func (s store) fork() store {
	s.own = new(owner)
	return s
}

func slot(i int64, level int) int { return int(i>>(fanBits*level)) & (fan - 1) }

// page returns page i, or nil.
func (s *store) page(i int64) *page {
	n := s.root
	for level := s.levels - 1; level > 0 && n != nil; level-- {
		n = n.kids[slot(i, level)]
	}
	if n == nil {
		return nil
	}
	return n.pages[slot(i, 0)]
}

// place returns the place of page i in a node that s may change.
func (s *store) place(i int64) **page {
	at := &s.root
	for level := s.levels - 1; ; level-- {
		n := s.mine(*at, level)
		*at = n
		if level == 0 {
			return &n.pages[slot(i, 0)]
		}
		at = &n.kids[slot(i, level)]
	}
}

// mine returns n, or the copy of it that s may change.
func (s *store) mine(n *node, level int) *node {
	if n != nil && n.own == s.own {
		return n
	}
	c := &node{own: s.own}
	if level == 0 {
		c.pages = make([]*page, fan)
	} else {
		c.kids = make([]*node, fan)
	}
	if n != nil {
		copy(c.pages, n.pages)
		copy(c.kids, n.kids)
	}
	return c
}

// writable returns the bytes of page i. If there are none, fill makes them; with no fill what
// they are does not matter.
func (s *store) writable(i int64, fill func(b []byte)) []byte {
	at := s.place(i)
	old := *at
	if old != nil && old.own == s.own {
		return old.b
	}
	b := make([]byte, s.pageSize)
	switch {
	case fill == nil:
	case old == nil:
		fill(b)
	case old.b != nil:
		copy(b, old.b)
	}
	*at = &page{own: s.own, b: b}
	return b
}

// drop removes the pages [lo, hi).
func (s *store) drop(lo, hi int64) {
	if lo < hi {
		s.root = s.dropIn(s.root, s.levels-1, 0, lo, hi)
	}
}

// dropIn removes [lo, hi) below n, whose first page is base.
func (s *store) dropIn(n *node, level int, base, lo, hi int64) *node {
	width := int64(1) << (fanBits * level) // pages below one slot
	if n == nil || base >= hi || base+width*fan <= lo {
		return n
	}
	if lo <= base && base+width*fan <= hi {
		return nil
	}
	n = s.mine(n, level)
	for i := range fan {
		first := base + int64(i)*width
		switch {
		case first >= hi || first+width <= lo:
		case level == 0:
			n.pages[i] = nil
		default:
			n.kids[i] = s.dropIn(n.kids[i], level-1, first, lo, hi)
		}
	}
	return n
}

// next returns the first page in [lo, hi) that is there, or hi.
func (s *store) next(lo, hi int64) int64 {
	return min(hi, nextIn(s.root, s.levels-1, 0, lo, hi))
}

func nextIn(n *node, level int, base, lo, hi int64) int64 {
	width := int64(1) << (fanBits * level)
	if n == nil || base >= hi || base+width*fan <= lo {
		return hi
	}
	for i := slot(max(lo, base), level); i < fan; i++ {
		first := base + int64(i)*width
		if first >= hi {
			break
		}
		if level == 0 {
			if n.pages[i] != nil {
				return first
			}
		} else if found := nextIn(n.kids[i], level-1, first, lo, hi); found < hi {
			return found
		}
	}
	return hi
}
