package virstor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ondisk"
)

// LabelStep is a part of labelling.
type LabelStep uint8

// The steps of Label, in their order.
const (
	LabelClear LabelStep = iota + 1 // old metadata is cleared, on each component
	LabelMap                        // the allocation map is written, to component 0
	LabelStore                      // new metadata is written, to each component
)

// LabelOptions modify Label.
type LabelOptions struct {
	// Progress, if not nil, is told before each piece of work which step is
	// at hand and on which component.
	Progress func(step LabelStep, component int)
	// Cleared, if not nil, is told again and again how many bytes of the map are
	// cleared.
	Cleared func(done, total int64)
}

// Label writes the new volume that layout describes to providers, the
// components in the order of their indexes, and destroys what they held. The
// providers stay the caller's.
//
// Old metadata is cleared on all before the map is written, and the map
// before new metadata, with flushes in between: interrupted anywhere it
// leaves no volume, or one that misses components. Map and extension block
// become zeros by holes where the provider has them.
func Label(ctx context.Context, providers []geomlib.Provider, layout *ondisk.Layout, o LabelOptions) error {
	if err := checkLabel(providers, layout); err != nil {
		return err
	}
	if o.Progress == nil {
		o.Progress = func(LabelStep, int) {}
	}
	for i, p := range providers {
		o.Progress(LabelClear, i)
		if err := clearLastSector(ctx, p); err != nil {
			return fmt.Errorf("clear metadata on %s: %w", p.Name(), err)
		}
	}
	o.Progress(LabelMap, 0)
	if err := writeEmptyMap(ctx, providers[0], layout, o.Cleared); err != nil {
		return fmt.Errorf("write the allocation map to %s: %w", providers[0].Name(), err)
	}
	for i, p := range providers {
		o.Progress(LabelStore, i)
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("store metadata on %s: %w", p.Name(), err)
		}
		if err := geomlib.StoreMetadata(p, layout.Metadata[i]); err != nil {
			return fmt.Errorf("store metadata on %s: %w", p.Name(), err)
		}
	}
	if layout.Metadata[0].Version == ondisk.VersionFenced {
		return settleLabel(providers, layout)
	}
	return nil
}

// settleLabel gives a volume that is fenced from the start the record and the member blocks
// that others get when they are fenced.
func settleLabel(providers []geomlib.Provider, layout *ondisk.Layout) error {
	var members []Member
	for i, p := range providers {
		members = append(members, Member{Provider: p, Metadata: layout.Metadata[i]})
	}
	for _, a := range Assemble(members) {
		if err := FinishInterrupted(a, false, slog.New(slog.DiscardHandler)); err != nil {
			return fmt.Errorf("label %s: %w", a.Name, err)
		}
	}
	return nil
}

// checkLabel refuses providers that layout was not made for.
func checkLabel(providers []geomlib.Provider, layout *ondisk.Layout) error {
	if len(providers) == 0 || len(providers) != len(layout.Metadata) {
		return fmt.Errorf("label %d providers by a layout for %d: %w", len(providers), len(layout.Metadata), ondisk.ErrProviders)
	}
	for i, p := range providers {
		if p.SectorSize() != layout.SectorSize {
			return fmt.Errorf("label %s: sectors of %d bytes, the layout has %d: %w", p.Name(), p.SectorSize(), layout.SectorSize, ErrSectorSize)
		}
		if err := layout.Metadata[i].Validate(p.MediaSize(), p.SectorSize()); err != nil {
			return fmt.Errorf("label %s: %w", p.Name(), err)
		}
	}
	return nil
}

func clearLastSector(ctx context.Context, p geomlib.Provider) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b := make([]byte, p.SectorSize())
	if _, err := p.WriteAt(b, p.MediaSize()-int64(len(b))); err != nil {
		return err
	}
	if err := p.Flush(); err != nil && !errors.Is(err, geomlib.ErrNotSupported) {
		return err
	}
	return nil
}

// zeroStep is how much of the map is zeroed before ctx is looked at again.
const zeroStep = 16 << 20

// writeEmptyMap zeroes the map and the extension block, which must not be
// taken for those of an earlier volume.
func writeEmptyMap(ctx context.Context, p geomlib.Provider, layout *ondisk.Layout, cleared func(done, total int64)) error {
	c := newComponent(p, layout.Metadata[0], slog.New(slog.DiscardHandler), 0)
	for off := int64(0); off < layout.MapBytes; off += zeroStep {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.clear(off, min(zeroStep, layout.MapBytes-off), zeroBytes[:]); err != nil {
			return err
		}
		if cleared != nil {
			cleared(min(off+zeroStep, layout.MapBytes), layout.MapBytes)
		}
	}
	if off, ok := ondisk.ExtensionOffset(layout.Metadata[0]); ok {
		if err := c.clear(off, ondisk.ExtensionSize, zeroBytes[:]); err != nil {
			return err
		}
	}
	return c.flush()
}
