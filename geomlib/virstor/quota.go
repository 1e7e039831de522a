package virstor

import (
	"fmt"

	"github.com/gvirstor/gvirstor/ondisk"
)

// ErrQuota: the volume has as many chunks as it may. Held writes do not wait for it to get
// more.
var ErrQuota = fmt.Errorf("%w: it has as much as its quota allows", ErrNoSpace)

// SetQuota lets the further volume of that name have chunks of so many bytes at most, those
// included that it has in common with what it is a clone of; 0 is no limit. It is on stable
// storage when it returns (ErrNoVolume, ErrRequest). What the volume has already it keeps; a
// write that would need more fails with ErrQuota at once. It needs no chunk. With dry it only
// tells whether that can be, of a pool that was opened to be read, too.
func (v *Volume) SetQuota(name string, bytes int64, dry bool) error {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	err := v.couldChangePoolLocked(dry)
	if err == nil {
		err = v.setQuotaLocked(name, bytes, dry)
	}
	if err != nil {
		return fmt.Errorf("quota of %s/%s: %w", v.name, ondisk.Printable(name), err)
	}
	return nil
}

// setQuotaLocked is SetQuota. v.metaMu is held.
func (v *Volume) setQuotaLocked(name string, bytes int64, dry bool) error {
	if err := checkQuota(bytes); err != nil {
		return err
	}
	if name == "" {
		return refuse(ErrRequest, "%s is the volume that holds the pool, which has none: its size is what limits it", v.name)
	}
	h, err := v.headLocked(name)
	if err != nil || dry {
		return err
	}
	next := v.nextDirectory(true)
	next.edit(h.mapID, func(m *ondisk.PoolMap) { m.Quota = uint64(bytes) })
	if err := v.replaceDirectoryLocked(next); err != nil {
		return err
	}
	h.quota.Store(bytes)
	return nil
}

func checkQuota(bytes int64) error {
	if bytes < 0 {
		return refuse(ErrRequest, "a quota of %d bytes", bytes)
	}
	return nil
}

// replaceDirectoryLocked puts a directory in force that names the same as the one that is.
// v.metaMu is held.
func (v *Volume) replaceDirectoryLocked(next *nextDirectory) error {
	if err := v.storeNextLocked(next); err != nil {
		return err
	}
	if err := v.putInForceLocked(next.link); err != nil {
		return err
	}
	v.setDirectory(&next.Directory)
	v.freeUnshared(next.gone)
	return nil
}

// overQuota reports whether the missing chunks are more than the volume may have, with those
// that the batch gives it. One that a snapshot has too is replaced, not added.
func (k *committer) overQuota() bool {
	limit := k.h.quota.Load()
	if limit == 0 || k.v.cfg.breaks(breakQuota) {
		return false
	}
	more := int64(0)
	for _, vc := range k.batch.missing {
		if !k.h.chunks.Load(vc).Allocated() {
			more++
		}
	}
	if more == 0 {
		return false
	}
	for i := range k.batch.chunks {
		if !k.batch.chunks[i].copies {
			more++
		}
	}
	return (k.h.allocated.Load()+more)*k.v.chunk > limit
}
