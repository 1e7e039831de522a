package repair_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc64"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor/check"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/voltest"
	"github.com/gvirstor/gvirstor/geomlib/virstor/repair"
	"github.com/gvirstor/gvirstor/ondisk"
)

var (
	ctx    = context.Background()
	silent = slog.New(slog.DiscardHandler)
)

type outcome int

const (
	mended  outcome = iota // repair makes it clean, and the data is what it was
	fenced                 // so, but what was at version 1 is not any more
	refused                // repair writes nothing and says why
	nothing                // there is nothing to do
	byHand                 // repair can do nothing, says so, and what the user can
)

// damage is one row of the matrix.
type damage struct {
	name    string
	do      func(t *testing.T, d []*disktest.Disk) []*disktest.Disk // the disks to check
	codes   []check.Code                                            // all that must be found
	want    outcome
	choices repair.Choices
	lost    []uint64 // virtual chunks that read as zeros afterwards
	only    uint32   // the version that the row is about; 0: both
	marked  bool     // the row is about member blocks
	byBlock *verdict // what is otherwise where there are member blocks
}

// verdict is what becomes of a damage.
type verdict struct {
	codes []check.Code
	want  outcome
}

// meta damages the metadata of component i.
func meta(i int, f func(*ondisk.Metadata)) func(*testing.T, []*disktest.Disk) []*disktest.Disk {
	return func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		voltest.Spoil(t, d[i], f)
		return d
	}
}

// entry damages the map entry of vc.
func entry(vc uint64, f func(*ondisk.Entry)) func(*testing.T, []*disktest.Disk) []*disktest.Disk {
	return func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		e := voltest.Entry(t, d[0], vc)
		f(&e)
		voltest.SetEntry(t, d[0], vc, e, ondisk.LittleEndian)
		return d
	}
}

// resized is a copy of d with another size.
func resized(t *testing.T, d *disktest.Disk, size int64) *disktest.Disk {
	t.Helper()
	b := make([]byte, size)
	if _, err := d.ReadAt(b[:min(size, d.MediaSize())], 0); err != nil {
		t.Fatal(err)
	}
	n := disktest.New(d.Name(), size, d.SectorSize())
	voltest.Write(t, n, b, 0)
	return n
}

func lastSector(t *testing.T, d *disktest.Disk) []byte {
	t.Helper()
	b := make([]byte, d.SectorSize())
	if _, err := d.ReadAt(b, d.MediaSize()-int64(len(b))); err != nil {
		t.Fatal(err)
	}
	return b
}

func setLastSector(t *testing.T, d *disktest.Disk, b []byte) {
	t.Helper()
	voltest.Write(t, d, b, d.MediaSize()-int64(len(b)))
}

// In the volume of voltest.New virtual chunks 0, 17, 34 … are allocated;
// chunk 0 is on component 0, chunk 7, the last, on component 1; 1 is not allocated.
const (
	onZero  = 0
	onZero2 = 17
	onOne   = 7
	free    = 1

	lastOnZero = 93
)

