package backup

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/signature"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/extblock"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/mapio"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/poolio"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Reasons why a backup is not restored. They come wrapped with the details.
var (
	// ErrProviders: the providers given are not those of the backup.
	ErrProviders = errors.New("the providers are not those of the backup")
	// ErrNewer: the volume or a further one of its pool was used since, or its snapshots changed;
	// RestoreOptions.Force overrules it.
	ErrNewer = errors.New("the volume has changed since the backup")
	// ErrForeign: a provider holds something that no component does; likewise.
	ErrForeign = errors.New("it may be no component of the volume")
	// ErrInterrupted: the backup was made in the middle of an operation.
	ErrInterrupted = errors.New("the backup was made while an operation was under way")
)

// RestoreOptions modify Restore.
type RestoreOptions struct {
	// Force restores though the volume has changed since, and on what may be no
	// component. What was written to chunks that the backup does not have is lost.
	Force bool
	// InOrder takes the providers for the components 0, 1, … in their order,
	// when neither metadata nor names nor sizes tell.
	InOrder bool
	// DryRun checks all, and writes nothing.
	DryRun bool
	// Above is the highest generation of the volume that this host served. The next one
	// is above it, and above those on the providers.
	Above uint64
	// RunDir is where volumes are locked while they are served
	// (geomlib.DefaultRunDir); empty: the caller has the lock.
	RunDir string
	// Begins, if not nil, is called when nothing is left that could be refused, before
	// anything is written, with component 0 and the metadata that it gets. An error of
	// it ends Restore.
	Begins func(zero geomlib.Provider, m ondisk.Metadata) error
	Log    *slog.Logger
	// Progress, if not nil, is told again and again how many bytes of the map
	// have been compared and then written.
	Progress func(done, total int64)
}

// Restored is what Restore did, or would do.
type Restored struct {
	Providers []string // by component
	// Lost and Moved are how many virtual chunks, of all volumes, are allocated now and
	// not in the backup, and elsewhere in it.
	Lost, Moved uint64
	// StaysFenced are the reasons why a volume that the kernel class could
	// have taken at the time of the backup is kept from it.
	StaysFenced []string

	began int64 // when the pool began that is there now, seconds since 1970; 0: there is none
}

// Restore writes b to providers, which must be open for writing and locked. It
// refuses what does not fit, and what would lose something that is newer.
//
// Component 0's metadata goes first and comes last, so that what an interruption
// leaves is no volume until Restore is done again.
func Restore(ctx context.Context, providers []geomlib.Provider, b *Backup, opt RestoreOptions) (*Restored, error) {
	res, err := restore(ctx, providers, b, opt)
	if err != nil {
		return res, fmt.Errorf("restore %s: %w", b.Name(), err)
	}
	return res, nil
}

func restore(ctx context.Context, providers []geomlib.Provider, b *Backup, opt RestoreOptions) (*Restored, error) {
	if b.Extension != nil && b.Extension.Intent.Kind != ondisk.IntentNone {
		return nil, fmt.Errorf("%w: %q", ErrInterrupted, b.Extension.Intent.Kind)
	}
	if opt.RunDir != "" {
		lock, err := geomlib.LockVolume(opt.RunDir, b.ID())
		if err != nil {
			return nil, err
		}
		defer lock.Close()
	}
	on, err := b.match(providers, opt.InOrder)
	if err != nil {
		return nil, err
	}
	if !opt.Force && !opt.InOrder {
		if err := b.refuseForeign(on); err != nil {
			return nil, err
		}
	}
	res := new(Restored)
	for _, p := range on {
		res.Providers = append(res.Providers, p.Name())
	}
	tell := func(int64) {}
	if opt.Progress != nil {
		total := 2 * b.Components[0].Metadata.MapBytes()
		tell = func(done int64) { opt.Progress(done, total) }
	}
	newer, err := b.compare(ctx, on, res, tell)
	if err != nil {
		return nil, err
	}
	if newer != nil && !opt.Force {
		return res, fmt.Errorf("%w: %s; force restores all the same", ErrNewer, strings.Join(newer, "; "))
	}
	if opt.DryRun {
		return res, nil
	}
	above := max(opt.Above, highest(on))
	b = b.renewed(on, above, res.began)
	if err := b.fitTogether(on); err != nil {
		return nil, err
	}
	if opt.Begins != nil {
		if err := opt.Begins(on[0], b.fenced(0, on[0])); err != nil {
			return nil, err
		}
	}
	if err := b.write(ctx, on, tell); err != nil {
		return nil, err
	}
	if b.Pool != nil {
		above++ // which the members have now
	}
	return res, b.finish(on, res, above, opt.Log)
}

