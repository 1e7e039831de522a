package ondisk_test

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/ondisk"
)

// sound is the metadata of component 0 of a good volume on 64 MiB.
func sound() ondisk.Metadata {
	return ondisk.Metadata{
		Version: ondisk.Version, Name: "mydata", VirtualSize: 1 << 30, ChunkSize: 1 << 20, ID: 7, Count: 2,
		ProviderSize: 64 << 20, ChunkCount: 63, ChunkNext: 2, ChunkReserved: 2,
		Flags: ondisk.FlagAllocated | ondisk.FlagCurrent,
	}
}

func TestValidateNamesEachReason(t *testing.T) {
	const media, sector = 64 << 20, 512
	second := func(m *ondisk.Metadata) { m.No, m.ChunkReserved, m.ChunkNext = 1, 0, 0 }
	tests := []struct {
		name   string
		change func(*ondisk.Metadata)
		media  int64
		sector int
		want   error
	}{
		{"sound", func(m *ondisk.Metadata) {}, media, sector, nil},
		{"second component", second, media, sector, nil},
		{"fenced", func(m *ondisk.Metadata) { m.Version = ondisk.VersionFenced }, media, sector, nil},
		{"version 0", func(m *ondisk.Metadata) { m.Version = 0 }, media, sector, ondisk.ErrVersion},
		{"version 3", func(m *ondisk.Metadata) { m.Version = 3 }, media, sector, ondisk.ErrVersion},
		{"name of 16 bytes", func(m *ondisk.Metadata) { m.Name = strings.Repeat("n", 16) }, media, sector, nil},
		{"name of 17 bytes", func(m *ondisk.Metadata) { m.Name = strings.Repeat("n", 17) }, media, sector, ondisk.ErrName},
		{"name with a blank", func(m *ondisk.Metadata) { m.Name = "my data" }, media, sector, nil},
		{"no name", func(m *ondisk.Metadata) { m.Name = "" }, media, sector, ondisk.ErrName},
		{"name that climbs", func(m *ondisk.Metadata) { m.Name = "../ada0" }, media, sector, ondisk.ErrName},
		{"name from the root", func(m *ondisk.Metadata) { m.Name = "/ada0" }, media, sector, ondisk.ErrName},
		{"name with a newline", func(m *ondisk.Metadata) { m.Name = "a\nb" }, media, sector, ondisk.ErrName},
		{"sector 0", func(m *ondisk.Metadata) {}, media, 0, ondisk.ErrSectorSize},
		{"sector 520", func(m *ondisk.Metadata) {}, media, 520, ondisk.ErrSectorSize},
		{"sector 128 KiB", func(m *ondisk.Metadata) {}, media, 128 << 10, ondisk.ErrSectorSize},
		{"chunk 0", func(m *ondisk.Metadata) { m.ChunkSize = 0 }, media, sector, ondisk.ErrChunkSize},
		{"chunk of no whole sectors", func(m *ondisk.Metadata) { m.ChunkSize += 100 }, media, sector, ondisk.ErrChunkSize},
		{"chunk no multiple of 128 KiB", func(m *ondisk.Metadata) { m.ChunkSize = 64 << 10 }, media, sector, ondisk.ErrChunkSize},
		{"chunk of old kernels", func(m *ondisk.Metadata) { m.ChunkSize = 128 << 10 }, media, sector, nil},
		{"virtual size 0", func(m *ondisk.Metadata) { m.VirtualSize = 0 }, media, sector, ondisk.ErrVirtualSize},
		{"virtual size of no whole chunks", func(m *ondisk.Metadata) { m.VirtualSize++ }, media, sector, ondisk.ErrVirtualSize},
		{"virtual size beyond 63 bits", func(m *ondisk.Metadata) { m.VirtualSize = 1 << 63 }, media, sector, ondisk.ErrVirtualSize},
		{"map of no whole sectors", func(m *ondisk.Metadata) { m.VirtualSize += 1 << 20 }, media, sector, ondisk.ErrVirtualSize},
		{"map of whole 512 but no 64 Ki sectors", func(m *ondisk.Metadata) {}, media, 64 << 10, ondisk.ErrVirtualSize},
		{"provider grown", func(m *ondisk.Metadata) {}, media + sector, sector, ondisk.ErrProviderSize},
		{"provider shrunk", func(m *ondisk.Metadata) {}, media - sector, sector, ondisk.ErrProviderSize},
		{"provider of no whole sectors", func(m *ondisk.Metadata) { m.ProviderSize++ }, media + 1, sector, ondisk.ErrProviderSize},
		{"provider of no bytes", func(m *ondisk.Metadata) { m.ProviderSize = 0 }, 0, sector, ondisk.ErrProviderSize},
		{"provider of less than none", func(m *ondisk.Metadata) { m.ProviderSize = math.MaxUint64 - 511 }, -512, sector, ondisk.ErrProviderSize},
		{"index is the count", func(m *ondisk.Metadata) { second(m); m.No = 2 }, media, sector, ondisk.ErrIndex},
		{"no components", func(m *ondisk.Metadata) { m.Count = 0 }, media, sector, ondisk.ErrIndex},
		{"map beyond component 0", func(m *ondisk.Metadata) { m.VirtualSize = 16 << 40 }, media, sector, ondisk.ErrMapSize},
		{"map to the metadata sector", func(m *ondisk.Metadata) { m.VirtualSize = 8<<40 - 64<<20; m.ChunkReserved, m.ChunkNext = 64, 64 }, media, sector, nil},
		{"map into the metadata sector", func(m *ondisk.Metadata) { m.VirtualSize = 8 << 40; m.ChunkReserved, m.ChunkNext = 64, 64 }, media, sector, ondisk.ErrMapSize},
		{"big map, component 1", func(m *ondisk.Metadata) { m.VirtualSize = 16 << 40; second(m) }, media, sector, nil},
		{"more chunks than fit", func(m *ondisk.Metadata) { m.ChunkCount = 65 }, media, sector, ondisk.ErrChunkCount},
		{"most chunks of the largest size", func(m *ondisk.Metadata) {
			second(m)
			m.ChunkCount, m.ChunkSize, m.VirtualSize = math.MaxUint32, 0xfffe0000, 64*0xfffe0000
		}, media, sector, ondisk.ErrChunkCount},
		{"chunk count 2^32-1", func(m *ondisk.Metadata) { m.ChunkCount = math.MaxUint32 }, media, sector, ondisk.ErrChunkCount},
		{"fewer chunks than fit", func(m *ondisk.Metadata) { m.ChunkCount = 10 }, media, sector, nil},
		{"last chunk over the metadata", func(m *ondisk.Metadata) { m.ChunkCount = 64 }, media, sector, ondisk.ErrLastSector},
		{"a worse reason comes first", func(m *ondisk.Metadata) { m.ChunkCount, m.ChunkNext = 64, 65 }, media, sector, ondisk.ErrChunkNext},
		{"reserves nothing", func(m *ondisk.Metadata) { m.ChunkReserved = 0 }, media, sector, ondisk.ErrReserved},
		{"reserves just the map", func(m *ondisk.Metadata) { m.ChunkReserved = 1 }, media, sector, nil},
		{"component 1 reserves", func(m *ondisk.Metadata) { m.No = 1 }, media, sector, ondisk.ErrReserved},
		{"next is reserved", func(m *ondisk.Metadata) { m.ChunkNext = 1 }, media, sector, ondisk.ErrChunkNext},
		{"next is the count", func(m *ondisk.Metadata) { m.ChunkNext = 63 }, media, sector, nil},
		{"next beyond the count", func(m *ondisk.Metadata) { m.ChunkNext = 64 }, media, sector, ondisk.ErrChunkNext},
		{"component 0 with nothing but its map", func(m *ondisk.Metadata) { m.ChunkCount = 1 }, media, sector, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := sound()
			tt.change(&m)
			if err := m.Validate(tt.media, tt.sector); !errors.Is(err, tt.want) {
				t.Errorf("%+v: %v, want %v", m, err, tt.want)
			}
		})
	}
}