var matrix = []damage{
	{name: "none", do: func(_ *testing.T, d []*disktest.Disk) []*disktest.Disk { return d }, want: nothing},
	{name: "none, given in another order", do: func(_ *testing.T, d []*disktest.Disk) []*disktest.Disk {
		return []*disktest.Disk{d[2], d[0], d[1]}
	}, want: nothing},

	// Each field of the metadata, of component 0 and of another.
	{name: "magic of 0", do: flip(0, 0), codes: []check.Code{check.ProviderNoMetadata, check.ComponentMissing}, want: refused},
	{name: "magic of 1", do: flip(1, 12), codes: []check.Code{check.ProviderNoMetadata, check.ComponentMissing}, want: refused},
	{name: "behind the metadata", do: flip(1, 100), want: nothing, byBlock: &verdict{[]check.Code{check.MemberDamaged}, mended}},
	{name: "version of 0", do: meta(0, func(m *ondisk.Metadata) { m.Version = 7 }), codes: []check.Code{check.MetadataVersion}, want: refused},
	{name: "version of 1", do: meta(1, func(m *ondisk.Metadata) { m.Version = 0 }), codes: []check.Code{check.MetadataVersion}, want: refused},
	{name: "fence on 0 alone", do: meta(0, func(m *ondisk.Metadata) { m.Version = 2 }), codes: []check.Code{check.FenceMixed}, only: 1},
	{name: "fence off on 0", do: meta(0, func(m *ondisk.Metadata) { m.Version = 1 }), codes: []check.Code{check.FenceMixed}, only: 2, byBlock: &verdict{[]check.Code{check.MemberStale, check.ComponentMissing}, refused}},
	{name: "fence off on 2", do: meta(2, func(m *ondisk.Metadata) { m.Version = 1 }), codes: []check.Code{check.FenceMixed}, only: 2, byBlock: &verdict{[]check.Code{check.MemberStale, check.ComponentMissing}, refused}},
	{name: "name of 0", do: meta(0, func(m *ondisk.Metadata) { m.Name = "other" }), codes: []check.Code{check.MetadataName}},
	{name: "no name on 0", do: meta(0, func(m *ondisk.Metadata) { m.Name = "" }), codes: []check.Code{check.MetadataName}},
	{name: "name of 1", do: meta(1, func(m *ondisk.Metadata) { m.Name = "x\x01y" }), codes: []check.Code{check.MetadataName}},
	{name: "virtual size of 0, impossible", do: meta(0, func(m *ondisk.Metadata) { m.VirtualSize += 512 }), codes: []check.Code{check.MetadataVirtualSize}},
	{name: "virtual size of 0, 0", do: meta(0, func(m *ondisk.Metadata) { m.VirtualSize = 0 }), codes: []check.Code{check.MetadataVirtualSize}},
	{name: "virtual size of 0, huge", do: meta(0, func(m *ondisk.Metadata) { m.VirtualSize = 1 << 63 }), codes: []check.Code{check.MetadataVirtualSize}},
	{name: "virtual size of 0, half", do: meta(0, func(m *ondisk.Metadata) { m.VirtualSize /= 2 }), codes: []check.Code{check.MetadataVirtualSize}},
	{name: "virtual size of 1", do: meta(1, func(m *ondisk.Metadata) { m.VirtualSize = 3 }), codes: []check.Code{check.MetadataVirtualSize}},
	{name: "chunk size of 0", do: meta(0, func(m *ondisk.Metadata) { m.ChunkSize *= 2 }), codes: []check.Code{check.MetadataChunkSize}},
	{name: "chunk size of 0, odd, and 1 missing", do: func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		return meta(0, func(m *ondisk.Metadata) { m.ChunkSize = voltest.Chunk + 1 })(t, []*disktest.Disk{d[0], d[2]})
	}, codes: []check.Code{check.ComponentMissing}, want: refused},
	{name: "chunk size of 0, 0", do: meta(0, func(m *ondisk.Metadata) { m.ChunkSize = 0 }), codes: []check.Code{check.MetadataChunkSize}},
	{name: "chunk size of 1", do: meta(1, func(m *ondisk.Metadata) { m.ChunkSize = 12345 }), codes: []check.Code{check.MetadataChunkSize}},
	{name: "chunk size of 2", do: meta(2, func(m *ondisk.Metadata) { m.ChunkSize /= 2 }), codes: []check.Code{check.MetadataChunkSize}},
	{name: "id of 0", do: meta(0, func(m *ondisk.Metadata) { m.ID++ }), codes: []check.Code{check.MetadataID, check.ComponentMissing}, want: refused, byBlock: &verdict{[]check.Code{check.MemberDamaged, check.ComponentMissing}, refused}},
	{name: "id of 1", do: meta(1, func(m *ondisk.Metadata) { m.ID++ }), codes: []check.Code{check.MetadataID, check.ComponentMissing}, want: refused},
	{name: "count of 0, more", do: meta(0, func(m *ondisk.Metadata) { m.Count = 9 }), codes: []check.Code{check.MetadataCount}, byBlock: &verdict{[]check.Code{check.MemberDamaged}, mended}},
	{name: "count of 0, less", do: meta(0, func(m *ondisk.Metadata) { m.Count = 1 }), codes: []check.Code{check.MetadataCount}, byBlock: &verdict{[]check.Code{check.MemberDamaged}, mended}},
	{name: "count of 0, 0", do: meta(0, func(m *ondisk.Metadata) { m.Count = 0 }), codes: []check.Code{check.MetadataCount}, byBlock: &verdict{[]check.Code{check.MemberDamaged}, mended}},
	{name: "count of 1", do: meta(1, func(m *ondisk.Metadata) { m.Count = 2 }), codes: []check.Code{check.MetadataCount}, byBlock: &verdict{[]check.Code{check.MemberDamaged}, mended}},
	{name: "hardcoded name", do: meta(1, func(m *ondisk.Metadata) { m.Provider = "ada9" }), codes: []check.Code{check.ProviderName, check.ComponentMissing}, want: refused},
	{name: "hardcoded name of 0", do: meta(0, func(m *ondisk.Metadata) { m.Provider = "p1" }), codes: []check.Code{check.ProviderName, check.ComponentMissing}, want: refused},
	{name: "hardcoded name, its own", do: meta(1, func(m *ondisk.Metadata) { m.Provider = "p1" }), want: nothing, byBlock: &verdict{[]check.Code{check.MemberDamaged}, mended}},
	{name: "index of 0", do: meta(0, func(m *ondisk.Metadata) { m.No = 77 }), codes: []check.Code{check.MetadataIndex}, byBlock: &verdict{[]check.Code{check.MemberDamaged}, mended}},
	{name: "index of 1", do: meta(1, func(m *ondisk.Metadata) { m.No = 77 }), codes: []check.Code{check.MetadataIndex}, byBlock: &verdict{[]check.Code{check.MemberDamaged}, mended}},
	{name: "index of 1, 0", do: meta(1, func(m *ondisk.Metadata) { m.No = 0 }), codes: []check.Code{check.MetadataIndex}, byBlock: &verdict{[]check.Code{check.MemberDamaged}, mended}},
	{name: "index of 1, that of 2", do: meta(1, func(m *ondisk.Metadata) { m.No = 2 }), codes: []check.Code{check.ComponentDoubled}, want: refused, byBlock: &verdict{[]check.Code{check.MemberDamaged}, mended}},
	{name: "provider size", do: meta(1, func(m *ondisk.Metadata) { m.ProviderSize += 512 }), codes: []check.Code{check.MetadataProviderSize}},
	{name: "provider size of 0", do: meta(0, func(m *ondisk.Metadata) { m.ProviderSize = 0 }), codes: []check.Code{check.MetadataProviderSize}},
	{name: "chunk count of 0, more", do: meta(0, func(m *ondisk.Metadata) { m.ChunkCount = 1 << 30 }), codes: []check.Code{check.MetadataChunkCount}},
	{name: "chunk count of 0, less", do: meta(0, func(m *ondisk.Metadata) { m.ChunkCount = 5 }), codes: []check.Code{check.MetadataChunkCount}},
	{name: "chunk count of 2, 0", do: meta(2, func(m *ondisk.Metadata) { m.ChunkCount = 0 }), codes: []check.Code{check.MetadataChunkCount}},
	{name: "chunk count of 1, less", do: meta(1, func(m *ondisk.Metadata) { m.ChunkCount = 3 }), codes: []check.Code{check.MetadataChunkCount}},
	{name: "chunk count of 1, one more", do: meta(1, func(m *ondisk.Metadata) { m.ChunkCount++ }), codes: []check.Code{check.MetadataChunkCount}},
	{name: "next chunk of 0, reserved", do: meta(0, func(m *ondisk.Metadata) { m.ChunkNext = 0 }), codes: []check.Code{check.MetadataChunkNext}},
	{name: "next chunk of 1, beyond", do: meta(1, func(m *ondisk.Metadata) { m.ChunkNext = 1 << 31 }), codes: []check.Code{check.MetadataChunkNext}},
	{name: "next chunk of 1, stale", do: meta(1, func(m *ondisk.Metadata) { m.ChunkNext = 1 }), codes: []check.Code{check.MetadataChunkNext}, only: 1},
	{name: "reserved on 0, none", do: meta(0, func(m *ondisk.Metadata) { m.ChunkReserved = 0 }), codes: []check.Code{check.MetadataReserved}},
	{name: "reserved on 0, too many", do: meta(0, func(m *ondisk.Metadata) { m.ChunkReserved = 60000 }), codes: []check.Code{check.MetadataReserved}},
	{name: "reserved on 0, data", do: meta(0, func(m *ondisk.Metadata) { m.ChunkReserved = 6 }), codes: []check.Code{check.MetadataReserved}},
	{name: "reserved on 1", do: meta(1, func(m *ondisk.Metadata) { m.ChunkReserved = 1 }), codes: []check.Code{check.MetadataReserved}},
	{name: "flags, unknown", do: meta(1, func(m *ondisk.Metadata) { m.Flags |= 0x80 }), codes: []check.Code{check.MetadataFlags}},
	{name: "flags of 0, unknown", do: meta(0, func(m *ondisk.Metadata) { m.Flags |= 0x8000 }), codes: []check.Code{check.MetadataFlags}},
	{name: "flags of 0, not allocated", do: meta(0, func(m *ondisk.Metadata) { m.Flags = 2 }), codes: []check.Code{check.MetadataFlags}, only: 1},
	{name: "flags of 2, allocated", do: meta(2, func(m *ondisk.Metadata) { m.Flags = 1 }), codes: []check.Code{check.MetadataFlags}, only: 1},
	{name: "flags, not allocated", do: meta(1, func(m *ondisk.Metadata) { m.Flags = 0 }), codes: []check.Code{check.MetadataFlags}, only: 1},

	// Each kind of map entry.
	{name: "allocated with unknown flags", do: entry(onOne, func(e *ondisk.Entry) { e.Flags |= 8 }), codes: []check.Code{check.EntryFlags}},
	{name: "unallocated with unknown flags", do: entry(free, func(e *ondisk.Entry) { e.Flags = 0x8000 }), codes: []check.Code{check.EntryGarbage}},
	{name: "unallocated beyond the components", do: entry(free, func(e *ondisk.Entry) { e.Component = 9 }), codes: []check.Code{check.EntryGarbage}},
	{name: "unallocated beyond the chunks", do: entry(free, func(e *ondisk.Entry) { e.Chunk = 1 << 20 }), codes: []check.Code{check.EntryGarbage}},
	{name: "unallocated on a used chunk", do: entry(free, func(e *ondisk.Entry) { e.Chunk = 4 }), codes: []check.Code{check.EntryGarbage}},
	{name: "flag lost, undecided", do: entry(onOne, func(e *ondisk.Entry) { e.Flags = 0 }), codes: []check.Code{check.EntryLost}, want: refused},
	{name: "flag lost, kept", do: entry(onOne, func(e *ondisk.Entry) { e.Flags = 0 }), codes: []check.Code{check.EntryLost},
		choices: repair.Choices{Keep: []uint64{onOne}}},
	{name: "flag lost, dropped", do: entry(onOne, func(e *ondisk.Entry) { e.Flags = 0 }), codes: []check.Code{check.EntryLost},
		choices: repair.Choices{Drop: []uint64{onOne}}, lost: []uint64{onOne}},
	{name: "component out of range, undecided", do: entry(onOne, func(e *ondisk.Entry) { e.Component = 300 }), codes: []check.Code{check.EntryComponent}, want: refused},
	{name: "component out of range, kept", do: entry(onOne, func(e *ondisk.Entry) { e.Component = 300 }), codes: []check.Code{check.EntryComponent}, want: refused,
		choices: repair.Choices{Keep: []uint64{onOne}}},
	{name: "component out of range, dropped", do: entry(onZero, func(e *ondisk.Entry) { e.Component = 300 }), codes: []check.Code{check.EntryComponent}, want: fenced,
		choices: repair.Choices{Drop: []uint64{onZero}}, lost: []uint64{onZero}},
	{name: "chunk out of range, undecided", do: entry(onZero, func(e *ondisk.Entry) { e.Chunk = 16 }), codes: []check.Code{check.EntryRange}, want: refused},
	{name: "chunk out of range, dropped", do: entry(onZero, func(e *ondisk.Entry) { e.Chunk = 16 }), codes: []check.Code{check.EntryRange}, want: fenced,
		choices: repair.Choices{Drop: []uint64{onZero}}, lost: []uint64{onZero}},
	{name: "reserved chunk, undecided", do: entry(onZero, func(e *ondisk.Entry) { e.Chunk = 0 }), codes: []check.Code{check.EntryReserved}, want: refused},
	{name: "reserved chunk, dropped", do: entry(onZero, func(e *ondisk.Entry) { e.Chunk = 0 }), codes: []check.Code{check.EntryReserved}, want: fenced,
		choices: repair.Choices{Drop: []uint64{onZero}}, lost: []uint64{onZero}},
	{name: "reserved chunk, kept", do: entry(onZero, func(e *ondisk.Entry) { e.Chunk = 1 }), codes: []check.Code{check.EntryReserved}, want: refused,
		choices: repair.Choices{Keep: []uint64{onZero}}},
	{name: "three on one chunk, one kept", do: func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		voltest.SetEntry(t, d[0], free, voltest.Entry(t, d[0], onZero), ondisk.LittleEndian)
		return share(t, d)
	}, codes: []check.Code{check.ChunkDoubled}, want: fenced, choices: repair.Choices{Keep: []uint64{onZero}}, lost: []uint64{onZero2}},
	{name: "a hole where the kernel class would allocate", do: entry(onZero, func(e *ondisk.Entry) { *e = ondisk.Entry{} }),
		codes: []check.Code{check.Holes}, want: fenced, lost: []uint64{onZero}, only: 1},
	{name: "a full component behind one that is not", do: fillBehindAGap, codes: []check.Code{check.FillOrder}, want: fenced,
		lost: []uint64{lastOnZero}, only: 1},
	{name: "a chunk over the metadata", do: overLastSector, codes: []check.Code{check.LastSectorReach}},
	{name: "a chunk over the metadata, used", do: func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		d = overLastSector(t, d)
		voltest.SetEntry(t, d[0], free, ondisk.Entry{Flags: 1, Component: 1, Chunk: 19}, ondisk.LittleEndian)
		return d
	}, codes: []check.Code{check.LastSectorUsed}, want: byHand, only: 2},
	{name: "two on one chunk, undecided", do: share, codes: []check.Code{check.ChunkDoubled}, want: refused},
	{name: "two on one chunk, one kept", do: share, codes: []check.Code{check.ChunkDoubled}, want: fenced,
		choices: repair.Choices{Keep: []uint64{onZero}}, lost: []uint64{onZero2}},
	{name: "two on one chunk, one dropped", do: share, codes: []check.Code{check.ChunkDoubled}, want: fenced,
		choices: repair.Choices{Drop: []uint64{onZero2}}, lost: []uint64{onZero2}},
	{name: "two on one chunk, both kept", do: share, codes: []check.Code{check.ChunkDoubled}, want: refused,
		choices: repair.Choices{Keep: []uint64{onZero, onZero2}}},
	{name: "what is not in question, dropped", do: share, codes: []check.Code{check.ChunkDoubled}, want: refused,
		choices: repair.Choices{Keep: []uint64{onZero}, Drop: []uint64{34}}},
	{name: "other byte order, undecided", do: swapEntry, codes: []check.Code{check.MapByteOrder}, want: refused},
	{name: "other byte order, kept", do: swapEntry, codes: []check.Code{check.MapByteOrder}, choices: repair.Choices{Keep: []uint64{onOne}}},

	// Components.
	{name: "0 missing", do: func(_ *testing.T, d []*disktest.Disk) []*disktest.Disk { return d[1:] }, codes: []check.Code{check.ComponentMissing}, want: refused},
	{name: "1 missing", do: func(_ *testing.T, d []*disktest.Disk) []*disktest.Disk { return []*disktest.Disk{d[0], d[2]} },
		codes: []check.Code{check.ComponentMissing}, want: refused},
	{name: "2, an empty one, missing", do: func(_ *testing.T, d []*disktest.Disk) []*disktest.Disk { return d[:2] },
		codes: []check.Code{check.ComponentMissing}, want: refused},
	{name: "0 doubled", do: doubled(0), codes: []check.Code{check.ComponentDoubled}, want: refused},
	{name: "1 doubled", do: doubled(1), codes: []check.Code{check.ComponentDoubled}, want: refused},
	{name: "0 grown", do: grown(0), codes: []check.Code{check.ProviderGrown}, want: mended},
	{name: "1 grown", do: grown(1), codes: []check.Code{check.ProviderGrown}, want: mended},
	{name: "1 grown, metadata moved by hand", do: func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		old := lastSector(t, d[1])
		d[1] = resized(t, d[1], d[1].MediaSize()+5*voltest.Chunk)
		setLastSector(t, d[1], old)
		return d
	}, codes: []check.Code{check.ProviderResized, check.ComponentMissing}, want: refused},
	{name: "1 shrunk", do: func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		d[1] = resized(t, d[1], d[1].MediaSize()-5*voltest.Chunk)
		return d
	}, codes: []check.Code{check.ProviderNoMetadata, check.ComponentMissing}, want: refused},
	{name: "0 shrunk", do: func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		d[0] = resized(t, d[0], d[0].MediaSize()-voltest.Chunk)
		return d
	}, codes: []check.Code{check.ProviderNoMetadata, check.ComponentMissing}, want: refused},
	{name: "1 shrunk, metadata moved by hand", do: func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		old := lastSector(t, d[1])
		d[1] = resized(t, d[1], d[1].MediaSize()-5*voltest.Chunk)
		setLastSector(t, d[1], old)
		return d
	}, codes: []check.Code{check.ProviderResized, check.ComponentMissing}, want: refused},
	{name: "metadata of 1 and 2 exchanged", do: func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		a, b := lastSector(t, d[1]), lastSector(t, d[2])
		setLastSector(t, d[1], b)
		setLastSector(t, d[2], a)
		return d
	}, codes: []check.Code{check.ProviderSwapped}},
	{name: "metadata of 0 and 1 exchanged", do: func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		a, b := lastSector(t, d[0]), lastSector(t, d[1])
		setLastSector(t, d[0], b)
		setLastSector(t, d[1], a)
		return d
	}, codes: []check.Code{check.ProviderSwapped}},
	{name: "indexes of 0 and 1 exchanged", do: exchange(0, 1), codes: []check.Code{check.MetadataIndex}, byBlock: &verdict{[]check.Code{check.MemberDamaged}, mended}},
	{name: "indexes of 1 and 2 exchanged", do: exchange(1, 2), codes: []check.Code{check.ComponentSwapped}, want: refused, only: 1},
	{name: "one of another volume", do: func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		other := voltest.Label(t, voltest.Sector, voltest.Sizes...)
		for _, o := range other {
			voltest.SetMetadata(t, o, func(m *ondisk.Metadata) { m.ID, m.Name = 99, "stranger" })
		}
		return []*disktest.Disk{d[0], other[1], d[2]}
	}, codes: []check.Code{check.ComponentMissing}, want: refused},
	{name: "one of another volume besides", do: func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		other := voltest.Label(t, voltest.Sector, voltest.Sizes...)
		voltest.SetMetadata(t, other[1], func(m *ondisk.Metadata) { m.ID, m.Name = 99, "stranger" })
		return append(d, other[1])
	}, codes: []check.Code{check.ComponentMissing}, want: nothing},
	{name: "left by an add", do: func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		left := voltest.Label(t, voltest.Sector, 16*voltest.Chunk+8192, 20*voltest.Chunk)[1]
		voltest.SetMetadata(t, left, func(m *ondisk.Metadata) { m.No, m.Count, m.Version = 3, 4, 2 })
		return append(d, renamed(t, left, "p3"))
	}, codes: []check.Code{check.AddInterrupted}, byBlock: &verdict{[]check.Code{check.MemberStale}, byHand}},
	{name: "mixed sectors", do: func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		b := make([]byte, d[1].MediaSize())
		if _, err := d[1].ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		copy(b[len(b)-4096:], b[len(b)-512:])
		d[1] = disktest.New("p1", int64(len(b)), 4096)
		voltest.Write(t, d[1], b, 0)
		return d
	}, codes: []check.Code{check.SectorSize}, want: refused},
	{name: "metadata cleared", do: func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		setLastSector(t, d[1], make([]byte, 512))
		return d
	}, codes: []check.Code{check.ProviderNoMetadata, check.ComponentMissing}, want: refused},
	{name: "metadata unreadable", do: func(_ *testing.T, d []*disktest.Disk) []*disktest.Disk {
		last := d[1].MediaSize() - 512
		d[1].Inject(func(o disktest.Op) error {
			if o.Kind == disktest.Read && o.Off+o.Len > last {
				return errMedium
			}
			return nil
		})
		return d
	}, codes: []check.Code{check.ProviderUnreadable, check.ComponentMissing}, want: refused},
	{name: "map unreadable", do: func(_ *testing.T, d []*disktest.Disk) []*disktest.Disk {
		d[0].Inject(func(o disktest.Op) error {
			if o.Kind == disktest.Read && o.Off <= 512 && o.Off+o.Len > 512 {
				return errMedium
			}
			return nil
		})
		return d
	}, codes: []check.Code{check.MapUnreadable}, want: refused},

	// Extension block.
	{name: "one slot of the extension block", do: func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		voltest.Write(t, d[0], make([]byte, 512), slotOffset(t, d[0], 1-record(t, d[0]).Slot()))
		return d
	}, want: nothing, only: 2},
	{name: "a record of a later version", do: extension(func(b []byte) {
		b[16] = ondisk.ExtensionRollbackVersion + 1
		sumRecord(b)
	}), codes: []check.Code{check.ExtensionNewer}, want: refused, only: 2},
	{name: "a record of a directory that is not there", do: extension(func(b []byte) {
		b[16] = ondisk.ExtensionPoolVersion
		b[368], b[381] = 1, 1 // a directory of 256 bytes, on member 1
		sumRecord(b)
	}), codes: []check.Code{check.DirectoryDamaged}, want: refused, only: 2},
	{name: "both slots of the extension block", do: extension(func(b []byte) { clear(b) }), codes: []check.Code{check.ExtensionDamaged}, only: 2},
	{name: "a removal of component 0", do: extension(func(b []byte) {
		b[40] = byte(ondisk.IntentRemove)
		sumRecord(b)
	}), codes: []check.Code{check.ExtensionAbsurd}, only: 2},
	{name: "an intent of no known kind", do: extension(func(b []byte) { b[40]++ }), codes: []check.Code{check.ExtensionDamaged}, only: 2},

	// Member blocks.
	{name: "a member's id", do: flip(1, 144), codes: []check.Code{check.MemberDamaged}, marked: true},
	{name: "all of the id of 0", do: func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		for at := 144; at < 152; at++ {
			flip(0, at)(t, d)
		}
		return d
	}, codes: []check.Code{check.MemberDamaged}, marked: true},
	{name: "a member's id and index", do: func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		return flip(1, 144)(t, flip(1, 70)(t, d))
	}, codes: []check.Code{check.MemberDamaged, check.ComponentMissing}, want: refused, marked: true},
	{name: "the ids of two", do: func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		return flip(1, 144)(t, flip(2, 144)(t, d))
	}, codes: []check.Code{check.MemberDamaged, check.ComponentMissing}, want: refused, marked: true},
	{name: "a generation", do: flip(1, 152), codes: []check.Code{check.MemberDamaged}, marked: true},
	{name: "a generation of 0", do: flip(0, 157), codes: []check.Code{check.MemberDamaged}, marked: true},
	{name: "what is settled", do: flip(2, 160), codes: []check.Code{check.MemberDamaged}, marked: true},
	{name: "a list of 0", do: flip(0, 170), codes: []check.Code{check.MemberDamaged}, marked: true},
	{name: "when it began", do: flip(1, 176), codes: []check.Code{check.MemberDamaged}, marked: true},
	{name: "a last name", do: flip(1, 200), codes: []check.Code{check.MemberDamaged}, marked: true},
	{name: "a nonce", do: flip(1, 232), codes: []check.Code{check.MemberDamaged}, marked: true},
	{name: "both nonces", do: func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		return flip(1, 240)(t, flip(1, 232)(t, d))
	}, codes: []check.Code{check.MemberDamaged, check.ComponentMissing}, want: refused, marked: true},
	{name: "the checksums of two", do: func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		return flip(0, 250)(t, flip(2, 250)(t, d))
	}, codes: []check.Code{check.MemberDamaged}, marked: true},
	{name: "all checksums", do: func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		return flip(0, 250)(t, flip(1, 250)(t, flip(2, 250)(t, d)))
	}, codes: []check.Code{check.MemberDamaged, check.ComponentMissing}, want: refused, marked: true},
	{name: "a damaged copy besides", do: func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		d = append(d, renamed(t, d[1], "copy"))
		return flip(3, 250)(t, d)
	}, codes: []check.Code{check.MemberDamaged}, want: byHand, marked: true},
	{name: "an old copy besides", do: func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		return append(d, older(t, renamed(t, d[1], "old")))
	}, codes: []check.Code{check.MemberStale}, want: byHand, marked: true},
	{name: "an old copy of 0 besides", do: func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		return append(d, older(t, renamed(t, d[0], "old")))
	}, codes: []check.Code{check.MemberStale}, want: byHand, marked: true},
	{name: "an old copy instead", do: func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		older(t, d[1])
		return d
	}, codes: []check.Code{check.MemberStale, check.ComponentMissing}, want: refused, marked: true},
	{name: "an old copy of 0 instead", do: func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		older(t, d[0])
		return d
	}, codes: []check.Code{check.MemberStale, check.ComponentMissing}, want: refused, marked: true},
	{name: "one that was removed besides", do: func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		left := renamed(t, d[2], "left")
		voltest.SetMetadata(t, left, func(m *ondisk.Metadata) { m.No, m.Count, m.Member.ID, m.Member.List = 3, 4, 77, 78 })
		return append(d, left)
	}, codes: []check.Code{check.MemberStranger}, want: byHand, marked: true},
	{name: "one that an add left", do: func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		left := renamed(t, d[2], "left")
		list := []uint64{77}
		for i := range d {
			list = slices.Insert(list, i, voltest.Metadata(t, d[i]).Member.ID)
		}
		voltest.SetMetadata(t, left, func(m *ondisk.Metadata) {
			m.No, m.Count, m.Member.ID, m.Member.List = 3, 4, 77, ondisk.MemberList(list)
			m.Member.Generation, m.Member.Nonce = m.Member.Settled+1, 79
		})
		return append(d, left)
	}, codes: []check.Code{check.AddInterrupted}, marked: true},
	{name: "two histories", do: func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		voltest.SetMetadata(t, d[1], func(m *ondisk.Metadata) { m.Member.Nonce, m.Member.SettledNonce = 77, 77 })
		return d
	}, codes: []check.Code{check.TwoHistories}, want: refused, marked: true},
	{name: "one that takes no writes", do: noted(func(t *testing.T, d []*disktest.Disk, e *ondisk.Extension) {
		b := voltest.Metadata(t, d[1]).Member
		e.Failed[0] = ondisk.FailedMember{ID: b.ID, Generation: b.Generation}
	}), codes: []check.Code{check.MemberFailed}, want: byHand, marked: true},
	{name: "handing back was begun", do: noted(func(_ *testing.T, _ []*disktest.Disk, e *ondisk.Extension) { e.HandBack = true }),
		codes: []check.Code{check.HandBackBegun}, marked: true},
	{name: "handing back was interrupted", do: func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		voltest.SetMetadata(t, d[2], func(m *ondisk.Metadata) { m.Version, m.Member = 1, ondisk.MemberBlock{} })
		return noted(func(_ *testing.T, _ []*disktest.Disk, e *ondisk.Extension) { e.HandBack = true })(t, d)
	}, codes: []check.Code{check.HandBackBegun, check.FenceMixed}, marked: true},
}

