package virstor

import (
	"context"
	"errors"
	"fmt"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/extblock"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/mapio"
	"github.com/gvirstor/gvirstor/ondisk"
)

// errBeingRemoved is ErrLeaving of a component without a member block.
var errBeingRemoved = fmt.Errorf("%w: an interrupted remove is finished at the next writable open", ErrLeaving)

// removeArgs are the removed index and the last index, whose component takes it.
func removeArgs(i ondisk.Intent) (removed, last uint16) {
	return uint16(i.Arg[0]), uint16(i.Arg[1])
}

// recoverable refuses what cannot be served without finishing first what the first
// release began. All else is applied in memory by who does not write.
func (v *Volume) recoverable() error {
	i := v.meta.ext.rec.Intent
	if i.Kind != ondisk.IntentNone && i.Kind != ondisk.IntentNewID && i.Leaves == 0 && v.cfg.DeferWrites {
		return fmt.Errorf("%s: %w: the operation %q was interrupted; a writable open finishes it", v.name, ErrDamaged, i.Kind)
	}
	return nil
}

// finishIntent finishes the operation that a crash interrupted, as far as it is to be
// done before the map is used and the fence is written. Everything in it may have been
// done already.
func (v *Volume) finishIntent() error {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	if err := v.redoIntentLocked(); err != nil {
		return fmt.Errorf("%s: finish an interrupted operation: %w", v.name, err)
	}
	return nil
}

func (v *Volume) redoIntentLocked() error {
	i := v.meta.ext.rec.Intent
	switch {
	case i.Kind == ondisk.IntentNone:
		return nil
	case i.Kind == ondisk.IntentRemove && i.Leaves != 0:
		// The members follow with the fence, and then the intent goes.
		removed, last := removeArgs(i)
		return v.renameInMap(removed, last)
	case i.Kind == ondisk.IntentReplaceZero && i.Leaves != 0:
		return nil
	case i.Kind == ondisk.IntentNewID:
		return nil // the members follow with the fence, and then the intent goes
	case i.Kind == ondisk.IntentRollback:
		return v.redoRollbackLocked() // which takes the intent out
	case i.Kind == ondisk.IntentRemove:
		if err := v.finishRemoveLocked(); err != nil {
			return err
		}
	case i.Kind == ondisk.IntentReplaceZero:
		if err := v.finishReplaceZeroLocked(); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%w: unknown intent %d", ErrDamaged, i.Kind)
	}
	return v.writeExtensionLocked(func(e *ondisk.Extension) {
		if e.Intent.Kind == ondisk.IntentRemove {
			e.Task = renumberTask(e.Task, uint16(e.Intent.Arg[0]), uint16(e.Intent.Arg[1]))
		}
		e.Intent = ondisk.Intent{}
	})
}

// renameInMap lets the entries on component 0 that name component last name removed.
func (v *Volume) renameInMap(removed, last uint16) error {
	if removed == last {
		return nil
	}
	return v.rewriteMap(func(e ondisk.Entry) ondisk.Entry {
		switch {
		case e.Component == last:
			e.Component = removed
		case v.cfg.breaks(breakIntentTwice) && e.Component == removed:
			e.Component = last
		}
		return e
	})
}

