package virstor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/extblock"
	"github.com/gvirstor/gvirstor/ondisk"
)

// fullVolume labels a volume of 64 TiB on sparse files and writes a map that has
// all its chunks allocated: 128 MiB. It returns the files.
func fullVolume(b *testing.B) []string {
	b.Helper()
	const count, size = 5, 15 << 40
	req := ondisk.LabelRequest{Name: "vol", VirtualSize: 64 << 40, ChunkSize: 4 << 20, ID: 3}
	var names []string
	for i := range count {
		name := filepath.Join(b.TempDir(), fmt.Sprint("component", i))
		f, err := os.Create(name)
		if err != nil {
			b.Fatal(err)
		}
		if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
			b.Fatal(err)
		}
		names = append(names, name)
		req.Providers = append(req.Providers, ondisk.LabelProvider{Name: name, Size: size, SectorSize: 512})
	}
	l, err := ondisk.Plan(req)
	if err != nil {
		b.Fatal(err)
	}
	ms := openMembers(b, names, false)
	var ps []geomlib.Provider
	for _, m := range ms {
		ps = append(ps, m.Provider)
	}
	if err := Label(b.Context(), ps, l, LabelOptions{}); err != nil {
		b.Fatal(err)
	}
	m, err := geomlib.ReadMetadata(ps[0])
	if err != nil {
		b.Fatal(err)
	}
	var image []byte
	comp, next := uint16(0), uint32(m.ChunkReserved)
	for range m.VirtualSize / uint64(m.ChunkSize) {
		if int64(next) == size/int64(m.ChunkSize)-1 {
			comp, next = comp+1, 0
		}
		image = append(image, make([]byte, ondisk.EntrySize)...)
		ondisk.Entry{Flags: ondisk.FlagAllocated, Component: comp, Chunk: next}.Encode(image[len(image)-ondisk.EntrySize:], ondisk.LittleEndian)
		next++
	}
	if _, err := ps[0].WriteAt(image, 0); err != nil {
		b.Fatal(err)
	}
	for _, p := range ps {
		if err := errors.Join(p.Flush(), p.Close()); err != nil {
			b.Fatal(err)
		}
	}
	return names
}

// openMembers opens providers, with the metadata of those that were labelled.
func openMembers(b *testing.B, names []string, labelled bool) []Member {
	b.Helper()
	var ms []Member
	for _, name := range names {
		p, err := geomlib.Open(name, geomlib.OpenOptions{})
		if err != nil {
			b.Fatal(err)
		}
		m := Member{Provider: p}
		if labelled {
			if m.Metadata, err = geomlib.ReadMetadata(p); err != nil {
				b.Fatal(err)
			}
		}
		ms = append(ms, m)
	}
	return ms
}

// BenchmarkOpen opens a volume of 64 TiB that is all allocated, which reads and
// checks its map of 128 MiB, and reads the same bytes alone, from the page cache
// and from the disk.
func BenchmarkOpen(b *testing.B) {
	names := fullVolume(b)
	const mapBytes = 128 << 20
	f, err := os.Open(names[0])
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	forget := func() {
		if err := unix.Fadvise(int(f.Fd()), 0, mapBytes, unix.FADV_DONTNEED); err != nil {
			b.Fatal(err)
		}
	}
	for _, cold := range []bool{false, true} {
		b.Run(fmt.Sprintf("map alone/cold=%t", cold), func(b *testing.B) {
			buf := make([]byte, 1<<20)
			b.SetBytes(mapBytes)
			for b.Loop() {
				if cold {
					b.StopTimer()
					forget()
					b.StartTimer()
				}
				if _, err := io.CopyBuffer(struct{ io.Writer }{sink{}}, io.NewSectionReader(f, 0, mapBytes), buf); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("open/cold=%t", cold), func(b *testing.B) {
			b.SetBytes(mapBytes)
			for b.Loop() {
				if cold {
					b.StopTimer()
					forget()
					b.StartTimer()
				}
				v, err := Open(Assemble(openMembers(b, names, true))[0], Config{})
				if err != nil {
					b.Fatal(err)
				}
				if n := v.Status().Allocated; n != mapBytes/ondisk.EntrySize {
					b.Fatalf("%d chunks", n)
				}
				b.StopTimer()
				if err := v.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

// sink looks at what is written to it, as little as can be.
type sink struct{}

func (sink) Write(p []byte) (int, error) {
	_ = binary.NativeEndian.Uint64(p)
	return len(p), nil
}

// BenchmarkOpenUnclean opens the volume of BenchmarkOpen as it is after a loss of power:
// the map is read past the cache, checked, written again and flushed. It does the same to
// the bytes of the map alone.
func BenchmarkOpenUnclean(b *testing.B) {
	names := fullVolume(b)
	const mapBytes = 128 << 20
	b.Run("map alone", func(b *testing.B) {
		f, err := os.OpenFile(names[0], os.O_RDWR, 0)
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		buf := make([]byte, 1<<20)
		b.SetBytes(mapBytes)
		for b.Loop() {
			if err := unix.Fadvise(int(f.Fd()), 0, mapBytes, unix.FADV_DONTNEED); err != nil {
				b.Fatal(err)
			}
			for off := int64(0); off < mapBytes; off += int64(len(buf)) {
				if _, err := f.ReadAt(buf, off); err != nil {
					b.Fatal(err)
				}
				if _, err := f.WriteAt(buf, off); err != nil {
					b.Fatal(err)
				}
			}
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("open", func(b *testing.B) {
		b.SetBytes(mapBytes)
		for b.Loop() {
			b.StopTimer()
			forgetClean(b, names)
			b.StartTimer()
			v, err := Open(Assemble(openMembers(b, names, true))[0], Config{})
			if err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			if err := v.Close(); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
}

// forgetClean makes a volume one that was not closed in order, and that has been fenced.
func forgetClean(b *testing.B, names []string) {
	b.Helper()
	a := Assemble(openMembers(b, names, true))[0]
	if a.Members[0].Metadata.Version != ondisk.VersionFenced {
		v, err := Open(a, Config{})
		if err != nil {
			b.Fatal(err)
		}
		if err := v.Close(); err != nil {
			b.Fatal(err)
		}
		forgetClean(b, names)
		return
	}
	e := a.ext.rec
	e.Sequence++
	e.Clean = false
	if err := extblock.Store(a.Members[0].Provider, a.ext.offset, e); err != nil {
		b.Fatal(err)
	}
	for _, m := range a.Members {
		if err := m.Provider.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
