// Package extblock reads and clears the extension block of a stopped volume.
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
	for i := range slots {
		slots[i] = make([]byte, max(p.SectorSize(), ondisk.ExtensionRecordSize))
		if _, err := p.ReadAt(slots[i], off+int64(i)*ondisk.ExtensionSlotSize); err != nil {
			return slots, true, fmt.Errorf("read the extension block of %s: %w", p.Name(), err)
		}
	}
	return slots, true, nil
}

// Clear makes both slots hold nothing, durably. Without a block it does nothing.
func Clear(p geomlib.Provider, m ondisk.Metadata) error {
	off, room := ondisk.ExtensionOffset(m)
	if !room {
		return nil
	}
	blank := make([]byte, max(p.SectorSize(), ondisk.ExtensionRecordSize))
	for slot := range int64(2) {
		if _, err := p.WriteAt(blank, off+slot*ondisk.ExtensionSlotSize); err != nil {
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
