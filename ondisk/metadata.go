package ondisk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
)

// Facts of the format.
const (
	// Magic begins the metadata sector, NUL-padded to 16 bytes.
	Magic = "GEOM::VIRSTOR"
	// MetadataSize is the number of bytes used of the metadata sector.
	MetadataSize = 92
	// Version is the metadata version that FreeBSD's kernel class takes.
	Version = 1
	// VersionFenced is the version of a volume that this project serves or
	// served: the kernel class refuses it.
	VersionFenced = 2
	// MaxNameLen is the longest volume name or hardcoded provider name that
	// is written anew, in bytes.
	MaxNameLen = 15
	// EntrySize is the size of a map entry in bytes.
	EntrySize = 8
	// DefaultChunkSize and DefaultVirtualSize, in bytes, are what label uses
	// when it is not told.
	DefaultChunkSize   = 4 << 20
	DefaultVirtualSize = 2 << 40
)

// Flags of Metadata.
const (
	// FlagAllocated: chunks of the component have been handed out. In an Entry:
	// the virtual chunk has a chunk.
	FlagAllocated uint16 = 1
	// FlagCurrent: the kernel class allocates from this component.
	FlagCurrent uint16 = 2
)

// MinChunkMultiple is what every chunk size is a multiple of, in bytes: MAXPHYS
// of FreeBSD up to 12 and of its 32-bit machines (sys/param.h).
const MinChunkMultiple = 128 << 10

// SmallChunkMultiple is what the chunk size is a multiple of where the kernel class need
// not know it: at VersionFenced alone, and so for good.
const SmallChunkMultiple = 64 << 10

const (
	nameField     = 16 // bytes of each of the three text fields
	minSectorSize = 512
	maxSectorSize = 64 << 10
)

// Offsets in the metadata sector. They differ in order from the C structure.
const (
	offMagic         = 0
	offVersion       = 16
	offName          = 20
	offVirtualSize   = 36
	offChunkSize     = 44
	offID            = 48
	offCount         = 52
	offProvider      = 54
	offNo            = 70
	offProviderSize  = 72
	offChunkCount    = 80
	offChunkNext     = 84
	offChunkReserved = 88
	offFlags         = 90
)

// Metadata is what the last sector of a component says.
type Metadata struct {
	Version       uint32 // Version or VersionFenced
	Name          string // of the volume
	VirtualSize   uint64 // bytes
	ChunkSize     uint32 // bytes
	ID            uint32 // random, the same on all components
	Count         uint16 // components of the volume
	Provider      string // hardcoded provider name without /dev/, or empty
	No            uint16 // index of this component, from 0
	ProviderSize  uint64 // bytes; a provider of another size is not this component
	ChunkCount    uint32 // chunks on this component, reserved ones included
	ChunkNext     uint32 // next chunk to allocate
	ChunkReserved uint16 // chunks at the start of component 0 kept for the map
	Flags         uint16 // FlagAllocated, FlagCurrent

	// Member is zero but at VersionFenced, and where there is no block.
	Member MemberBlock
}

// errNoMetadata is made once: a search for metadata meets it in every sector.
var errNoMetadata = fmt.Errorf("metadata: %w", ErrMagic)

// DecodeMetadata reads the metadata at the start of b, a component's last
// sector. It accepts every version and every value (see Validate); a name that
// fills its 16 bytes without a NUL is legal. It fails with ErrShort when b has
// fewer than MetadataSize bytes and with ErrMagic when they are something else.
//
// At VersionFenced the result has the MemberBlock, if b has the MemberBlockEnd bytes
// that it takes; at any other version those bytes mean nothing. When it is damaged, or any byte before it that its checksum covers, the error is
// ErrMemberBlock and the result is what the bytes say all the same: to be shown,
// not to be believed.
func DecodeMetadata(b []byte) (Metadata, error) {
	if len(b) < MetadataSize {
		return Metadata{}, fmt.Errorf("metadata: %w: %d of %d", ErrShort, len(b), MetadataSize)
	}
	if !bytes.HasPrefix(b[offMagic:], []byte(Magic+"\x00")) {
		return Metadata{}, errNoMetadata
	}
	le := binary.LittleEndian
	m := Metadata{
		Version:       le.Uint32(b[offVersion:]),
		Name:          text(b[offName:]),
		VirtualSize:   le.Uint64(b[offVirtualSize:]),
		ChunkSize:     le.Uint32(b[offChunkSize:]),
		ID:            le.Uint32(b[offID:]),
		Count:         le.Uint16(b[offCount:]),
		Provider:      text(b[offProvider:]),
		No:            le.Uint16(b[offNo:]),
		ProviderSize:  le.Uint64(b[offProviderSize:]),
		ChunkCount:    le.Uint32(b[offChunkCount:]),
		ChunkNext:     le.Uint32(b[offChunkNext:]),
		ChunkReserved: le.Uint16(b[offChunkReserved:]),
		Flags:         le.Uint16(b[offFlags:]),
	}
	if m.Version != VersionFenced {
		return m, nil
	}
	var err error
	if m.Member, err = decodeMemberBlock(b); err != nil {
		return m, fmt.Errorf("metadata: %w", err)
	}
	return m, nil
}

