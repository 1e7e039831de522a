package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/mapio"
	"github.com/gvirstor/gvirstor/ondisk"
)

// ErrDamaged: the volume is not one that a backup should be made of.
var ErrDamaged = errors.New("volume is damaged; see `gvirstor check`")

// Backup is what says where everything of a volume is.
type Backup struct {
	Time       time.Time
	Order      ondisk.Order
	Components []Component // by index
	Extension  *ondisk.Extension
	Runs       []Run // by virtual chunk
	Pool       *Pool // nil when there are no snapshots and no further volumes
	// LeftOut are damaged snapshots and volumes, which no backup keeps, and what was made
	// of them.
	LeftOut []string
}

// Component is one provider of the volume and the metadata on it.
type Component struct {
	Name       string // of the provider at that time
	SectorSize int    // bytes
	Metadata   ondisk.Metadata
}

// Run is consecutive virtual chunks on consecutive chunks of one component.
type Run struct {
	Virtual   uint64
	Length    uint64 // at least 1
	Chunk     uint32
	Component uint16
}

// Name is the volume's name as people are shown it.
func (b *Backup) Name() string { return ondisk.Printable(b.Components[0].Metadata.Name) }

// ID is the volume's id.
func (b *Backup) ID() uint32 { return b.Components[0].Metadata.ID }

// Allocated is the number of allocated virtual chunks of the first volume.
func (b *Backup) Allocated() uint64 {
	var n uint64
	for _, r := range b.Runs {
		n += r.Length
	}
	return n
}

// Generation is that of the volume at that time, 0 where it had none.
func (b *Backup) Generation() uint64 { return b.Components[0].Metadata.Member.Generation }

// extend appends an allocated virtual chunk, which comes after all others, to runs.
func extend(runs []Run, vc uint64, component uint16, chunk uint32) []Run {
	if n := len(runs); n > 0 {
		r := &runs[n-1]
		if r.Component == component && r.Virtual+r.Length == vc && uint64(r.Chunk)+r.Length == uint64(chunk) {
			r.Length++
			return runs
		}
	}
	return append(runs, Run{Virtual: vc, Length: 1, Chunk: chunk, Component: component})
}

// ErrChanging: snapshots were taken and deleted again and again meanwhile.
var ErrChanging = errors.New("its snapshots do not stand still")

// changingTries is how often the snapshots of a volume in use are read until no other
// directory of them was put in force meanwhile.
const changingTries = 5

// FromVolume backs up an open volume, with its snapshots and the further volumes of its pool.
// It is one moment of them: nothing is allocated meanwhile.
func FromVolume(ctx context.Context, v *virstor.Volume, now time.Time) (b *Backup, err error) {
	for range changingTries {
		s := v.CopyMap()
		b, err = fromCopy(ctx, v.SectorSize(), s, now)
		if v.Directory() == s.Directory {
			if err != nil {
				return nil, fmt.Errorf("back up %s: %w", v.Name(), err)
			}
			return b, nil
		}
	}
	return nil, fmt.Errorf("back up %s: %w", v.Name(), ErrChanging)
}

func fromCopy(ctx context.Context, sectorSize int, s virstor.MapCopy, now time.Time) (*Backup, error) {
	b := &Backup{Time: now.UTC(), Order: s.Order, Runs: runsOf(s.Mappings)}
	for i, m := range s.Metadata {
		b.Components = append(b.Components, Component{Name: s.Providers[i].Name(), SectorSize: sectorSize, Metadata: m})
	}
	if s.Directory.Exists() {
		live := make(map[uint64][]Run)
		for id, ms := range s.Further {
			live[id] = runsOf(ms)
		}
		if err := b.readPool(ctx, s.Providers, s.Directory, live); err != nil {
			return nil, err
		}
	}
	return b, b.check()
}

// runsOf are mappings as runs.
func runsOf(ms []virstor.Mapping) (runs []Run) {
	for _, m := range ms {
		runs = extend(runs, m.Virtual, m.Component, m.Chunk)
	}
	return runs
}

