package chunkmap

// Sizes are how many chunks a Frozen names.
type Sizes struct {
	Named uint64
	Alone uint64 // of these, that nothing else names; none while there is a map that nobody can read
	Since uint64 // virtual chunks of which the map has another mapping than it, or none
}

// version is a page as Frozens that follow each other in age have it.
type version struct {
	words  *frozenPage // nil: as the map has it
	owners []*Sizes
}

// owned is who names a chunk, of the maps that are looked at.
type owned struct {
	by    *Sizes
	times int
}

// AddSizes adds what there is of a page to the sizes of each Frozen, which of gives. Nobody
// freezes or changes a mapping meanwhile.
func (m *Map) AddSizes(page uint64, of func(*Frozen) *Sizes) {
	m.grow.Lock()
	defer m.grow.Unlock()
	var now [PageEntries]Word
	m.Page(page, &now)
	all := m.versionsLocked(page, of)
	for _, v := range all {
		var s Sizes
		words := (*frozenPage)(&now)
		if v.words != nil {
			words = v.words
		}
		for i, w := range words {
			if w != 0 {
				s.Named++
			}
			if w != now[i] {
				s.Since++
			}
		}
		for _, o := range v.owners {
			o.Named += s.Named
			o.Since += s.Since
		}
	}
	if len(all) > 1 || len(all) == 1 && all[0].words != nil {
		m.addAlone(page, all, &now)
	}
}

// versionsLocked are the versions that Frozens have of a page, the newest first; m.grow is
// held.
func (m *Map) versionsLocked(page uint64, of func(*Frozen) *Sizes) (all []version) {
	var words *frozenPage
	for f := m.newest.Load(); f != nil; f = f.older {
		if page >= f.Pages() {
			words = &m.empty
		} else if p := f.pages[page].Load(); p != nil {
			words = p
		}
		if n := len(all); n == 0 || all[n-1].words != words {
			all = append(all, version{words: words})
		}
		v := &all[len(all)-1]
		v.owners = append(v.owners, of(f))
	}
	return all
}

// addAlone counts the mappings of versions that neither now nor another Frozen has.
func (m *Map) addAlone(page uint64, all []version, now *[PageEntries]Word) {
	if m.unknown.Load() {
		return
	}
	owners := make(map[Word]owned)
	for i, w := range now {
		clear(owners)
		var run owned // of versions that follow each other and have word
		word := Word(0)
		end := func() {
			if word != 0 && word != w && !m.fromOrigin(page<<pageShift+uint64(i), word) {
				owners[word] = owned{run.by, owners[word].times + run.times}
			}
		}
		for _, v := range all {
			own := w
			if v.words != nil {
				own = v.words[i]
			}
			if own != word {
				end()
				word, run = own, owned{by: v.owners[0]}
			}
			run.times += len(v.owners)
		}
		end()
		for _, o := range owners {
			if o.times == 1 {
				o.by.Alone++
			}
		}
	}
}
