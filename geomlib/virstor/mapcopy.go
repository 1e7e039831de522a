package virstor

import (
	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Mapping is where one virtual chunk lies.
type Mapping struct {
	Virtual   uint64
	Component uint16
	Chunk     uint32
}

// MapCopy is the metadata and the allocation map of a volume at one moment.
type MapCopy struct {
	Providers []geomlib.Provider // by index; to be read only
	Metadata  []ondisk.Metadata  // by index
	Order     ondisk.Order
	Mappings  []Mapping   // by virtual chunk
	Directory ondisk.Link // of snapshots; none without any
}

// CopyMap copies what says where everything is. Nothing is allocated, moved,
// freed, added or removed meanwhile; reads and overwrites go on. It waits for
// what is being committed.
func (v *Volume) CopyMap() MapCopy {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	v.committer.pause()
	defer v.committer.unpause()
	s := MapCopy{Order: v.order, Directory: v.meta.ext.rec.Directory}
	for _, c := range v.components() {
		s.Providers = append(s.Providers, c.prov())
		s.Metadata = append(s.Metadata, c.meta())
	}
	n := uint64(v.Size() / v.chunk)
	for vc := v.chunks.NextAllocated(0, n); vc < n; vc = v.chunks.NextAllocated(vc+1, n) {
		p := v.chunks.Load(vc).Phys()
		s.Mappings = append(s.Mappings, Mapping{Virtual: vc, Component: p.Comp, Chunk: p.Chunk})
	}
	return s
}

// Directory is where the directory of snapshots that is in force lies; none without any.
func (v *Volume) Directory() ondisk.Link {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	return v.meta.ext.rec.Directory
}
