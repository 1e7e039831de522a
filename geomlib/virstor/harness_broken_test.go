package virstor

import "slices"

// What breaks the commit order on purpose: steps of commitOrder that are left out or come
// too early, and others between them.

// commitWith is the configuration of a volume that commits in another way.
func commitWith(change func([]commitStep) []commitStep) Config {
	return Config{commitSteps: change(commitOrder())}
}

// stepAt is where the step called name is in steps.
func stepAt(steps []commitStep, name string) int {
	i := slices.IndexFunc(steps, func(s commitStep) bool { return s.name == name })
	if i < 0 {
		panic("no step " + name)
	}
	return i
}

// withoutStep leaves the step called name out.
func withoutStep(name string) Config {
	return commitWith(func(steps []commitStep) []commitStep {
		i := stepAt(steps, name)
		return slices.Delete(steps, i, i+1)
	})
}

// early does the step called name just before the one called next.
func early(name, next string) Config {
	return commitWith(func(steps []commitStep) []commitStep {
		i := stepAt(steps, name)
		step := steps[i]
		steps = slices.Delete(steps, i, i+1)
		return slices.Insert(steps, stepAt(steps, next), step)
	})
}

// before does something before the step called next.
func before(next string, do func(*committer)) Config {
	return commitWith(func(steps []commitStep) []commitStep {
		return slices.Insert(steps, stepAt(steps, next), commitStep{"broken", do})
	})
}

// noZeroing leaves what is on the disk where a new chunk is not written.
func noZeroing() Config {
	return before("data", func(k *committer) {
		for i := range k.batch.chunks {
			k.batch.chunks[i].zeroed = true
		}
	})
}

// headZeroed zeroes of a new chunk only what lies before the data.
func headZeroed() Config {
	return before("data", func(k *committer) {
		v := k.v
		for i := range k.batch.chunks {
			c := &k.batch.chunks[i]
			if c.zeroed {
				continue
			}
			c.findGaps(v.chunk)
			if comp := v.component(c.to.Comp); len(c.gaps) > 0 {
				g := c.gaps[0]
				c.err = comp.clear(comp.offset(c.to.Chunk)+g.from, g.to-g.from, v.zeros)
			}
			c.zeroed = true
		}
	})
}

// pendingEntries writes map sectors that carry entries whose data is not flushed.
func pendingEntries() Config {
	return commitWith(func(steps []commitStep) []commitStep {
		i := stepAt(steps, "map")
		step := steps[i].do
		steps[i].do = func(k *committer) {
			m, pending := k.v.chunks, []uint64(nil)
			for _, c := range k.batch.chunks {
				if c.err != nil {
					m.Set(c.vc, c.to)
					pending = append(pending, c.vc)
				}
			}
			step(k)
			for _, vc := range pending {
				if _, ok := m.Lock(vc); ok {
					m.Unlock(vc, 0)
				}
			}
		}
		return steps
	})
}

// earlyAcknowledgement tells before the map is written, and then forgets who was told.
func earlyAcknowledgement() Config {
	return commitWith(func(steps []commitStep) []commitStep {
		i := stepAt(steps, "acknowledge")
		told := steps[i].do
		steps = slices.Delete(steps, i, i+1)
		return slices.Insert(steps, stepAt(steps, "map"), commitStep{"broken", func(k *committer) {
			told(k)
			for i := range k.batch.chunks {
				k.batch.chunks[i].pieces = k.batch.chunks[i].pieces[:0]
			}
		}})
	})
}

// earlyReuse lets freed chunks go before their unmapping is durable.
func earlyReuse() Config {
	return before("count", func(k *committer) {
		for _, p := range k.v.ledger().abandon() {
			k.v.alloc.Put(p)
		}
	})
}

// heldUnwritten acknowledges a write that found the storage of a component full.
func heldUnwritten() Config {
	return before("acknowledge", func(k *committer) {
		for _, r := range k.batch.reqs {
			if r.req.noRoom != nil {
				r.req.noRoom, r.req.failed = nil, nil
			}
		}
	})
}

// failedLeaks keeps chunks whose data could not be written.
func failedLeaks() Config {
	return before("publish", func(k *committer) {
		per := uint64(k.v.sector / 8)
		k.batch.chunks = slices.DeleteFunc(k.batch.chunks, func(c newChunk) bool {
			return c.err != nil && !k.degrade.has(int64(c.vc/per))
		})
	})
}
