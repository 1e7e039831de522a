package ondisk

import (
	"fmt"
	"math"
	"strings"
)

// DefaultChunkMultiple is what label makes chunk sizes a multiple of, in bytes:
// MAXPHYS of 64-bit FreeBSD since 13 (sys/param.h).
const DefaultChunkMultiple = 1 << 20

// Limits of a volume. The metadata counts components and reserved chunks in 16 bits
// (sys/geom/virstor/g_virstor_md.h).
const (
	MinChunks     = 4              // chunks of a provider that label or add takes
	MaxComponents = math.MaxUint16 // components
	MaxReserved   = math.MaxUint16 // chunks that component 0 reserves for the map, twice what it takes
)

const (
	kib = 1 << 10
	mib = 1 << 20
)

// LabelProvider is a provider to become a component.
type LabelProvider struct {
	Name       string // with or without /dev/
	Size       int64  // bytes, whole sectors
	SectorSize int    // bytes
}

// LabelRequest is what label is asked for.
type LabelRequest struct {
	Name          string          // of the volume, 1 to MaxNameLen bytes
	VirtualSize   int64           // bytes, rounded by Plan
	ChunkSize     int64           // bytes, rounded by Plan
	Hardcode      bool            // write the providers' names into the metadata
	ID            uint32          // random
	Providers     []LabelProvider // in the order of their indexes
	ChunkMultiple int64           // bytes, a multiple of MinChunkMultiple; 0 is DefaultChunkMultiple
	// SmallChunks makes chunk sizes a multiple of SmallChunkMultiple instead. One that the
	// kernel class does not know makes the volume VersionFenced from the start.
	SmallChunks bool
}

// Layout is what label writes.
type Layout struct {
	Metadata   []Metadata // one for each provider
	SectorSize int        // bytes, of every provider
	MapBytes   int64      // zeros to write at the start of component 0
	MapChunks  uint32     // chunks that the map takes
	// Notices are the lines, without newlines, with which FreeBSD's tool tells
	// on its standard error what it rounded, in its order, and that the kernel class
	// cannot serve the volume.
	Notices []string
	// FittedChunks are the chunks of each provider including one that would
	// reach into the last sector, as FreeBSD's tool prints them.
	FittedChunks []uint32
}

