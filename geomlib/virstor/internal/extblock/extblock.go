// Package extblock reads and stores the extension block of component 0: two slots, of
// which the record with the highest sequence is in force.
package extblock

import (
	"errors"
	"fmt"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Slots reads the first sectors of the two slots of the block on p, which is
// component 0 with the metadata m. room is false when there is no block.
func Slots(p geomlib.Provider, m ondisk.Metadata) (slots [2][]byte, room bool, err error) {
	off, room := ondisk.ExtensionOffset(m)
	if !room || off+ondisk.ExtensionSize > p.MediaSize() || off%int64(p.SectorSize()) != 0 {
		return slots, false, nil
	}
	slots, err = SlotsAt(p, off)
	return slots, true, err
}

// SlotsAt is Slots of the block at byte off of p.
func SlotsAt(p geomlib.Provider, off int64) (slots [2][]byte, err error) {
	for i := range slots {
		slots[i] = sectorFor(p)
		if _, err := p.ReadAt(slots[i], off+int64(i)*ondisk.ExtensionSlotSize); err != nil {
			return slots, fmt.Errorf("read the extension block of %s: %w", p.Name(), err)
		}
	}
	return slots, nil
}

// sectorFor is memory for a record: one sector of p, if records are not longer than that.
func sectorFor(p geomlib.Provider) []byte {
	return make([]byte, max(p.SectorSize(), ondisk.ExtensionRecordSize))
}

// Store writes a record into its slot of the block at byte off of p, and flushes it.
func Store(p geomlib.Provider, off int64, e ondisk.Extension) error {
	if err := Put(p, off, e); err != nil {
		return err
	}
	return Flush(p)
}

// Put is Store without the flush, which is the caller's.
func Put(p geomlib.Provider, off int64, e ondisk.Extension) error {
	b := sectorFor(p)
	if err := e.Encode(b); err != nil {
		return fmt.Errorf("extension record for %s: %w", p.Name(), err)
	}
	at := off + int64(e.Slot())*ondisk.ExtensionSlotSize
	if _, err := p.WriteAt(b, at); err != nil {
		return fmt.Errorf("write %s at %d: %w", p.Name(), at, err)
	}
	return nil
}

// Erase makes one slot of the block at byte off of p hold nothing, durably.
func Erase(p geomlib.Provider, off int64, slot int) error {
	at := off + int64(slot)*ondisk.ExtensionSlotSize
	if _, err := p.WriteAt(sectorFor(p), at); err != nil {
		return fmt.Errorf("write %s at %d: %w", p.Name(), at, err)
	}
	return Flush(p)
}

// Clear makes both slots hold nothing, durably. Without a block it does nothing.
func Clear(p geomlib.Provider, m ondisk.Metadata) error {
	off, room := ondisk.ExtensionOffset(m)
	if !room {
		return nil
	}
	for slot := range int64(2) {
		if _, err := p.WriteAt(sectorFor(p), off+slot*ondisk.ExtensionSlotSize); err != nil {
			return fmt.Errorf("clear the extension block of %s: %w", p.Name(), err)
		}
	}
	return Flush(p)
}

// Flush flushes p, which need not have a volatile cache.
func Flush(p geomlib.Provider) error {
	if err := p.Flush(); err != nil && !errors.Is(err, geomlib.ErrNotSupported) {
		return fmt.Errorf("flush %s: %w", p.Name(), err)
	}
	return nil
}
