package ondisk

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

const (
	// MaxMaps is how many volumes and snapshots a directory can name.
	MaxMaps = 4096
	// MaxMapName is the longest PoolMap.Name in bytes.
	MaxMapName = 63
	// MaxMemberNumbers is how many member numbers there are.
	MaxMemberNumbers = 1 << 16
	// FirstMap is the id of the volume that label made.
	FirstMap = 1
)

// Sizes and offsets in the contents of a directory.
const (
	dirOffSequence = 0
	dirOffNextMap  = 8
	dirOffMembers  = 16 // numbers of what follows, 4 bytes each
	dirOffMaps     = 20
	dirOffOwn      = 24
	dirOffOther    = 28
	dirOffReserve  = 32 // then 4 bytes of zeros
	dirHeader      = 40

	dirMemberSize = 16 // number, 6 bytes of zeros, id

	mapOffID     = 0
	mapOffOrigin = 8
	mapOffTime   = 16
	mapOffSize   = 24
	mapOffQuota  = 32 // of a snapshot its GUID
	mapOffKind   = 40 // then 7 bytes of zeros
	mapOffList   = 48
	mapOffName   = mapOffList + LinkSize
	dirMapSize   = mapOffName + MaxMapName + 1
)

// MapKind tells volumes from snapshots.
type MapKind uint8

// The kinds.
const (
	KindVolume   MapKind = iota + 1 // changes
	KindSnapshot                    // does not
)

// String is what a map of the kind is called.
func (k MapKind) String() string {
	switch k {
	case KindVolume:
		return "volume"
	case KindSnapshot:
		return "snapshot"
	}
	return fmt.Sprintf("map of kind %d", uint8(k))
}

// PoolMap is a volume or a snapshot of a pool.
type PoolMap struct {
	ID     uint64 // FirstMap, or a higher one that no other map had before
	Kind   MapKind
	Origin uint64 // of a snapshot the volume, of a clone the snapshot; otherwise 0
	// Name is what follows "POOL/" for a volume, "" for the first; for a snapshot
	// what follows the "@".
	Name  string
	Time  int64  // when it was made, seconds since 1970
	Size  uint64 // bytes; 0 for the first volume, whose size the metadata has
	Quota uint64 // bytes of chunks that a volume may name; 0 is no limit
	GUID  GUID   // of a snapshot
	List  Link   // to its MapList; none for the first volume, whose map is where it was
}

// NumberedMember says which member a number means.
type NumberedMember struct {
	Number uint16
	ID     uint64 // MemberBlock.ID
}

// Address is a chunk of a component that is named by its member number.
type Address struct {
	Number uint16
	Chunk  uint32 // on that component
}

// Directory says what volumes and snapshots a pool has, and which chunks belong to
// the pool itself. It is a chain that exists twice; the record of the extension
// block says which copy is in force.
type Directory struct {
	Sequence uint64           // one more for each directory that is written
	NextMap  uint64           // the id that the next map is given
	Members  []NumberedMember // by number, ascending
	Maps     []PoolMap        // by id, ascending; the first is the first volume
	// Own are the chunks of this copy, beginning with those that it takes in their
	// order, Other those of the other copy, and Reserve those that are kept back.
	Own, Other, Reserve []Address
}

// Member is the id of the member that has the number.
func (d *Directory) Member(number uint16) (id uint64, ok bool) {
	i, ok := slices.BinarySearchFunc(d.Members, number, func(m NumberedMember, n uint16) int {
		return cmp.Compare(m.Number, n)
	})
	if !ok {
		return 0, false
	}
	return d.Members[i].ID, true
}

// Map is the volume or snapshot with the id.
func (d *Directory) Map(id uint64) (PoolMap, bool) {
	i, ok := slices.BinarySearchFunc(d.Maps, id, func(m PoolMap, id uint64) int { return cmp.Compare(m.ID, id) })
	if !ok {
		return PoolMap{}, false
	}
	return d.Maps[i], true
}

// Title is what a map of d is called within its pool: the name of a snapshot of the first
// volume, "/web" for another volume, and "/web@monday" for a snapshot of that.
func (d *Directory) Title(m PoolMap) string {
	switch of, _ := d.Map(m.Origin); {
	case m.Kind == KindVolume:
		return "/" + m.Name
	case m.Origin != FirstMap:
		return "/" + of.Name + "@" + m.Name
	}
	return m.Name
}

// Encode gives the contents of the chain. It fails with ErrDirectory when
// DecodeDirectory would not take them, and with ErrChain when they are longer
// than MaxChain.
func (d *Directory) Encode() ([]byte, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	if size := d.size(); size > MaxChain {
		return nil, fmt.Errorf("%w: a directory of %d bytes, at most %d are possible", ErrChain, size, MaxChain)
	}
	return d.encode(), nil
}

func (d *Directory) size() int {
	return dirHeader + len(d.Members)*dirMemberSize + len(d.Maps)*dirMapSize +
		(len(d.Own)+len(d.Other)+len(d.Reserve))*EntrySize
}

