package chunkmap

// Differ fills differ with which mappings of a page are not the same in newer as they were
// in f, and reports whether any is not. A nil newer is the map. What is given as the same
// was so at one moment during the call; a chunk that is moved meanwhile may be given as
// different. Both have the page.
func (f *Frozen) Differ(newer *Frozen, page uint64, differ *[PageEntries]bool) (any bool) {
	clear(differ[:])
	if f.samePage(newer, page) {
		return false
	}
	var then, now [PageEntries]Word
	f.Page(page, &then)
	if newer != nil {
		newer.Page(page, &now)
	} else {
		f.m.Page(page, &now)
	}
	for i := range differ {
		differ[i] = then[i] != now[i]
		any = any || differ[i]
	}
	return any
}

// DifferIn is Differ from what another map is now, that of a clone: it has chunks in common
// with this one where neither has changed.
func (f *Frozen) DifferIn(clone *Map, page uint64, differ *[PageEntries]bool) (any bool) {
	var then, now [PageEntries]Word
	f.Page(page, &then)
	clone.Page(page, &now)
	for i := range differ {
		differ[i] = then[i] != now[i]
		any = any || differ[i]
	}
	return any
}

// samePage reports whether both have one page, so that nothing in it differs.
func (f *Frozen) samePage(newer *Frozen, page uint64) bool {
	p, last := f.kept(page)
	if newer == nil {
		return p == nil && last.still(page)
	}
	q, other := newer.kept(page)
	if p != nil || q != nil {
		return p == q
	}
	return last == other && last.still(page)
}