// renewed is b with the member blocks that it is restored with: none, since the members
// begin anew, unless a directory of snapshots names them by their ids. Those have a
// generation of their own then, above the given one. The pool begins anew in any case, later
// than the one that is there now, which may have been restored in this very second: of the
// directories that were written after the backup, and may still be there, none counts as later,
// should the record be lost that names this one.
func (b *Backup) renewed(on []geomlib.Provider, above uint64, began int64) *Backup {
	r := *b
	r.Components = slices.Clone(b.Components)
	ids := make([]uint64, len(r.Components))
	for i := range r.Components {
		ids[i] = r.Components[i].Metadata.Member.ID
	}
	if b.Pool != nil {
		r.Pool = b.Pool.begun(max(time.Now().Unix(), b.Pool.Directory.Maps[0].Time+1, began+1))
	}
	nonce := rand.Uint64() | 1
	for i := range r.Components {
		m := &r.Components[i].Metadata.Member
		if *m = (ondisk.MemberBlock{}); b.Pool != nil {
			*m = ondisk.MemberBlock{ID: ids[i], Generation: above + 1, Settled: above + 1, List: ondisk.MemberList(ids),
				Began: time.Now().Unix(), LastName: ondisk.MemberName(on[i].Name()), Nonce: nonce, SettledNonce: nonce}
		}
	}
	return &r
}

// highest is the highest generation that a provider has. One whose metadata cannot be
// read says nothing.
func highest(on []geomlib.Provider) (g uint64) {
	for _, p := range on {
		if m, ok, err := metadataOf(p); err == nil && ok {
			g = max(g, m.Member.Generation)
		}
	}
	return g
}

// match finds the provider of each component: by the metadata on it, else by
// the name that it had, else by its size when there is but one of that.
func (b *Backup) match(providers []geomlib.Provider, inOrder bool) ([]geomlib.Provider, error) {
	if len(providers) != len(b.Components) {
		return nil, fmt.Errorf("%w: %d given, the volume had %d: %s", ErrProviders, len(providers), len(b.Components), b.names())
	}
	on := make([]geomlib.Provider, len(b.Components))
	left := slices.Clone(providers)
	take := func(i int, is func(geomlib.Provider) bool) {
		var found []geomlib.Provider
		for _, p := range left {
			if is(p) {
				found = append(found, p)
			}
		}
		if on[i] == nil && len(found) == 1 {
			on[i] = found[0]
			left = slices.DeleteFunc(left, func(p geomlib.Provider) bool { return p == found[0] })
		}
	}
	for _, p := range providers {
		m, ok, err := metadataOf(p)
		if err != nil {
			return nil, err
		}
		if ok && m.ID != b.ID() {
			return nil, fmt.Errorf("%w: %s is a component of %s (id %08x), the backup is of the id %08x", ErrProviders, p.Name(), ondisk.Printable(m.Name), m.ID, b.ID())
		}
	}
	if inOrder {
		copy(on, providers)
		left = nil
	}
	for i, c := range b.Components {
		take(i, func(p geomlib.Provider) bool {
			m, ok, _ := metadataOf(p)
			return ok && int(m.No) == i && b.fits(i, p) == nil
		})
		take(i, func(p geomlib.Provider) bool { return p.Name() == c.Name && b.fits(i, p) == nil })
	}
	for i := range b.Components {
		take(i, func(p geomlib.Provider) bool { return b.fits(i, p) == nil })
	}
	for i, c := range b.Components {
		if on[i] == nil {
			return nil, fmt.Errorf("%w: none, or more than one, can be component %d (%s, %d bytes, sectors of %d); give them in the order of the components",
				ErrProviders, i, c.Name, c.Metadata.ProviderSize, c.SectorSize)
		}
		if err := b.fits(i, on[i]); err != nil {
			return nil, err
		}
	}
	return on, nil
}

// refuseForeign refuses providers that only their size speaks for, and that hold what a
// component does not: a last sector that is neither metadata nor empty, or, where the map
// of component 0 goes, a file system or the like.
func (b *Backup) refuseForeign(on []geomlib.Provider) error {
	for i, p := range on {
		_, ok, err := metadataOf(p)
		if err != nil {
			return err
		}
		if ok || geomlib.Name(p.Name()).Same(b.Components[i].Name) {
			continue
		}
		last := make([]byte, p.SectorSize())
		if _, err := p.ReadAt(last, p.MediaSize()-int64(len(last))); err != nil {
			return fmt.Errorf("read the last sector of %s: %w", p.Name(), err)
		}
		if slices.ContainsFunc(last, func(b byte) bool { return b != 0 }) {
			return fmt.Errorf("%w: %s has other data in its last sector, and was called %s as component %d; give the components in their order if it is that",
				ErrForeign, p.Name(), b.Components[i].Name, i)
		}
		if i > 0 {
			continue
		}
		all, err := signature.Find(p)
		if err != nil {
			return err
		}
		if len(all) > 0 {
			return fmt.Errorf("%w: %s holds %s, and was called %s as component 0; give the components in their order if it is that",
				ErrForeign, p.Name(), signature.Text(all), b.Components[i].Name)
		}
	}
	return nil
}

