package ondisk_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/gvirstor/gvirstor/ondisk"
	"pgregory.net/rapid"
)

var sectorSizes = []int{512, 1024, 2048, 4096, 8192, 64 << 10}

// size draws sizes of every magnitude, with those at the ends of the 64-bit
// range and around powers of two among them.
func size() *rapid.Generator[int64] {
	return rapid.Custom(func(t *rapid.T) int64 {
		top := int64(1)<<rapid.IntRange(0, 62).Draw(t, "bits") - 1
		near := rapid.Int64Range(-1<<16, 1<<16).Draw(t, "near")
		switch rapid.IntRange(0, 2).Draw(t, "how") {
		case 0:
			return max(top+near, 0)
		case 1:
			return math.MaxInt64 - max(near, 0)
		}
		return rapid.Int64Range(0, top).Draw(t, "size")
	})
}

// labelRequest draws requests of which many are to be refused.
func labelRequest() *rapid.Generator[ondisk.LabelRequest] {
	return rapid.Custom(func(t *rapid.T) ondisk.LabelRequest {
		r := ondisk.LabelRequest{
			Name:          rapid.StringMatching(`[a-z0-9_.-]{0,17}`).Draw(t, "name"),
			VirtualSize:   size().Draw(t, "virtual"),
			ChunkSize:     size().Draw(t, "chunk"),
			Hardcode:      rapid.Bool().Draw(t, "hardcode"),
			ID:            rapid.Uint32().Draw(t, "id"),
			ChunkMultiple: rapid.SampledFrom([]int64{0, 128 << 10, 1 << 20}).Draw(t, "multiple"),
		}
		sector := rapid.SampledFrom(sectorSizes).Draw(t, "sector")
		for i := range rapid.IntRange(1, 4).Draw(t, "count") {
			p := ondisk.LabelProvider{Name: fmt.Sprint("/dev/da", i), SectorSize: sector}
			p.Size = size().Draw(t, "provider") / int64(sector) * int64(sector)
			r.Providers = append(r.Providers, p)
		}
		return r
	})
}

// usualRequest draws requests an administrator makes, all of which fit.
func usualRequest() *rapid.Generator[ondisk.LabelRequest] {
	return rapid.Custom(func(t *rapid.T) ondisk.LabelRequest {
		r := ondisk.LabelRequest{
			Name:          rapid.StringMatching(`[a-z][a-z0-9_.-]{0,14}`).Draw(t, "name"),
			ChunkSize:     rapid.Int64Range(1<<20, 16<<20).Draw(t, "chunk"),
			Hardcode:      rapid.Bool().Draw(t, "hardcode"),
			ID:            rapid.Uint32().Draw(t, "id"),
			ChunkMultiple: rapid.SampledFrom([]int64{0, 128 << 10, 1 << 20}).Draw(t, "multiple"),
		}
		sector := rapid.SampledFrom(sectorSizes).Draw(t, "sector")
		r.VirtualSize = rapid.Int64Range(int64(sector)*r.ChunkSize, 1<<40).Draw(t, "virtual")
		for i := range rapid.IntRange(1, 4).Draw(t, "count") {
			p := ondisk.LabelProvider{Name: fmt.Sprint("/dev/da", i), SectorSize: sector}
			p.Size = rapid.Int64Range(64, 1<<14).Draw(t, "chunks") * (16 << 20)
			r.Providers = append(r.Providers, p)
		}
		return r
	})
}

func TestPlanYieldsValidMetadataOrAnError(t *testing.T) {
	t.Run("any request", rapid.MakeCheck(func(t *rapid.T) {
		r := labelRequest().Draw(t, "request")
		if l, err := ondisk.Plan(r); err == nil {
			checkPlan(t, r, l)
		}
	}))
	t.Run("usual request", rapid.MakeCheck(func(t *rapid.T) {
		r := usualRequest().Draw(t, "request")
		l, err := ondisk.Plan(r)
		if err != nil {
			t.Fatalf("refused: %v", err)
		}
		checkPlan(t, r, l)
	}))
}

