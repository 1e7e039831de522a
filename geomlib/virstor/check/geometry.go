package check

import (
	"encoding/binary"

	"github.com/gvirstor/gvirstor/ondisk"
)

// Geometry is what a map entry is judged by.
type Geometry struct {
	Order      ondisk.Order
	Components []Range
}

// Range is the chunks of one component that entries may name.
type Range struct {
	Known bool   // false: the component is missing, and any chunk may be right
	First uint32 // the first that is not reserved
	Count uint32 // beyond the last
}

// Verdict is what Geometry says of an entry.
type Verdict uint8

// The verdicts.
const (
	EntryFree    Verdict = iota // unallocated
	EntryGood                   // allocated, in range
	ClearEntry                  // unallocated, with garbage that means nothing
	StripFlags                  // allocated, in range, with unknown flags
	MayBeLost                   // unallocated, but in all else like an allocated one
	OtherOrder                  // allocated when read in the other byte order
	BadComponent                // allocated, no such component
	BadReserved                 // allocated, on a reserved chunk
	BadRange                    // allocated, beyond the component's last chunk
)

// Judge tells what raw, EntrySize bytes, is, and the entry that it means: for
// MayBeLost and OtherOrder the one that it would be if it were allocated.
// Whether another entry names the same chunk it does not know.
func (g *Geometry) Judge(raw []byte) (Verdict, ondisk.Entry) {
	if binary.NativeEndian.Uint64(raw) == 0 {
		return EntryFree, ondisk.Entry{}
	}
	e := ondisk.DecodeEntry(raw, g.Order)
	if !e.Allocated() {
		other := ondisk.DecodeEntry(raw, otherOrder(g.Order))
		if other.Flags == ondisk.FlagAllocated && g.place(other) == EntryGood {
			return OtherOrder, other
		}
		as := ondisk.Entry{Flags: ondisk.FlagAllocated, Component: e.Component, Chunk: e.Chunk}
		if e.Flags == 0 && g.place(as) == EntryGood {
			return MayBeLost, as
		}
		return ClearEntry, e
	}
	v := g.place(e)
	if v == EntryGood && e.Flags != ondisk.FlagAllocated {
		return StripFlags, e
	}
	return v, e
}

// place judges where an entry points.
func (g *Geometry) place(e ondisk.Entry) Verdict {
	if int(e.Component) >= len(g.Components) {
		return BadComponent
	}
	switch r := g.Components[e.Component]; {
	case !r.Known:
		return EntryGood
	case e.Chunk < r.First:
		return BadReserved
	case e.Chunk >= r.Count:
		return BadRange
	}
	return EntryGood
}

func otherOrder(o ondisk.Order) ondisk.Order {
	if o == ondisk.BigEndian {
		return ondisk.LittleEndian
	}
	return ondisk.BigEndian
}

// Suspect is an entry that only a choice can settle.
type Suspect struct {
	Virtual uint64
	Verdict Verdict
	// As is the entry that keeping it would make; nil when it can only be
	// dropped.
	As *ondisk.Entry
	// Taken: snapshots have the chunk of As for something else.
	Taken bool
}

// Doubled is a chunk that several virtual chunks claim.
type Doubled struct {
	Component uint16
	Chunk     uint32
	Virtual   []uint64 // in order; at least two
}
