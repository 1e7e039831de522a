package virstor

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/mapio"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Errors of a rollback. They come wrapped with what was attempted.
var (
	// ErrWouldLose: what was written since the snapshot would be lost.
	ErrWouldLose = errors.New("what was written since would be lost")
	// ErrLargerSnapshots: there are snapshots of when the volume was larger than it
	// would be.
	ErrLargerSnapshots = errors.New("there are snapshots of a larger volume, which it would cut off; send away what is wanted of them, then delete them")
)

// Rollback gives an assembled volume that nobody serves the map and the size that it had
// when a snapshot of it was taken, after all that FinishInterrupted does. The snapshot
// stays, and so do all others. What only the volume named becomes free with the next
// opening. Without force it fails with ErrWouldLose when the volume holds anything else
// than the snapshot.
//
// A record says that the volume is rolled back; then the snapshot's map is copied to
// where the volume's is, the size to component 0, each flushed; then a record says that it
// is done. A crash before the first leaves all as it was, and after it the next opening
// for writing does it again from the start.
func Rollback(a *Assembly, snapshot string, force bool, log *slog.Logger) error {
	return rollback(a, snapshot, force, Config{Log: log})
}

func rollback(a *Assembly, snapshot string, force bool, cfg Config) error {
	return finishInterrupted(a, false, cfg, func(v *Volume) error {
		if err := v.rollbackLocked(snapshot, force); err != nil {
			return rollbackError(v.name, snapshot, err)
		}
		return nil
	})
}

func rollbackError(volume, snapshot string, err error) error {
	return fmt.Errorf("roll %s back to %s: %w", volume, ondisk.Printable(snapshot), err)
}

// rollbackLocked is Rollback of a volume that was opened for that. v.metaMu is held.
func (v *Volume) rollbackLocked(name string, force bool) error {
	s, err := v.mayRollbackLocked(name)
	if err != nil {
		return err
	}
	if c := v.lossLocked(s); c == (Loss{}) {
		return nil
	} else if !force {
		return fmt.Errorf("%w: %d chunks", ErrWouldLose, c.Chunks)
	}
	m, words, err := v.snapshotWords(s.ID)
	if err != nil {
		return err
	}
	if v.cfg.breaks(breakRollbackFirst) {
		if err := v.storeRolledBack(m, words); err != nil {
			return err
		}
	}
	if err := v.writeExtensionLocked(func(e *ondisk.Extension) {
		e.Intent = ondisk.Intent{Kind: ondisk.IntentRollback, Arg: [8]uint64{s.ID}}
	}); err != nil {
		return fmt.Errorf("%w: %w", ErrUnfinished, err)
	}
	if err := v.finishRollbackLocked(m, words); err != nil {
		return fmt.Errorf("%w; the next start does it from the beginning: %w", ErrUnfinished, err)
	}
	return nil
}

// mayRollbackLocked is the snapshot of that name, if the volume can be rolled back to it.
// v.metaMu is held.
func (h *Head) mayRollbackLocked(name string) (*snapshot, error) {
	v := h.v
	if h.damage != nil {
		return nil, h.damage
	}
	if !v.cfg.ReadOnly {
		if err := v.mayChangePoolLocked(); err != nil {
			return nil, err
		}
	}
	if err := v.noJobLocked(); err != nil {
		return nil, err
	}
	s, err := h.snapshotLocked(name)
	if err == nil {
		err = s.damage
	}
	if err == nil && !h.isFirst() {
		if err = v.mapsKnown(); err == nil {
			err = h.refusal(deedAllocate)
		}
	}
	if err != nil {
		return nil, err
	}
	var larger []string
	for _, o := range h.snapshots() {
		if o.Size > s.Size {
			larger = append(larger, o.Name)
		}
	}
	if larger != nil {
		return nil, fmt.Errorf("%w (%s)", ErrLargerSnapshots, strings.Join(larger, ", "))
	}
	return s, nil
}

// Loss is what a rollback takes back.
type Loss struct {
	// Chunks are those that hold something else than the snapshot says: they were
	// written to, or given up.
	Chunks int64
	// Alone are those of them that no snapshot has.
	Alone int64
	// Grown is how many bytes the volume is larger than it was then.
	Grown int64
}

// MayRollback tells what Rollback to the snapshot of that name would take back, or why it
// cannot be done (ErrNoSnapshot, ErrDamaged, ErrLargerSnapshots, ErrJobRunning).
func (v *Volume) MayRollback(name string) (Loss, error) {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	s, err := v.mayRollbackLocked(name)
	if err != nil {
		return Loss{}, rollbackError(v.name, name, err)
	}
	return v.lossLocked(s), nil
}

// lossLocked is that of a rollback to s. v.metaMu is held.
func (h *Head) lossLocked(s *snapshot) Loss {
	c := Loss{Grown: h.Size() - int64(s.Size)}
	end := uint64(h.Size() / h.v.chunk)
	for page := uint64(0); page*chunkmap.PageEntries < end; page++ {
		h.committer.pause()
		differ, alone := s.frozen.Lost(page)
		h.committer.unpause()
		c.Chunks += int64(differ)
		c.Alone += int64(alone)
	}
	return c
}