// fits tells whether p can be component i.
func (b *Backup) fits(i int, p geomlib.Provider) error {
	c := b.Components[i]
	if size := uint64(p.MediaSize()); size != c.Metadata.ProviderSize {
		return fmt.Errorf("%w: %s has %d bytes, component %d had %d", ErrProviders, p.Name(), size, i, c.Metadata.ProviderSize)
	}
	if p.SectorSize() != c.SectorSize {
		return fmt.Errorf("%w: %s has sectors of %d bytes, component %d had %d", ErrProviders, p.Name(), p.SectorSize(), i, c.SectorSize)
	}
	return nil
}

func (b *Backup) names() string {
	var s []string
	for _, c := range b.Components {
		s = append(s, c.Name)
	}
	return strings.Join(s, " ")
}

// compare looks for what is on the disks and is not in b.
func (b *Backup) compare(ctx context.Context, on []geomlib.Provider, res *Restored, tell func(done int64)) (newer []string, err error) {
	for i, p := range on {
		m, ok, err := metadataOf(p)
		if err != nil {
			return nil, err
		}
		was := b.Components[i].Metadata
		if ok && i == 0 && int(m.Count) > len(on) {
			newer = append(newer, fmt.Sprintf("it has %d components now and had %d", m.Count, len(on)))
		}
		if ok && i == 0 && m.VirtualSize != was.VirtualSize {
			newer = append(newer, fmt.Sprintf("its virtual size is %d bytes and was %d", m.VirtualSize, was.VirtualSize))
		}
		if ok && i == 0 && m.Validate(p.MediaSize(), p.SectorSize()) == nil {
			if changed := b.newerPool(ctx, on, m, res); changed != "" {
				newer = append(newer, changed)
			}
		}
	}
	zero := b.Components[0].Metadata
	s := mapio.Scanner{Provider: on[0], Size: zero.MapBytes(), Unreadable: func(int64, error) {}, Progress: tell}
	at := cursor(b.Runs)
	order := b.Order
	err = s.Each(ctx, func(vc uint64, raw []byte) error {
		if order == ondisk.OrderUnknown {
			order = ondisk.DetectOrder(raw)
		}
		e := ondisk.DecodeEntry(raw, order)
		if e.Flags != ondisk.FlagAllocated || !b.possible(e) {
			return nil // damaged: not what could be newer
		}
		res.compare(at(vc), e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if res.Lost > 0 {
		newer = append(newer, fmt.Sprintf("%d virtual chunks were allocated since", res.Lost))
	}
	if res.Moved > 0 {
		newer = append(newer, fmt.Sprintf("%d virtual chunks lie elsewhere now", res.Moved))
	}
	return newer, nil
}

// compare counts a virtual chunk that is allocated now, and what the backup has.
func (res *Restored) compare(was, now ondisk.Entry) {
	switch {
	case !was.Allocated():
		res.Lost++
	case was != now:
		res.Moved++
	}
}

// newerPool tells what is different of the snapshots and further volumes that are there now, if
// anything is, and counts what is of the maps of those volumes. m is the metadata of component
// 0.
func (b *Backup) newerPool(ctx context.Context, on []geomlib.Provider, m ondisk.Metadata, res *Restored) string {
	rec, _, err := virstor.Record(on[0], m)
	now := rec.Directory.Exists() || errors.Is(err, ondisk.ErrExtensionVersion)
	switch {
	case b.Pool == nil && now:
		return "it has snapshots or further volumes, which would be lost"
	case b.Pool == nil:
		return ""
	case !now:
		return "its snapshots were deleted, and what they alone had may be written over"
	}
	r := poolio.New(m.ChunkSize, on[0].SectorSize())
	for _, p := range on {
		if m, ok, err := metadataOf(p); err == nil && ok {
			r.Add(p, m)
		}
	}
	d, err := r.Directory(ctx, rec.Directory)
	if err != nil {
		if was, e := b.encode(func(systemChunk) error { return nil }); e == nil && was == rec.Directory {
			return "" // it is the one that is restored
		}
		return fmt.Sprintf("its snapshots are others, and cannot be read: %v", err)
	}
	res.began = d.Maps[0].Time
	b.compareVolumes(ctx, r, d, res)
	same := *b // but for when the pool began, if it was restored
	same.Pool = b.Pool.begun(d.Maps[0].Time)
	if was, err := same.encode(func(systemChunk) error { return nil }); err == nil && was == rec.Directory {
		return ""
	}
	taken, deleted := withoutMaps(d, b.Pool.Directory), withoutMaps(b.Pool.Directory, d)
	switch {
	case taken != nil:
		return fmt.Sprintf("%s were taken, which would be lost (%s)", kindOf(taken), strings.Join(taken, " "))
	case deleted != nil:
		return fmt.Sprintf("%s were deleted, and what they alone had may be written over (%s)", kindOf(deleted), strings.Join(deleted, " "))
	}
	return "what its snapshots have was moved or renamed"
}

// compareVolumes counts what is different of the maps of further volumes that are there now. What
// cannot be read is damaged: not what could be newer.
func (b *Backup) compareVolumes(ctx context.Context, r *poolio.Reader, d *ondisk.Directory, res *Restored) {
	for _, m := range d.Maps[1:] {
		i := slices.IndexFunc(b.Pool.Directory.Maps, func(o ondisk.PoolMap) bool { return o.ID == m.ID && o.Kind == ondisk.KindVolume })
		if m.Kind != ondisk.KindVolume || i < 1 {
			continue
		}
		now, err := r.Map(ctx, d, m)
		if err != nil {
			continue
		}
		at := cursor(b.runsOf(b.Pool.Maps[i-1].List))
		for part := range now.List.Chunks {
			_ = r.Part(ctx, now, part, func(vc uint64, e ondisk.Entry) error {
				index := b.indexOf(d, e.Component)
				if e.Flags == ondisk.FlagAllocated && index >= 0 {
					e.Component = uint16(index)
					res.compare(at(vc), e)
				}
				return nil
			})
		}
	}
}

// runsOf are the runs of the map that lies where list says.
func (b *Backup) runsOf(list *ondisk.MapList) (runs []Run) {
	for _, c := range list.Chunks {
		i := slices.IndexFunc(b.Pool.Parts, func(p Part) bool { return p.Address == c.Address })
		if !c.Hole && i >= 0 {
			runs = append(runs, b.Pool.Parts[i].Runs...)
		}
	}
	return runs
}

// withoutMaps are the names of the snapshots and volumes in d that are not in other.
func withoutMaps(d, other *ondisk.Directory) (names []string) {
	for _, m := range d.Maps[1:] {
		if o, there := other.Map(m.ID); !there || o.GUID != m.GUID || o.Kind != m.Kind {
			names = append(names, d.Title(m))
		}
	}
	return names
}

// kindOf says of what kind things of these names are.
func kindOf(names []string) string {
	if slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, "/") }) {
		return "snapshots or volumes"
	}
	return "snapshots"
}

