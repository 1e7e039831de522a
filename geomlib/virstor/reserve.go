package virstor

import "fmt"

// SetReserve changes how many chunks ordinary writes leave free. A smaller
// reserve lets writes that are held for space go on at once: the way out when
// a volume is full.
func (v *Volume) SetReserve(chunks int64) error {
	if chunks < 0 {
		return fmt.Errorf("reserve %d chunks of %s: %w: the number must not be negative", chunks, v.name, ErrRequest)
	}
	if chunks > 0 && chunks > v.Status().PhysicalChunks {
		return fmt.Errorf("reserve %d chunks of %s: %w: it has %d", chunks, v.name, ErrRequest, v.Status().PhysicalChunks)
	}
	v.alloc.setReserve(chunks)
	v.committer.kick()
	v.emit(Event{Kind: EventAllocated})
	return nil
}
