package virstor

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/gvirstor/gvirstor/ondisk"
)

// ErrIntact: a snapshot is not damaged.
var ErrIntact = errors.New("the snapshot is not damaged")

// GiveUp deletes damaged snapshots of an assembled volume that nobody serves, after all that
// FinishInterrupted does (ErrNoSnapshot, ErrIntact). What they alone hold is lost.
//
// A rollback to one of them that was interrupted goes as far as its map can be read, or was
// copied already; where neither is so, each chunk is what it was before the rollback or what
// the snapshot had.
func GiveUp(a *Assembly, snapshots []string, log *slog.Logger) error {
	return giveUp(a, snapshots, Config{Log: log})
}

func giveUp(a *Assembly, snapshots []string, cfg Config) error {
	cfg.giveUp = snapshots
	return finishInterrupted(a, false, cfg, func(v *Volume) error {
		for _, name := range snapshots {
			if err := v.giveUpLocked(name); err != nil {
				return fmt.Errorf("give up %s@%s: %w", v.name, ondisk.Printable(name), err)
			}
		}
		return nil
	})
}

// giveUpLocked deletes a damaged snapshot. What it alone has is free at the next opening.
// v.metaMu is held.
func (v *Volume) giveUpLocked(name string) error {
	if err := v.mayChangePoolLocked(); err != nil {
		return err
	}
	s, err := v.snapshotLocked(name)
	if err != nil {
		return err
	}
	if s.damage == nil {
		return ErrIntact
	}
	if err := v.notClonedLocked(s); err != nil {
		return err
	}
	_, err = v.dropSnapshotLocked(s)
	return err
}

// salvageRollbackLocked ends a rollback to m, whose map cannot be read whole, as GiveUp
// says. v.metaMu is held, and nothing is mapped yet.
func (v *Volume) salvageRollbackLocked(m ondisk.PoolMap) error {
	l, err := v.newPoolLoader(v.bounds())
	if err != nil {
		return err
	}
	s := &snapshot{PoolMap: m}
	if list, err := l.readList(s); err == nil {
		words := make(pages)
		for i, c := range list.Chunks {
			if c.Hole {
				continue
			}
			part := make(pages)
			if l.readPart(s, i, c, part) != nil {
				clear(part)
				b := l.rolledBackPart(s, i)
				if b == nil {
					return fmt.Errorf("%w: neither the map of snapshot %s nor the volume's can be read at chunk %d of it", ErrDamaged, m.Name, i)
				}
				from, _ := l.part(s, i)
				if err := l.decode(b, from, part); err != nil {
					return err
				}
			}
			words.add(part)
		}
		if err := v.storeRolledBack(m, words); err != nil {
			return err
		}
	} // else nothing is known of it, and the volume's map and size stay as they are
	v.log.Warn("a rollback went as far as the snapshot's map can be read", "snapshot", m.Name)
	return v.writeExtensionLocked(func(e *ondisk.Extension) { e.Intent = ondisk.Intent{} })
}

// add takes the words of a part of the map into p, which has none of its entries.
func (p pages) add(part pages) {
	for page, own := range part {
		if p[page] == nil {
			p[page] = own
			continue
		}
		for i, w := range own {
			if w != 0 {
				p[page][i] = w
			}
		}
	}
}