func (d *Directory) encode() []byte {
	le := binary.LittleEndian
	b := make([]byte, dirHeader, d.size())
	le.PutUint64(b[dirOffSequence:], d.Sequence)
	le.PutUint64(b[dirOffNextMap:], d.NextMap)
	le.PutUint32(b[dirOffMembers:], uint32(len(d.Members)))
	le.PutUint32(b[dirOffMaps:], uint32(len(d.Maps)))
	le.PutUint32(b[dirOffOwn:], uint32(len(d.Own)))
	le.PutUint32(b[dirOffOther:], uint32(len(d.Other)))
	le.PutUint32(b[dirOffReserve:], uint32(len(d.Reserve)))
	for _, m := range d.Members {
		b = le.AppendUint64(b, uint64(m.Number))
		b = le.AppendUint64(b, m.ID)
	}
	for _, m := range d.Maps {
		b = append(b, make([]byte, dirMapSize)...)
		m.encode(b[len(b)-dirMapSize:])
	}
	for _, chunks := range [...][]Address{d.Own, d.Other, d.Reserve} {
		for _, a := range chunks {
			b = append(b, make([]byte, EntrySize)...)
			a.entry().Encode(b[len(b)-EntrySize:], LittleEndian)
		}
	}
	return b
}

func (m *PoolMap) encode(b []byte) {
	le := binary.LittleEndian
	le.PutUint64(b[mapOffID:], m.ID)
	le.PutUint64(b[mapOffOrigin:], m.Origin)
	le.PutUint64(b[mapOffTime:], uint64(m.Time))
	le.PutUint64(b[mapOffSize:], m.Size)
	le.PutUint64(b[mapOffQuota:], m.Quota)
	if m.Kind == KindSnapshot {
		le.PutUint64(b[mapOffQuota:], uint64(m.GUID))
	}
	b[mapOffKind] = byte(m.Kind)
	m.List.encode(b[mapOffList:])
	copy(b[mapOffName:dirMapSize], m.Name)
}

func decodePoolMap(b []byte) PoolMap {
	le := binary.LittleEndian
	m := PoolMap{
		ID:     le.Uint64(b[mapOffID:]),
		Kind:   MapKind(b[mapOffKind]),
		Origin: le.Uint64(b[mapOffOrigin:]),
		Name:   textOf(b[mapOffName:dirMapSize]),
		Time:   int64(le.Uint64(b[mapOffTime:])),
		Size:   le.Uint64(b[mapOffSize:]),
		Quota:  le.Uint64(b[mapOffQuota:]),
		List:   decodeLink(b[mapOffList:]),
	}
	if m.Kind == KindSnapshot {
		m.GUID, m.Quota = GUID(m.Quota), 0
	}
	return m
}

// entry is the address as an allocated entry of a map.
func (a Address) entry() Entry { return Entry{FlagAllocated, a.Number, a.Chunk} }