// possible reports whether an entry names a chunk that data can be on.
func (b *Backup) possible(e ondisk.Entry) bool {
	if int(e.Component) >= len(b.Components) {
		return false
	}
	m := b.Components[e.Component].Metadata
	return e.Chunk >= uint32(m.ChunkReserved) && e.Chunk < m.ChunkCount
}

// cursor returns a function that gives the entries of ascending virtual chunks by runs of one
// map.
func cursor(runs []Run) func(vc uint64) ondisk.Entry {
	return func(vc uint64) ondisk.Entry {
		for len(runs) > 0 && runs[0].Virtual+runs[0].Length <= vc {
			runs = runs[1:]
		}
		if len(runs) == 0 || vc < runs[0].Virtual {
			return ondisk.Entry{}
		}
		r := runs[0]
		return ondisk.Entry{Flags: ondisk.FlagAllocated, Component: r.Component, Chunk: r.Chunk + uint32(vc-r.Virtual)}
	}
}

// write writes everything, fenced.
func (b *Backup) write(ctx context.Context, on []geomlib.Provider, tell func(done int64)) error {
	zero := on[0]
	if _, ok, err := metadataOf(zero); err != nil {
		return err
	} else if ok {
		if err := geomlib.ClearMetadata(zero); err != nil {
			return err
		}
	}
	for i, p := range on[1:] {
		if err := geomlib.StoreMetadata(p, b.fenced(i+1, p)); err != nil {
			return err
		}
	}
	if err := b.writeMap(ctx, zero, tell); err != nil {
		return err
	}
	if err := extblock.Clear(zero, b.Components[0].Metadata); err != nil {
		return err
	}
	if b.Pool != nil {
		if err := b.writePool(ctx, on); err != nil {
			return err
		}
	}
	return geomlib.StoreMetadata(zero, b.fenced(0, zero))
}