var errMedium = errors.New("medium error")

// share puts two virtual chunks on the chunk of the first.
func share(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
	voltest.SetEntry(t, d[0], onZero2, voltest.Entry(t, d[0], onZero), ondisk.LittleEndian)
	return d
}

func swapEntry(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
	voltest.SetEntry(t, d[0], onOne, voltest.Entry(t, d[0], onOne), ondisk.BigEndian)
	return d
}

// flip turns a bit of a byte of the last sector of component i.
func flip(i, at int) func(*testing.T, []*disktest.Disk) []*disktest.Disk {
	return func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		b := lastSector(t, d[i])
		b[at] ^= 1
		setLastSector(t, d[i], b)
		return d
	}
}

// fillBehindAGap frees the last chunk of component 0 and fills component 1.
func fillBehindAGap(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
	e := voltest.Entry(t, d[0], lastOnZero)
	if e.Component != 0 || e.Chunk != 15 {
		t.Fatalf("the last chunk of component 0 is not that of %d: %+v", lastOnZero, e)
	}
	voltest.SetEntry(t, d[0], lastOnZero, ondisk.Entry{}, ondisk.LittleEndian)
	chunk := uint32(10)
	for vc := uint64(1); chunk < 20; vc++ {
		if e := voltest.Entry(t, d[0], vc); !e.Allocated() && vc != lastOnZero {
			voltest.SetEntry(t, d[0], vc, ondisk.Entry{Flags: 1, Component: 1, Chunk: chunk}, ondisk.LittleEndian)
			chunk++
		}
	}
	return d
}

