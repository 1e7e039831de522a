package ondisk

import "errors"

// Reasons why bytes are not a volume's metadata, or why metadata does not
// describe a component that can be used. They come wrapped with the values.
var (
	// ErrShort: fewer bytes than the record has.
	ErrShort = errors.New("too few bytes")
	// ErrMagic: the bytes do not begin with Magic.
	ErrMagic = errors.New("not GEOM::VIRSTOR metadata")
	// ErrSpareChecksum: a spare's label is damaged.
	ErrSpareChecksum = errors.New("damaged label of a spare")
	// ErrMemberBlock: the member block is damaged, or has values that make no
	// sense. It says nothing of the component's age.
	ErrMemberBlock = errors.New("damaged member block")
	// ErrVersion: neither Version nor VersionFenced.
	ErrVersion = errors.New("unknown metadata version")
	// ErrName: a volume name that is empty, too long, or no name for a device.
	ErrName = errors.New("bad volume name")
	// ErrProviderName: a hardcoded provider name that is empty or too long.
	ErrProviderName = errors.New("bad hardcoded provider name")
	// ErrSectorSize: not a power of two from 512 to 65536.
	ErrSectorSize = errors.New("unusable sector size")
	// ErrChunkSize: zero, not a multiple of the sector and of 128 KiB, or
	// beyond 32 bits.
	ErrChunkSize = errors.New("bad chunk size")
	// ErrVirtualSize: zero, beyond 63 bits, not a multiple of the chunk size,
	// or with a map that is not a whole number of sectors.
	ErrVirtualSize = errors.New("bad virtual size")
	// ErrProviderSize: the provider does not have the size it was labelled with,
	// or a size that is no whole number of sectors.
	ErrProviderSize = errors.New("wrong provider size")
	// ErrIndex: no components, or an index not below their number.
	ErrIndex = errors.New("bad component index")
	// ErrMapSize: the allocation map does not fit on component 0.
	ErrMapSize = errors.New("allocation map does not fit")
	// ErrChunkCount: more chunks than the provider holds, or than 32 bits count.
	ErrChunkCount = errors.New("bad chunk count")
	// ErrReserved: component 0 reserves less than the map takes, or another
	// component reserves anything.
	ErrReserved = errors.New("bad number of reserved chunks")
	// ErrChunkNext: the next chunk to allocate is a reserved one or beyond the
	// last.
	ErrChunkNext = errors.New("bad next chunk")
	// ErrLastSector: the last chunk reaches into the metadata sector. FreeBSD's
	// tool and kernel class make such components; they can be used by whoever
	// never allocates that chunk.
	ErrLastSector = errors.New("last chunk reaches into the metadata sector")
)

// Reasons why a label cannot be laid out, beside those above.
var (
	// ErrProviders: no providers, or more than 16 bits number.
	ErrProviders = errors.New("bad number of providers")
	// ErrDuplicateProvider: a provider is named twice.
	ErrDuplicateProvider = errors.New("provider named twice")
	// ErrMixedSectors: providers differ in sector size.
	ErrMixedSectors = errors.New("providers need to have the same sector size")
	// ErrTooSmall: a provider is smaller than four chunks, than the map, or
	// leaves component 0 no chunk beside the reserved ones.
	ErrTooSmall = errors.New("provider too small")
	// ErrMapTooLarge: the map needs more reserved chunks than 16 bits count.
	ErrMapTooLarge = errors.New("allocation map too large")
)

// Reasons why bytes are no usable extension record.
var (
	// ErrExtensionMagic: there is no record.
	ErrExtensionMagic = errors.New("no extension record")
	// ErrExtensionChecksum: the record is damaged or was written in part.
	ErrExtensionChecksum = errors.New("extension record has a wrong checksum")
	// ErrExtensionVersion: an intact record of a later version of this program.
	ErrExtensionVersion = errors.New("extension record of an unknown version")
	// ErrExtensionContents: an intact record whose fields make no sense.
	ErrExtensionContents = errors.New("bad contents of extension record")
)

// Reasons why bytes are no usable lease.
var (
	// ErrLeaseMagic: there is no lease.
	ErrLeaseMagic = errors.New("no lease")
	// ErrLeaseChecksum: the lease is damaged.
	ErrLeaseChecksum = errors.New("lease has a wrong checksum")
	// ErrLeaseVersion: an intact lease of a later version of this program.
	ErrLeaseVersion = errors.New("lease of an unknown version")
	// ErrLeaseContents: an intact lease whose fields make no sense.
	ErrLeaseContents = errors.New("bad contents of lease")
)

// Reasons why the bytes of a pool's directory, or of a map that it names, are
// not to be used.
var (
	// ErrChain: a system chunk that is damaged, or not the one that is expected.
	ErrChain = errors.New("damaged system chunk")
	// ErrDirectory: a directory, intact or about to be written, whose contents
	// make no sense, or do not fit the pool.
	ErrDirectory = errors.New("bad contents of directory")
	// ErrMapList: the same of a map's list of chunks, or of an entry of the map.
	ErrMapList = errors.New("bad contents of map")
	// ErrMapName: no name for a volume or snapshot of a pool.
	ErrMapName = errors.New("bad name of a volume or snapshot")
)
