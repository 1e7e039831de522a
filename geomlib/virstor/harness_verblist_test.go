package virstor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/ondisk"
)

// verbs are all operations of the engine that take more than one write, but for
// repair and restore, which are built on it.
var verbs = []*verb{
	{name: "open", components: []int64{6, 7, 5}, chunks: 8, handedBack: true,
		before: func(w *world) error { return w.discardOn("d2") },
		do:     func(*world) error { return nil }},
	{name: "open of a volume whose last chunk is the metadata's", components: []int64{6, 7}, chunks: 4, handedBack: true,
		damage: overcount, do: func(*world) error { return nil }},
	{name: "filling a volume whose last chunk is the metadata's", components: []int64{5, 4}, chunks: 3, handedBack: true,
		damage: overcount, do: func(w *world) error { return w.fillEmpty() }},
	{name: "activate", components: []int64{6, 7}, chunks: 6, handedBack: true,
		do: func(w *world) error {
			if err := w.vol.Close(); err != nil {
				return err
			}
			cfg := w.cfg
			cfg.DeferWrites = true
			var err error
			if w.vol, err = openDisks(cfg, w.disks); err != nil {
				return err
			}
			return w.vol.Activate(nil)
		}},
	{name: "stop", components: []int64{6, 7, 5}, chunks: 6,
		do: func(w *world) error { return w.reopen(true) }},

	{name: "stop with components that are full", components: []int64{5, 5, 7}, chunks: 9,
		do: func(w *world) error { return w.reopen(true) }},

	// The counts in the metadata are what they were: writing them flushes nothing.
	{name: "stop just after a hole was filled", components: []int64{9, 5}, chunks: 4, fill: true, handedBack: true,
		do: func(w *world) error {
			per := w.chunk / unit
			for _, vc := range []int64{2, 4, 5} {
				if err := w.change(vc*per, per, OpDelete, 0); err != nil {
					return err
				}
			}
			if err := w.flush(); err != nil {
				return err
			}
			if err := w.change(20*per, 8, OpWrite, 0); err != nil {
				return err
			}
			return w.reopen(true)
		}},

	{name: "add", components: []int64{6, 6}, spares: []int64{7}, chunks: 6, handedBack: true,
		do:  func(w *world) error { return w.add("d2") },
		end: func(w *world) error { return w.gone() }},
	{name: "add of two", components: []int64{7}, spares: []int64{7, 4}, chunks: 4,
		do:  func(w *world) error { return w.add("d1", "d2") },
		end: func(w *world) error { return w.gone() }},
	{name: "remove of the last", components: []int64{7, 8, 6}, chunks: 8,
		before: func(w *world) error { return w.discardOn("d2") },
		do:     func(w *world) error { return w.remove("d2") },
		end:    func(w *world) error { return w.gone("d2") }},
	{name: "remove from the middle", components: []int64{7, 6, 6, 7}, chunks: 16,
		before: func(w *world) error {
			if err := w.discardOn("d1"); err != nil {
				return err
			}
			return w.discardWhere(func(p alloc.Phys) bool { return p.Comp == 2 && p.Chunk < 4 })
		},
		do:  func(w *world) error { return w.remove("d1") },
		end: func(w *world) error { return w.gone("d1") }},

	{name: "evacuate", components: []int64{5, 6, 9}, chunks: 7,
		do:  func(w *world) error { return w.evacuate("", "d1") },
		end: func(w *world) error { return w.gone("d1") }},
	{name: "evacuate of two", components: []int64{9, 5, 5, 9}, chunks: 9,
		do:  func(w *world) error { return w.evacuate("", "d1", "d2") },
		end: func(w *world) error { return w.gone("d1", "d2") }},
	{name: "evacuate of component 0", components: []int64{6, 7, 8}, chunks: 7,
		do:  func(w *world) error { return w.evacuate("", "d0") },
		end: func(w *world) error { return w.gone("d0") }},
	{name: "evacuate of component 0 and another", components: []int64{5, 11, 5}, chunks: 5,
		do:  func(w *world) error { return w.evacuate("", "d2", "d0") },
		end: func(w *world) error { return w.gone("d0", "d2") }},
	{name: "evacuate, cancelled, begun again", components: []int64{5, 6, 9}, chunks: 7,
		do: func(w *world) error {
			if !w.has("d1") {
				return nil
			}
			for _, n := range []int{1, 6} {
				err := w.cancelled(n, func() error { return w.vol.Evacuate([]string{"d1"}, "", JobOptions{}) })
				if err != nil || !w.has("d1") {
					return err
				}
			}
			return w.evacuate("", "d1")
		},
		end: func(w *world) error { return w.gone("d1") }},
	{name: "evacuate, closed, resumed", components: []int64{5, 6, 9}, chunks: 7,
		do: func(w *world) error {
			if !w.has("d1") {
				return nil
			}
			// The open goes on with it.
			return w.closed(6, func() error { return w.vol.Evacuate([]string{"d1"}, "", JobOptions{}) })
		},
		end: func(w *world) error { return w.gone("d1") }},
	{name: "evacuate of component 0, closed, resumed", components: []int64{6, 7, 8}, chunks: 7,
		do: func(w *world) error {
			if !w.has("d0") {
				return nil
			}
			return w.closed(7, func() error { return w.vol.Evacuate([]string{"d0"}, "", JobOptions{}) })
		},
		end: func(w *world) error { return w.gone("d0") }},
	{name: "replace", components: []int64{5, 6, 5}, spares: []int64{7}, chunks: 8,
		do:  func(w *world) error { return w.replace("d1", "d3") },
		end: func(w *world) error { return w.gone("d1") }},
	{name: "replace of component 0", components: []int64{6, 6}, spares: []int64{8}, chunks: 6,
		do:  func(w *world) error { return w.replace("d0", "d2") },
		end: func(w *world) error { return w.gone("d0") }},

	{name: "evacuate of a component 0 that takes no writes", components: []int64{6, 16, 9}, chunks: 7, fill: true,
		do:  writelessZero(false, func(w *world) error { return w.evacuate("", "d0") }),
		end: func(w *world) error { return w.gone("d0") }},
	{name: "evacuate of a component 0 that takes no writes, after a restart", components: []int64{6, 16, 9}, chunks: 7, fill: true,
		do:  writelessZero(true, func(w *world) error { return w.evacuate("", "d0") }),
		end: func(w *world) error { return w.gone("d0") }},
	{name: "evacuate of a component 0 that takes no writes, and another", components: []int64{6, 5, 16, 9}, chunks: 9, fill: true,
		do:  writelessZero(false, func(w *world) error { return w.evacuate("", "d1", "d0") }),
		end: func(w *world) error { return w.gone("d0", "d1") }},
	{name: "replace of a component 0 that takes no writes", components: []int64{6, 6}, spares: []int64{9}, chunks: 7,
		do:  writelessZero(false, func(w *world) error { return w.replaceBy("d0", "d2") }),
		end: func(w *world) error { return w.gone("d0") }},
	{name: "replace of a component 0 that takes no writes, after a restart", components: []int64{6, 6}, spares: []int64{9}, chunks: 7,
		do:  writelessZero(true, func(w *world) error { return w.replaceBy("d0", "d2") }),
		end: func(w *world) error { return w.gone("d0") }},
	{name: "replace of the only component, which takes no writes", components: []int64{7}, spares: []int64{9}, chunks: 3, alone: true,
		do:  writelessZero(false, func(w *world) error { return w.replaceBy("d0", "d1") }),
		end: func(w *world) error { return w.gone("d0") }},

	{name: "evacuate of component 0 beside one that is empty", components: []int64{6, 16, 9}, chunks: 7, fill: true,
		do:  func(w *world) error { return w.evacuate("", "d0") },
		end: func(w *world) error { return w.gone("d0") }},
	{name: "component 0 by a new one", components: []int64{6, 6}, spares: []int64{9}, chunks: 7,
		do:  func(w *world) error { return w.replaceBy("d0", "d2") },
		end: func(w *world) error { return w.gone("d0") }},

	{name: "pack", components: []int64{6, 6, 6}, chunks: 12, before: holes,
		do:  func(w *world) error { return w.must(w.vol.Pack(JobOptions{})) },
		end: func(w *world) error { return w.packed() }},
	{name: "pack, cancelled, closed, resumed", components: []int64{6, 6, 6}, chunks: 12, before: holes,
		do: func(w *world) error {
			if err := w.cancelled(4, func() error { return w.vol.Pack(JobOptions{}) }); err != nil {
				return err
			}
			return w.closed(4, func() error { return w.vol.Pack(JobOptions{}) })
		}},
	{name: "rebalance", components: []int64{9, 6}, spares: []int64{9}, chunks: 8,
		do: func(w *world) error {
			if err := w.add("d2"); err != nil {
				return err
			}
			return w.must(w.vol.Rebalance(JobOptions{}))
		}},
	{name: "reclaim", components: []int64{8, 6}, chunks: 4,
		before: func(w *world) error {
			return w.change(2*w.chunk/unit, 5*w.chunk/unit, OpWriteZeroes, NoHole)
		},
		do: func(w *world) error { return w.must(w.vol.Reclaim(JobOptions{})) }},
	{name: "discard", components: []int64{6, 6}, chunks: 9,
		do: func(w *world) error {
			return w.change(w.chunk/unit+8, 5*w.chunk/unit, OpDelete, 0)
		}},
	{name: "discard and write again", components: []int64{6, 6}, chunks: 9,
		do: func(w *world) error {
			per := w.chunk / unit
			for vc := range int64(4) {
				if err := w.change((5+vc)*per, per, OpDelete, 0); err != nil {
					return err
				}
				if err := w.change((20+vc)*per, 8, OpWrite, Flags(vc/3)*FUA); err != nil {
					return err
				}
			}
			return w.change(1*per, 3*per, OpWriteZeroes, FUA)
		}},

	{name: "grow within the map's room", components: []int64{6, 6}, chunks: 6, handedBack: true,
		do: func(w *world) error { return w.resize(1000*w.chunk, false) }},
	{name: "grow beyond the map's room", components: []int64{8, 6}, chunk: 2 * crashChunk, chunks: 6,
		do: func(w *world) error { return w.resize(40000*w.chunk, false) }},
	// Of these two the map reserves six chunks then; eight may be allocated by the
	// time it is done again.
	{name: "grow beyond the map's room in steps", components: []int64{10, 6}, chunk: 2 * crashChunk, chunks: 6,
		do: func(w *world) error { return w.resize(70000*w.chunk, false) }},
	{name: "grow of the smallest chunks beyond the map's room", components: []int64{10, 6}, chunks: 6,
		do: func(w *world) error { return w.resize(40000*w.chunk, false) }},
	{name: "shrink of a free tail", components: []int64{6, 6}, chunks: 4,
		before: func(w *world) error { return w.resize(2000*w.chunk, false) },
		do:     func(w *world) error { return w.shrink(w.size) }},
	{name: "shrink that frees", components: []int64{6, 12}, virtual: 128, chunks: 2, before: tail,
		do: func(w *world) error { return w.shrink(w.size / 2) }},
	{name: "shrink that frees, and grow", components: []int64{6, 12}, virtual: 128, chunks: 2, before: tail,
		do: func(w *world) error {
			size := w.size
			if err := w.shrink(size / 2); err != nil {
				return err
			}
			return w.resize(size, false)
		}},

	{name: "expand", components: []int64{6, 6}, chunks: 6, damage: grown("d1"), offline: true, opens: openMaybe, do: expandAll},
	{name: "expand of component 0", components: []int64{6, 6}, chunks: 6, handedBack: true, damage: grown("d0"), offline: true, opens: openMaybe, do: expandAll},
	{name: "expand of component 0 before one that is full", components: []int64{5, 5, 7}, chunks: 9, fill: true, handedBack: true, damage: grown("d0"), offline: true, opens: openMaybe, do: expandAll},
	{name: "label over a volume", components: []int64{6, 6}, chunks: 6, id: 78, offline: true, opens: openMaybe, do: labelAnew},
	{name: "label over a volume of the kernel class", components: []int64{6, 6, 4}, chunks: 6, handedBack: true, id: 78, offline: true, opens: openMaybe, do: labelAnew},
	{name: "label", components: []int64{6, 6}, id: 78, offline: true, opens: openMaybe, damage: clearAll, do: labelAnew},
	{name: "clear", components: []int64{6, 6, 4}, chunks: 6, handedBack: true, offline: true, opens: openMaybe, destroys: true,
		do: clearAll, end: noneLeft},
	{name: "clear of what is fenced", components: []int64{6, 6, 4}, chunks: 6, offline: true, opens: openMaybe, destroys: true,
		do: clearAll, end: noneLeft},
}

