package virstor

import "github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"

// SnapshotSizes are how much a snapshot holds, in bytes of whole chunks, without its map.
type SnapshotSizes struct {
	Refers  int64 // of the chunks that it names
	Unique  int64 // of these, that nothing else names: what comes free when it is deleted
	Written int64 // of the virtual chunks that the volume was written to since, or gave up
}

// SnapshotSizes are those of the snapshots that can be read, by their ids. While one cannot,
// nothing comes free, and Unique is 0. Who writes waits for one page of the map at a time.
func (h *Head) SnapshotSizes() map[uint64]SnapshotSizes {
	h.v.metaMu.Lock()
	defer h.v.metaMu.Unlock()
	sizes := make(map[*chunkmap.Frozen]*chunkmap.Sizes)
	for _, s := range h.snapshots() {
		if s.frozen != nil {
			sizes[s.frozen] = new(chunkmap.Sizes)
		}
	}
	var rest chunkmap.Sizes // of a snapshot that is not among them yet, or not any more
	of := func(f *chunkmap.Frozen) *chunkmap.Sizes {
		if s := sizes[f]; s != nil {
			return s
		}
		return &rest
	}
	end := uint64(h.Size() / h.v.chunk)
	for page := uint64(0); page*chunkmap.PageEntries < end && len(sizes) > 0; page++ {
		h.committer.pause()
		h.chunks.AddSizes(page, of)
		h.committer.unpause()
	}
	all := make(map[uint64]SnapshotSizes)
	for _, s := range h.snapshots() {
		if n := sizes[s.frozen]; s.frozen != nil {
			all[s.ID] = SnapshotSizes{int64(n.Named) * h.v.chunk, int64(n.Alone) * h.v.chunk, int64(n.Since) * h.v.chunk}
		}
	}
	return all
}
