package ondisk_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/gvirstor/gvirstor/ondisk"
)

// someList is that of a map of 1 GiB in chunks of poolChunk: 8192 entries in one.
func someList() *ondisk.MapList {
	return &ondisk.MapList{Map: 2, Chunks: []ondisk.MapChunk{{Address: ondisk.Address{Number: 3, Chunk: 8}, Sum: 0x99}}}
}

func TestAMapListIsReadBackAsItWasWritten(t *testing.T) {
	l := someList()
	l.Chunks = append(l.Chunks, ondisk.MapChunk{Hole: true}, ondisk.MapChunk{Address: ondisk.Address{}, Sum: 1}, ondisk.MapChunk{Hole: true})
	b, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ondisk.DecodeMapList(b)
	if err != nil || fmt.Sprint(*got) != fmt.Sprint(*l) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestAMapListThatMakesNoSenseIsNeitherWrittenNorRead(t *testing.T) {
	for name, change := range map[string]func(*ondisk.MapList){
		"of no map":                   func(l *ondisk.MapList) { l.Map = 0 },
		"no chunk":                    func(l *ondisk.MapList) { l.Chunks = nil },
		"more chunks than can be":     func(l *ondisk.MapList) { l.Chunks = make([]ondisk.MapChunk, 1<<16) },
		"a chunk twice":               func(l *ondisk.MapList) { l.Chunks = append(l.Chunks, l.Chunks[0]) },
		"checksum of what is not":     func(l *ondisk.MapList) { l.Chunks[0] = ondisk.MapChunk{Hole: true, Sum: 1} },
		"a hole that has an address ": func(l *ondisk.MapList) { l.Chunks[0].Hole = true },
	} {
		l := someList()
		change(l)
		if _, err := l.Encode(); !errors.Is(err, ondisk.ErrMapList) {
			t.Errorf("%s: written, %v", name, err)
		}
	}
	l := someList()
	l.Chunks = append(l.Chunks, ondisk.MapChunk{Hole: true})
	good, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"none": nil, "short": good[:15], "cut": good[:len(good)-1], "no map": changed(good, 0, 0), "huge count": changed(good, 11, 0xff),
		"unused byte": changed(good, 12, 1), "unknown flag": changed(good, 16, 3), "a hole with an address": changed(good, 36, 1),
		"a hole with a checksum": changed(good, 40, 1),
	} {
		if _, err := ondisk.DecodeMapList(b); !errors.Is(err, ondisk.ErrMapList) {
			t.Errorf("%s: read, %v", name, err)
		}
	}
}

func TestAMapListHasToFitItsMapAndItsPool(t *testing.T) {
	tests := []struct {
		name   string
		change func(m *ondisk.PoolMap, l *ondisk.MapList)
		good   bool
	}{
		{"a snapshot's", func(m *ondisk.PoolMap, l *ondisk.MapList) {}, true},
		{"a snapshot's hole", func(m *ondisk.PoolMap, l *ondisk.MapList) { l.Chunks[0] = ondisk.MapChunk{Hole: true} }, true},
		{"a volume's", func(m *ondisk.PoolMap, l *ondisk.MapList) { m.Kind, l.Chunks[0].Sum = ondisk.KindVolume, 0 }, true},
		{"a volume's checksum", func(m *ondisk.PoolMap, l *ondisk.MapList) { m.Kind = ondisk.KindVolume }, false},
		{"a volume's hole", func(m *ondisk.PoolMap, l *ondisk.MapList) {
			m.Kind, l.Chunks[0] = ondisk.KindVolume, ondisk.MapChunk{Hole: true}
		}, false},
		{"of another map", func(m *ondisk.PoolMap, l *ondisk.MapList) { l.Map = 3 }, false},
		{"too short", func(m *ondisk.PoolMap, l *ondisk.MapList) { m.Size = 2<<30 + 512 }, false},
		{"behind the last chunk", func(m *ondisk.PoolMap, l *ondisk.MapList) { l.Chunks[0].Chunk = 50 }, false},
		{"of an unknown member", func(m *ondisk.PoolMap, l *ondisk.MapList) { l.Chunks[0].Number = 2 }, false},
		{"in reserved chunks", func(m *ondisk.PoolMap, l *ondisk.MapList) { l.Chunks[0].Address = ondisk.Address{Chunk: 1} }, false},
	}
	for _, tt := range tests {
		d, l := someDirectory(), someList()
		m := d.Maps[1]
		tt.change(&m, l)
		if err := somePool().ValidateMapList(d, m, l); (err == nil) != tt.good || err != nil && !errors.Is(err, ondisk.ErrMapList) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestAnEntryNamesAChunkOfTheFilesOfItsPool(t *testing.T) {
	tests := []struct {
		entry ondisk.Entry
		good  bool
	}{
		{ondisk.Entry{}, true},
		{ondisk.Entry{Flags: 1, Component: 3, Chunk: 49}, true},
		{ondisk.Entry{Flags: 1, Component: 3, Chunk: 50}, false},
		{ondisk.Entry{Flags: 1, Component: 0, Chunk: 1}, false},
		{ondisk.Entry{Flags: 1, Component: 1, Chunk: 2}, false},
		{ondisk.Entry{Flags: 3, Component: 3, Chunk: 2}, false},
		{ondisk.Entry{Component: 3}, false},
	}
	for _, tt := range tests {
		if err := somePool().ValidateEntry(someDirectory(), tt.entry); (err == nil) != tt.good || err != nil && !errors.Is(err, ondisk.ErrMapList) {
			t.Errorf("%+v: %v", tt.entry, err)
		}
	}
}

func TestAMapTakesAnEntryForEachChunkAndTheRest(t *testing.T) {
	for size, want := range map[uint64][2]uint64{
		512: {8, 1}, 1 << 30: {64 << 10, 1}, 2 << 30: {128 << 10, 1}, 2<<30 + 512: {128<<10 + 8, 2}, 1 << 62: {1 << 48, 1 << 31},
	} {
		if n, chunks := ondisk.MapLength(size, poolChunk); n != want[0] || uint64(chunks) != want[1] {
			t.Errorf("%d bytes: %d bytes in %d chunks, want %v", size, n, chunks, want)
		}
	}
}
