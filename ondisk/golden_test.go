package ondisk_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/ondisk"
)

// golden is one label command of FreeBSD 14's tool and what it wrote.
type golden struct {
	command string
	sector  int
	sizes   []int64
	records [][]byte // the first MetadataSize bytes of each metadata sector
}

func readGolden(t testing.TB) map[string]golden {
	t.Helper()
	f, err := os.Open("testdata/metadata.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := make(map[string]golden)
	var name string
	for s := bufio.NewScanner(f); s.Scan(); {
		line := s.Text()
		if strings.HasPrefix(line, "#") {
			continue
		}
		if raw, err := hex.DecodeString(line); err == nil {
			g := all[name]
			g.records = append(g.records, raw)
			all[name] = g
			continue
		}
		parts := strings.Split(line, "|")
		if len(parts) != 3 {
			t.Fatalf("line %q has %d parts", line, len(parts))
		}
		var g golden
		g.command, _, _ = strings.Cut(parts[0], "#")
		g.command, _, _ = strings.Cut(g.command, ";")
		if g.sector, err = strconv.Atoi(strings.TrimSpace(parts[1])); err != nil {
			t.Fatal(err)
		}
		for size := range strings.FieldsSeq(parts[2]) {
			n, err := strconv.ParseInt(size, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			g.sizes = append(g.sizes, n)
		}
		name = g.request(t).Name
		all[name] = g
	}
	if len(all) != 6 {
		t.Fatalf("%d volumes in testdata/metadata.txt, want 6", len(all))
	}
	return all
}

// request is the label command as a LabelRequest.
func (g golden) request(t testing.TB) ondisk.LabelRequest {
	t.Helper()
	r := ondisk.LabelRequest{
		VirtualSize: ondisk.DefaultVirtualSize,
		ChunkSize:   ondisk.DefaultChunkSize,
	}
	number := func(s string) int64 {
		shift := 0
		if i := strings.IndexByte("kmgt", s[len(s)-1]); i >= 0 {
			shift = 10 * (i + 1)
			s = s[:len(s)-1]
		}
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", g.command, err)
		}
		return n << shift
	}
	words := strings.Fields(g.command)[1:]
	for len(words) > 0 && strings.HasPrefix(words[0], "-") {
		switch words[0] {
		case "-h":
			r.Hardcode = true
			words = words[1:]
		case "-m":
			r.ChunkSize = number(words[1])
			words = words[2:]
		case "-s":
			r.VirtualSize = number(words[1])
			words = words[2:]
		default:
			t.Fatalf("%s: option %s", g.command, words[0])
		}
	}
	r.Name = words[0]
	for i, name := range words[1:] {
		r.Providers = append(r.Providers, ondisk.LabelProvider{Name: name, Size: g.sizes[i], SectorSize: g.sector})
	}
	return r
}

func TestLabelWritesFreeBSDsBytes(t *testing.T) {
	oddNotices := []string{
		"Resizing chunk size to be a multiple of MAXPHYS (1024 kB).",
		"New chunk size: 4096 kB",
		"Resizing virtual size to be a multiple of chunk size.",
		"New virtual size: 9536 MB",
		"Resizing virtual size to fit virstor structures.",
		"New virtual size: 9728 MB (48 new chunks)",
	}
	tests := []struct {
		volume  string
		mend    []uint32 // chunk counts where FreeBSD's tool is wrong
		notices []string
		fitted  []uint32
	}{
		{"dflt", nil, nil, []uint32{128, 256}},
		{"odd", nil, oddNotices, []uint32{16, 25}},
		{"hard", nil, nil, []uint32{64}},
		{"big", []uint32{1023, 2047}, nil, []uint32{1024, 2048}},
		{"four", nil, nil, []uint32{32}},
	}
	all := readGolden(t)
	for _, tt := range tests {
		t.Run(tt.volume, func(t *testing.T) {
			g := all[tt.volume]
			r := g.request(t)
			r.ID = binary.LittleEndian.Uint32(g.records[0][48:])
			l, err := ondisk.Plan(r)
			if err != nil {
				t.Fatal(err)
			}
			if len(l.Metadata) != len(g.records) {
				t.Fatalf("%d components, want %d", len(l.Metadata), len(g.records))
			}
			for i, m := range l.Metadata {
				want := make([]byte, g.sector)
				copy(want, g.records[i])
				if tt.mend != nil {
					binary.LittleEndian.PutUint32(want[80:], tt.mend[i])
				}
				got := bytes.Repeat([]byte{0xee}, g.sector)
				if err := m.Encode(got); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, want) {
					t.Errorf("component %d:\n got %x\nwant %x", i, got[:ondisk.MetadataSize], want[:ondisk.MetadataSize])
				}
				if err := m.Validate(g.sizes[i], g.sector); err != nil {
					t.Errorf("component %d: %v", i, err)
				}
			}
			if !slices.Equal(l.Notices, tt.notices) {
				t.Errorf("notices %q, want %q", l.Notices, tt.notices)
			}
			if !slices.Equal(l.FittedChunks, tt.fitted) {
				t.Errorf("fitted chunks %d, want %d", l.FittedChunks, tt.fitted)
			}
		})
	}
}

