package ondisk

import "encoding/binary"

// Order is the byte order of an allocation map: that of the machine that wrote
// it first. Unlike the metadata, the map has no fixed one.
type Order uint8

// The byte orders of a map.
const (
	// OrderUnknown: nothing is allocated. Such a map is used as LittleEndian.
	OrderUnknown Order = iota
	LittleEndian
	BigEndian
)

// String is the order's name as an administrator reads it.
func (o Order) String() string {
	switch o {
	case LittleEndian:
		return "little-endian"
	case BigEndian:
		return "big-endian"
	}
	return "unknown"
}

// Entry says where a virtual chunk is. Entry v lies at byte v*EntrySize of
// component 0.
type Entry struct {
	Flags     uint16 // FlagAllocated; the other bits are kept as found
	Component uint16 // index
	Chunk     uint32 // chunk on that component
}

// Allocated reports whether the virtual chunk has a chunk.
func (e Entry) Allocated() bool { return e.Flags&FlagAllocated != 0 }

// DecodeEntry reads the entry in the first EntrySize bytes of b, which must be
// there. OrderUnknown reads as LittleEndian.
func DecodeEntry(b []byte, o Order) Entry {
	if o == BigEndian {
		v := binary.BigEndian.Uint64(b)
		return Entry{uint16(v >> 48), uint16(v >> 32), uint32(v)}
	}
	v := binary.LittleEndian.Uint64(b)
	return Entry{uint16(v), uint16(v >> 16), uint32(v >> 32)}
}

// Encode writes e to the first EntrySize bytes of b, which must be there.
// OrderUnknown writes as LittleEndian.
func (e Entry) Encode(b []byte, o Order) {
	if o == BigEndian {
		binary.BigEndian.PutUint64(b, uint64(e.Flags)<<48|uint64(e.Component)<<32|uint64(e.Chunk))
		return
	}
	binary.LittleEndian.PutUint64(b, uint64(e.Flags)|uint64(e.Component)<<16|uint64(e.Chunk)<<32)
}

// DetectOrder tells the byte order of a map, or of a part of one that begins at
// an entry, from its first allocated entry: OrderUnknown when there is none. It
// does not notice entries of the other order further on; a check of what the
// entries point to does.
func DetectOrder(mapBytes []byte) Order {
	for ; len(mapBytes) >= EntrySize; mapBytes = mapBytes[EntrySize:] {
		little := DecodeEntry(mapBytes, LittleEndian).Allocated()
		big := DecodeEntry(mapBytes, BigEndian).Allocated()
		switch {
		case little && !big:
			return LittleEndian
		case big && !little:
			return BigEndian
		}
	}
	return OrderUnknown
}
