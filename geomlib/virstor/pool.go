package virstor

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
	"github.com/gvirstor/gvirstor/ondisk"
)

// pool is what the components hold beside the volume's map: its snapshots, and the
// directory of them.
//
// The owners of a chunk are the maps that name it. Nobody counts them: a chunk has the
// same virtual number in every map that names it, so whether a snapshot names that of a
// map entry is looked up in the snapshots' entries of that number (chunkmap.Map.IsNamed).
type pool struct {
	// others: there are other maps than the volume's, or one is being made.
	others atomic.Bool
	names  atomic.Pointer[snapshotNames] // nil: of none
	heads  atomic.Pointer[[]*Head]       // nil: the first one alone
	// numbers are the member numbers by index of the component, as the directory in force has them.
	numbers atomic.Pointer[[]uint16]

	// The rest is guarded by Volume.metaMu.
	dir   *ondisk.Directory // in force; nil: none
	snaps []*snapshot       // in the order of their ids
	doubt error             // which directory is in force is not known, since that failed
}

// snapshot is a map that does not change.
type snapshot struct {
	ondisk.PoolMap
	of     *Head
	frozen *chunkmap.Frozen // nil: damaged
	damage error
	stored storedMap
	views  int // how many read it; guarded by Volume.metaMu
}

// storedMap is where the map of a snapshot or of a further volume lies.
type storedMap struct {
	list  []alloc.Phys // the chunks that say where the parts are
	parts []mapPart
}

// mapPart is a chunk of such a map.
type mapPart struct {
	at   alloc.Phys
	hole bool   // there is none: nothing in its part of the map is allocated
	sum  uint64 // of a snapshot's
}

// chunks are those of the map and of its list.
func (m *storedMap) chunks() []alloc.Phys {
	ps := slices.Clone(m.list)
	for _, p := range m.parts {
		if !p.hole {
			ps = append(ps, p.at)
		}
	}
	return ps
}

// each calls do with each chunk, to change it.
func (m *storedMap) each(do func(*alloc.Phys)) {
	for i := range m.list {
		do(&m.list[i])
	}
	for i := range m.parts {
		do(&m.parts[i].at)
	}
}

func (m *storedMap) clone() *storedMap {
	return &storedMap{slices.Clone(m.list), slices.Clone(m.parts)}
}

// snapshotNames are what snapshots are called, the oldest first, and of what is damaged volumes,
// too.
type snapshotNames struct{ all, damaged []string }

// namedFew is how many snapshots an error names.
const namedFew = 3

// String is all of them, or the first few.
func (n *snapshotNames) String() string {
	if n == nil {
		return "one that is being taken"
	}
	return firstOf(n.all)
}

// firstOf is all of names, or the first few.
func firstOf(names []string) string {
	few := names[:min(len(names), namedFew)]
	s := strings.Join(few, ", ")
	if more := len(names) - len(few); more > 0 {
		s += fmt.Sprintf(" and %d more", more)
	}
	return s
}

// nameSnapshots keeps their names for who looks without a lock. v.metaMu is held, or nobody
// else knows the volume yet.
func (v *Volume) nameSnapshots() {
	n := new(snapshotNames)
	for _, h := range v.further() {
		if h.origin != nil {
			from := h.origin.of.ownName() + "@" + h.origin.Name
			h.from.Store(&from)
		}
		if h.damage != nil {
			n.damaged = append(n.damaged, "/"+h.ownName())
		}
	}
	if len(v.pool.snaps) == 0 && n.damaged == nil {
		v.pool.names.Store(nil)
		return
	}
	for _, s := range v.pool.snaps {
		n.all = append(n.all, s.title())
		if s.damage != nil {
			n.damaged = append(n.damaged, s.title())
		}
	}
	v.pool.names.Store(n)
}

// Errors about snapshots. They come wrapped with what was attempted.
var (
	// ErrSnapshotDamaged: nobody knows which chunks a snapshot, or a further volume, names.
	ErrSnapshotDamaged = errors.New("a snapshot or volume is damaged, and nobody knows which chunks it has")
	// ErrNoSnapshot: there is no snapshot of that name.
	ErrNoSnapshot = errors.New("no such snapshot")
	// ErrSnapshotExists: there is a snapshot of that name.
	ErrSnapshotExists = errors.New("there is a snapshot of that name")
	// ErrSnapshotInUse: the snapshot is being read.
	ErrSnapshotInUse = errors.New("the snapshot is in use")
	// ErrBusy: writes that were under way did not end soon.
	ErrBusy = errors.New("writes do not end")
	// ErrTooMany: the pool has as many snapshots as its directory can name.
	ErrTooMany = errors.New("too many snapshots")
)

// mapsKnown refuses what moves chunks while a snapshot is damaged: nobody knows which ones
// it names.
func (v *Volume) mapsKnown() error {
	n := v.pool.names.Load()
	if n == nil || n.damaged == nil {
		return nil
	}
	return fmt.Errorf("%w: start again if a disk could not be read; else what it alone holds is lost, and it can be deleted (%s)", ErrSnapshotDamaged, firstOf(n.damaged))
}

// setDirectory notes which directory is in force; nil: none. v.metaMu is held, or nobody else
// knows the volume yet.
func (v *Volume) setDirectory(d *ondisk.Directory) {
	v.pool.dir = d
	v.setNumbers()
}

