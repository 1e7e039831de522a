package ondisk_test

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/gvirstor/gvirstor/ondisk"
)

func smallRequest(chunk, virtual int64) ondisk.LabelRequest {
	return ondisk.LabelRequest{Name: "small", VirtualSize: virtual, ChunkSize: chunk, ID: 1, SmallChunks: true,
		Providers: []ondisk.LabelProvider{{Name: "da0", Size: 64 << 30, SectorSize: 512}, {Name: "da1", Size: 4 << 30, SectorSize: 512}}}
}

func TestSmallChunksLeaveRoomForTheExtensionBlock(t *testing.T) {
	for _, c := range []struct {
		chunk, virtual int64
		want, reserved uint32
		version        uint32
	}{
		{64 << 10, 1 << 28, 64 << 10, 3, ondisk.VersionFenced}, // a map of one chunk, and 128 KiB
		{64 << 10, 2 << 30, 64 << 10, 8, ondisk.VersionFenced}, // of four, and as many again
		{100 << 10, 1 << 28, 128 << 10, 2, ondisk.Version},     // which the kernel class knows
		{190 << 10, 1 << 28, 192 << 10, 2, ondisk.VersionFenced},
	} {
		l, err := ondisk.Plan(smallRequest(c.chunk, c.virtual))
		if err != nil {
			t.Fatal(err)
		}
		m := l.Metadata[0]
		if m.ChunkSize != c.want || uint32(m.ChunkReserved) != c.reserved || m.LabelReserves() != c.reserved || m.Version != c.version {
			t.Errorf("chunks of %d: %+v", c.chunk, m)
		}
		told := slices.Contains(l.Notices, "Chunks of 64 kB: the kernel class cannot serve the volume, which is never handed to it.")
		if told != (c.want == 64<<10) || m.SmallChunks() != (c.version == ondisk.VersionFenced) {
			t.Errorf("chunks of %d: %q", c.chunk, l.Notices)
		}
		if off, room := ondisk.ExtensionOffset(m); !room || off < m.MapBytes() {
			t.Errorf("chunks of %d: the block is at %d, behind a map of %d", c.chunk, off, m.MapBytes())
		}
		if err := m.Validate(64<<30, 512); err != nil {
			t.Errorf("chunks of %d: %v", c.chunk, err)
		}
	}
}

func TestALargeVolumeNeedsLargerChunks(t *testing.T) {
	const most = math.MaxUint16 / 2 * (64 << 10) / ondisk.EntrySize * (64 << 10) // bytes
	if _, err := ondisk.Plan(smallRequest(64<<10, most)); err != nil {
		t.Errorf("%d bytes: %v", int64(most), err)
	}
	if _, err := ondisk.Plan(smallRequest(64<<10, most+64<<20)); !errors.Is(err, ondisk.ErrMapTooLarge) {
		t.Error(err)
	}
}

func TestSmallChunksAreKnownToNoKernelClass(t *testing.T) {
	l, err := ondisk.Plan(smallRequest(64<<10, 1<<28))
	if err != nil {
		t.Fatal(err)
	}
	m := l.Metadata[1]
	m.Version = ondisk.Version
	if err := m.Validate(4<<30, 512); !errors.Is(err, ondisk.ErrChunkSize) {
		t.Errorf("at version 1: %v", err)
	}
	if _, err := ondisk.PlanComponent(m, 1, ondisk.LabelProvider{Name: "da1", Size: 4 << 30, SectorSize: 512}, false); !errors.Is(err, ondisk.ErrChunkSize) {
		t.Errorf("added at version 1: %v", err)
	}
}
