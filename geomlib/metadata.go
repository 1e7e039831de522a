package geomlib

import (
	"errors"
	"fmt"

	"github.com/gvirstor/gvirstor/ondisk"
)

// ReadMetadata reads the VIRSTOR metadata in p's last sector. ErrNoMetadata
// means that there is none.
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

// ClearMetadata zeroes p's last sector, which must hold VIRSTOR metadata
// (ErrNoMetadata).
func ClearMetadata(p Provider) error {
	if _, err := ReadMetadata(p); err != nil {
		return err
	}
	return storeLastSector(p, make([]byte, p.SectorSize()))
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
