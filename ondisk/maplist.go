package ondisk

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Sizes and offsets in the contents of a map list.
const (
	listOffMap   = 0
	listOffCount = 8 // then 4 bytes of zeros
	listHeader   = 16

	listChunkSize = 16 // an entry, a checksum
)

// MapChunk is a chunk that holds a part of a map: as many entries as fit, the
// last one of the map fewer, in little-endian order, with member numbers for
// indexes of components.
type MapChunk struct {
	Address
	Hole bool   // there is none: nothing in its part of the map is allocated
	Sum  uint64 // ChunkSum of the part of the map; 0 for a volume, whose map changes
}

// MapList says where the map of a volume or snapshot lies. It is a chain.
type MapList struct {
	Map    uint64 // PoolMap.ID
	Chunks []MapChunk
}

// MapLength is how many bytes the map of size bytes in chunks of chunkSize has,
// and in how many chunks it lies. A size that is no multiple of the chunk has an
// entry for the rest.
func MapLength(size uint64, chunkSize uint32) (bytes uint64, chunks int) {
	entries := ceilDiv(size, uint64(chunkSize))
	return entries * EntrySize, int(ceilDiv(entries*EntrySize, uint64(chunkSize)))
}

// Encode gives the contents of the chain. It fails with ErrMapList when
// DecodeMapList would not take them.
func (l *MapList) Encode() ([]byte, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	return l.encode(), nil
}

func (l *MapList) encode() []byte {
	le := binary.LittleEndian
	b := make([]byte, listHeader, listHeader+len(l.Chunks)*listChunkSize)
	le.PutUint64(b[listOffMap:], l.Map)
	le.PutUint32(b[listOffCount:], uint32(len(l.Chunks)))
	for _, c := range l.Chunks {
		var e [EntrySize]byte
		if !c.Hole {
			c.entry().Encode(e[:], LittleEndian)
		}
		b = append(b, e[:]...)
		b = le.AppendUint64(b, c.Sum)
	}
	return b
}

// DecodeMapList reads the contents of a chain. It fails with ErrMapList. Whoever
// acts on it asks Pool.ValidateMapList first.
func DecodeMapList(b []byte) (*MapList, error) {
	le := binary.LittleEndian
	if len(b) < listHeader || uint64(len(b)) != listHeader+uint64(le.Uint32(b[listOffCount:]))*listChunkSize {
		return nil, fmt.Errorf("%w: a list of %d bytes", ErrMapList, len(b))
	}
	l := &MapList{Map: le.Uint64(b[listOffMap:]), Chunks: make([]MapChunk, 0, (len(b)-listHeader)/listChunkSize)}
	for rest := b[listHeader:]; len(rest) > 0; rest = rest[listChunkSize:] {
		e := DecodeEntry(rest, LittleEndian)
		l.Chunks = append(l.Chunks, MapChunk{Address{e.Component, e.Chunk}, !e.Allocated(), le.Uint64(rest[EntrySize:])})
	}
	if err := l.check(); err != nil {
		return nil, err
	}
	// What encode would write differently is of no meaning known here.
	if string(l.encode()) != string(b) {
		return nil, fmt.Errorf("%w: unknown flags, or unused bytes that are not zero", ErrMapList)
	}
	return l, nil
}

// check refuses what is no list of any map.
func (l *MapList) check() error {
	if l.Map == 0 || l.Map > math.MaxInt64 || len(l.Chunks) == 0 || len(l.Chunks) > MaxReserved {
		return fmt.Errorf("%w: the list of map %d has %d chunks", ErrMapList, l.Map, len(l.Chunks))
	}
	seen := make(map[Address]bool, len(l.Chunks))
	for i, c := range l.Chunks {
		switch {
		case c.Hole && c != MapChunk{Hole: true}:
			return fmt.Errorf("%w: chunk %d of map %d is none, and has an address or a checksum", ErrMapList, i, l.Map)
		case !c.Hole && seen[c.Address]:
			return fmt.Errorf("%w: map %d has chunk %d of member number %d twice", ErrMapList, l.Map, c.Chunk, c.Number)
		}
		seen[c.Address] = !c.Hole
	}
	return nil
}
