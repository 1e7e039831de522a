package ondisk_test

import (
	"bytes"
	"testing"

	"github.com/gvirstor/gvirstor/ondisk"
)

func FuzzDecodeMetadata(f *testing.F) {
	for _, g := range readGolden(f) {
		for i, raw := range g.records {
			f.Add(raw, g.sizes[i], g.sector)
		}
	}
	f.Add([]byte(ondisk.Magic), int64(0), 0)
	f.Fuzz(func(t *testing.T, b []byte, mediaSize int64, sectorSize int) {
		m, err := ondisk.DecodeMetadata(b)
		if err != nil {
			return
		}
		sector := make([]byte, 512)
		if err := m.Encode(sector); err != nil {
			t.Fatalf("%+v: %v", m, err)
		}
		if again, err := ondisk.DecodeMetadata(sector); err != nil || again != m {
			t.Fatalf("%+v became %+v, %v", m, again, err)
		}
		if m.MapBytes() < 0 {
			t.Fatalf("map of %d bytes", m.MapBytes())
		}
		if off, ok := ondisk.ExtensionOffset(m); ok && (off < m.MapBytes() || uint64(off)+ondisk.ExtensionSize > m.ProviderSize) {
			t.Fatalf("%+v: extension block at %d", m, off)
		}
		if m.Validate(mediaSize, sectorSize) != nil {
			return
		}
		if usable := ondisk.UsableChunks(mediaSize, sectorSize, int64(m.ChunkSize)); m.ChunkCount > usable {
			t.Fatalf("%+v accepted, only %d chunks are usable", m, usable)
		}
		if m.Entries() == 0 || m.No == 0 && m.MapBytes() > mediaSize-int64(sectorSize) {
			t.Fatalf("%+v accepted", m)
		}
	})
}

func FuzzDecodeExtension(f *testing.F) {
	f.Add(record(f, someExtension()), false)
	f.Add(record(f, someExtension()), true)
	f.Add(record(f, rollingBack()), true)
	f.Add(record(f, ondisk.Extension{}), true)
	f.Add(make([]byte, 512), false)
	f.Fuzz(func(t *testing.T, b []byte, intact bool) {
		b = bytes.Clone(b)
		if intact && len(b) >= ondisk.ExtensionRecordSize {
			reseal(b)
		}
		_, _, _ = ondisk.PickExtension([2][]byte{b, b}, sound())
		e, err := ondisk.DecodeExtension(b)
		if err != nil {
			return
		}
		again := make([]byte, ondisk.ExtensionRecordSize)
		if err := e.Encode(again); err != nil {
			t.Fatalf("%+v: %v", e, err)
		}
		if !bytes.Equal(again, b[:ondisk.ExtensionRecordSize]) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}

func FuzzDecodeLease(f *testing.F) {
	f.Add(leaseBytes(f, someLease()), false)
	f.Add(leaseBytes(f, someLease()), true)
	f.Add(make([]byte, 512), false)
	f.Fuzz(func(t *testing.T, b []byte, intact bool) {
		b = bytes.Clone(b)
		if intact && len(b) >= ondisk.LeaseRecordSize {
			resealLease(b)
		}
		l, err := ondisk.DecodeLease(b)
		if err != nil {
			return
		}
		if again := leaseBytes(t, l); !bytes.Equal(again[:ondisk.LeaseRecordSize], b[:ondisk.LeaseRecordSize]) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}

func FuzzDecodeMap(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0})
	f.Add([]byte{0, 1, 0, 2, 0, 0, 0, 3})
	f.Add([]byte{1, 1, 0, 0})
	f.Add(writtenImage(f, 0, 8192))
	f.Fuzz(func(t *testing.T, b []byte) {
		order := ondisk.DetectOrder(b)
		for first := true; len(b) >= ondisk.EntrySize; b = b[ondisk.EntrySize:] {
			for _, o := range []ondisk.Order{ondisk.OrderUnknown, ondisk.LittleEndian, ondisk.BigEndian} {
				var again [ondisk.EntrySize]byte
				ondisk.DecodeEntry(b, o).Encode(again[:], o)
				if !bytes.Equal(again[:], b[:ondisk.EntrySize]) {
					t.Fatalf("%v: %x became %x", o, b[:ondisk.EntrySize], again)
				}
			}
			little := ondisk.DecodeEntry(b, ondisk.LittleEndian).Allocated()
			big := ondisk.DecodeEntry(b, ondisk.BigEndian).Allocated()
			if first && little != big {
				first = false
				if little && order != ondisk.LittleEndian || big && order != ondisk.BigEndian {
					t.Fatalf("%v for a map whose first allocated entry is %x", order, b[:ondisk.EntrySize])
				}
			}
		}
	})
}

func FuzzDecodeDirectory(f *testing.F) {
	f.Add(contentsOf(f, someDirectory()))
	f.Add(make([]byte, 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := ondisk.DecodeDirectory(b)
		if err != nil {
			return
		}
		if again := contentsOf(t, d); !bytes.Equal(again, b) {
			t.Fatalf("%x became %x", b, again)
		}
		if err := somePool().ValidateDirectory(d, []ondisk.Place{{Member: 0xa, Chunk: 2}}); err == nil && len(d.Own) == 0 {
			t.Fatalf("%+v lies nowhere", d)
		}
	})
}

func FuzzDecodeMapList(f *testing.F) {
	if b, err := someList().Encode(); err == nil {
		f.Add(b)
	}
	f.Add(make([]byte, 32))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ondisk.DecodeMapList(b)
		if err != nil {
			return
		}
		if again, err := l.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x became %x, %v", b, again, err)
		}
		d := someDirectory()
		if err := somePool().ValidateMapList(d, d.Maps[1], l); err == nil && len(l.Chunks) != 1 {
			t.Fatalf("%+v is the list of %+v", l, d.Maps[1])
		}
	})
}

func FuzzChain(f *testing.F) {
	_, chunks, err := ondisk.EncodeChain(ondisk.ChainDirectory, contentsOf(f, someDirectory()), somePlaces(1), poolChunk)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(chunks[0])
	f.Fuzz(func(t *testing.T, b []byte) {
		first := ondisk.Link{Place: ondisk.Place{Member: 1}, Length: uint32(len(b)), Sum: ondisk.ChunkSum(b)}
		if l, ok := ondisk.FindDirectory(first.Place, b, poolChunk); ok && (l.Length > poolChunk || l.Length == first.Length && l != first) {
			t.Fatalf("%v is found where %v begins", l, first)
		}
		c, err := ondisk.NewChain(ondisk.ChainDirectory, first, poolChunk)
		if err != nil || c.Take(b) != nil {
			return
		}
		if next, more := c.Next(); more && (next.Length > poolChunk || next.Member == 0) {
			t.Fatalf("leads to %v", next)
		}
		if !bytes.Equal(c.Contents(), b[48:]) {
			t.Fatalf("%x holds %x", b, c.Contents())
		}
	})
}
