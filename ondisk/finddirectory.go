package ondisk

import (
	"encoding/binary"
)

// DirectoryHead is how many bytes of a chunk FindDirectory needs.
const DirectoryHead = chainHeader + dirHeader

// FindDirectory is the link to the directory that begins in a chunk, for whom the record
// that names it is lost: length tells how many bytes of the chunk belong to it, and Sum is
// theirs once b holds so many. A directory that begins there is not for that in force, nor
// of this pool: Pool.ValidateDirectory tells whether it can be. b begins with the chunk at
// that place, and has DirectoryHead bytes at least; ok is false where no directory begins.
func FindDirectory(at Place, b []byte, chunkSize uint32) (l Link, ok bool) {
	le := binary.LittleEndian
	if len(b) < DirectoryHead || text(b[chainOffMagic:chainOffVersion]) != chainMagics[ChainDirectory] || le.Uint64(b[chainOffVersion:]) != chainVersion {
		return Link{}, false
	}
	head := b[chainHeader:]
	size := uint64(dirHeader) + uint64(le.Uint32(head[dirOffMembers:]))*dirMemberSize + uint64(le.Uint32(head[dirOffMaps:]))*dirMapSize
	for _, off := range [...]int{dirOffOwn, dirOffOther, dirOffReserve} {
		size += uint64(le.Uint32(head[off:])) * EntrySize
	}
	if size > MaxChain {
		return Link{}, false
	}
	l = Link{Place: at, Length: uint32(chainHeader + min(int(size), chainPart(chunkSize)))}
	if uint64(len(b)) >= uint64(l.Length) {
		l.Sum = ChunkSum(b[:l.Length])
	}
	return l, l.check(chunkSize) == nil
}
