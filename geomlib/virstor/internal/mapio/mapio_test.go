package mapio

import (
	"bytes"
	"context"
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
	"github.com/gvirstor/gvirstor/ondisk"
)

const entries = 4 * chunkmap.PageEntries

// drawn is a disk with a map whose pages are empty, in order or neither.
func drawn(t *rapid.T) (*disktest.Disk, []byte) {
	d := disktest.New("a", entries*ondisk.EntrySize+1<<20, 512)
	raw := make([]byte, entries*ondisk.EntrySize)
	for page := range entries / chunkmap.PageEntries {
		kind := rapid.IntRange(0, 2).Draw(t, "kind")
		for i := range chunkmap.PageEntries {
			vc := page*chunkmap.PageEntries + i
			e := ondisk.Entry{Flags: ondisk.FlagAllocated, Component: 1, Chunk: uint32(vc)}
			if kind == 2 {
				e.Chunk = uint32(entries - vc)
			}
			if kind > 0 {
				e.Encode(raw[vc*ondisk.EntrySize:], ondisk.LittleEndian)
			}
		}
	}
	if rapid.Bool().Draw(t, "odd") { // one entry is not as its neighbours
		at := rapid.IntRange(0, entries-1).Draw(t, "at") * ondisk.EntrySize
		binary.NativeEndian.PutUint64(raw[at:], 1)
	}
	for off := 0; off < len(raw); off += 512 {
		if b := raw[off:][:512]; !bytes.Equal(b, make([]byte, 512)) {
			if _, err := d.WriteAt(b, int64(off)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return d, raw
}

// What several goroutines read, in pieces of whatever length, is what one reads, in
// order; and what a page is said to be is what its entries are.
func TestAllReadersFindTheSameMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d, raw := drawn(t)
		scanned, read := make([]byte, len(raw)), make([]byte, len(raw))
		s := Scanner{Provider: d, Size: int64(len(raw))}
		last := int64(-1)
		err := s.Each(context.Background(), func(vc uint64, b []byte) error {
			if int64(vc) <= last {
				t.Fatalf("%d after %d", vc, last)
			}
			last = int64(vc)
			copy(scanned[vc*ondisk.EntrySize:], b)
			return nil
		})
		if err != nil || !bytes.Equal(scanned, raw) {
			t.Fatal("the scanner finds another map", err)
		}
		r := Reader{Provider: d, Size: int64(len(raw)), Serial: rapid.Bool().Draw(t, "serial"),
			Piece: rapid.SampledFrom([]int64{0, 512, 1536, 4096, 8192}).Draw(t, "piece")}
		at := int64(-1)
		err = r.Each(func(p *Piece) error {
			if p.Off <= at {
				t.Fatalf("%d after %d", p.Off, at)
			}
			at = p.Off
			seen := p.Off / ondisk.EntrySize
			for page := range p.Pages() {
				if int64(page.First) != seen {
					t.Fatalf("a page of %d, want %d", page.First, seen)
				}
				seen += int64(len(page.B) / ondisk.EntrySize)
				copy(read[page.First*ondisk.EntrySize:], page.B)
				if want := stateByEntries(page.B); page.State != want && (page.State != Mixed || len(page.B) == pageBytes) {
					t.Fatalf("the page of %d is %d, want %d", page.First, page.State, want)
				}
			}
			if seen*ondisk.EntrySize != p.Off+int64(len(p.B)) {
				t.Fatalf("the pages of a piece end at %d, the piece at %d", seen*ondisk.EntrySize, p.Off+int64(len(p.B)))
			}
			return nil
		})
		if err != nil || !bytes.Equal(read, raw) {
			t.Fatal("the readers find another map", err)
		}
	})
}

// stateByEntries looks at one entry after the other.
func stateByEntries(b []byte) PageState {
	first := binary.LittleEndian.Uint64(b)
	empty, inOrder := true, true
	for i := 0; i < len(b); i += ondisk.EntrySize {
		w := binary.LittleEndian.Uint64(b[i:])
		empty = empty && w == 0
		inOrder = inOrder && w == first+uint64(i/ondisk.EntrySize)*NextEntry
	}
	switch {
	case empty:
		return Empty
	case inOrder:
		return InOrder
	}
	return Mixed
}

// Rewriting writes the sectors that change, and no other.
func TestOnlySectorsThatChangeAreRewritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d, raw := drawn(t)
		from := uint32(rapid.IntRange(0, entries).Draw(t, "from"))
		to := from + uint32(rapid.IntRange(0, 200).Draw(t, "length"))
		written := make(map[int64]bool)
		s := Scanner{Provider: d, Size: int64(len(raw))}
		err := s.Rewrite(context.Background(), func(_ uint64, sector []byte) bool {
			return ChangeAllocated(sector, ondisk.LittleEndian, func(e ondisk.Entry) ondisk.Entry {
				if e.Chunk >= from && e.Chunk < to {
					e.Component = 7
				}
				return e
			})
		}, func(b []byte, off int64) error {
			written[off] = true
			_, err := d.WriteAt(b, off)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(raw))
		if _, err := d.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		for off := int64(0); off < int64(len(raw)); off += 512 {
			changed := false
			for i := off; i < off+512; i += ondisk.EntrySize {
				e := ondisk.DecodeEntry(raw[i:], ondisk.LittleEndian)
				if e.Allocated() && e.Chunk >= from && e.Chunk < to {
					e.Component, changed = 7, true
				}
				if now := ondisk.DecodeEntry(got[i:], ondisk.LittleEndian); now != e {
					t.Fatalf("entry %d is %+v, want %+v", i/ondisk.EntrySize, now, e)
				}
			}
			if changed != written[off] {
				t.Fatalf("sector at %d: changed %t, written %t", off, changed, written[off])
			}
		}
	})
}