// redoRollbackLocked does what the record of a rollback says. v.metaMu is held, and nothing
// is mapped yet.
func (v *Volume) redoRollbackLocked() error {
	m, words, err := v.snapshotWords(v.meta.ext.rec.Intent.Arg[0])
	if err != nil && slices.Contains(v.cfg.giveUp, m.Name) {
		return v.salvageRollbackLocked(m)
	}
	if err != nil {
		return err
	}
	return v.finishRollbackLocked(m, words)
}

// finishRollbackLocked makes words the map and the size of m the volume's, and notes that it
// is done. What follows is a rise of the generation, whose record takes the place of the one
// that says to do it, before anything else is written. v.metaMu is held, and nobody goes by
// the map in memory.
func (v *Volume) finishRollbackLocked(m ondisk.PoolMap, words pages) error {
	if err := v.storeRolledBack(m, words); err != nil {
		return err
	}
	if !v.cfg.breaks(breakRollbackKept) {
		if err := v.writeExtensionLocked(func(e *ondisk.Extension) { e.Intent = ondisk.Intent{} }); err != nil {
			return err
		}
	}
	v.log.Info("the volume is what it was at a snapshot", "snapshot", m.Name)
	return nil
}

// snapshotWords reads the map of the snapshot with the id, and takes nothing in.
func (v *Volume) snapshotWords(id uint64) (m ondisk.PoolMap, words pages, err error) {
	l, err := v.newPoolLoader(v.bounds())
	if err != nil {
		return m, nil, err
	}
	m, known := l.dir.Map(id)
	if !known || m.Kind != ondisk.KindSnapshot {
		return m, nil, fmt.Errorf("%w: it is to be rolled back to snapshot %d, which it does not have", ErrDamaged, id)
	}
	if words, err = l.read(&snapshot{PoolMap: m}); err != nil {
		err = fmt.Errorf("%w: snapshot %s: %w", ErrDamaged, m.Name, err)
	}
	return m, words, err
}

// storeRolledBack writes a map to where the volume's is, flushes it, and makes the size of
// m the volume's.
func (v *Volume) storeRolledBack(m ondisk.PoolMap, words pages) error {
	zero := v.component(0)
	if err := v.storeWords(zero, words); err != nil {
		return err
	}
	if !v.cfg.breaks(breakRollbackFlush) {
		if err := zero.flushNow(); err != nil {
			return err
		}
	}
	md := zero.meta()
	md.VirtualSize = m.Size
	if md != zero.meta() {
		if err := geomlib.StoreMetadata(zero.accounted(), md); err != nil {
			return err
		}
		zero.setMeta(md)
	}
	v.size.Store(int64(m.Size))
	return nil
}

// storeWords writes a map to component 0, but for what is a hole there and has nothing
// allocated.
func (v *Volume) storeWords(zero *component, words pages) error {
	const pageBytes = chunkmap.PageEntries * ondisk.EntrySize
	total := zero.meta().MapBytes()
	written := make([]bool, (total+mapio.BlockSize-1)/mapio.BlockSize)
	buf := make([]byte, min(mapio.BlockSize, total))
	for off, n := range mapio.Data(zero.prov(), total) {
		for block := off / mapio.BlockSize; block <= (off+n-1)/mapio.BlockSize; block++ {
			written[block] = true
		}
		if v.order != ondisk.OrderUnknown {
			continue
		}
		if err := zero.readAt(buf[:n], off); err != nil {
			return err
		}
		v.order = ondisk.DetectOrder(buf[:n])
	}
	if v.order == ondisk.OrderUnknown {
		v.order = ondisk.LittleEndian
	}
	for page := range words {
		written[int64(page)*pageBytes/mapio.BlockSize] = true
	}
	for block, is := range written {
		if !is {
			continue
		}
		off := int64(block) * mapio.BlockSize
		b := buf[:min(mapio.BlockSize, total-off)]
		for at := 0; at < len(b); at += ondisk.EntrySize {
			v.encodeEntry(b[at:], words.word(uint64(off+int64(at))/ondisk.EntrySize))
		}
		if err := zero.writeRaw(b, off); err != nil {
			return err
		}
	}
	return nil
}

// word is the word of vc.
func (p pages) word(vc uint64) chunkmap.Word {
	if words := p[vc/chunkmap.PageEntries]; words != nil {
		return words[vc%chunkmap.PageEntries]
	}
	return 0
}

// loadRolledBack takes in what the map will be when a rollback that was interrupted is
// finished, for who does not write. Nobody else knows the volume yet.
func (v *Volume) loadRolledBack(comps []bounds) error {
	m, words, err := v.snapshotWords(v.meta.ext.rec.Intent.Arg[0])
	if err != nil {
		return err
	}
	for page, own := range words {
		for i, w := range own {
			if w == 0 {
				continue
			}
			vc, p := page*chunkmap.PageEntries+uint64(i), w.Phys()
			if c := &comps[p.Comp]; p.Chunk < c.usable && !c.pool.Claim(p.Chunk) {
				return mapError(vc, "of snapshot %s names chunk %d of %s, which another virtual chunk has", m.Name, p.Chunk, v.component(p.Comp).name())
			}
			v.chunks.SetRun(vc, w, 1)
			v.allocated.Add(1)
		}
	}
	v.size.Store(int64(m.Size))
	return nil
}