func TestPlanWarnsOfVolumesThatAreNotThin(t *testing.T) {
	l, err := ondisk.Plan(ondisk.LabelRequest{
		Name: "fat", VirtualSize: 256 << 20, ChunkSize: 4 << 20,
		Providers: []ondisk.LabelProvider{{Name: "a", Size: 512 << 20, SectorSize: 512}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"WARNING: Virtual storage size < Physical available storage (268435456 < 536870912)"}
	if !slices.Equal(l.Notices, want) {
		t.Errorf("notices %q, want %q", l.Notices, want)
	}
}

func TestKernelsMetadataDecodesAndEncodesToItself(t *testing.T) {
	for name, g := range readGolden(t) {
		for i, raw := range g.records {
			m, err := ondisk.DecodeMetadata(raw)
			if err != nil {
				t.Fatalf("%s %d: %v", name, i, err)
			}
			again := make([]byte, len(raw))
			if err := m.Encode(again); err != nil {
				t.Fatalf("%s %d: %v", name, i, err)
			}
			if !bytes.Equal(again, raw) {
				t.Errorf("%s %d: %x became %x", name, i, raw, again)
			}
			overlaps := name == "big" || name == "written" && i == 2
			err = m.Validate(g.sizes[i], g.sector)
			if overlaps && !errors.Is(err, ondisk.ErrLastSector) {
				t.Errorf("%s %d: %v, want %v", name, i, err, ondisk.ErrLastSector)
			}
			if !overlaps && err != nil {
				t.Errorf("%s %d: %v", name, i, err)
			}
		}
	}
}

func TestKernelsWrittenVolumeDecodes(t *testing.T) {
	g := readGolden(t)["written"]
	base := ondisk.Metadata{
		Version: 1, Name: "written", VirtualSize: 1 << 30, ChunkSize: 1 << 20, ID: 0xc0dac9f7, Count: 3,
	}
	want := []ondisk.Metadata{base, base, base}
	want[0].ProviderSize, want[0].ChunkCount, want[0].ChunkNext, want[0].ChunkReserved = 32<<20, 31, 31, 2
	want[0].Flags = ondisk.FlagAllocated
	want[1].No, want[1].ProviderSize, want[1].ChunkCount, want[1].ChunkNext = 1, 32<<20, 31, 17
	want[1].Flags = ondisk.FlagAllocated | ondisk.FlagCurrent
	want[2].No, want[2].ProviderSize, want[2].ChunkCount = 2, 40<<20, 40
	for i, raw := range g.records {
		got, err := ondisk.DecodeMetadata(raw)
		if err != nil {
			t.Fatal(err)
		}
		if got != want[i] {
			t.Errorf("component %d: %+v, want %+v", i, got, want[i])
		}
		img := writtenImage(t, i, g.sizes[i]+1)
		if int64(len(img)) != g.sizes[i] {
			t.Fatalf("component %d: its image has %d bytes, want %d", i, len(img), g.sizes[i])
		}
		if !bytes.Equal(img[len(img)-g.sector:][:len(raw)], raw) {
			t.Errorf("component %d: its image ends in another sector", i)
		}
	}
}

// writtenImage is the first size bytes of a component of the volume that
// FreeBSD's kernel wrote.
func writtenImage(t testing.TB, i int, size int64) []byte {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("../tests/testdata/golden/written-%d.img.gz", i))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	img, err := io.ReadAll(io.LimitReader(z, size))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestKernelsMapIsDenseAndLeadsToTheData(t *testing.T) {
	g := readGolden(t)["written"]
	var images [3][]byte
	var md [3]ondisk.Metadata
	for i := range images {
		images[i] = writtenImage(t, i, g.sizes[i])
		var err error
		if md[i], err = ondisk.DecodeMetadata(g.records[i]); err != nil {
			t.Fatal(err)
		}
	}
	raw := images[0][:md[0].MapBytes()]
	order := ondisk.DetectOrder(raw)
	if order != ondisk.LittleEndian {
		t.Fatalf("byte order %v", order)
	}

	used := make([]map[uint32]bool, len(md))
	for i := range used {
		used[i] = make(map[uint32]bool)
	}
	entries := make([]ondisk.Entry, md[0].Entries())
	for v := range entries {
		e := ondisk.DecodeEntry(raw[v*ondisk.EntrySize:], order)
		entries[v] = e
		if !e.Allocated() {
			if e != (ondisk.Entry{}) {
				t.Errorf("unallocated entry %d is %+v", v, e)
			}
			continue
		}
		if used[e.Component][e.Chunk] {
			t.Errorf("chunk %d of component %d is mapped twice", e.Chunk, e.Component)
		}
		used[e.Component][e.Chunk] = true
	}
	for i, m := range md {
		if got, want := len(used[i]), int(m.ChunkNext)-int(m.ChunkReserved); got != want {
			t.Errorf("component %d has %d chunks allocated, want %d", i, got, want)
		}
		for c := uint32(m.ChunkReserved); c < m.ChunkNext; c++ {
			if !used[i][c] {
				t.Errorf("component %d: chunk %d is a hole", i, c)
			}
		}
	}

	const chunk = 1 << 20
	written := []struct{ off, length int64 }{
		{0, 4096}, {734003712, 1048576}, {5240832, 4096}, {1073737728, 4096},
		{104857600, 8388608}, {209715200, 33554432},
	}
	for _, w := range written {
		for off := w.off; off < w.off+w.length; off += 512 {
			e := entries[off/chunk]
			at := int64(e.Chunk)*chunk + off%chunk
			if got := binary.LittleEndian.Uint64(images[e.Component][at:]); !e.Allocated() || got != uint64(off) {
				t.Fatalf("virtual offset %d: entry %+v leads to %d", off, e, got)
			}
		}
	}
}

func TestKernelsMapReadsTheSameInBothByteOrders(t *testing.T) {
	m, err := ondisk.DecodeMetadata(readGolden(t)["written"].records[0])
	if err != nil {
		t.Fatal(err)
	}
	little := writtenImage(t, 0, m.MapBytes())
	big := make([]byte, len(little))
	for i := 0; i < len(little); i += ondisk.EntrySize {
		l, b := little[i:], big[i:]
		b[0], b[1], b[2], b[3] = l[1], l[0], l[3], l[2]
		b[4], b[5], b[6], b[7] = l[7], l[6], l[5], l[4]
	}
	if got := ondisk.DetectOrder(big); got != ondisk.BigEndian {
		t.Fatalf("byte order %v", got)
	}
	for i := 0; i < len(little); i += ondisk.EntrySize {
		l, b := ondisk.DecodeEntry(little[i:], ondisk.LittleEndian), ondisk.DecodeEntry(big[i:], ondisk.BigEndian)
		if l != b {
			t.Fatalf("entry %d: %+v and %+v", i/ondisk.EntrySize, l, b)
		}
		var again [ondisk.EntrySize]byte
		if b.Encode(again[:], ondisk.BigEndian); !bytes.Equal(again[:], big[i:i+ondisk.EntrySize]) {
			t.Fatalf("entry %d: %x became %x", i/ondisk.EntrySize, big[i:i+ondisk.EntrySize], again)
		}
	}
}