// finishRemoveLocked finishes a removal that the first release began, which had no
// member ids. v.metaMu is held, and nothing is mapped yet.
func (v *Volume) finishRemoveLocked() error {
	removed, last := removeArgs(v.meta.ext.rec.Intent)
	for _, ig := range v.meta.leavers {
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
	if err := v.renameInMap(removed, last); err != nil {
		return err
	}
	m = comps[0].meta()
	m.Count = uint16(len(comps))
	return v.storeMetaLocked(comps[0], m)
}

// endIntentLocked takes what was under way out of component 0's record, when all of it
// is done and the new list of members is in force: who left is cleared first. v.metaMu is
// held.
func (v *Volume) endIntentLocked() error {
	in := v.meta.ext.rec.Intent
	cleared := v.clearLeaversLocked(in.Leaves)
	if !v.meta.ext.room {
		return nil
	}
	next := v.meta.ext.rec
	v.tidyRecord(&next)
	if in.Kind == ondisk.IntentReplaceZero && in.Leaves != 0 && !cleared[in.Leaves] && !v.cfg.breaks(breakUnnamedZero) {
		// It says still that it is component 0, and may be a whole volume by itself.
		keepFailed(&next, func(id uint64) bool { return id != in.Leaves })
		addFailed(&next, ondisk.FailedMember{ID: in.Leaves, Generation: v.meta.gen.settled})
	}
	if next == v.meta.ext.rec {
		return nil
	}
	return v.writeExtensionLocked(func(e *ondisk.Extension) { *e = next })
}

// tidyRecord makes a record say what is so when nothing is under way.
func (v *Volume) tidyRecord(e *ondisk.Extension) {
	e.Intent, e.HandBack = ondisk.Intent{}, false
	byID := make(map[uint64]*component)
	for _, c := range v.components() {
		byID[c.member] = c
	}
	keepFailed(e, func(id uint64) bool { c := byID[id]; return c == nil || c.refused.Load() })
	if !v.cfg.breaks(breakTaskNumbers) {
		e.Task = retask(e.Task, v.components())
	}
}

// clearLeaversLocked clears who was removed, the member leaves, by an operation that the
// volume's own record proves to be under way, and says whom it cleared. That it cannot be done is harmless:
// the provider is no member. v.metaMu is held.
func (v *Volume) clearLeaversLocked(leaves uint64) map[uint64]bool {
	cleared := make(map[uint64]bool)
	for _, ig := range v.meta.leavers {
		id := ig.Metadata.Member.ID
		if id == 0 || id != leaves {
			continue // without a member id nothing proves whose it is
		}
		if v.forgetMember(ig.Provider) {
			cleared[id] = true
			v.outside.forget(ig.Provider.Name())
		}
	}
	v.meta.leavers = nil
	return cleared
}

// forgetMember clears the metadata of a provider that was removed, and reports whether it
// could.
func (v *Volume) forgetMember(p geomlib.Provider) bool {
	b := make([]byte, p.SectorSize())
	if err := storeRaw(p, b, p.MediaSize()-int64(len(b))); err != nil {
		v.log.Warn("the label of a removed component stays: it is no member any more, and is not taken for one",
			"provider", p.Name(), "error", err)
		return false
	}
	v.log.Info("the label of a removed component is cleared", "provider", p.Name())
	return true
}

// SettleCleared flushes a provider that has no label: a process that took it off may have died
// before that was on stable storage. Whoever starts a volume does so before, of all providers that it
// was told of: a start that sees no label ends the removal, and forgets the provider.
func SettleCleared(p geomlib.Provider) error { return extblock.Flush(p) }

// storeRaw writes b and flushes it.
func storeRaw(p geomlib.Provider, b []byte, off int64) error {
	if _, err := p.WriteAt(b, off); err != nil {
		return fmt.Errorf("write %s at %d: %w", p.Name(), off, err)
	}
	return extblock.Flush(p)
}

// rewriteMap applies change to every allocated entry of the map on disk and
// flushes it. Only sectors that change are written.
func (v *Volume) rewriteMap(change func(ondisk.Entry) ondisk.Entry) error {
	zero, order := v.component(0), ondisk.OrderUnknown
	s := mapio.Scanner{Provider: zero.prov(), Size: zero.meta().MapBytes()}
	err := s.Rewrite(context.Background(), func(_ uint64, sector []byte) bool {
		if order == ondisk.OrderUnknown {
			order = ondisk.DetectOrder(sector)
		}
		return mapio.ChangeAllocated(sector, order, change)
	}, zero.writeRaw)
	if err != nil {
		return err
	}
	return zero.flushNow()
}