// checkPlan compares a layout with the arithmetic .
func checkPlan(t *rapid.T, r ondisk.LabelRequest, l *ondisk.Layout) {
	m0 := l.Metadata[0]
	chunk := uint64(m0.ChunkSize)
	step := int64(1 << 20)
	if r.ChunkMultiple != 0 {
		step = r.ChunkMultiple
	}
	if c := int64(chunk); c < r.ChunkSize || c-r.ChunkSize >= step || c%step != 0 {
		t.Fatalf("chunk size %d for %d", chunk, r.ChunkSize)
	}
	perSector := uint64(l.SectorSize) / ondisk.EntrySize
	if n := m0.Entries(); n*chunk != m0.VirtualSize || n%perSector != 0 || n == 0 {
		t.Fatalf("%d entries, %d bytes", n, m0.VirtualSize)
	}
	low := uint64(r.VirtualSize) / chunk * chunk
	if m0.VirtualSize > math.MaxInt64 || m0.VirtualSize < low || m0.VirtualSize-low >= perSector*chunk {
		t.Fatalf("virtual size %d for %d", m0.VirtualSize, r.VirtualSize)
	}
	if l.MapBytes != m0.MapBytes() || l.MapChunks != m0.MapChunks() || uint32(m0.ChunkReserved) != 2*l.MapChunks {
		t.Fatalf("map of %d bytes, %d chunks, %d reserved", l.MapBytes, l.MapChunks, m0.ChunkReserved)
	}
	off, ok := ondisk.ExtensionOffset(m0)
	if !ok || off < l.MapBytes || uint64(off)+ondisk.ExtensionSize != uint64(m0.ChunkReserved)*chunk {
		t.Fatalf("extension block at %d, %v", off, ok)
	}
	for i, m := range l.Metadata {
		p := r.Providers[i]
		if err := m.Validate(p.Size, p.SectorSize); err != nil {
			t.Fatalf("component %d: %v", i, err)
		}
		end := uint64(m.ChunkCount) * chunk
		if room := uint64(p.Size) - uint64(p.SectorSize); end > room || room-end >= chunk {
			t.Fatalf("component %d: %d chunks before byte %d", i, m.ChunkCount, room)
		}
		if d := l.FittedChunks[i] - m.ChunkCount; d > 1 {
			t.Fatalf("component %d: %d chunks, %d fit", i, m.ChunkCount, l.FittedChunks[i])
		}
	}
}

func TestMetadataSurvivesEncoding(t *testing.T) {
	name := rapid.Map(rapid.SliceOfN(rapid.ByteRange(1, 255), 0, 16), func(b []byte) string { return string(b) })
	rapid.Check(t, func(t *rapid.T) {
		m := ondisk.Metadata{
			Version: rapid.Uint32().Draw(t, "version"), Name: name.Draw(t, "name"),
			VirtualSize: rapid.Uint64().Draw(t, "virtual"), ChunkSize: rapid.Uint32().Draw(t, "chunk"),
			ID: rapid.Uint32().Draw(t, "id"), Count: rapid.Uint16().Draw(t, "count"),
			Provider: name.Draw(t, "provider"), No: rapid.Uint16().Draw(t, "no"),
			ProviderSize: rapid.Uint64().Draw(t, "size"), ChunkCount: rapid.Uint32().Draw(t, "chunks"),
			ChunkNext: rapid.Uint32().Draw(t, "next"), ChunkReserved: rapid.Uint16().Draw(t, "reserved"),
			Flags: rapid.Uint16().Draw(t, "flags"),
		}
		sector := make([]byte, rapid.SampledFrom([]int{ondisk.MetadataSize, 512, 4096}).Draw(t, "sector"))
		if err := m.Encode(sector); err != nil {
			t.Fatal(err)
		}
		if got, err := ondisk.DecodeMetadata(sector); err != nil || got != m {
			t.Fatalf("%+v, %v, want %+v", got, err, m)
		}
	})
}

func TestExtensionSurvivesEncoding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := ondisk.Extension{
			Sequence: rapid.Uint64().Draw(t, "sequence"), VolumeID: rapid.Uint32().Draw(t, "id"),
			ChunkSize: rapid.Uint32().Draw(t, "chunk"), Clean: rapid.Bool().Draw(t, "clean"),
		}
		e.Intent.Kind = ondisk.IntentKind(rapid.Uint32Range(0, uint32(ondisk.IntentNewID)).Draw(t, "intent"))
		e.Task.Kind = ondisk.TaskKind(rapid.Uint32Range(0, uint32(ondisk.TaskReclaim)).Draw(t, "task"))
		e.Task.ComponentCount = rapid.Uint8Range(0, ondisk.MaxTaskComponents).Draw(t, "components")
		for i := range e.Task.ComponentCount {
			e.Task.Components[i] = rapid.Uint32().Draw(t, "component")
		}
		for i := range e.Intent.Arg {
			e.Intent.Arg[i], e.Task.Arg[i] = rapid.Uint64().Draw(t, "intent"), rapid.Uint64().Draw(t, "task")
		}
		b := make([]byte, 512)
		if err := e.Encode(b); err != nil {
			t.Fatal(err)
		}
		if got, err := ondisk.DecodeExtension(b); err != nil || got != e {
			t.Fatalf("%+v, %v, want %+v", got, err, e)
		}
	})
}

func TestRoundVirtualSizeNeverOverflows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := size().Draw(t, "size")
		chunk := rapid.Int64Range(1, math.MaxUint32>>17).Draw(t, "chunk") << 17
		sector := rapid.SampledFrom(sectorSizes).Draw(t, "sector")
		perSector := int64(sector / ondisk.EntrySize)
		got, added, err := ondisk.RoundVirtualSize(want, chunk, sector)
		if err != nil {
			if want >= chunk && want < math.MaxInt64-perSector*chunk {
				t.Fatalf("%v", err)
			}
			return
		}
		if got <= 0 || got%chunk != 0 || got/chunk%perSector != 0 || added < 0 || added >= perSector {
			t.Fatalf("%d, %d added", got, added)
		}
		if d := got - added*chunk; d > want || want-d >= chunk {
			t.Fatalf("%d, %d added, for %d", got, added, want)
		}
	})
}
