package virstor

import (
	"bytes"
	"context"
	"fmt"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Expansion says which metadata is to be believed of a provider that has grown. Space
// that it regained may hold the end of an earlier, larger label.
type Expansion struct {
	// Volume is the name of the volume.
	Volume string
	// Others are other components of the volume, as many as are known: what they
	// say, the provider's metadata must agree with. Those of other volumes of that
	// name are none.
	Others []ondisk.Metadata
	// Progress, if not nil, is told how many bytes were looked at.
	Progress func(int64)
}

// placed is metadata and where, in bytes, its sector begins.
type placed struct {
	ondisk.Metadata
	at int64
}

// FindMetadata looks for the metadata of a provider that has grown since it was
// labelled: backwards from its end, for a sector that names itself the last one of a
// component of the volume. One that is proved ends the search: by Others, which have
// the same id and do not know the index or a later generation, or by the extension
// block of a component 0. Otherwise the whole provider is looked at, and a sector is
// believed that is the only one; of several nothing is believed (ErrUnproved).
func (e *Expansion) FindMetadata(ctx context.Context, p geomlib.Provider) (ondisk.Metadata, int64, error) {
	var found []placed
	var other string // the name of another volume that the provider was part of
	err := eachMetadata(ctx, p, e.Progress, func(m placed) (stop bool) {
		if m.Name != e.Volume {
			other = m.Name
			return false
		}
		switch believed, proof := e.proves(p, m.Metadata); {
		case proof:
			found = []placed{m}
			return true
		case believed:
			found = append(found, m)
		}
		return false
	})
	switch {
	case err != nil:
		return ondisk.Metadata{}, 0, fmt.Errorf("look for metadata on %s: %w", p.Name(), err)
	case len(found) == 1:
		return found[0].Metadata, found[0].at, nil
	case len(found) > 1:
		return ondisk.Metadata{}, 0, fmt.Errorf("%s: %w: it was component %d of %s (id %08x) and component %d of %s (id %08x); name the other components of the right one",
			p.Name(), ErrUnproved, found[0].No, e.Volume, found[0].ID, found[1].No, e.Volume, found[1].ID)
	case other != "":
		return ondisk.Metadata{}, 0, fmt.Errorf("%s: %w, of %q: %w", p.Name(), ErrNotComponent, other, geomlib.ErrNoMetadata)
	}
	return ondisk.Metadata{}, 0, fmt.Errorf("%s: %w", p.Name(), geomlib.ErrNoMetadata)
}

// eachMetadata calls found with each sector of p, the last first, that is the last one
// of a component by its own word, until it returns true.
func eachMetadata(ctx context.Context, p geomlib.Provider, progress func(int64), found func(placed) (stop bool)) error {
	s := int64(p.SectorSize())
	buf := make([]byte, 1<<20)
	holes, sparse := p.(geomlib.HoleFinder)
	for end := p.MediaSize(); end > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		start := max(0, end-int64(len(buf)))
		skip := false
		if sparse {
			data, _, err := holes.NextData(start, end)
			skip = err == nil && data >= end
		}
		if !skip {
			b := buf[:end-start]
			if _, err := p.ReadAt(b, start); err != nil {
				return err
			}
			for at := int64(len(b)) - s; at >= 0; at -= s {
				if !bytes.HasPrefix(b[at:], []byte(ondisk.Magic)) {
					continue
				}
				m, err := ondisk.DecodeMetadata(b[at : at+s])
				if err == nil && m.ProviderSize == uint64(start+at+s) && found(placed{m, start + at}) {
					return nil
				}
			}
		}
		end = start
		if progress != nil {
			progress(p.MediaSize() - end)
		}
	}
	return nil
}

// proves tells whether m may be what the provider is, and whether that is beyond doubt.
func (e *Expansion) proves(p geomlib.Provider, m ondisk.Metadata) (believed, proof bool) {
	known := false // a component of the volume that m is of
	foreign := false
	for _, o := range e.Others {
		switch {
		case o.Name != e.Volume:
		case o.ID != m.ID || o.ChunkSize != m.ChunkSize:
			foreign = true
		case o.No == m.No || o.Member.Settled > m.Member.Generation || o.Member.Exists() && o.Member.ID == m.Member.ID:
			return false, false // another is that component, or m missed something
		default:
			known = true
		}
	}
	switch {
	case known:
		return true, !foreign // of two volumes either may be it
	case foreign:
		return false, false
	}
	return true, m.Count == 1 && hasRecord(p, m)
}

// hasRecord reports whether p has the extension block of the component 0 that m
// describes.
func hasRecord(p geomlib.Provider, m ondisk.Metadata) bool {
	if m.No != 0 || m.Version != ondisk.VersionFenced || m.Validate(int64(m.ProviderSize), p.SectorSize()) != nil {
		return false
	}
	x, err := readExtension(p, m)
	return err == nil && x.valid
}

// Expand makes a provider that has grown a component again: the metadata goes
// to its new end, with the chunks there counted. The volume must not be served.
// The sector at the new end commits; the old one is cleared after it. It returns what
// the metadata was, and what it is.
//
// A component that others follow is fenced by that. It is not full any more, and
// from one that is not the kernel class steps to the next without looking whether
// that one is. The next start fences the others; a stop hands back what it can.
func Expand(ctx context.Context, p geomlib.Provider, e Expansion) (before, after ondisk.Metadata, err error) {
	before, at, err := e.FindMetadata(ctx, p)
	if err != nil {
		return before, before, fmt.Errorf("expand: %w", err)
	}
	if at == p.MediaSize()-int64(p.SectorSize()) {
		return before, before, fmt.Errorf("expand %s: %w", p.Name(), ErrNotGrown)
	}
	m := before
	m.ProviderSize = uint64(p.MediaSize())
	m.ChunkCount = ondisk.UsableChunks(p.MediaSize(), p.SectorSize(), int64(m.ChunkSize))
	if err := m.Validate(p.MediaSize(), p.SectorSize()); err != nil {
		return before, m, fmt.Errorf("expand %s: %w", p.Name(), err)
	}
	// What lies in the extension block at version 1 means nothing, nor does what lies there
	// while the component has no room for it.
	_, meant := ondisk.ExtensionOffset(before)
	if m.Version == ondisk.Version && m.No+1 < m.Count {
		m.Version, meant = ondisk.VersionFenced, false
	}
	if m.Version == ondisk.VersionFenced && m.No == 0 && !meant {
		e := extension{rec: ondisk.Extension{VolumeID: m.ID, ChunkSize: m.ChunkSize}}
		e.offset, e.room = ondisk.ExtensionOffset(m)
		if err := resetExtension(p, &e); err != nil {
			return before, m, fmt.Errorf("expand: %w", err)
		}
	}
	if err := geomlib.StoreMetadata(p, m); err != nil {
		return before, m, fmt.Errorf("expand: %w", err)
	}
	if err := storeRaw(p, make([]byte, p.SectorSize()), at); err != nil {
		return before, m, fmt.Errorf("expand: clear the old metadata: %w", err)
	}
	return before, m, nil
}
