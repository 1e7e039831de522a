package nbd

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
	"github.com/gvirstor/gvirstor/ondisk"
)

// newVolume opens a volume on two files.
func newVolume(t *testing.T, virtual, chunk, file int64, cfg virstor.Config) *virstor.Volume {
	t.Helper()
	req := ondisk.LabelRequest{Name: "disk", VirtualSize: virtual, ChunkSize: chunk, ID: 1, ChunkMultiple: ondisk.MinChunkMultiple}
	var members []virstor.Member
	var providers []geomlib.Provider
	for _, name := range []string{"a", "b"} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, file); err != nil {
			t.Fatal(err)
		}
		p, err := geomlib.Open(path, geomlib.OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		providers = append(providers, p)
		req.Providers = append(req.Providers, ondisk.LabelProvider{Name: p.Name(), Size: p.MediaSize(), SectorSize: p.SectorSize()})
	}
	l, err := ondisk.Plan(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := virstor.Label(t.Context(), providers, l, virstor.LabelOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, p := range providers {
		m, err := geomlib.ReadMetadata(p)
		if err != nil {
			t.Fatal(err)
		}
		members = append(members, virstor.Member{Provider: p, Metadata: m})
	}
	v, err := virstor.Open(virstor.Assemble(members)[0], cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	return v
}

// newVolumeRig serves a volume on two files, of which the first 64 MiB are
// written, as disk.
func newVolumeRig(t *testing.T, cfg virstor.Config) *rig {
	t.Helper()
	v := newVolume(t, 1<<30, 1<<20, 64<<20, cfg)
	if _, err := v.WriteAt(make([]byte, 64<<20), 0); err != nil {
		t.Fatal(err)
	}
	return startServer(t, Config{}, map[string]Disk{"disk": v})
}

// TestRequestsToAVolumeAllocateNothing: from the socket to the files and back.
func TestRequestsToAVolumeAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	r := newVolumeRig(t, virstor.Config{Alloc: virstor.Spread})
	read := func(off, n int) proto.Request {
		return proto.Request{Type: proto.CmdRead, Offset: uint64(off), Length: uint64(n)}
	}
	write := func(off, n int) proto.Request {
		return proto.Request{Type: proto.CmdWrite, Offset: uint64(off), Length: uint64(n)}
	}
	fua := func(q proto.Request) proto.Request { q.Flags = proto.CmdFlagFUA; return q }
	flush := proto.Request{Type: proto.CmdFlush}
	const chunk = 1 << 20
	for what, requests := range map[string][]proto.Request{
		"reads":                           {read(0, 4096), read(chunk, 4096), read(3*chunk-2048, 4096), read(512<<20, 4096), read(8*chunk, 256<<10)},
		"reads of parts of sectors":       {read(3, 5), read(chunk-100, 4000)},
		"large reads":                     {read(4*chunk, 4*chunk), read(0, 4*chunk)},
		"reads that are lent":             {read(4*chunk, chunk), read(6*chunk, chunk), read(8*chunk, chunk/2), read(9*chunk, chunk)},
		"writes":                          {write(0, 4096), write(chunk, 4096), write(3*chunk-2048, 4096), write(8*chunk, 256<<10)},
		"writes of parts of sectors":      {write(3, 5), write(chunk-100, 4000)},
		"large writes":                    {write(4*chunk, 4*chunk), write(0, 4*chunk)},
		"a flush of what is clean":        {flush},
		"flushes":                         {write(0, 4096), write(chunk, 4096), flush, write(2*chunk, 512), flush},
		"writes that reach the medium":    {fua(write(0, 4096)), fua(write(chunk, 4096)), fua(write(2*chunk-512, 1024))},
		"zeroes that are written":         {{Type: proto.CmdWriteZeroes, Flags: proto.CmdFlagNoHole, Offset: 4096, Length: 65536}},
		"zeroes and trims of what is not": {{Type: proto.CmdWriteZeroes, Offset: 512 << 20, Length: 1 << 30 / 4}, {Type: proto.CmdTrim, Offset: 768 << 20, Length: 4096}},
	} {
		b := newMixedBurst(t, r, requests...)
		if n := testing.AllocsPerRun(30, func() {
			if err := b.do(); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: a burst of %d requests allocates %v times", what, len(requests), n)
		}
	}
}