// writePool writes the maps of snapshots and further volumes and the directory to where they were, and
// then the record that puts them in force.
func (b *Backup) writePool(ctx context.Context, on []geomlib.Provider) error {
	zero := b.Components[0].Metadata
	directory, err := b.encode(func(c systemChunk) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := on[b.indexOfMember(c.Member)]
		sector := p.SectorSize()
		whole := make([]byte, (len(c.bytes)+sector-1)/sector*sector)
		copy(whole, c.bytes)
		if _, err := p.WriteAt(whole, int64(c.Chunk)*int64(zero.ChunkSize)); err != nil {
			return fmt.Errorf("write the maps of snapshots and volumes to %s: %w", p.Name(), err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, p := range on {
		if err := extblock.Flush(p); err != nil {
			return err
		}
	}
	off, _ := ondisk.ExtensionOffset(zero)
	return extblock.Store(on[0], off, ondisk.Extension{Sequence: 1, VolumeID: zero.ID, ChunkSize: zero.ChunkSize, Directory: directory})
}

// fitTogether makes sure, before anything is written, that the engine will make
// a volume of it.
func (b *Backup) fitTogether(on []geomlib.Provider) error {
	if b.Components[0].Metadata.SmallChunks() {
		return nil // which there are at version 2 alone; read has seen to the rest
	}
	var members []virstor.Member
	for i, p := range on {
		m := b.fenced(i, p)
		// What lies in the extension block now counts not.
		m.Version, m.Member = ondisk.Version, ondisk.MemberBlock{}
		members = append(members, virstor.Member{Provider: p, Metadata: m})
	}
	for _, a := range virstor.Assemble(members) {
		if a.Err != nil {
			return fmt.Errorf("%w: %w", ErrProviders, a.Err)
		}
	}
	return nil
}

// fenced is the metadata of component i on p at version 2, in agreement with
// component 0. A hardcoded name becomes that of p, or none if it does not fit.
func (b *Backup) fenced(i int, p geomlib.Provider) ondisk.Metadata {
	m := b.Components[i].Metadata
	zero := b.Components[0].Metadata
	m.Version = ondisk.VersionFenced
	m.No, m.Count, m.VirtualSize, m.Name = uint16(i), uint16(len(b.Components)), zero.VirtualSize, zero.Name
	if m.Provider != "" && m.Provider != p.Name() {
		if m.Provider = p.Name(); len(m.Provider) > ondisk.MaxNameLen {
			m.Provider = ""
		}
	}
	return m
}

// writeMap writes the sectors of the map that differ.
func (b *Backup) writeMap(ctx context.Context, p geomlib.Provider, tell func(done int64)) error {
	sector := p.SectorSize()
	total := b.Components[0].Metadata.MapBytes()
	at := cursor(b.Runs)
	want, have := make([]byte, sector), make([]byte, sector)
	for off := int64(0); off < total; off += int64(sector) {
		if off%(1<<20) == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			tell(total + off)
		}
		for i := 0; i < sector; i += ondisk.EntrySize {
			binary.NativeEndian.PutUint64(want[i:], 0)
			if e := at(uint64(off+int64(i)) / ondisk.EntrySize); e.Allocated() {
				e.Encode(want[i:], b.Order)
			}
		}
		// A sector that cannot be read may still be written.
		if _, err := p.ReadAt(have, off); err == nil && slices.Equal(have, want) {
			continue
		}
		if _, err := p.WriteAt(want, off); err != nil {
			return fmt.Errorf("write the allocation map to %s at byte %d: %w", p.Name(), off, err)
		}
	}
	return extblock.Flush(p)
}

// finish lets the engine verify the volume, and hand it back if the kernel
// class had it at the time of the backup. Its generation is then above the given one.
func (b *Backup) finish(on []geomlib.Provider, res *Restored, above uint64, log *slog.Logger) error {
	var members []virstor.Member
	for i, p := range on {
		members = append(members, virstor.Member{Provider: p, Metadata: b.fenced(i, p)})
	}
	handBack := b.Components[0].Metadata.Version == ondisk.Version
	for _, a := range virstor.Assemble(members) {
		a.Above = above
		err := virstor.FinishInterrupted(a, handBack, log)
		var kept *virstor.NotHandedBackError
		if errors.As(err, &kept) {
			res.StaysFenced = kept.Reasons
		} else if err != nil {
			return err
		}
	}
	return nil
}