func TestDecodeMetadataRefusesWhatIsNone(t *testing.T) {
	good := make([]byte, 512)
	if err := sound().Encode(good); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		b    []byte
		want error
	}{
		{"nothing", nil, ondisk.ErrShort},
		{"one byte short", good[:ondisk.MetadataSize-1], ondisk.ErrShort},
		{"just enough", good[:ondisk.MetadataSize], nil},
		{"zeros", make([]byte, 512), ondisk.ErrMagic},
		{"another class", append([]byte("GEOM::CONCAT\x00\x00\x00\x00"), good[16:]...), ondisk.ErrMagic},
		{"magic goes on", append([]byte("GEOM::VIRSTOR2\x00\x00"), good[16:]...), ondisk.ErrMagic},
	}
	for _, tt := range tests {
		if _, err := ondisk.DecodeMetadata(tt.b); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestDecodeMetadataTakesNamesThatFillTheirField(t *testing.T) {
	m := sound()
	m.Name, m.Provider = "sixteencharsname", "diskid/DISK-data"
	m.Version = 9
	sector := make([]byte, 4096)
	if err := m.Encode(sector); err != nil {
		t.Fatal(err)
	}
	got, err := ondisk.DecodeMetadata(sector)
	if err != nil || got != m {
		t.Errorf("%+v, %v, want %+v", got, err, m)
	}
}

func TestEncodeRefusesAndLeavesTheSectorAlone(t *testing.T) {
	tests := []struct {
		name   string
		change func(*ondisk.Metadata)
		size   int
		want   error
	}{
		{"small sector", func(m *ondisk.Metadata) {}, ondisk.MetadataSize - 1, ondisk.ErrShort},
		{"long name", func(m *ondisk.Metadata) { m.Name = strings.Repeat("n", 17) }, 512, ondisk.ErrName},
		{"name with NUL", func(m *ondisk.Metadata) { m.Name = "a\x00b" }, 512, ondisk.ErrName},
		{"long provider", func(m *ondisk.Metadata) { m.Provider = strings.Repeat("p", 17) }, 512, ondisk.ErrProviderName},
		{"provider with NUL", func(m *ondisk.Metadata) { m.Provider = "a\x00" }, 512, ondisk.ErrProviderName},
	}
	for _, tt := range tests {
		m := sound()
		tt.change(&m)
		sector := bytes.Repeat([]byte{0xee}, tt.size)
		if err := m.Encode(sector); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if !bytes.Equal(sector, bytes.Repeat([]byte{0xee}, tt.size)) {
			t.Errorf("%s: the sector was written", tt.name)
		}
	}
}

func TestMapSizesOfAbsurdMetadataDoNotOverflow(t *testing.T) {
	tests := []struct {
		virtual uint64
		chunk   uint32
		entries uint64
		bytes   int64
		chunks  uint32
	}{
		{1 << 30, 0, 0, 0, 0},
		{math.MaxUint64, 1, math.MaxUint64, math.MaxInt64, math.MaxUint32},
		{1 << 63, 128 << 10, 1 << 46, 1 << 49, math.MaxUint32},
		{2 << 40, 4 << 20, 1 << 19, 4 << 20, 1},
		{2<<40 + 4<<20, 4 << 20, 1<<19 + 1, 4<<20 + 8, 2},
	}
	for _, tt := range tests {
		m := ondisk.Metadata{VirtualSize: tt.virtual, ChunkSize: tt.chunk}
		if m.Entries() != tt.entries || m.MapBytes() != tt.bytes || m.MapChunks() != tt.chunks {
			t.Errorf("%d/%d: %d entries, %d bytes, %d chunks; want %d, %d, %d", tt.virtual, tt.chunk,
				m.Entries(), m.MapBytes(), m.MapChunks(), tt.entries, tt.bytes, tt.chunks)
		}
	}
}

func TestUsableChunksKeepsOffTheLastSector(t *testing.T) {
	tests := []struct {
		size   int64
		sector int
		chunk  int64
		want   uint32
	}{
		{8 << 30, 512, 4 << 20, 2047},
		{8<<30 + 512, 512, 4 << 20, 2048},
		{8<<30 + 4095, 4096, 4 << 20, 2047},
		{8<<30 + 4096, 4096, 4 << 20, 2048},
		{4 << 20, 512, 4 << 20, 0},
		{512, 512, 4 << 20, 0},
		{0, 512, 4 << 20, 0},
		{-1, 512, 4 << 20, 0},
		{8 << 30, 512, 0, 0},
		{8 << 30, 0, 4 << 20, 0},
		{math.MaxInt64, 512, 128 << 10, math.MaxUint32},
		{math.MaxInt64, 512, math.MaxInt64, 0},
	}
	for _, tt := range tests {
		if got := ondisk.UsableChunks(tt.size, tt.sector, tt.chunk); got != tt.want {
			t.Errorf("UsableChunks(%d, %d, %d) = %d, want %d", tt.size, tt.sector, tt.chunk, got, tt.want)
		}
	}
}
