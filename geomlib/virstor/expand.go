package virstor

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ondisk"
)

// ErrNotGrown: the provider's metadata is where it belongs.
var ErrNotGrown = errors.New("provider has not grown")

// FindMetadata looks for the metadata of a provider that has grown since it was
// labelled: backwards from its end, for a sector that names itself the
// last one. progress, if not nil, is told the bytes looked at.
func FindMetadata(ctx context.Context, p geomlib.Provider, progress func(int64)) (ondisk.Metadata, int64, error) {
	s := int64(p.SectorSize())
	buf := make([]byte, 1<<20)
	holes, sparse := p.(geomlib.HoleFinder)
	for end := p.MediaSize(); end > 0; {
		if err := ctx.Err(); err != nil {
			return ondisk.Metadata{}, 0, err
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
				return ondisk.Metadata{}, 0, fmt.Errorf("look for metadata on %s: %w", p.Name(), err)
			}
			for at := int64(len(b)) - s; at >= 0; at -= s {
				if !bytes.HasPrefix(b[at:], []byte(ondisk.Magic)) {
					continue
				}
				m, err := ondisk.DecodeMetadata(b[at : at+s])
				if err == nil && m.ProviderSize == uint64(start+at+s) {
					return m, start + at, nil
				}
			}
		}
		end = start
		if progress != nil {
			progress(p.MediaSize() - end)
		}
	}
	return ondisk.Metadata{}, 0, fmt.Errorf("%s: %w", p.Name(), geomlib.ErrNoMetadata)
}

// Expand makes a provider that has grown a component again: the metadata goes
// to its new end, with the chunks there counted. The volume must not be served.
// The sector at the new end commits; the old one is cleared after it.
//
// A component that others follow is fenced by that. It is not full any more, and
// from one that is not the kernel class steps to the next without looking whether
// that one is. The next start fences the others; a stop hands back what it can.
func Expand(ctx context.Context, p geomlib.Provider, progress func(int64)) (ondisk.Metadata, error) {
	m, at, err := FindMetadata(ctx, p, progress)
	if err != nil {
		return m, fmt.Errorf("expand: %w", err)
	}
	if at == p.MediaSize()-int64(p.SectorSize()) {
		return m, fmt.Errorf("expand %s: %w", p.Name(), ErrNotGrown)
	}
	m.ProviderSize = uint64(p.MediaSize())
	m.ChunkCount = ondisk.UsableChunks(p.MediaSize(), p.SectorSize(), int64(m.ChunkSize))
	if err := m.Validate(p.MediaSize(), p.SectorSize()); err != nil {
		return m, fmt.Errorf("expand %s: %w", p.Name(), err)
	}
	if m.Version == ondisk.Version && m.No+1 < m.Count {
		m.Version = ondisk.VersionFenced
		if m.No == 0 { // whatever lies in the block at version 1 means nothing
			e := extension{rec: ondisk.Extension{VolumeID: m.ID, ChunkSize: m.ChunkSize}}
			e.offset, e.room = ondisk.ExtensionOffset(m)
			if err := resetExtension(p, &e); err != nil {
				return m, fmt.Errorf("expand: %w", err)
			}
		}
	}
	if err := geomlib.StoreMetadata(p, m); err != nil {
		return m, fmt.Errorf("expand: %w", err)
	}
	if err := storeRaw(p, make([]byte, p.SectorSize()), at); err != nil {
		return m, fmt.Errorf("expand: clear the old metadata: %w", err)
	}
	return m, nil
}