// overLastSector makes component 1 end with a chunk that it counts, as the kernel
// class's tool does.
func overLastSector(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
	m := voltest.Metadata(t, d[1])
	const size = 20 * voltest.Chunk
	d[1] = resized(t, d[1], size)
	m.ProviderSize, m.ChunkCount = size, 20
	if err := geomlib.StoreMetadata(d[1], m); err != nil {
		t.Fatal(err)
	}
	return d
}

// record is the extension record in force.
func record(t *testing.T, zero *disktest.Disk) ondisk.Extension {
	t.Helper()
	var slots [2][]byte
	for i := range slots {
		slots[i] = make([]byte, 512)
		if _, err := zero.ReadAt(slots[i], slotOffset(t, zero, i)); err != nil {
			t.Fatal(err)
		}
	}
	e, ok, err := ondisk.PickExtension(slots, voltest.Metadata(t, zero))
	if !ok {
		t.Fatal("no extension record", err)
	}
	return e
}

func slotOffset(t *testing.T, zero *disktest.Disk, slot int) int64 {
	t.Helper()
	off, ok := ondisk.ExtensionOffset(voltest.Metadata(t, zero))
	if !ok {
		t.Fatal("no extension block")
	}
	return off + int64(slot)*ondisk.ExtensionSlotSize
}

