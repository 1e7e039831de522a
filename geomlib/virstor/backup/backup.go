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

// Allocated is the number of allocated virtual chunks.
func (b *Backup) Allocated() uint64 {
	var n uint64
	for _, r := range b.Runs {
		n += r.Length
	}
	return n
}

// Generation is that of the volume at that time, 0 where it had none.
func (b *Backup) Generation() uint64 { return b.Components[0].Metadata.Member.Generation }

// add appends an allocated virtual chunk, which comes after all others.
func (b *Backup) add(vc uint64, component uint16, chunk uint32) {
	if n := len(b.Runs); n > 0 {
		r := &b.Runs[n-1]
		if r.Component == component && r.Virtual+r.Length == vc && uint64(r.Chunk)+r.Length == uint64(chunk) {
			r.Length++
			return
		}
	}
	b.Runs = append(b.Runs, Run{Virtual: vc, Length: 1, Chunk: chunk, Component: component})
}

// FromVolume backs up an open volume. It is one moment of it: nothing is
// allocated meanwhile.
func FromVolume(v *virstor.Volume, now time.Time) (*Backup, error) {
	s := v.CopyMap()
	b := &Backup{Time: now.UTC(), Order: s.Order}
	for i, m := range s.Metadata {
		b.Components = append(b.Components, Component{Name: s.Names[i], SectorSize: v.SectorSize(), Metadata: m})
	}
	for _, m := range s.Mappings {
		b.add(m.Virtual, m.Component, m.Chunk)
	}
	if err := b.check(); err != nil {
		return nil, fmt.Errorf("back up %s: %w", v.Name(), err)
	}
	return b, nil
}

// FromAssembly backs up a volume that nobody serves, without its snapshots. A damaged one
// is refused (ErrDamaged): its backup would look like a good one. progress, if not nil, is
// told how many bytes of the map have been read.
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
	b.Extension = readExtension(zero)
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
		b.add(vc, e.Component, e.Chunk)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("back up %s: %w", a.Name, err)
	}
	if err := b.check(); err != nil {
		return nil, fmt.Errorf("back up %s: %w: %w", a.Name, ErrDamaged, err)
	}
	return b, nil
}

// readExtension is the record in force without the directory of snapshots, nil when there
// is none.
func readExtension(zero virstor.Member) *ondisk.Extension {
	e, found, err := virstor.Record(zero.Provider, zero.Metadata)
	if err != nil || !found || e.Validate(zero.Metadata, zero.Provider.SectorSize()) != nil {
		return nil
	}
	e.Directory = ondisk.Link{}
	return &e
}

// check refuses what no good volume is.
func (b *Backup) check() error {
	if err := b.checkComponents(); err != nil {
		return err
	}
	entries := b.Components[0].Metadata.Entries()
	var next uint64
	for _, r := range b.Runs {
		if r.Length == 0 || r.Virtual < next || r.Virtual >= entries || r.Length > entries-r.Virtual {
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
	return b.checkShared()
}

// checkShared refuses a chunk that two virtual chunks are on.
func (b *Backup) checkShared() error {
	byChunk := make([]uint32, len(b.Runs)) // indexes: a copy of the runs is six times as large
	for i := range byChunk {
		byChunk[i] = uint32(i)
	}
	slices.SortFunc(byChunk, func(i, j uint32) int {
		x, y := &b.Runs[i], &b.Runs[j]
		return cmp.Or(cmp.Compare(x.Component, y.Component), cmp.Compare(x.Chunk, y.Chunk))
	})
	for i := range byChunk[min(1, len(byChunk)):] {
		x, y := b.Runs[byChunk[i]], b.Runs[byChunk[i+1]]
		if x.Component == y.Component && uint64(y.Chunk) < uint64(x.Chunk)+x.Length {
			return fmt.Errorf("virtual chunks %d and %d are both on chunk %d of component %d",
				x.Virtual+uint64(y.Chunk-x.Chunk), y.Virtual, y.Chunk, x.Component)
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