// writelessZero is do while component 0 takes no writes, if d0 is that still; restarted:
// the volume is closed and opened in between.
func writelessZero(restarted bool, do func(w *world) error) func(w *world) error {
	return func(w *world) error {
		if w.vol.component(0).name() != "d0" {
			return do(w)
		}
		var met atomic.Bool
		defer takesNone(w.disk("d0"), 1, &met)()
		if !restarted {
			return do(w)
		}
		err := w.vol.Close()
		switch {
		case err == nil:
		case !isFailure(err):
			return err
		case slices.ContainsFunc(w.vol.components(), func(c *component) bool { return c.failedFlush() != nil }):
			// Close said so; the disk may have dropped what had not been flushed before.
			w.model.forget(w.rec.Mark("opened again after a flush failed"))
		}
		cfg := w.cfg
		cfg.ServeStranded = true
		if w.vol, err = openDisks(cfg, w.disks); err != nil {
			w.vol = nil
			return err
		}
		if _, err := w.readAll(w.model.at(w.rec.Len(), true)); err != nil {
			return err
		}
		return do(w)
	}
}

// overcount makes the metadata count a chunk that reaches into its sector, as
// FreeBSD's label does with components of 4 GiB and more.
func overcount(w *world) error {
	for i, d := range w.disks {
		grown := disktest.New(d.Name(), (d.MediaSize()/w.chunk)*w.chunk+int64(w.sector), w.sector)
		m, err := geomlib.ReadMetadata(d)
		if err != nil {
			return err
		}
		if err := copyDisk(grown, d); err != nil {
			return err
		}
		m.ProviderSize, m.ChunkCount = uint64(grown.MediaSize()), uint32(grown.MediaSize()/w.chunk)
		if i > 0 { // exactly whole chunks, all of them counted
			shrunk := disktest.New(d.Name(), (d.MediaSize()/w.chunk)*w.chunk, w.sector)
			if err := copyDisk(shrunk, d); err != nil {
				return err
			}
			grown, m.ProviderSize = shrunk, uint64(shrunk.MediaSize())
		}
		if err := geomlib.StoreMetadata(grown, m); err != nil {
			return err
		}
		w.disks[i] = grown
		w.harmful = append(w.harmful, m)
	}
	return nil
}