// Plan lays out a new volume as FreeBSD's label does (lib/geom/virstor), byte
// for byte where that tool is right: the chunk size is rounded up, the virtual
// size down to whole chunks and then up until the map is whole sectors. No
// chunk reaches into a last sector. What the format cannot hold, and what the
// tool would make a useless volume of, is refused with one of this package's
// errors.
func Plan(r LabelRequest) (*Layout, error) {
	if err := checkNewName(r.Name); err != nil {
		return nil, err
	}
	l := new(Layout)
	chunk, err := l.roundChunkSize(r)
	if err != nil {
		return nil, err
	}
	if l.SectorSize, err = commonSectorSize(r.Providers); err != nil {
		return nil, err
	}
	virtual, err := l.roundVirtualSize(r.VirtualSize, chunk)
	if err != nil {
		return nil, err
	}
	if err := l.notePhysicalSize(virtual, r.Providers); err != nil {
		return nil, err
	}
	volume := Metadata{
		Version:     Version,
		Name:        r.Name,
		VirtualSize: uint64(virtual),
		ChunkSize:   uint32(chunk),
		ID:          r.ID,
		Count:       uint16(len(r.Providers)),
	}
	if volume.SmallChunks() {
		volume.Version = VersionFenced
		l.notef("Chunks of %d kB: the kernel class cannot serve the volume, which is never handed to it.", chunk/kib)
	}
	l.MapBytes = volume.MapBytes()
	l.MapChunks = volume.MapChunks()
	if l.MapChunks > math.MaxUint16/2 {
		return nil, fmt.Errorf("%w: %d bytes of virtual size need a map of %d chunks of %d bytes, at most %d are possible; use larger chunks",
			ErrMapTooLarge, virtual, l.MapChunks, chunk, math.MaxUint16/2)
	}
	for i, p := range r.Providers {
		if err := l.addComponent(volume, i, p, r.Hardcode); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// addComponent appends the metadata of component i.
func (l *Layout) addComponent(volume Metadata, i int, p LabelProvider, hardcode bool) error {
	m, err := PlanComponent(volume, i, p, hardcode)
	if err != nil {
		return err
	}
	if p.Size < l.MapBytes { // FreeBSD's tool asks it of every provider
		return tooSmall(p, "%d bytes, the map needs %d", p.Size, l.MapBytes)
	}
	if i == 0 {
		m.ChunkReserved = uint16(m.LabelReserves())
		m.ChunkNext = m.LabelReserves()
		m.Flags = FlagAllocated | FlagCurrent
		if m.ChunkCount <= m.ChunkNext {
			return tooSmall(p, "%d chunks, of which %d are reserved for the map, and data needs one at least", m.ChunkCount, m.ChunkReserved)
		}
	}
	l.Metadata = append(l.Metadata, m)
	l.FittedChunks = append(l.FittedChunks, uint32(p.Size/int64(m.ChunkSize)))
	return nil
}

// SizeError is an ErrTooSmall with its reason.
type SizeError struct {
	Provider string
	Why      string // how large it is, and has to be
}

func (e *SizeError) Error() string { return fmt.Sprintf("%v: %s: %s", ErrTooSmall, e.Provider, e.Why) }

// Unwrap makes errors.Is(err, ErrTooSmall) true.
func (e *SizeError) Unwrap() error { return ErrTooSmall }

func tooSmall(p LabelProvider, format string, args ...any) error {
	return &SizeError{p.Name, fmt.Sprintf(format, args...)}
}

// PlanComponent is the metadata of provider p as component index of the volume
// that volume describes, with nothing allocated and nothing reserved. Version,
// count, name, id, chunk and virtual size are volume's: a caller that adds a
// component raises Count beforehand, and has seen to it that p's sectors are
// those of the other components.
func PlanComponent(volume Metadata, index int, p LabelProvider, hardcode bool) (Metadata, error) {
	if index < 0 || index >= int(volume.Count) {
		return Metadata{}, fmt.Errorf("%w: %s as component %d of %d", ErrIndex, p.Name, index, volume.Count)
	}
	if err := checkSectorSize(p.SectorSize); err != nil {
		return Metadata{}, fmt.Errorf("%s: %w", p.Name, err)
	}
	if err := checkMediaSize(p.Size, p.SectorSize); err != nil {
		return Metadata{}, fmt.Errorf("%s: %w", p.Name, err)
	}
	if err := volume.checkChunkSize(); err != nil {
		return Metadata{}, err
	}
	chunk := int64(volume.ChunkSize)
	if p.Size/chunk < MinChunks {
		return Metadata{}, tooSmall(p, "%d bytes, at least %d are needed: %d chunks", p.Size, MinChunks*chunk, MinChunks)
	}
	if p.Size/chunk > math.MaxUint32 {
		return Metadata{}, fmt.Errorf("%w: %s would hold %d chunks, at most %d are possible; use larger chunks",
			ErrChunkCount, p.Name, p.Size/chunk, uint32(math.MaxUint32))
	}
	m := volume
	m.Provider = ""
	if hardcode {
		name, err := hardcodedName(p.Name)
		if err != nil {
			return Metadata{}, err
		}
		m.Provider = name
	}
	m.No = uint16(index)
	m.ProviderSize = uint64(p.Size)
	m.ChunkCount = UsableChunks(p.Size, p.SectorSize, chunk)
	m.ChunkNext = 0
	m.ChunkReserved = 0
	m.Flags = 0
	return m, nil
}

// RoundVirtualSize is size, in bytes, as label makes it a virtual size: down to
// a whole number of chunks, then up by added chunks until the map, EntrySize
// bytes for each, is whole sectors. It fails with ErrVirtualSize when nothing is
// left or the result is beyond 63 bits. chunkSize and sectorSize are those of a
// volume, thus positive.
func RoundVirtualSize(size, chunkSize int64, sectorSize int) (rounded, added int64, err error) {
	if size <= 0 {
		return 0, 0, fmt.Errorf("%w: %d", ErrVirtualSize, size)
	}
	n := size / chunkSize
	if n == 0 {
		return 0, 0, fmt.Errorf("%w: %d is less than one chunk of %d bytes", ErrVirtualSize, size, chunkSize)
	}
	perSector := int64(sectorSize) / EntrySize
	if odd := n % perSector; odd != 0 {
		added = perSector - odd
	}
	if n > math.MaxInt64/chunkSize-added {
		return 0, 0, fmt.Errorf("%w: %d bytes, with %d chunks to fill the map's last sector, are more than %d",
			ErrVirtualSize, size, added, int64(math.MaxInt64))
	}
	return (n + added) * chunkSize, added, nil
}

func (l *Layout) notef(format string, args ...any) {
	l.Notices = append(l.Notices, fmt.Sprintf(format, args...))
}

// roundChunkSize is r's chunk size rounded up.
func (l *Layout) roundChunkSize(r LabelRequest) (int64, error) {
	multiple := r.ChunkMultiple
	if multiple == 0 {
		multiple = DefaultChunkMultiple
	}
	if r.SmallChunks {
		multiple = SmallChunkMultiple
	} else if multiple < 0 || multiple%MinChunkMultiple != 0 {
		return 0, fmt.Errorf("%w: chunks cannot be multiples of %d, which is not one of %d",
			ErrChunkSize, multiple, MinChunkMultiple)
	}
	if r.ChunkSize <= 0 {
		return 0, fmt.Errorf("%w: %d", ErrChunkSize, r.ChunkSize)
	}
	// Rounding up in 64 bits unsigned cannot overflow: both are below 2^63.
	chunk := ceilDiv(uint64(r.ChunkSize), uint64(multiple)) * uint64(multiple)
	if chunk > math.MaxUint32 {
		return 0, fmt.Errorf("%w: %d is 4 GiB or more", ErrChunkSize, r.ChunkSize)
	}
	if chunk != uint64(r.ChunkSize) {
		of := "MAXPHYS ("
		if r.SmallChunks {
			of = "("
		}
		l.notef("Resizing chunk size to be a multiple of %s%d kB).", of, multiple/kib)
		l.notef("New chunk size: %d kB", chunk/kib)
	}
	return int64(chunk), nil
}

// roundVirtualSize is RoundVirtualSize with the notices.
func (l *Layout) roundVirtualSize(size, chunk int64) (int64, error) {
	virtual, added, err := RoundVirtualSize(size, chunk, l.SectorSize)
	if err != nil {
		return 0, err
	}
	if size%chunk != 0 {
		l.notef("Resizing virtual size to be a multiple of chunk size.")
		l.notef("New virtual size: %d MB", (size-size%chunk)/mib)
	}
	if added != 0 {
		l.notef("Resizing virtual size to fit virstor structures.")
		l.notef("New virtual size: %d MB (%d new chunks)", virtual/mib, added)
	}
	return virtual, nil
}

// notePhysicalSize warns of a volume that is not thin.
func (l *Layout) notePhysicalSize(virtual int64, providers []LabelProvider) error {
	var sum int64
	for _, p := range providers {
		if p.Size > math.MaxInt64-sum {
			return fmt.Errorf("%w: %s brings the sum beyond %d bytes", ErrProviderSize, p.Name, int64(math.MaxInt64))
		}
		sum += p.Size
	}
	if virtual < sum {
		l.notef("WARNING: Virtual storage size < Physical available storage (%d < %d)", virtual, sum)
	}
	return nil
}

// commonSectorSize is the sector size of every provider. It also refuses what
// else is wrong with them one by one.
func commonSectorSize(providers []LabelProvider) (int, error) {
	if len(providers) == 0 || len(providers) > MaxComponents {
		return 0, fmt.Errorf("%w: %d, possible are 1 to %d", ErrProviders, len(providers), MaxComponents)
	}
	first := providers[0]
	seen := make(map[string]bool, len(providers))
	for _, p := range providers {
		if err := checkSectorSize(p.SectorSize); err != nil {
			return 0, fmt.Errorf("%s: %w", p.Name, err)
		}
		if p.SectorSize != first.SectorSize {
			return 0, fmt.Errorf("%w (%d on %s needs to be %d)", ErrMixedSectors, p.SectorSize, p.Name, first.SectorSize)
		}
		if err := checkMediaSize(p.Size, p.SectorSize); err != nil {
			return 0, fmt.Errorf("%s: %w", p.Name, err)
		}
		name := strings.TrimPrefix(p.Name, devPrefix)
		if seen[name] {
			return 0, fmt.Errorf("%w: %s", ErrDuplicateProvider, p.Name)
		}
		seen[name] = true
	}
	return first.SectorSize, nil
}
