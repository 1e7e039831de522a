package virstor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/mapio"
	"github.com/gvirstor/gvirstor/ondisk"
)

// closedInOrder reports whether whoever had the volume before flushed all of it
// and said so: by the clean mark, or by handing it back. Without room for the mark
// a fenced volume never was.
func (v *Volume) closedInOrder() bool {
	fenced := false
	for _, c := range v.components() {
		fenced = fenced || c.meta().Version == ondisk.VersionFenced
	}
	if !fenced {
		return true
	}
	return v.meta.ext.valid && v.meta.ext.rec.Clean
}

// prepare makes the disks what memory says before anything is served from them: it
// finishes what was interrupted, reads the map, and fences. v is new.
//
// What a medium holds is known only from a flush that succeeded after the write.
// After one that failed, Linux takes pages for clean that the disk never got, and
// whoever reads through the cache believes them. So a volume that was not closed in
// order is read past the cache, and all that was read and decided on is written
// again: records first, since finishing an intent must not begin while the intent
// is in a cache alone, and the map when it has proved to be sound.
func (v *Volume) prepare() error {
	if v.closedInOrder() {
		return v.prepareOrderly()
	}
	if err := v.flushInherited(false); err != nil {
		return err
	}
	if err := v.dropCaches(); err != nil {
		return err
	}
	if err := v.rewriteRecords(); err != nil {
		return err
	}
	if err := v.finishIntent(); err != nil {
		return err
	}
	if err := v.loadMap(); err != nil {
		return err
	}
	if err := v.fence(); err != nil {
		return err
	}
	if v.cfg.breaks(breakBelieveMap) {
		return nil
	}
	if err := v.rewriteLoadedMap(); err != nil {
		return err
	}
	return v.numberMembers()
}

// prepareOrderly is prepare for a volume that was closed in order.
func (v *Volume) prepareOrderly() error {
	if err := v.flushAndLoad(); err != nil {
		return err
	}
	if err := v.fence(); err != nil {
		return err
	}
	v.forgiveFlushes()
	return v.numberMembers()
}

// flushAndLoad flushes what was inherited, finishes what was interrupted, and reads the
// map. Where there is nothing to finish the flushes and the reading do not wait for each
// other: neither changes what the other sees.
func (v *Volume) flushAndLoad() error {
	if v.cfg.serial || v.meta.ext.rec.Intent.Kind != ondisk.IntentNone {
		if err := v.flushInherited(true); err != nil {
			return err
		}
		if err := v.finishIntent(); err != nil {
			return err
		}
		return v.loadMap()
	}
	flushed := make(chan error, 1)
	go func() { flushed <- v.flushInherited(true) }()
	loaded := v.loadMap()
	if err := <-flushed; err != nil {
		return err
	}
	return loaded
}

// pastCaches is v, new and only read, now or for good, as the medium has it: what a was
// made of may have been in a cache alone, and is to be the same after Activate.
func (v *Volume) pastCaches(a *Assembly) (*Volume, error) {
	if v.closedInOrder() {
		return v, nil
	}
	if err := v.dropCaches(); err != nil {
		return nil, err
	}
	again, err := a.readAgain()
	if err != nil {
		return nil, err
	}
	return newVolume(again, v.cfg)
}

// readAgain assembles the same providers from what they hold now. They must be the
// same members.
func (a *Assembly) readAgain() (*Assembly, error) {
	var ms []Member
	for _, m := range a.Members {
		md, err := geomlib.ReadMetadata(m.Provider)
		if err != nil {
			return nil, err
		}
		ms = append(ms, Member{m.Provider, md})
	}
	for _, i := range a.Ignored {
		m := i.Member
		if md, err := geomlib.ReadMetadata(m.Provider); err == nil {
			m.Metadata = md
		}
		ms = append(ms, m)
	}
	for _, b := range Assemble(ms) {
		if b.ID != a.ID {
			continue
		}
		if b.Err != nil {
			return nil, b.Err
		}
		if slices.EqualFunc(a.Members, b.Members, func(x, y Member) bool { return x.Provider == y.Provider }) {
			return b, nil
		}
	}
	return nil, fmt.Errorf("open %s: %w; try again", ondisk.Printable(a.Name), ErrChanged)
}

// takeOver is what prepare is for Activate. The map is in memory and has been read
// from.
func (v *Volume) takeOver() error {
	orderly := v.closedInOrder()
	if err := v.flushInherited(orderly); err != nil {
		return err
	}
	if !orderly {
		if err := v.dropCaches(); err != nil {
			return err
		}
	}
	if err := v.unchanged(); err != nil {
		return fmt.Errorf("take %s over: %w", v.name, err)
	}
	if !orderly {
		if err := v.rewriteRecords(); err != nil {
			return err
		}
	}
	if err := v.finishIntent(); err != nil {
		return err
	}
	if err := v.fence(); err != nil {
		return err
	}
	if orderly {
		v.forgiveFlushes()
	} else if err := v.rewriteLoadedMap(); err != nil {
		return err
	}
	return v.numberMembers()
}