// copyDisk copies all but the last sector of the smaller one, and flushes.
func copyDisk(to, from *disktest.Disk) error {
	b := make([]byte, min(to.MediaSize(), from.MediaSize())-int64(from.SectorSize()))
	if _, err := from.ReadAt(b, 0); err != nil {
		return err
	}
	if _, err := to.WriteAt(b, 0); err != nil {
		return err
	}
	return to.Flush()
}

// grown lets the provider of a component grow, as a partition does.
func grown(name string) func(w *world) error {
	return func(w *world) error {
		for i, d := range w.disks {
			if d.Name() != name {
				continue
			}
			big := disktest.New(name, d.MediaSize()+3*w.chunk, w.sector).FillJunk(w.seed + 50)
			b := make([]byte, d.MediaSize())
			if _, err := d.ReadAt(b, 0); err != nil {
				return err
			}
			if _, err := big.WriteAt(b, 0); err != nil {
				return err
			}
			w.disks[i] = big
			return big.Flush()
		}
		return nil
	}
}

func expandAll(w *world) error {
	for _, d := range w.disks {
		if _, _, err := Expand(context.Background(), d, Expansion{Volume: "vol"}); err != nil && !errors.Is(err, ErrNotGrown) {
			return err
		}
	}
	return nil
}

// labelAnew makes another volume of the disks.
func labelAnew(w *world) error {
	req := ondisk.LabelRequest{Name: "vol", VirtualSize: w.size, ChunkSize: w.chunk, ID: w.verb.id, ChunkMultiple: ondisk.MinChunkMultiple}
	var ps []geomlib.Provider
	for _, d := range slices.Backward(w.disks) {
		req.Providers = append(req.Providers, ondisk.LabelProvider{Name: d.Name(), Size: d.MediaSize(), SectorSize: w.sector})
		ps = append(ps, d)
	}
	layout, err := ondisk.Plan(req)
	if err != nil {
		return err
	}
	return Label(context.Background(), ps, layout, LabelOptions{})
}

