package space

import (
	"strings"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
)

// Figures is what a Monitor looks at. Counts are chunks.
type Figures struct {
	Volume     string
	ID         uint32
	ChunkSize  int64
	Physical   int64 // that data may use
	Free       int64
	Reserved   int64 // of Free, what ordinary writes leave
	Held       int   // writes
	Writable   bool  // chunks can be allocated and components added
	Degraded   bool
	Spread     bool // components are filled in turn, not one after the other
	Components []ComponentFigures
	Volumes    []VolumeFigures // of the pool beside the first
}

// VolumeFigures are those of a further volume of a pool.
type VolumeFigures struct {
	ID        uint64 // of its map
	Allocated int64  // bytes
	Quota     int64  // bytes that it may have; 0: no limit
}

// ComponentFigures are those of one component.
type ComponentFigures struct {
	Name   string
	Errors string // what of it fails, lately: empty, or "read errors", say
	NoRoom bool   // nothing new can be written to it, lately
	Usable int64  // chunks that data may use
	Free   int64
	Failed bool // a flush of it failed
}

// FiguresOf are those of a volume's status. Whether it is writable is the caller's to
// say.
func FiguresOf(st virstor.Status) Figures {
	f := Figures{Volume: st.Name, ID: st.ID, ChunkSize: st.ChunkSize, Physical: st.PhysicalChunks, Free: st.Free,
		Reserved: st.Reserved, Held: st.Held.Count, Degraded: st.Degraded, Spread: st.Alloc == virstor.Spread}
	for _, c := range st.Components {
		comp := ComponentFigures{Name: c.Name, Usable: int64(c.Usable), Free: int64(c.Free), Failed: c.FlushFailed}
		var errs []string
		for _, t := range c.Trouble {
			if t == virstor.StorageFull {
				comp.NoRoom = true
				continue
			}
			errs = append(errs, t.String())
		}
		comp.Errors = strings.Join(errs, " and ")
		f.Components = append(f.Components, comp)
	}
	for _, v := range st.Volumes {
		f.Volumes = append(f.Volumes, VolumeFigures{ID: v.ID, Allocated: v.Allocated, Quota: v.Quota})
	}
	return f
}

// Available is what ordinary writes may take.
func (s *Figures) Available() int64 { return max(0, s.Free-s.Reserved) }

// used and space are what ordinary writes have taken, and could in all.
func (s *Figures) used() int64  { return max(0, s.Physical-s.Free) }
func (s *Figures) space() int64 { return s.used() + s.Available() }

// percent is how much of the space is used, rounded down. Without any space it
// is all used.
func (s *Figures) percent() int {
	if s.space() == 0 {
		return 100
	}
	return int(float64(s.used()) / float64(s.space()) * 100)
}

// Above reports whether at least p percent are used, without rounding.
func (s *Figures) Above(p int) bool {
	return s.space() == 0 || s.used()*100 >= int64(p)*s.space()
}

// filling is the index of the component that gives the next chunk; the last one
// when all are full, -1 when there is none.
func (s *Figures) filling() int {
	for i, c := range s.Components {
		if c.Free > 0 && !c.Failed {
			return i
		}
	}
	return len(s.Components) - 1
}