// older makes a member one that missed the last two generations.
func older(t *testing.T, d *disktest.Disk) *disktest.Disk {
	voltest.SetMetadata(t, d, func(m *ondisk.Metadata) {
		m.Member.Generation, m.Member.Settled, m.Member.Nonce, m.Member.SettledNonce = 1, 1, 99, 99
	})
	return d
}

// noted changes component 0's record.
func noted(f func(*testing.T, []*disktest.Disk, *ondisk.Extension)) func(*testing.T, []*disktest.Disk) []*disktest.Disk {
	return func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		e := record(t, d[0])
		f(t, d, &e)
		e.Sequence++
		b := make([]byte, 512)
		if err := e.Encode(b); err != nil {
			t.Fatal(err)
		}
		voltest.Write(t, d[0], b, slotOffset(t, d[0], e.Slot()))
		return d
	}
}

func doubled(i int) func(*testing.T, []*disktest.Disk) []*disktest.Disk {
	return func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		return append(d, renamed(t, d[i], "copy"))
	}
}

func renamed(t *testing.T, d *disktest.Disk, name string) *disktest.Disk {
	t.Helper()
	b := make([]byte, d.MediaSize())
	if _, err := d.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	n := disktest.New(name, d.MediaSize(), d.SectorSize())
	voltest.Write(t, n, b, 0)
	return n
}