// DecodeDirectory reads the contents of a chain. It fails with ErrDirectory.
// Whoever acts on it asks Validate first.
func DecodeDirectory(b []byte) (*Directory, error) {
	if len(b) < dirHeader {
		return nil, fmt.Errorf("%w: %d bytes", ErrDirectory, len(b))
	}
	le := binary.LittleEndian
	d := &Directory{Sequence: le.Uint64(b[dirOffSequence:]), NextMap: le.Uint64(b[dirOffNextMap:])}
	var counts [5]int
	for i := range counts {
		counts[i] = int(le.Uint32(b[dirOffMembers+4*i:]))
	}
	want := dirHeader + counts[0]*dirMemberSize + counts[1]*dirMapSize + (counts[2]+counts[3]+counts[4])*EntrySize
	if len(b) != want {
		return nil, fmt.Errorf("%w: %d bytes, what it says to hold takes %d", ErrDirectory, len(b), want)
	}
	rest := b[dirHeader:]
	for ; len(d.Members) < counts[0]; rest = rest[dirMemberSize:] {
		d.Members = append(d.Members, NumberedMember{le.Uint16(rest), le.Uint64(rest[8:])})
	}
	for ; len(d.Maps) < counts[1]; rest = rest[dirMapSize:] {
		d.Maps = append(d.Maps, decodePoolMap(rest))
	}
	for i, chunks := range [...]*[]Address{&d.Own, &d.Other, &d.Reserve} {
		for ; len(*chunks) < counts[2+i]; rest = rest[EntrySize:] {
			e := DecodeEntry(rest, LittleEndian)
			*chunks = append(*chunks, Address{e.Component, e.Chunk})
		}
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	// What encode would write differently is of no meaning known here.
	if string(d.encode()) != string(b) {
		return nil, fmt.Errorf("%w: unused bytes that are not zero", ErrDirectory)
	}
	return d, nil
}

// check refuses what has no meaning in any pool.
func (d *Directory) check() error {
	switch {
	case len(d.Maps) == 0 || len(d.Maps) > MaxMaps:
		return fmt.Errorf("%w: %d volumes and snapshots, 1 to %d are possible", ErrDirectory, len(d.Maps), MaxMaps)
	case d.Sequence > math.MaxInt64 || d.NextMap > math.MaxInt64:
		return fmt.Errorf("%w: sequence number %d, next id %d", ErrDirectory, d.Sequence, d.NextMap)
	}
	if err := d.checkNumbers(); err != nil {
		return err
	}
	for i := range d.Maps {
		if err := d.checkMap(i); err != nil {
			return err
		}
	}
	if err := d.checkNames(); err != nil {
		return err
	}
	return d.checkChunks()
}

func (d *Directory) checkNumbers() error {
	ids := make(map[uint64]bool, len(d.Members))
	for i, m := range d.Members {
		if m.ID == 0 || ids[m.ID] || i > 0 && m.Number <= d.Members[i-1].Number {
			return fmt.Errorf("%w: number %d for member %016x, behind number %d", ErrDirectory, m.Number, m.ID, d.Members[max(i, 1)-1].Number)
		}
		ids[m.ID] = true
	}
	return nil
}

// checkMap looks at one volume or snapshot. An origin is older than what comes
// from it, so that no chain of origins ends where it began.
func (d *Directory) checkMap(i int) error {
	m := d.Maps[i]
	before := uint64(0)
	if i > 0 {
		before = d.Maps[i-1].ID
	}
	origin, known := d.Map(m.Origin)
	first := m.ID == FirstMap
	switch {
	case m.Kind != KindVolume && m.Kind != KindSnapshot:
		return fmt.Errorf("%w: unknown %v", ErrDirectory, m.Kind)
	case m.ID <= before || m.ID >= d.NextMap || first != (i == 0):
		return fmt.Errorf("%w: id %d behind %d, the next is to be %d", ErrDirectory, m.ID, before, d.NextMap)
	case first && (m.Kind != KindVolume || m.Name != "" || m.Size != 0 || m.List.Exists()):
		return fmt.Errorf("%w: the first volume is a %v %q of %d bytes with a list", ErrDirectory, m.Kind, m.Name, m.Size)
	case !first && (m.Size == 0 || m.Size > math.MaxInt64 || !m.List.Exists()):
		return fmt.Errorf("%w: %v %d of %d bytes, list %v", ErrDirectory, m.Kind, m.ID, m.Size, m.List)
	case m.Kind == KindSnapshot && (!known || origin.Kind != KindVolume || m.Quota != 0):
		return fmt.Errorf("%w: snapshot %d of volume %d, quota %d", ErrDirectory, m.ID, m.Origin, m.Quota)
	case m.Kind == KindVolume && m.GUID != 0:
		return fmt.Errorf("%w: volume %d has the GUID %v of a snapshot", ErrDirectory, m.ID, m.GUID)
	case m.Kind == KindVolume && m.Origin != 0 && (!known || origin.Kind != KindSnapshot):
		return fmt.Errorf("%w: volume %d is a clone of snapshot %d", ErrDirectory, m.ID, m.Origin)
	case m.Origin >= m.ID && m.Origin != 0:
		return fmt.Errorf("%w: %v %d comes from a later one, %d", ErrDirectory, m.Kind, m.ID, m.Origin)
	case !first:
		return CheckMapName(m.Name)
	}
	return nil
}

// checkNames refuses two volumes of one name, and two snapshots of one volume.
func (d *Directory) checkNames() error {
	type full struct {
		of   uint64
		name string
	}
	taken := make(map[full]bool, len(d.Maps))
	for _, m := range d.Maps {
		name := full{name: m.Name}
		if m.Kind == KindSnapshot {
			name.of = m.Origin
		}
		if taken[name] {
			return fmt.Errorf("%w: two %vs of the name %q", ErrDirectory, m.Kind, m.Name)
		}
		taken[name] = true
	}
	return nil
}

// checkChunks refuses a system chunk that has two uses, or of no known member.
func (d *Directory) checkChunks() error {
	used := make(map[Address]bool, len(d.Own)+len(d.Other)+len(d.Reserve))
	for _, chunks := range [...][]Address{d.Own, d.Other, d.Reserve} {
		for _, a := range chunks {
			if _, ok := d.Member(a.Number); !ok || used[a] {
				return fmt.Errorf("%w: chunk %d of member number %d, which is unknown or has it twice", ErrDirectory, a.Chunk, a.Number)
			}
			used[a] = true
		}
	}
	return nil
}

// CheckMapName tells whether a volume beside the first, or a snapshot, may have
// the name: 1 to MaxMapName letters, digits and ". _ - :", not "." or "..".
// Otherwise the error is ErrMapName, with the reason.
func CheckMapName(name string) error {
	if name == "" || len(name) > MaxMapName {
		return fmt.Errorf("%w: %q has %d bytes, 1 to %d are possible", ErrMapName, name, len(name), MaxMapName)
	}
	if name == "." || name == ".." {
		return fmt.Errorf("%w: %q", ErrMapName, name)
	}
	for _, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '.', c == '_', c == '-', c == ':':
		default:
			return fmt.Errorf("%w: %q has the character %q; letters, digits and . _ - : are possible", ErrMapName, name, c)
		}
	}
	return nil
}
