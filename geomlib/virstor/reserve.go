package virstor

// SetReserve changes how many chunks ordinary writes leave free. A smaller
// reserve lets writes that are held for space go on at once: the way out when
// a volume is full.
func (v *Volume) SetReserve(chunks int64) error {
	if chunks < 0 {
		return refuse(ErrRequest, "a reserve of %d chunks: the number must not be negative", chunks)
	}
	if chunks > 0 && chunks > v.Status().PhysicalChunks {
		return refuse(ErrRequest, "%d chunks are asked for, and %s has %d", chunks, v.name, v.Status().PhysicalChunks)
	}
	v.alloc.setReserve(chunks)
	v.committer.kick()
	v.emit(Event{Kind: EventAllocated})
	return nil
}