func grown(i int) func(*testing.T, []*disktest.Disk) []*disktest.Disk {
	return func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		d[i] = resized(t, d[i], d[i].MediaSize()+5*voltest.Chunk)
		return d
	}
}

func exchange(i, k int) func(*testing.T, []*disktest.Disk) []*disktest.Disk {
	return func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		voltest.Spoil(t, d[i], func(m *ondisk.Metadata) { m.No = uint16(k) })
		voltest.Spoil(t, d[k], func(m *ondisk.Metadata) { m.No = uint16(i) })
		return d
	}
}

// sumRecord makes the checksum of an extension record right.
func sumRecord(b []byte) {
	end := ondisk.ExtensionRecordSize - 8
	binary.LittleEndian.PutUint64(b[end:], crc64.Checksum(b[:end], crc64.MakeTable(crc64.ECMA)))
}

// extension damages both slots.
func extension(f func([]byte)) func(*testing.T, []*disktest.Disk) []*disktest.Disk {
	return func(t *testing.T, d []*disktest.Disk) []*disktest.Disk {
		off, ok := ondisk.ExtensionOffset(voltest.Metadata(t, d[0]))
		if !ok {
			t.Fatal("no extension block")
		}
		for slot := range int64(2) {
			b := make([]byte, 512)
			at := off + slot*ondisk.ExtensionSlotSize
			if _, err := d[0].ReadAt(b, at); err != nil {
				t.Fatal(err)
			}
			f(b)
			voltest.Write(t, d[0], b, at)
		}
		return d
	}
}