func clearAll(w *world) error {
	for _, d := range w.disks {
		if err := geomlib.ClearMetadata(d); err != nil && !errors.Is(err, geomlib.ErrNoMetadata) {
			return err
		}
	}
	return nil
}

func noneLeft(w *world) error {
	for _, d := range w.disks {
		m, err := geomlib.ReadMetadata(d)
		if err == nil {
			err = fmt.Errorf("%+v", m)
		}
		if !errors.Is(err, geomlib.ErrNoMetadata) {
			return fmt.Errorf("%s still has metadata: %w", d.Name(), err)
		}
	}
	return nil
}

// holes frees every other chunk.
func holes(w *world) error { return w.discardWhere(func(p alloc.Phys) bool { return p.Chunk%2 == 0 }) }

// tail writes to the second half of the volume.
func tail(w *world) error {
	per := w.chunk / unit
	for vc := range int64(5) {
		if err := w.change(w.size/unit/2+vc*3*per, 8, OpWrite, 0); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) remove(name string) error {
	if !w.has(name) {
		return nil
	}
	// What was written since lies there as well.
	if err := w.vol.Remove(name); !errors.Is(err, ErrAllocated) {
		return err
	}
	return w.evacuate("", name)
}

func (w *world) replace(old, by string) error {
	if !w.has(old) {
		return nil
	}
	if err := w.add(by); err != nil {
		return err
	}
	return w.evacuate(by, old)
}

func (w *world) resize(size int64, force bool) error {
	return w.must(w.vol.Resize(size, force, JobOptions{}))
}

// shrink gives up what lies beyond size.
func (w *world) shrink(size int64) error {
	if w.vol.Size() <= size {
		return nil
	}
	if n := w.size - size; n > 0 {
		w.mu.Lock()
		s := w.model.begin(size/unit, n/unit, w.rec.Mark("gives up the tail"))
		s.zero = true
		w.mu.Unlock()
		if err := w.resize(size, true); err != nil {
			return err
		}
		w.mu.Lock()
		s.acked = w.rec.Mark("the tail is gone")
		w.mu.Unlock()
		return nil
	}
	return w.resize(size, true)
}
