package ondisk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc64"
)

// A spare is a provider that the daemon may make a component when space gets
// short. Its last sector says so, with a magic of its own: neither the kernel
// class nor any version of Assemble takes it for a component, and add replaces
// it by metadata in one sector. What is not labelled so is never taken as a
// spare, whatever name it has got since the last start.
const (
	// SpareSize is the size of the label in bytes; the rest of the sector is
	// zero.
	SpareSize = 64

	spareMagic   = "GVIRSTOR::SPARE"
	spareVersion = 1
)

// Offsets in a spare's label.
const (
	spareOffMagic    = 0
	spareOffVersion  = 16
	spareOffVolumeID = 20
	spareOffName     = 24
	spareOffSize     = 40
	spareOffChecksum = SpareSize - 8
)

// Spare says which volume a spare is for.
type Spare struct {
	Name         string // of the volume
	VolumeID     uint32 // Metadata.ID
	ProviderSize uint64 // bytes
}

// Encode writes the label to sector and zeroes the rest of it. It fails, and
// leaves sector alone, with ErrShort or ErrName.
func (s Spare) Encode(sector []byte) error {
	if len(sector) < SpareSize {
		return fmt.Errorf("spare label: %w: %d of %d", ErrShort, len(sector), SpareSize)
	}
	if err := checkName(s.Name); err != nil {
		return fmt.Errorf("spare label: %w", err)
	}
	clear(sector)
	le := binary.LittleEndian
	copy(sector[spareOffMagic:], spareMagic)
	le.PutUint32(sector[spareOffVersion:], spareVersion)
	le.PutUint32(sector[spareOffVolumeID:], s.VolumeID)
	copy(sector[spareOffName:], s.Name)
	le.PutUint64(sector[spareOffSize:], s.ProviderSize)
	le.PutUint64(sector[spareOffChecksum:], spareChecksum(sector))
	return nil
}

// DecodeSpare reads a label. It fails with ErrShort, ErrMagic (no spare),
// ErrSpareChecksum, ErrVersion or ErrName.
func DecodeSpare(b []byte) (Spare, error) {
	if len(b) < SpareSize {
		return Spare{}, fmt.Errorf("spare label: %w: %d of %d", ErrShort, len(b), SpareSize)
	}
	if text(b[spareOffMagic:]) != spareMagic {
		return Spare{}, ErrMagic
	}
	le := binary.LittleEndian
	if got, want := le.Uint64(b[spareOffChecksum:]), spareChecksum(b); got != want {
		return Spare{}, fmt.Errorf("%w: %#x, should be %#x", ErrSpareChecksum, got, want)
	}
	if v := le.Uint32(b[spareOffVersion:]); v != spareVersion {
		return Spare{}, fmt.Errorf("spare label: %w: %d, known is %d", ErrVersion, v, spareVersion)
	}
	s := Spare{Name: text(b[spareOffName:]), VolumeID: le.Uint32(b[spareOffVolumeID:]), ProviderSize: le.Uint64(b[spareOffSize:])}
	var again [SpareSize]byte
	if err := s.Encode(again[:]); err != nil {
		return Spare{}, err
	}
	if !bytes.Equal(again[:], b[:SpareSize]) {
		return Spare{}, fmt.Errorf("spare label: %w: bytes of no meaning", ErrSpareChecksum)
	}
	return s, nil
}

func spareChecksum(b []byte) uint64 {
	return crc64.Checksum(b[:spareOffChecksum], crc64.MakeTable(crc64.ECMA))
}
