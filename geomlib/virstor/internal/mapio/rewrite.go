package mapio

import (
	"context"
	"fmt"

	"github.com/gvirstor/gvirstor/ondisk"
)

// Rewrite passes the sectors of the map to change, each with the virtual chunk of its
// first entry, and to write those that it says it has changed, in order. Sectors that are
// known to be zeros without reading are left out. Nothing is flushed.
func (s Scanner) Rewrite(ctx context.Context, change func(vc uint64, sector []byte) bool, write func(b []byte, off int64) error) error {
	sector := int64(s.Provider.SectorSize())
	return s.Blocks(ctx, func(off int64, b []byte) error {
		for ; len(b) > 0; b, off = b[sector:], off+sector {
			if !change(uint64(off/ondisk.EntrySize), b[:sector]) {
				continue
			}
			if err := write(b[:sector], off); err != nil {
				return fmt.Errorf("write the allocation map to %s: %w", s.Provider.Name(), err)
			}
		}
		return nil
	})
}

// ChangeAllocated applies change to the allocated entries in b and reports whether that
// changed one.
func ChangeAllocated(b []byte, order ondisk.Order, change func(ondisk.Entry) ondisk.Entry) bool {
	changed := false
	for ; len(b) > 0; b = b[ondisk.EntrySize:] {
		e := ondisk.DecodeEntry(b, order)
		if !e.Allocated() {
			continue
		}
		if n := change(e); n != e {
			n.Encode(b, order)
			changed = true
		}
	}
	return changed
}
