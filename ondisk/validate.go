package ondisk

import (
	"fmt"
	"math"
)

// Validate tells whether m describes a component that can be used on a provider
// of mediaSize bytes with sectors of sectorSize bytes: nil, or the first reason
// against it, wrapped with the values. It looks at one component alone.
//
// ErrLastSector comes only when there is no other reason, so that a caller who
// never allocates the chunk in question may go on. A component too small for
// what label asks of one (FreeBSD's tool labels such) is accepted as long as the
// map fits.
func (m Metadata) Validate(mediaSize int64, sectorSize int) error {
	if m.Version != Version && m.Version != VersionFenced {
		return fmt.Errorf("%w %d, known are %d and %d", ErrVersion, m.Version, Version, VersionFenced)
	}
	if err := checkName(m.Name); err != nil {
		return err
	}
	if err := checkSectorSize(sectorSize); err != nil {
		return err
	}
	if err := m.checkSizes(sectorSize); err != nil {
		return err
	}
	if err := m.checkProviderSize(mediaSize, sectorSize); err != nil {
		return err
	}
	if err := m.checkMember(sectorSize); err != nil {
		return err
	}
	if m.No >= m.Count {
		return fmt.Errorf("%w: component %d of %d", ErrIndex, m.No, m.Count)
	}
	return m.checkChunks(sectorSize)
}

func checkSectorSize(sectorSize int) error {
	if sectorSize < minSectorSize || sectorSize > maxSectorSize || sectorSize&(sectorSize-1) != 0 {
		return fmt.Errorf("%w: %d is not a power of two from %d to %d",
			ErrSectorSize, sectorSize, minSectorSize, maxSectorSize)
	}
	return nil
}

// checkSizes looks at the chunk size and the virtual size.
func (m Metadata) checkSizes(sectorSize int) error {
	switch {
	case m.ChunkSize == 0:
		return fmt.Errorf("%w: 0", ErrChunkSize)
	case m.ChunkSize%uint32(sectorSize) != 0:
		return fmt.Errorf("%w: %d is not a multiple of the sector size %d", ErrChunkSize, m.ChunkSize, sectorSize)
	case m.checkChunkSize() != nil:
		return m.checkChunkSize()
	case m.VirtualSize == 0:
		return fmt.Errorf("%w: 0", ErrVirtualSize)
	case m.VirtualSize > math.MaxInt64:
		return fmt.Errorf("%w: %d is more than %d", ErrVirtualSize, m.VirtualSize, int64(math.MaxInt64))
	case m.VirtualSize%uint64(m.ChunkSize) != 0:
		return fmt.Errorf("%w: %d is not a multiple of the chunk size %d", ErrVirtualSize, m.VirtualSize, m.ChunkSize)
	case m.MapBytes()%int64(sectorSize) != 0:
		return fmt.Errorf("%w: %d needs a map of %d bytes, not whole sectors of %d",
			ErrVirtualSize, m.VirtualSize, m.MapBytes(), sectorSize)
	}
	return nil
}

func (m Metadata) checkProviderSize(mediaSize int64, sectorSize int) error {
	if err := checkMediaSize(mediaSize, sectorSize); err != nil {
		return err
	}
	if m.ProviderSize != uint64(mediaSize) {
		return fmt.Errorf("%w: labelled with %d bytes, now has %d", ErrProviderSize, m.ProviderSize, mediaSize)
	}
	return nil
}

func checkMediaSize(mediaSize int64, sectorSize int) error {
	if mediaSize <= 0 || mediaSize%int64(sectorSize) != 0 {
		return fmt.Errorf("%w: %d bytes are no whole number of sectors of %d", ErrProviderSize, mediaSize, sectorSize)
	}
	return nil
}

// checkChunks looks at how the component is divided. The sizes are good.
func (m Metadata) checkChunks(sectorSize int) error {
	end := uint64(m.ChunkCount) * uint64(m.ChunkSize)
	room := m.ProviderSize - uint64(sectorSize) // before the last sector
	switch {
	case m.No == 0 && uint64(m.MapBytes()) > room:
		return fmt.Errorf("%w: %d bytes, component 0 has %d", ErrMapSize, m.MapBytes(), room)
	case end > m.ProviderSize:
		return fmt.Errorf("%w: %d chunks of %d bytes on a provider of %d",
			ErrChunkCount, m.ChunkCount, m.ChunkSize, m.ProviderSize)
	case m.No == 0 && uint32(m.ChunkReserved) < m.MapChunks():
		return fmt.Errorf("%w: %d for a map of %d", ErrReserved, m.ChunkReserved, m.MapChunks())
	case m.No != 0 && m.ChunkReserved != 0:
		return fmt.Errorf("%w: %d on component %d", ErrReserved, m.ChunkReserved, m.No)
	case m.ChunkNext < uint32(m.ChunkReserved):
		return fmt.Errorf("%w: %d, of which %d are reserved", ErrChunkNext, m.ChunkNext, m.ChunkReserved)
	case m.ChunkNext > max(m.ChunkCount, uint32(m.ChunkReserved)):
		return fmt.Errorf("%w: %d of %d", ErrChunkNext, m.ChunkNext, m.ChunkCount)
	case end > room:
		return fmt.Errorf("%w: chunk %d ends at byte %d of %d",
			ErrLastSector, m.ChunkCount-1, end, m.ProviderSize)
	}
	return nil
}
