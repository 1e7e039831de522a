package virstor

import (
	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
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
	Mappings  []Mapping   // of the first volume, by virtual chunk
	Directory ondisk.Link // of snapshots and further volumes; none without any
	// Further are the Mappings of the further volumes, by the ids of their maps
	// (ondisk.PoolMap). Those that are damaged are missing.
	Further map[uint64][]Mapping
}

// CopyMap copies what says where everything is, but for the maps of snapshots. Nothing is allocated, moved,
// freed, added or removed meanwhile; reads and overwrites go on. It waits for
// what is being committed.
func (v *Volume) CopyMap() MapCopy {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	v.pauseAll()
	defer v.unpauseAll()
	s := MapCopy{Order: v.order, Directory: v.meta.ext.rec.Directory, Mappings: v.mappings()}
	for _, h := range v.further() {
		if h.damage != nil {
			continue
		}
		if s.Further == nil {
			s.Further = make(map[uint64][]Mapping)
		}
		s.Further[h.mapID] = h.mappings()
	}
	for _, c := range v.components() {
		s.Providers = append(s.Providers, c.prov())
		s.Metadata = append(s.Metadata, c.meta())
	}
	return s
}

// mappings are those of the map in memory, which does not change meanwhile.
func (h *Head) mappings() (ms []Mapping) {
	h.eachWord(func(vc uint64, p alloc.Phys) bool {
		ms = append(ms, Mapping{Virtual: vc, Component: p.Comp, Chunk: p.Chunk})
		return true
	})
	return ms
}

// Directory is where the directory that is in force lies; none without any.
func (v *Volume) Directory() ondisk.Link {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	return v.meta.ext.rec.Directory
}
