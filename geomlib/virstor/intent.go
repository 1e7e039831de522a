package virstor

import (
	"errors"
	"fmt"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ondisk"
)

var errBeingRemoved = errors.New("being removed: an interrupted remove is finished at the next writable open")

// removeArgs are the removed index and the last index, whose component takes it.
func removeArgs(i ondisk.Intent) (removed, last uint16) {
	return uint16(i.Arg[0]), uint16(i.Arg[1])
}

// recoverable refuses what cannot be served without finishing an intent first.
func (v *Volume) recoverable() error {
	if k := v.ext.rec.Intent.Kind; k != ondisk.IntentNone && (v.cfg.ReadOnly || v.cfg.DeferWrites) {
		return fmt.Errorf("%s: %w: the operation %q was interrupted; a writable open finishes it", v.name, ErrDamaged, k)
	}
	return nil
}

// finishIntent finishes the operation that a crash interrupted. Everything in
// it may have been done already.
func (v *Volume) finishIntent(a *Assembly) error {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	var err error
	switch v.ext.rec.Intent.Kind {
	case ondisk.IntentNone:
		return nil
	case ondisk.IntentRemove:
		err = v.finishRemoveLocked(a)
	case ondisk.IntentReplaceZero:
		err = v.finishReplaceZeroLocked()
	default:
		err = fmt.Errorf("%w: unknown intent %d", ErrDamaged, v.ext.rec.Intent.Kind)
	}
	if err != nil {
		return fmt.Errorf("%s: finish an interrupted operation: %w", v.name, err)
	}
	return v.writeExtensionLocked(func(e *ondisk.Extension) {
		if e.Intent.Kind == ondisk.IntentRemove {
			e.Task = renumberTask(e.Task, uint16(e.Intent.Arg[0]), uint16(e.Intent.Arg[1]))
		}
		e.Intent = ondisk.Intent{}
	})
}

// finishRemoveLocked does again what removeMiddleLocked does after its intent;
// v.metaMu is held, and nothing is mapped yet.
func (v *Volume) finishRemoveLocked(a *Assembly) error {
	removed, last := removeArgs(v.ext.rec.Intent)
	for _, ig := range a.Ignored {
		m := ig.Metadata
		switch {
		case errors.Is(ig.Reason, errBeingRemoved):
			m = leaving(m, last)
		case !errors.Is(ig.Reason, ErrInterruptedAdd): // which it is once it is marked
			continue
		}
		if err := geomlib.StoreMetadata(ig.Provider, m); err != nil {
			return err
		}
	}
	comps := v.components()
	if int(removed) >= len(comps) {
		return fmt.Errorf("%w: intent removes component %d of %d", ErrDamaged, removed, len(comps))
	}
	moved := comps[removed]
	m := moved.meta()
	m.No = removed
	if err := v.storeMetaLocked(moved, m); err != nil {
		return err
	}
	err := v.rewriteMap(func(e ondisk.Entry) ondisk.Entry {
		switch {
		case e.Component == last:
			e.Component = removed
		case v.cfg.breaks(breakIntentTwice) && e.Component == removed:
			e.Component = last
		}
		return e
	})
	if err != nil {
		return err
	}
	return v.storeCount(comps[0], len(comps))
}

// clearLeftovers clears the metadata of what an interrupted add or remove left, so
// that another component can be given its index. The map has been read, and the
// fence has been written: none of them holds data. Failing at it is harmless.
func (v *Volume) clearLeftovers(a *Assembly) {
	for _, ig := range a.Ignored {
		if !errors.Is(ig.Reason, ErrInterruptedAdd) && !errors.Is(ig.Reason, errBeingRemoved) {
			continue
		}
		if err := geomlib.ClearMetadata(ig.Provider); err != nil {
			v.log.Warn("metadata of an unfinished add or remove stays", "volume", v.name, "provider", ig.Provider.Name(), "error", err)
		} else {
			v.log.Info("metadata of an unfinished add or remove cleared", "volume", v.name, "provider", ig.Provider.Name())
		}
	}
}

// rewriteMap applies change to every allocated entry of the map on disk and
// flushes it. Only sectors that change are written.
func (v *Volume) rewriteMap(change func(ondisk.Entry) ondisk.Entry) error {
	zero := v.component(0)
	p := zero.p()
	total := zero.meta().MapBytes()
	buf := make([]byte, min(1<<20, total))
	order := ondisk.OrderUnknown
	for off := int64(0); off < total; off += int64(len(buf)) {
		b := buf[:min(int64(len(buf)), total-off)]
		if _, err := p.ReadAt(b, off); err != nil {
			return fmt.Errorf("read the allocation map: %w", err)
		}
		if order == ondisk.OrderUnknown {
			order = ondisk.DetectOrder(b)
		}
		for s := int64(0); s < int64(len(b)); s += v.sector {
			if !rewriteEntries(b[s:s+v.sector], order, change) {
				continue
			}
			if err := zero.writeRaw(b[s:s+v.sector], off+s); err != nil {
				return fmt.Errorf("write the allocation map: %w", err)
			}
		}
	}
	return zero.flushNow()
}

// rewriteEntries applies change in one sector and reports whether it did.
func rewriteEntries(sector []byte, order ondisk.Order, change func(ondisk.Entry) ondisk.Entry) bool {
	changed := false
	for ; len(sector) > 0; sector = sector[ondisk.EntrySize:] {
		e := ondisk.DecodeEntry(sector, order)
		if !e.Allocated() {
			continue
		}
		if n := change(e); n != e {
			n.Encode(sector, order)
			changed = true
		}
	}
	return changed
}