// FromAssembly backs up a volume that nobody serves, with its snapshots and the further
// volumes of its pool. A damaged one is refused (ErrDamaged): its backup would look like a
// good one. Damaged snapshots and further volumes are left out. progress, if not nil, is told how many bytes of the map have been read.
func FromAssembly(ctx context.Context, a *virstor.Assembly, now time.Time, progress func(done, total int64)) (*Backup, error) {
	if errors.Is(a.Err, virstor.ErrDamaged) {
		return nil, fmt.Errorf("back up %s: %w: %w", a.Name, ErrDamaged, a.Err)
	}
	if a.Err != nil {
		return nil, fmt.Errorf("back up %s: %w", a.Name, a.Err)
	}
	b := &Backup{Time: now.UTC()}
	for _, m := range a.Members {
		b.Components = append(b.Components, Component{Name: m.Provider.Name(), SectorSize: m.Provider.SectorSize(), Metadata: m.Metadata})
	}
	zero := a.Members[0]
	if err := b.checkComponents(); err != nil {
		return nil, fmt.Errorf("back up %s: %w: %w", a.Name, ErrDamaged, err)
	}
	var directory ondisk.Link
	b.Extension, directory = readExtension(zero)
	s := mapio.Scanner{Provider: zero.Provider, Size: zero.Metadata.MapBytes()}
	if progress != nil {
		s.Progress = func(done int64) { progress(done, s.Size) }
	}
	err := s.Each(ctx, func(vc uint64, raw []byte) error {
		if b.Order == ondisk.OrderUnknown {
			b.Order = ondisk.DetectOrder(raw)
		}
		e := ondisk.DecodeEntry(raw, b.Order)
		if e.Flags != ondisk.FlagAllocated {
			if e.Flags == 0 {
				return nil
			}
			return fmt.Errorf("%w: map entry of virtual chunk %d has the flags %#x", ErrDamaged, vc, e.Flags)
		}
		b.Runs = extend(b.Runs, vc, e.Component, e.Chunk)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("back up %s: %w", a.Name, err)
	}
	if directory.Exists() {
		var providers []geomlib.Provider
		for _, m := range a.Members {
			providers = append(providers, m.Provider)
		}
		if err := b.readPool(ctx, providers, directory, nil); err != nil {
			return nil, fmt.Errorf("back up %s: %w: %w", a.Name, ErrDamaged, err)
		}
	}
	if err := b.check(); err != nil {
		return nil, fmt.Errorf("back up %s: %w: %w", a.Name, ErrDamaged, err)
	}
	return b, nil
}

// readExtension is the record in force without the directory of snapshots, nil when there
// is none, and where that directory is.
func readExtension(zero virstor.Member) (*ondisk.Extension, ondisk.Link) {
	e, found, err := virstor.Record(zero.Provider, zero.Metadata)
	if err != nil || !found || e.Validate(zero.Metadata, zero.Provider.SectorSize()) != nil {
		return nil, ondisk.Link{}
	}
	directory := e.Directory
	e.Directory = ondisk.Link{}
	return &e, directory
}

// check refuses what no good volume is.
func (b *Backup) check() error {
	if err := b.checkComponents(); err != nil {
		return err
	}
	entries := b.Components[0].Metadata.Entries()
	if n := len(b.Runs); n > 0 && b.Runs[n-1].Virtual+b.Runs[n-1].Length > entries {
		return fmt.Errorf("run of virtual chunks %d+%d out of place", b.Runs[n-1].Virtual, b.Runs[n-1].Length)
	}
	if err := b.checkRuns(b.Runs); err != nil {
		return err
	}
	if err := b.checkPool(); err != nil {
		return err
	}
	return b.checkShared()
}

// checkRuns refuses runs of one map that are not in order, or on chunks that no data can
// be on.
func (b *Backup) checkRuns(runs []Run) error {
	var next uint64
	for _, r := range runs {
		if r.Length == 0 || r.Virtual < next || r.Virtual >= noVirtual || r.Length > noVirtual-r.Virtual {
			return fmt.Errorf("run of virtual chunks %d+%d out of place", r.Virtual, r.Length)
		}
		next = r.Virtual + r.Length
		if int(r.Component) >= len(b.Components) {
			return fmt.Errorf("virtual chunk %d on component %d of %d", r.Virtual, r.Component, len(b.Components))
		}
		m := b.Components[r.Component].Metadata
		if r.Chunk < uint32(m.ChunkReserved) || r.Chunk >= m.ChunkCount || r.Length > uint64(m.ChunkCount-r.Chunk) {
			return fmt.Errorf("virtual chunk %d on chunk %d of component %d, which has %d to %d", r.Virtual, r.Chunk, r.Component, m.ChunkReserved, m.ChunkCount)
		}
	}
	return nil
}

// checkShared refuses a chunk that two virtual chunks are on, or one and the pool itself.
// Maps may have a chunk for one virtual chunk.
func (b *Backup) checkShared() error {
	system := b.systemRuns()
	maps := [][]Run{b.Runs, system}
	if b.Pool != nil {
		for _, p := range b.Pool.Parts {
			maps = append(maps, p.Runs)
		}
	}
	var byChunk []*Run // a copy of the runs is three times as large
	for _, runs := range maps {
		for i := range runs {
			byChunk = append(byChunk, &runs[i])
		}
	}
	slices.SortFunc(byChunk, func(x, y *Run) int {
		return cmp.Or(cmp.Compare(x.Component, y.Component), cmp.Compare(x.Chunk, y.Chunk))
	})
	var last *Run // that reaches furthest
	end := uint64(0)
	for _, r := range byChunk {
		if last == nil || last.Component != r.Component || uint64(r.Chunk) >= end {
			last, end = r, uint64(r.Chunk)+r.Length
			continue
		}
		was := last.Virtual + uint64(r.Chunk-last.Chunk)
		switch {
		case was == r.Virtual:
			if e := uint64(r.Chunk) + r.Length; e > end {
				last, end = r, e
			}
		case was >= noVirtual || r.Virtual >= noVirtual:
			return fmt.Errorf("chunk %d of component %d has two uses, one of them for maps", r.Chunk, r.Component)
		default:
			return fmt.Errorf("virtual chunks %d and %d are both on chunk %d of component %d", was, r.Virtual, r.Chunk, r.Component)
		}
	}
	return nil
}

// checkComponents refuses metadata that does not go together.
func (b *Backup) checkComponents() error {
	if len(b.Components) == 0 {
		return errors.New("no components")
	}
	zero := b.Components[0]
	for i, c := range b.Components {
		m := c.Metadata
		// Component 0 decides, as in the engine.
		m.No, m.Count, m.VirtualSize, m.Name = uint16(i), uint16(len(b.Components)), zero.Metadata.VirtualSize, zero.Metadata.Name
		if m.ProviderSize > 1<<63-1 {
			return fmt.Errorf("component %d: %w: %d bytes", i, ondisk.ErrProviderSize, m.ProviderSize)
		}
		if err := m.Validate(int64(m.ProviderSize), c.SectorSize); err != nil && !errors.Is(err, ondisk.ErrLastSector) {
			return fmt.Errorf("component %d: %w", i, err)
		}
		if m.ID != zero.Metadata.ID || m.ChunkSize != zero.Metadata.ChunkSize || c.SectorSize != zero.SectorSize {
			return fmt.Errorf("component %d is not of the same volume as component 0", i)
		}
	}
	return nil
}

// metadataOf reads the metadata that is on p; ok is false when there is none.
func metadataOf(p geomlib.Provider) (m ondisk.Metadata, ok bool, err error) {
	m, err = geomlib.ReadMetadata(p)
	if errors.Is(err, geomlib.ErrNoMetadata) || errors.Is(err, ondisk.ErrMemberBlock) {
		return m, false, nil // what is damaged says nothing
	}
	return m, err == nil, err
}
