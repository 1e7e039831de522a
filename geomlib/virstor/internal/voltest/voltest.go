// Package voltest makes small volumes on disks in memory, for tests of what
// works on stopped volumes.
package voltest

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/poolio"
	"github.com/gvirstor/gvirstor/ondisk"
)

// What New makes.
const (
	Chunk  = 128 << 10
	Size   = 16 << 20 // virtual, bytes
	ID     = 0x1234abcd
	Name   = "vol"
	Sector = 512
)

// Sizes are the providers' sizes of New in bytes. They differ, and the last
// sector of none is at the end of a whole chunk.
var Sizes = []int64{16*Chunk + 8192, 20*Chunk + 4096, 24*Chunk + 4096}

// Label makes a volume on new disks of the sizes, named p0, p1 ….
func Label(t testing.TB, sector int, sizes ...int64) []*disktest.Disk {
	t.Helper()
	req := ondisk.LabelRequest{Name: Name, VirtualSize: Size, ChunkSize: Chunk, ID: ID, ChunkMultiple: ondisk.MinChunkMultiple}
	var disks []*disktest.Disk
	for i, size := range sizes {
		d := disktest.New(fmt.Sprintf("p%d", i), size, sector)
		disks = append(disks, d)
		req.Providers = append(req.Providers, ondisk.LabelProvider{Name: d.Name(), Size: size, SectorSize: sector})
	}
	l, err := ondisk.Plan(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := virstor.Label(context.Background(), Providers(disks), l, virstor.LabelOptions{}); err != nil {
		t.Fatal(err)
	}
	return disks
}

// Open opens the volume on disks.
func Open(t testing.TB, cfg virstor.Config, disks []*disktest.Disk) *virstor.Volume {
	t.Helper()
	v, err := TryOpen(cfg, disks)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TryOpen opens the one volume on disks.
func TryOpen(cfg virstor.Config, disks []*disktest.Disk) (*virstor.Volume, error) {
	var members []virstor.Member
	for _, d := range disks {
		m, err := geomlib.ReadMetadata(d)
		if err != nil {
			return nil, err
		}
		members = append(members, virstor.Member{Provider: d, Metadata: m})
	}
	as := virstor.Assemble(members)
	if len(as) != 1 {
		return nil, fmt.Errorf("%d volumes", len(as))
	}
	return virstor.Open(as[0], cfg)
}

// New is a volume of three components, the first full and the second in use,
// with version 1 when handed back and 2 when not. It returns also its data.
func New(t testing.TB, handedBack bool) (disks []*disktest.Disk, data []byte) {
	t.Helper()
	disks = Label(t, Sector, Sizes...)
	v := Open(t, virstor.Config{}, disks)
	data = make([]byte, Size)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 24 { // spread over the volume, in random order of chunks
		at := int64(i*17%(Size/Chunk)) * Chunk
		b := data[at+512 : at+4096]
		for k := range b {
			b[k] = byte(rng.Uint32())
		}
		if _, err := v.WriteAt(b, at+512); err != nil {
			t.Fatal(err)
		}
	}
	end := v.Close
	if handedBack {
		end = v.Stop
	}
	if err := end(); err != nil {
		t.Fatal(err)
	}
	return disks, data
}

// WithSnapshots is New, fenced, with the snapshots a and b. Between them virtual chunk 0
// was overwritten and 17 was discarded, and after b 34 and 0 were overwritten.
func WithSnapshots(t testing.TB) []*disktest.Disk {
	t.Helper()
	disks, _ := New(t, false)
	v := Open(t, virstor.Config{}, disks)
	write := func(vc int64) error {
		_, err := v.WriteAt(bytes.Repeat([]byte{3}, 512), vc*Chunk)
		return err
	}
	err := v.Snapshot("a")
	err = errors.Join(err, write(0), v.Discard(17*Chunk, Chunk), v.Snapshot("b"), write(34), write(0), v.Close())
	if err != nil {
		t.Fatal(err)
	}
	return disks
}

// MapOf is where chunk i of the map of a snapshot lies: on which of disks, and at which
// byte.
func MapOf(t testing.TB, disks []*disktest.Disk, snapshot string, i int) (*disktest.Disk, int64) {
	t.Helper()
	zero := Metadata(t, disks[0])
	r := poolio.New(zero.ChunkSize, disks[0].SectorSize())
	for _, d := range disks {
		r.Add(d, Metadata(t, d))
	}
	rec, _, err := virstor.Record(disks[0], zero)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := r.Directory(context.Background(), rec.Directory)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range dir.Maps {
		if m.Name != snapshot {
			continue
		}
		at, err := r.Map(context.Background(), dir, m)
		if err != nil {
			t.Fatal(err)
		}
		place := at.Place(at.List.Chunks[i])
		return r.Components[place.Member].(*disktest.Disk), int64(place.Chunk) * Chunk
	}
	t.Fatalf("no snapshot %s", snapshot)
	return nil, 0
}

// Unmarked takes the member blocks off, as of a volume that the first release served, and
// returns disks.
func Unmarked(t testing.TB, disks []*disktest.Disk) []*disktest.Disk {
	t.Helper()
	for _, d := range disks {
		SetMetadata(t, d, func(m *ondisk.Metadata) { m.Member = ondisk.MemberBlock{} })
	}
	return disks
}

// part is how much of each chunk is compared: all that New writes to, and more.
const part = 8192

// MustHold fails the test unless the volume on disks can be opened for
// writing and holds data, but for the virtual chunks in skip.
func MustHold(t testing.TB, disks []*disktest.Disk, data []byte, skip ...uint64) {
	t.Helper()
	v := Open(t, virstor.Config{}, disks)
	defer func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}()
	got := make([]byte, part)
	for off := 0; off < len(data); off += Chunk {
		if slices.Contains(skip, uint64(off/Chunk)) {
			continue
		}
		if _, err := v.ReadAt(got, int64(off)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, data[off:off+part]) {
			t.Fatalf("virtual chunk %d does not hold what it did", off/Chunk)
		}
	}
}

// Clone copies disks.
func Clone(disks []*disktest.Disk) []*disktest.Disk {
	out := make([]*disktest.Disk, len(disks))
	for i, d := range disks {
		out[i] = d.Clone()
	}
	return out
}

// Providers are disks as the interface.
func Providers(disks []*disktest.Disk) []geomlib.Provider {
	out := make([]geomlib.Provider, len(disks))
	for i, d := range disks {
		out[i] = d
	}
	return out
}

// Metadata reads a disk's metadata.
func Metadata(t testing.TB, d geomlib.Provider) ondisk.Metadata {
	t.Helper()
	m, err := geomlib.ReadMetadata(d)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// SetMetadata changes a disk's metadata.
func SetMetadata(t testing.TB, d geomlib.Provider, change func(*ondisk.Metadata)) {
	t.Helper()
	m := Metadata(t, d)
	change(&m)
	if err := geomlib.StoreMetadata(d, m); err != nil {
		t.Fatal(err)
	}
}

// Spoil changes a disk's metadata as damage does: the checksum of its member block, if it
// has one, says so.
func Spoil(t testing.TB, d geomlib.Provider, change func(*ondisk.Metadata)) {
	t.Helper()
	m, last := Metadata(t, d), d.MediaSize()-int64(d.SectorSize())
	was, now := make([]byte, d.SectorSize()), make([]byte, d.SectorSize())
	if _, err := d.ReadAt(was, last); err != nil {
		t.Fatal(err)
	}
	change(&m)
	m.Member = ondisk.MemberBlock{}
	if err := m.Encode(now); err != nil {
		t.Fatal(err)
	}
	copy(now[ondisk.MetadataSize:], was[ondisk.MetadataSize:])
	Write(t, d, now, last)
}

// Entry reads the map entry of vc from component 0.
func Entry(t testing.TB, zero geomlib.Provider, vc uint64) ondisk.Entry {
	t.Helper()
	b, at, _ := entrySector(t, zero, vc)
	return ondisk.DecodeEntry(b[at:], ondisk.LittleEndian)
}

// SetEntry writes the map entry of vc.
func SetEntry(t testing.TB, zero geomlib.Provider, vc uint64, e ondisk.Entry, o ondisk.Order) {
	t.Helper()
	b, at, off := entrySector(t, zero, vc)
	e.Encode(b[at:], o)
	Write(t, zero, b, off)
}

func entrySector(t testing.TB, zero geomlib.Provider, vc uint64) (b []byte, at, off int64) {
	t.Helper()
	s := int64(zero.SectorSize())
	off = int64(vc) * ondisk.EntrySize / s * s
	b = make([]byte, s)
	if _, err := zero.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	return b, int64(vc)*ondisk.EntrySize - off, off
}

// Write writes b durably.
func Write(t testing.TB, p geomlib.Provider, b []byte, off int64) {
	t.Helper()
	if _, err := p.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
	if err := p.Flush(); err != nil {
		t.Fatal(err)
	}
}

// Golden is the volume that FreeBSD's kernel class wrote, in the folder of its
// images.
func Golden(t testing.TB, dir string) (disks []*disktest.Disk) {
	t.Helper()
	for i := range 3 {
		f, err := os.Open(fmt.Sprintf("%s/written-%d.img.gz", dir, i))
		if err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		d := disktest.New(fmt.Sprintf("written-%d", i), int64(len(b)), 512)
		const page = 64 << 10
		zeros := make([]byte, page)
		for off := 0; off < len(b); off += page { // what is zeros stays a hole
			if part := b[off : off+page]; !bytes.Equal(part, zeros) {
				Write(t, d, part, int64(off))
			}
		}
		disks = append(disks, d)
	}
	return disks
}