// Findings that are no damage, or that the matrix cannot make alone.
var otherCodes = []check.Code{
	// Of what is normal, or goes on.
	check.Unclean, check.FenceOn, check.TaskPending, check.ExtensionNone, check.ComponentIgnored, check.Changing, check.TooManyFindings,
	// TestPowerLossInTheEngineIsNoDamage leaves it.
	check.IntentPending,
	// Each field has a code of its own, and so has each reason not to assemble.
	check.MetadataInvalid, check.CannotAssemble,
	// What is no damage: TestAHalfRisenGenerationIsWorthKnowing in package check makes it.
	check.Unsettled,
	// TestOfTwoHistoriesTheOneThatIsChosenGoesOnAboveBoth asks for it.
	check.OtherHistory,
	// TestDamageOfAPoolIsFoundAndLeftToItsOwner in package check makes them.
	check.PoolUnknown, check.SnapshotDamaged,
}

func TestTheMatrixHasEveryKindOfFinding(t *testing.T) {
	src, err := os.ReadFile("../check/finding.go")
	if err != nil {
		t.Fatal(err)
	}
	have := make(map[string]bool)
	for _, c := range otherCodes {
		have[string(c)] = true
	}
	for _, d := range matrix {
		for _, c := range d.codes {
			have[string(c)] = true
		}
	}
	all := regexp.MustCompile(`Code = "([^"]+)"`).FindAllSubmatch(src, -1)
	if len(all) < 40 {
		t.Fatalf("%d codes found in the source", len(all))
	}
	for _, m := range all {
		if !have[string(m[1])] {
			t.Errorf("no row of the matrix makes %s", m[1])
		}
	}
}