// Encode writes m to sector, which is the whole last sector of a component:
// what the metadata does not use becomes zero. It fails, and leaves sector
// alone, with ErrShort when sector is smaller than MetadataSize and with ErrName
// or ErrProviderName when a text cannot be read back as it is, and ErrMemberBlock
// when m has a block at another version than VersionFenced, or one that
// DecodeMetadata would not take. Texts of 16 bytes are written, since FreeBSD writes
// them; Plan makes none.
func (m Metadata) Encode(sector []byte) error {
	if len(sector) < MetadataSize {
		return fmt.Errorf("metadata: %w: %d of %d", ErrShort, len(sector), MetadataSize)
	}
	if !fitsField(m.Name) {
		return fmt.Errorf("%w: %q is longer than %d bytes or has a NUL", ErrName, m.Name, nameField)
	}
	if !fitsField(m.Provider) {
		return fmt.Errorf("%w: %q is longer than %d bytes or has a NUL", ErrProviderName, m.Provider, nameField)
	}
	if err := m.checkMember(len(sector)); err != nil {
		return err
	}
	clear(sector)
	le := binary.LittleEndian
	copy(sector[offMagic:], Magic)
	le.PutUint32(sector[offVersion:], m.Version)
	copy(sector[offName:], m.Name)
	le.PutUint64(sector[offVirtualSize:], m.VirtualSize)
	le.PutUint32(sector[offChunkSize:], m.ChunkSize)
	le.PutUint32(sector[offID:], m.ID)
	le.PutUint16(sector[offCount:], m.Count)
	copy(sector[offProvider:], m.Provider)
	le.PutUint16(sector[offNo:], m.No)
	le.PutUint64(sector[offProviderSize:], m.ProviderSize)
	le.PutUint32(sector[offChunkCount:], m.ChunkCount)
	le.PutUint32(sector[offChunkNext:], m.ChunkNext)
	le.PutUint16(sector[offChunkReserved:], m.ChunkReserved)
	le.PutUint16(sector[offFlags:], m.Flags)
	if m.Member.Exists() {
		m.Member.encode(sector)
	}
	return nil
}

// checkMember refuses a block that could not be read back from a sector of size
// bytes.
func (m Metadata) checkMember(size int) error {
	switch {
	case !m.Member.Exists():
		return nil
	case m.Version != VersionFenced:
		return fmt.Errorf("%w: there is none at version %d", ErrMemberBlock, m.Version)
	case size < MemberBlockEnd:
		return fmt.Errorf("member block: %w: %d of %d", ErrShort, size, MemberBlockEnd)
	}
	return m.Member.check()
}

// Entries is the number of virtual chunks, which is that of map entries. It is
// 0 when the chunk size is.
func (m Metadata) Entries() uint64 {
	if m.ChunkSize == 0 {
		return 0
	}
	return m.VirtualSize / uint64(m.ChunkSize)
}

// MapBytes is the size of the allocation map in bytes. Metadata that Validate
// refuses may describe one beyond 63 bits; the result is then math.MaxInt64.
func (m Metadata) MapBytes() int64 {
	n := m.Entries()
	if n > math.MaxInt64/EntrySize {
		return math.MaxInt64
	}
	return int64(n * EntrySize)
}

// SmallChunks reports whether the kernel class could not serve the volume for its chunk
// size.
func (m Metadata) SmallChunks() bool { return m.ChunkSize%MinChunkMultiple != 0 }

// ChunkMultiple is what the chunk size is a multiple of where metadata has the version.
func ChunkMultiple(version uint32) uint32 {
	if version == VersionFenced {
		return SmallChunkMultiple
	}
	return MinChunkMultiple
}

// checkChunkSize refuses a chunk size that no volume of m's version has.
func (m Metadata) checkChunkSize() error {
	multiple := ChunkMultiple(m.Version)
	if m.ChunkSize == 0 || m.ChunkSize%multiple != 0 {
		return fmt.Errorf("%w: %d is not a multiple of %d", ErrChunkSize, m.ChunkSize, multiple)
	}
	return nil
}

// LabelReserves is how many chunks label reserves on component 0: as many again as the map
// takes, which the kernel class never touches, and at least what the extension block needs.
func (m Metadata) LabelReserves() uint32 {
	n := m.MapChunks()
	if n == 0 {
		return 0
	}
	return n + max(n, uint32(ceilDiv(ExtensionSize, uint64(m.ChunkSize))))
}

// MapChunks is the number of chunks that the allocation map takes: at most
// math.MaxUint32, whatever m says, and 0 when the chunk size is.
func (m Metadata) MapChunks() uint32 {
	if m.ChunkSize == 0 {
		return 0
	}
	return saturate32(ceilDiv(uint64(m.MapBytes()), uint64(m.ChunkSize)))
}

// UsableChunks is the number of chunks of chunkSize bytes on a provider of
// providerSize bytes that do not reach into its last sector, at most
// math.MaxUint32. It is 0 for sizes that are not positive.
func UsableChunks(providerSize int64, sectorSize int, chunkSize int64) uint32 {
	if chunkSize <= 0 || sectorSize <= 0 || providerSize <= int64(sectorSize) {
		return 0
	}
	return saturate32(uint64((providerSize - int64(sectorSize)) / chunkSize))
}

// text is the NUL-padded text in the first nameField bytes of b.
func text(b []byte) string { return textOf(b[:nameField]) }

// textOf is what precedes the first NUL of a field.
func textOf(field []byte) string {
	if i := bytes.IndexByte(field, 0); i >= 0 {
		field = field[:i]
	}
	return string(field)
}

func fitsField(s string) bool {
	return len(s) <= nameField && bytes.IndexByte([]byte(s), 0) < 0
}

// ceilDiv is a/b rounded up; it does not overflow.
func ceilDiv(a, b uint64) uint64 {
	q := a / b
	if a%b != 0 {
		q++
	}
	return q
}

func saturate32(n uint64) uint32 { return uint32(min(n, math.MaxUint32)) }