// setNumbers notes the numbers of the components by their indexes, which have changed. v.metaMu
// is held and the committers are paused, or no index has changed.
func (v *Volume) setNumbers() {
	if now := v.pool.numbers.Load(); v.cfg.breaks(breakOldNumbers) && now != nil && len(*now) >= len(v.components()) {
		return
	}
	n := v.numbersOf(v.pool.dir)
	v.pool.numbers.Store(&n.number)
}

// mapsLocked is how many volumes and snapshots there are. v.metaMu is held.
func (v *Volume) mapsLocked() int { return len(v.heads()) + len(v.pool.snaps) }

// poolGeometry is what a directory and maps can name.
func (v *Volume) poolGeometry() ondisk.Pool {
	p := ondisk.Pool{ChunkSize: uint32(v.chunk), SectorSize: int(v.sector), Components: make(map[uint64]ondisk.PoolComponent)}
	for _, c := range v.components() {
		p.Components[c.member] = ondisk.PoolComponent{Reserved: c.first(), Chunks: c.usable()}
	}
	return p
}

// memberNumbers says which component each member number of a directory means, and back.
type memberNumbers struct {
	members []ondisk.NumberedMember
	index   map[uint16]uint16 // component by number
	number  []uint16          // number by component
	id      map[uint16]uint64 // member id by component
}

// numbersOf are those of d, which fits the pool, and for components that it does not know
// the lowest ones that are free. A nil d knows none.
func (v *Volume) numbersOf(d *ondisk.Directory) memberNumbers {
	n := memberNumbers{index: make(map[uint16]uint16), number: make([]uint16, len(v.components())), id: make(map[uint16]uint64)}
	byID := make(map[uint64]uint16)
	if d != nil {
		for _, m := range d.Members {
			byID[m.ID] = m.Number
		}
	}
	taken := make(map[uint16]uint64)
	for id, number := range byID {
		taken[number] = id
	}
	next := uint16(0)
	for i, c := range v.components() {
		number, known := byID[c.member]
		for !known {
			if _, known = taken[next]; !known {
				number, taken[next] = next, c.member
				break
			}
			next, known = next+1, false
		}
		n.index[number], n.number[i], n.id[uint16(i)] = uint16(i), number, c.member
	}
	for number := range ondisk.MaxMemberNumbers {
		if id, ok := taken[uint16(number)]; ok {
			n.members = append(n.members, ondisk.NumberedMember{Number: uint16(number), ID: id})
		}
		if len(n.members) == len(taken) {
			break
		}
	}
	return n
}

func (n memberNumbers) phys(a ondisk.Address) alloc.Phys {
	return alloc.Phys{Comp: n.index[a.Number], Chunk: a.Chunk}
}

func (n memberNumbers) address(p alloc.Phys) ondisk.Address {
	return ondisk.Address{Number: n.number[p.Comp], Chunk: p.Chunk}
}

func (n memberNumbers) place(p alloc.Phys) ondisk.Place {
	return ondisk.Place{Member: n.id[p.Comp], Chunk: p.Chunk}
}

func (n memberNumbers) addresses(ps []alloc.Phys) []ondisk.Address {
	as := make([]ondisk.Address, len(ps))
	for i, p := range ps {
		as[i] = n.address(p)
	}
	return as
}

func (n memberNumbers) allPhys(as []ondisk.Address) []alloc.Phys {
	ps := make([]alloc.Phys, len(as))
	for i, a := range as {
		ps[i] = n.phys(a)
	}
	return ps
}

func (n memberNumbers) places(ps []alloc.Phys) []ondisk.Place {
	places := make([]ondisk.Place, len(ps))
	for i, p := range ps {
		places[i] = n.place(p)
	}
	return places
}

// physOf is where a member's chunk is.
func (v *Volume) physOf(at ondisk.Place) alloc.Phys {
	for i, c := range v.components() {
		if c.member == at.Member {
			return alloc.Phys{Comp: uint16(i), Chunk: at.Chunk}
		}
	}
	return alloc.Phys{}
}

// SnapshotInfo is a snapshot of a volume.
type SnapshotInfo struct {
	Name string
	ID   uint64
	Time int64 // when it was made, seconds since 1970
	Size int64 // of the volume then, bytes
	GUID ondisk.GUID
	// Err, if not nil, is why it cannot be read: its map is damaged.
	Err error
}

// Snapshots are those of the volume, the oldest first.
func (h *Head) Snapshots() []SnapshotInfo {
	h.v.metaMu.Lock()
	defer h.v.metaMu.Unlock()
	var infos []SnapshotInfo
	for _, s := range h.snapshots() {
		infos = append(infos, SnapshotInfo{Name: s.Name, ID: s.ID, Time: s.Time, Size: int64(s.Size), GUID: s.GUID, Err: s.damage})
	}
	return infos
}

// snapshotLocked is the snapshot of that name; v.metaMu is held.
func (h *Head) snapshotLocked(name string) (*snapshot, error) {
	for _, s := range h.snapshots() {
		if s.Name == name {
			return s, nil
		}
	}
	return nil, fmt.Errorf("%s@%s: %w", h.Name(), ondisk.Printable(name), ErrNoSnapshot)
}
