package virstor

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/chunkmap"
	"github.com/gvirstor/gvirstor/ondisk"
)

// drawMap is a map over disks of so many chunks each, in runs as a volume has
// that was filled in order, with holes, jumps and single chunks between them.
func drawMap(t *rapid.T, entries int, reserved uint32, chunks []uint32) []ondisk.Entry {
	next := make([]uint32, len(chunks))
	next[0] = reserved
	m := make([]ondisk.Entry, entries)
	for vc := rapid.IntRange(0, 5).Draw(t, "start"); vc < entries; {
		c := rapid.IntRange(0, len(chunks)-1).Draw(t, "component")
		next[c] += uint32(rapid.SampledFrom([]int{0, 0, 0, 1, 7}).Draw(t, "skip"))
		n := rapid.SampledFrom([]int{1, 2, 63, 64, 65, 300, 1024}).Draw(t, "run")
		for ; n > 0 && vc < entries && next[c] < chunks[c]; n-- {
			m[vc] = ondisk.Entry{Flags: ondisk.FlagAllocated, Component: uint16(c), Chunk: next[c]}
			next[c]++
			vc++
		}
		hole := rapid.SampledFrom([]int{0, 0, 1, 20, 600, -1}).Draw(t, "hole")
		if hole < 0 {
			hole = chunkmap.PageEntries - vc%chunkmap.PageEntries // to the next page
		}
		vc += hole
	}
	return m
}

func TestALoadedMapIsTheOneOnDisk(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const entries = 2048
		sizes := []uint32{40, 1200, 700}
		holes := rapid.Bool().Draw(t, "holes")
		cfg := Config{ReadOnly: true, mapPiece: rapid.SampledFrom([]int64{512, 1536, 4096, 1 << 20}).Draw(t, "piece")}
		var ps []geomlib.Provider
		req := ondisk.LabelRequest{Name: "t", VirtualSize: entries * crashChunk, ChunkSize: crashChunk, ID: 77, ChunkMultiple: ondisk.MinChunkMultiple}
		for i, n := range sizes {
			// Only what is looked at: the map and the metadata, not 250 MiB.
			d := newMem(string(rune('a'+i)), 512, 512)
			v := &sparseMem{Provider: d.Plain(), holes: holes, size: int64(n)*crashChunk + 512, bad: -1, front: make([]byte, entries*ondisk.EntrySize+2*crashChunk)}
			ps = append(ps, v)
			req.Providers = append(req.Providers, ondisk.LabelProvider{Name: d.Name(), Size: v.size, SectorSize: 512})
		}
		l, err := ondisk.Plan(req)
		if err != nil {
			t.Fatal(err)
		}
		want := drawMap(t, entries, uint32(l.Metadata[0].ChunkReserved), sizes)
		order := rapid.SampledFrom([]ondisk.Order{ondisk.LittleEndian, ondisk.BigEndian}).Draw(t, "order")
		twice := -1 // an entry that names a chunk of an earlier one
		used := map[alloc.Phys]bool{}
		if rapid.Bool().Draw(t, "damaged") {
			at, of := rapid.IntRange(0, entries-1).Draw(t, "at"), rapid.IntRange(0, entries-1).Draw(t, "of")
			if want[of].Allocated() && at != of {
				want[at] = want[of]
				twice = max(at, of)
			}
		}
		front := ps[0].(*sparseMem).front
		for vc, e := range want {
			e.Encode(front[vc*ondisk.EntrySize:], order)
			if e.Allocated() {
				used[alloc.Phys{Comp: e.Component, Chunk: e.Chunk}] = true
			}
		}
		var ms []Member
		for i, p := range ps {
			ms = append(ms, Member{p, l.Metadata[i]})
		}
		if rapid.IntRange(0, 5).Draw(t, "fails") == 0 {
			d := ps[0].(*sparseMem)
			d.bad = rapid.Int64Range(0, entries*ondisk.EntrySize/512-1).Draw(t, "bad") * 512
			switch v, err := Open(Assemble(ms)[0], cfg); {
			case err == nil:
				v.Close()
				if !holes || !isZero(d.front[d.bad:][:512]) {
					t.Fatal("nobody tells that the map cannot be read")
				}
			case errors.Is(err, syscall.EIO), twice >= 0 && errors.Is(err, ErrDamaged):
			default:
				t.Fatalf("the map cannot be read at byte %d: %v", d.bad, err)
			}
			d.bad = -1
		}
		v, err := Open(Assemble(ms)[0], cfg)
		if twice >= 0 {
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), fmt.Sprintf("virtual chunk %d ", twice)) {
				t.Fatalf("chunk %d is mapped twice: %v", twice, err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		for vc, e := range want {
			w := chunkmap.Word(0)
			if e.Allocated() {
				w = chunkmap.WordOf(alloc.Phys{Comp: e.Component, Chunk: e.Chunk})
			}
			if got := v.chunks.Load(uint64(vc)); got != w {
				t.Fatalf("virtual chunk %d: %#x, want %#x", vc, got, w)
			}
		}
		for c, f := range v.alloc.Figures() {
			free := uint32(0)
			for chunk := f.Owner.first(); chunk < f.Owner.first()+f.Total; chunk++ {
				isFree := v.alloc.IsFree(alloc.Phys{Comp: uint16(c), Chunk: chunk})
				if isFree == used[alloc.Phys{Comp: uint16(c), Chunk: chunk}] {
					t.Fatalf("chunk %d of component %d: free %t", chunk, c, isFree)
				}
				if isFree {
					free++
				}
			}
			if free != f.Free {
				t.Fatalf("component %d counts %d free chunks, has %d", c, f.Free, free)
			}
		}
	})
}

// sparseMem is a disk of which the front exists; the rest reads as zeros.
type sparseMem struct {
	geomlib.Provider
	size  int64
	front []byte
	holes bool  // it knows which sectors of its front are zeros
	bad   int64 // this sector cannot be read
}

func (d *sparseMem) MediaSize() int64 { return d.size }

func (d *sparseMem) ReadAt(p []byte, off int64) (int, error) {
	if off <= d.bad && d.bad < off+int64(len(p)) {
		return 0, syscall.EIO
	}
	clear(p)
	if off < int64(len(d.front)) {
		copy(p, d.front[off:])
	}
	return len(p), nil
}

// NextData implements geomlib.HoleFinder.
func (d *sparseMem) NextData(off, end int64) (int64, int64, error) {
	if !d.holes {
		return off, end, nil
	}
	empty := func(at int64) bool { return isZero(d.front[at:][:512]) }
	for off &^= 511; off < end && empty(off); off += 512 {
	}
	start := off
	for ; off < end && !empty(off); off += 512 {
	}
	return start, off, nil
}

func (d *sparseMem) WriteAt([]byte, int64) (int, error) { panic("opened read-only") }