// dropCaches makes the system forget what its caches hold of the components. What
// cannot forget is said once.
func (v *Volume) dropCaches() error {
	if v.cfg.breaks(breakBelieveCache) {
		return nil
	}
	var keep []string
	for _, c := range v.components() {
		// What was lent of the one before is mapped, and stays in the cache that both have.
		for _, p := range []geomlib.Provider{c.before, c.prov()} {
			d, ok := p.(geomlib.CacheDropper)
			if !ok {
				continue // nothing is between the engine and the medium
			}
			switch err := d.DropCache(); {
			case errors.Is(err, geomlib.ErrNotSupported):
				if p != c.before {
					keep = append(keep, c.name())
				}
			case err != nil:
				return fmt.Errorf("open %s: %w", v.name, err)
			}
		}
	}
	if keep != nil {
		v.log.Warn("the system's cache cannot be dropped: if a flush failed before, data that is read may not be on the medium",
			"components", strings.Join(keep, ", "))
	}
	return nil
}

// rewriteRecords writes again, and flushes, the metadata and the extension record
// that the assembly was made from. Component 0 comes first: what an interrupted
// operation does to the others counts only once it holds what commits it.
func (v *Volume) rewriteRecords() error {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	for i, c := range v.components() {
		err := geomlib.StoreMetadata(c.accounted(), c.meta())
		if err != nil && (i == 0 || !c.meta().Member.Exists()) {
			return fmt.Errorf("open %s: %w", v.name, err)
		} // any other member gets its next generation, or is left behind
		if i > 0 || !v.meta.ext.valid {
			continue
		}
		if err := v.writeExtensionLocked(func(*ondisk.Extension) {}); err != nil {
			return fmt.Errorf("open %s: %w", v.name, err)
		}
	}
	return nil
}

// rewriteLoadedMap writes the map from memory, sector by sector and whether it
// reads the same or not, and flushes it. Only holes are left out: a sector that
// holds zeros may be one whose zeros are in a cache alone, and an entry that was
// given up long ago would come back with the next loss of power.
func (v *Volume) rewriteLoadedMap() error {
	zero := v.component(0)
	total := zero.meta().MapBytes()
	buf := make([]byte, min(mapio.BlockSize, total))
	var written int64
	for off, n := range mapio.Data(zero.prov(), total) {
		b := buf[:n]
		v.encodeMap(b, uint64(off)/ondisk.EntrySize)
		if err := zero.writeRaw(b, off); err != nil {
			return fmt.Errorf("open %s: write the allocation map again: %w", v.name, err)
		}
		written += n
	}
	if err := zero.flushNow(); err != nil {
		return fmt.Errorf("open %s: write the allocation map again: %w", v.name, err)
	}
	if !v.cfg.breaks(breakLiveRewrite) {
		if err := v.rewriteFurther(); err != nil {
			return fmt.Errorf("open %s: write the maps of its further volumes again: %w", v.name, err)
		}
	}
	v.garbage = false // what unallocated entries held is gone
	v.log.Info("not closed in order: the allocation map was read from the medium and written again", "bytes", written)
	return nil
}

// rewriteFurther writes the maps of further volumes from memory, and flushes them. One that
// lies where nothing can be written is degraded; the others are served.
func (v *Volume) rewriteFurther() error {
	var written []alloc.Phys
	for _, h := range v.further() {
		if h.damage != nil {
			continue
		}
		h.committer.pause()
		_ = h.eachPart(func(part mapPart, vc uint64, b []byte) error {
			if err := v.writeSystem(part.at, 0, b); err != nil {
				first := vc * ondisk.EntrySize / uint64(v.sector)
				h.committer.doubt(first, first+uint64(int64(len(b))/v.sector)-1, err)
				return nil
			}
			written = append(written, part.at)
			return nil
		})
		h.committer.unpause()
	}
	return v.flushOf(written)
}

// encodeMap makes b, whole entries, what the map in memory says of the virtual chunks from
// vc on.
func (v *Volume) encodeMap(b []byte, vc uint64) {
	var words [chunkmap.PageEntries]chunkmap.Word
	order := v.order
	for len(b) > 0 {
		in := vc % chunkmap.PageEntries
		n := min(len(b)/ondisk.EntrySize, int(chunkmap.PageEntries-in))
		part := b[:n*ondisk.EntrySize]
		b = b[len(part):]
		if first, ok := v.chunks.Run(vc); ok && n == chunkmap.PageEntries && order == ondisk.LittleEndian {
			encodeRun((*[chunkmap.PageEntries * ondisk.EntrySize]byte)(part), first)
			vc += uint64(n)
			continue
		}
		v.chunks.Page(vc/chunkmap.PageEntries, &words)
		for i, w := range words[in:][:n] {
			entryOf(w).Encode(part[i*ondisk.EntrySize:], order)
		}
		vc += uint64(n)
	}
}

// encodeRun makes page what a little-endian map says of chunks that follow each other from
// first on. A volume that was filled in order consists of such pages; entry by entry they
// take four times as long.
func encodeRun(page *[chunkmap.PageEntries * ondisk.EntrySize]byte, first chunkmap.Word) {
	entryOf(first).Encode(page[:], ondisk.LittleEndian)
	e := binary.LittleEndian.Uint64(page[:])
	for at := ondisk.EntrySize; at < len(page); at += ondisk.EntrySize {
		e += mapio.NextEntry
		binary.LittleEndian.PutUint64(page[at:], e)
	}
}
