package virstor

import (
	"context"
	"errors"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/extblock"
	"github.com/gvirstor/gvirstor/ondisk"
)

// regrown is a disk of 32 chunks: it was component 1 of a volume over all of it, then
// of 16 chunks and component 1 of another, and has its old size again. The components
// 0 of both are there, too.
func regrown(t *testing.T) (p *disktest.Disk, now, before ondisk.Metadata) {
	t.Helper()
	p = disktest.New("grown", 32*crashChunk, 512)
	label := func(id uint32, size int64) (zero ondisk.Metadata, last []byte) {
		z, d := disktest.New("zero", 16*crashChunk, 512), disktest.New("one", size, 512)
		l, err := ondisk.Plan(ondisk.LabelRequest{Name: "vol", VirtualSize: 64 * crashChunk, ChunkSize: crashChunk, ID: id, ChunkMultiple: ondisk.MinChunkMultiple,
			Providers: []ondisk.LabelProvider{{Name: z.Name(), Size: z.MediaSize(), SectorSize: 512}, {Name: d.Name(), Size: size, SectorSize: 512}}})
		mustDo(t, err)
		last = make([]byte, 512)
		mustDo(t, l.Metadata[1].Encode(last))
		return l.Metadata[0], last
	}
	before, stale := label(8, 24*crashChunk)
	now, last := label(9, 16*crashChunk)
	mustDo(t, storeRaw(p, stale, 24*crashChunk-512))
	mustDo(t, storeRaw(p, last, 16*crashChunk-512))
	return p, now, before
}

func TestExpandBelievesTheMetadataThatTheOtherComponentsAgreeWith(t *testing.T) {
	p, now, _ := regrown(t)
	for _, others := range [][]ondisk.Metadata{{now}, {{Name: "other", ID: 8, ChunkSize: crashChunk}, now}} {
		e := Expansion{Volume: "vol", Others: others}
		m, at, err := e.FindMetadata(t.Context(), p)
		if err != nil || m.ID != 9 || at != 16*crashChunk-512 {
			t.Errorf("found %+v at %d, %v", m, at, err)
		}
	}
	was, is, err := Expand(t.Context(), p, Expansion{Volume: "vol", Others: []ondisk.Metadata{now}})
	if err != nil || was.ID != 9 || is.ID != 9 || is.ChunkCount <= was.ChunkCount {
		t.Errorf("%+v, %+v, %v", was, is, err)
	}
	if m, err := geomlib.ReadMetadata(p); err != nil || m != is {
		t.Errorf("the disk says %+v, %v", m, err)
	}
}

func TestExpandBelievesNothingThatItCannotProve(t *testing.T) {
	p, now, before := regrown(t)
	raw := func() []byte {
		b := make([]byte, p.MediaSize())
		_, err := p.ReadAt(b, 0)
		mustDo(t, err)
		return b
	}
	was := raw()
	for what, e := range map[string]Expansion{
		"nobody else is known":             {Volume: "vol"},
		"others are of another volume":     {Volume: "vol", Others: []ondisk.Metadata{{Name: "vol", ID: 1, ChunkSize: crashChunk}}},
		"the place is taken":               {Volume: "vol", Others: []ondisk.Metadata{{Name: "vol", ID: 9, No: 1, ChunkSize: crashChunk}, {Name: "vol", ID: 8, No: 1, ChunkSize: crashChunk}}},
		"the others are of another moment": {Volume: "vol", Others: []ondisk.Metadata{settledAt(9, 5), settledAt(8, 5)}},
		"both volumes lack a component":    {Volume: "vol", Others: []ondisk.Metadata{now, before}},
		"the volume is another":            {Volume: "other", Others: []ondisk.Metadata{before}},
	} {
		_, _, err := Expand(context.Background(), p, e)
		if !errors.Is(err, ErrUnproved) && !errors.Is(err, geomlib.ErrNoMetadata) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if string(raw()) != string(was) {
		t.Error("something was written all the same")
	}
}

// settledAt is a component 0 of a volume all of which has that generation.
func settledAt(id uint32, generation uint64) ondisk.Metadata {
	return ondisk.Metadata{Name: "vol", ID: id, ChunkSize: crashChunk, Version: ondisk.VersionFenced,
		Member: ondisk.MemberBlock{ID: 77, Generation: generation, Settled: generation}}
}

func TestExpandTakesTheSectorOfTheHighestGeneration(t *testing.T) {
	p := disktest.New("d", 32*crashChunk, 512)
	at := func(size int64, generation uint64) {
		m := settledAt(9, generation)
		m.No, m.Count, m.ProviderSize, m.VirtualSize = 1, 2, uint64(size), 64*crashChunk
		m.ChunkCount = ondisk.UsableChunks(size, 512, crashChunk)
		b := make([]byte, 512)
		m.Member.ID = 3
		mustDo(t, m.Encode(b))
		mustDo(t, storeRaw(p, b, size-512))
	}
	at(24*crashChunk, 4) // of an earlier time at which the disk was larger
	at(16*crashChunk, 6)
	e := Expansion{Volume: "vol", Others: []ondisk.Metadata{settledAt(9, 6)}}
	m, _, err := e.FindMetadata(t.Context(), p)
	if err != nil || m.Member.Generation != 6 {
		t.Errorf("found generation %d, %v", m.Member.Generation, err)
	}
}

// A component 0 that had no room for the extension block has it when it has grown, with a
// first record, whatever lay there.
func TestExpandWritesARecordWhereThereWasNoRoomForOne(t *testing.T) {
	p := disktest.New("a", 40*crashChunk, 512).FillJunk(7)
	l, err := ondisk.Plan(ondisk.LabelRequest{Name: "vol", VirtualSize: 64 * crashChunk, ChunkSize: crashChunk, ID: 9, ChunkMultiple: ondisk.MinChunkMultiple,
		Providers: []ondisk.LabelProvider{{Name: "a", Size: p.MediaSize(), SectorSize: 512}}})
	mustDo(t, err)
	m := l.Metadata[0]
	full, ok := ondisk.ExtensionOffset(m)
	if !ok {
		t.Fatal("there is never room")
	}
	stale := ondisk.Extension{Sequence: 8, VolumeID: m.ID, ChunkSize: m.ChunkSize, Clean: true}
	mustDo(t, extblock.Store(p, full, stale))
	m.Version, m.ChunkCount = ondisk.VersionFenced, uint32(m.ChunkReserved)
	m.ProviderSize = uint64(m.ChunkReserved)*uint64(m.ChunkSize) + 32<<10
	if _, ok := ondisk.ExtensionOffset(m); ok {
		t.Fatal("there is room already")
	}
	last := make([]byte, 512)
	mustDo(t, m.Encode(last))
	mustDo(t, storeRaw(p, last, int64(m.ProviderSize)-512))
	_, after, err := Expand(t.Context(), p, Expansion{Volume: "vol"})
	mustDo(t, err)
	rec, found, err := Record(p, after)
	if err != nil || !found || rec.Clean || rec.Sequence != 1 {
		t.Errorf("the record is %+v, %t, %v", rec, found, err)
	}
}