func TestDamageIsNamedAndMendedOrRefused(t *testing.T) {
	for _, kind := range []struct {
		name    string
		version uint32
		marked  bool
	}{{"version 1", 1, false}, {"version 2", 2, false}, {"members", 2, true}} {
		whole, data := voltest.New(t, kind.version == 1)
		if !kind.marked {
			voltest.Unmarked(t, whole)
		}
		for _, d := range matrix {
			if d.only != 0 && d.only != kind.version || d.marked && !kind.marked {
				continue
			}
			if kind.marked && d.byBlock != nil {
				d.codes, d.want = d.byBlock.codes, d.byBlock.want
			}
			t.Run(kind.name+"/"+d.name, func(t *testing.T) {
				d.test(t, d.do(t, voltest.Clone(whole)), kind.version, bytes.Clone(data))
			})
		}
	}
}

func (d *damage) test(t *testing.T, disks []*disktest.Disk, version uint32, data []byte) {
	before := images(disks)
	r, err := check.Inspect(ctx, voltest.Providers(disks), check.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range d.codes {
		if !slices.ContainsFunc(r.Findings, func(f check.Finding) bool { return f.Code == code }) {
			t.Errorf("no finding %s", code)
		}
	}
	if d.want != nothing && len(d.codes) == 0 && !r.Clean() || len(d.codes) > 0 && r.Clean() {
		t.Errorf("clean: %v", r.Clean())
	}
	plan := planOf(t, r, d.choices)
	t.Cleanup(func() {
		if t.Failed() {
			var b bytes.Buffer
			_ = r.WriteText(&b, true)
			_ = plan.WriteText(&b)
			t.Log(b.String())
		}
	})
	for _, f := range r.Findings {
		if f.Severity > check.Info && (f.Text == "" || f.Code == "") {
			t.Errorf("finding says nothing: %+v", f)
		}
	}
	if !slices.Equal(images(disks), before) {
		t.Fatal("check or plan wrote to the disks")
	}
	j, saved, err := repair.MemoryJournal(plan)
	if err != nil {
		t.Fatal(err)
	}
	res, err := repair.Apply(ctx, plan, j, silent)
	switch d.want {
	case byHand:
		if plan.Needed() || len(plan.Refusals) > 0 || len(plan.Left) == 0 || plan.Left[0].Remedy == "" || !slices.Equal(images(disks), before) {
			t.Errorf("something was done, or not said: %+v", plan)
		}
		return
	case nothing:
		if plan.Needed() || len(plan.Refusals) > 0 || !slices.Equal(images(disks), before) {
			t.Error("something was done")
		}
		return
	case refused:
		if len(plan.Refusals) == 0 || !errors.Is(err, repair.ErrRefused) {
			t.Fatalf("not refused: %v", err)
		}
		if !slices.Equal(images(disks), before) {
			t.Error("refused, and yet the disks have changed")
		}
		return
	}
	if err != nil {
		t.Fatalf("repair: %v", err)
	}
	if !res.Report.Clean() {
		var b bytes.Buffer
		_ = res.Report.WriteText(&b, true)
		t.Errorf("not clean afterwards:\n%s", b.String())
	}
	d.testVersion(t, disks, version, res)
	repaired := voltest.Clone(disks)
	for _, vc := range d.lost {
		clear(data[vc*voltest.Chunk : (vc+1)*voltest.Chunk])
	}
	members := res.Report.Volumes[0].Components
	voltest.MustHold(t, repaired[:len(members)], data)

	undone(t, saved(), disks, before)
}

// testVersion looks whether the volume was handed back, if it had not been
// fenced before.
func (d *damage) testVersion(t *testing.T, disks []*disktest.Disk, version uint32, res *repair.Result) {
	t.Helper()
	want := version
	if d.want == fenced || d.codes[0] == check.FenceMixed {
		want = 2
	}
	for _, disk := range disks[:len(res.Report.Volumes[0].Components)] {
		if m := voltest.Metadata(t, disk); m.Version != want {
			t.Errorf("version %d on %s, want %d", m.Version, disk.Name(), want)
		}
	}
	if stays := version == 1 && d.want == fenced; stays != (res.StaysFenced != nil) {
		t.Errorf("stays fenced: %q", res.StaysFenced)
	}
}

func planOf(t testing.TB, r *check.Report, c repair.Choices) *repair.Plan {
	t.Helper()
	i := slices.IndexFunc(r.Volumes, func(v *check.Volume) bool { return v.Name == voltest.Name })
	if i < 0 {
		t.Fatal("volume not found")
	}
	if len(r.Volumes) == 1 {
		i = 0
	}
	plans, err := repair.Make(r, c)
	if err != nil {
		t.Fatal(err)
	}
	return plans[i]
}

// images tell the contents of disks apart.
func images(disks []*disktest.Disk) []string {
	var out []string
	for _, d := range disks {
		b := make([]byte, 4096) // the unit of NextData, of which all sizes here are multiples
		zeros := make([]byte, len(b))
		h := sha256.New()
		for off := int64(0); off < d.MediaSize(); {
			start, end, err := d.NextData(off, d.MediaSize())
			if err != nil {
				panic(err)
			}
			for off = start; off < end; off += int64(len(b)) {
				if !d.ReadCached(b, off) {
					panic("disk does not read")
				}
				if !bytes.Equal(b, zeros) { // a hole reads the same
					fmt.Fprintf(h, "%d %s", off, b)
				}
			}
		}
		out = append(out, string(h.Sum(nil)))
	}
	return out
}
