package geomlib

import (
	"errors"
	"fmt"

	"github.com/gvirstor/gvirstor/ondisk"
)

// ReadMetadata reads the VIRSTOR metadata in p's last sector. ErrNoMetadata
// means that there is none; with ondisk.ErrMemberBlock comes what the damaged sector
// says, to be shown and not to be believed.
func ReadMetadata(p Provider) (ondisk.Metadata, error) {
	b := make([]byte, p.SectorSize())
	if _, err := p.ReadAt(b, p.MediaSize()-int64(len(b))); err != nil {
		return ondisk.Metadata{}, fmt.Errorf("read metadata of %s: %w", p.Name(), err)
	}
	m, err := ondisk.DecodeMetadata(b)
	if errors.Is(err, ondisk.ErrMagic) {
		return m, fmt.Errorf("%s: %w", p.Name(), ErrNoMetadata)
	}
	if err != nil {
		return m, fmt.Errorf("metadata of %s: %w", p.Name(), err)
	}
	return m, nil
}

// StoreMetadata writes m to p's last sector and flushes it.
func StoreMetadata(p Provider, m ondisk.Metadata) error {
	b := make([]byte, p.SectorSize())
	if err := m.Encode(b); err != nil {
		return fmt.Errorf("metadata for %s: %w", p.Name(), err)
	}
	return storeLastSector(p, b)
}

// ClearMetadata zeroes p's last sector, which must hold VIRSTOR metadata, be it
// damaged, or a spare's label (ErrNoMetadata).
func ClearMetadata(p Provider) error {
	if _, err := ReadMetadata(p); err != nil && !errors.Is(err, ondisk.ErrMemberBlock) {
		if _, spare := ReadSpare(p); spare != nil {
			return err
		}
	}
	return storeLastSector(p, make([]byte, p.SectorSize()))
}

// ReadSpare reads the label that makes p a spare. ErrNoMetadata means that p is
// none; a label for a provider of another size is an error too.
func ReadSpare(p Provider) (ondisk.Spare, error) {
	b := make([]byte, p.SectorSize())
	if _, err := p.ReadAt(b, p.MediaSize()-int64(len(b))); err != nil {
		return ondisk.Spare{}, fmt.Errorf("read the label of %s: %w", p.Name(), err)
	}
	s, err := ondisk.DecodeSpare(b)
	switch {
	case errors.Is(err, ondisk.ErrMagic):
		return s, fmt.Errorf("%s is no spare: %w", p.Name(), ErrNoMetadata)
	case err != nil:
		return s, fmt.Errorf("label of %s: %w", p.Name(), err)
	case s.ProviderSize != uint64(p.MediaSize()):
		return s, fmt.Errorf("%s has %d bytes, its label as a spare says %d: %w", p.Name(), p.MediaSize(), s.ProviderSize, ondisk.ErrProviderSize)
	}
	return s, nil
}

// StoreSpare labels p as a spare for the volume of that name and id, in its
// last sector.
func StoreSpare(p Provider, volume string, id uint32) error {
	b := make([]byte, p.SectorSize())
	if err := (ondisk.Spare{Name: volume, VolumeID: id, ProviderSize: uint64(p.MediaSize())}).Encode(b); err != nil {
		return fmt.Errorf("label %s: %w", p.Name(), err)
	}
	return storeLastSector(p, b)
}

func storeLastSector(p Provider, b []byte) error {
	if _, err := p.WriteAt(b, p.MediaSize()-int64(len(b))); err != nil {
		return fmt.Errorf("write metadata of %s: %w", p.Name(), err)
	}
	if err := p.Flush(); err != nil && !errors.Is(err, ErrNotSupported) {
		return fmt.Errorf("flush metadata of %s: %w", p.Name(), err)
	}
	return nil
}
