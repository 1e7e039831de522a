package signature

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unicode"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/ondisk"
)

// size is that of a disk in tests, in bytes: no part of it is both head and tail, and it
// is no multiple of what RAID and ZFS align to.
const size = 8<<20 + 96<<10

// put is bytes at a place, counted from the end if it is negative.
type put struct {
	at    int64
	bytes string
}

// with is a disk that holds puts alone.
func with(t testing.TB, sector int, puts ...put) *disktest.Disk {
	t.Helper()
	d := disktest.New("d", size, sector)
	for _, p := range puts {
		if p.at < 0 {
			p.at += size
		}
		from := p.at / int64(sector) * int64(sector)
		b := make([]byte, (p.at+int64(len(p.bytes))-from+int64(sector)-1)/int64(sector)*int64(sector))
		_, err := d.ReadAt(b, from)
		copy(b[p.at-from:], p.bytes)
		_, err2 := d.WriteAt(b, from)
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// names are what Find finds.
func names(t testing.TB, p geomlib.Provider) []string {
	t.Helper()
	all, err := Find(p)
	if err != nil {
		t.Fatal(err)
	}
	var ns []string
	for _, f := range all {
		ns = append(ns, f.Name)
	}
	return ns
}

func TestEveryMarkOfTheTableIsFoundAtEachOfItsPlacesOnDisksOfAnySector(t *testing.T) {
	for _, m := range marks {
		for _, at := range m.at {
			for _, sector := range []int{512, 4096} {
				if got := names(t, with(t, sector, put{at, m.text})); !slices.Equal(got, []string{m.name}) {
					t.Errorf("%q at %d, sectors of %d: %q, want %s", m.text, at, sector, got, m.name)
				}
			}
		}
	}
}

func le(n int, v uint64) string {
	b := binary.LittleEndian.AppendUint64(nil, v)
	return string(b[:n])
}

// entry is one of an MBR: status, kind, first sector and size.
func entry(status, kind byte) string {
	return string([]byte{status, 0, 2, 0, kind, 0, 0, 0}) + le(4, 63) + le(4, 1000)
}

const (
	guidEnd   = size / (256 << 10) * (256 << 10) // behind the last label of ZFS
	md90      = size/(64<<10)*(64<<10) - 64<<10
	md10      = (size/512 - 16) / 8 * 8 * 512
	mdMagic   = "\xfc\x4e\x2b\xa9"
	uberblock = "\x0c\xb1\xba\x00\x00\x00\x00\x00"
)

func TestWhatNeedsMoreThanAMarkIsFound(t *testing.T) {
	ext := func(compat, incompat, readonly uint64) []put {
		return []put{{1024 + 56, "\x53\xef"}, {1024 + 92, le(4, compat) + le(4, incompat) + le(4, readonly)}}
	}
	pairs := "\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x24\x00\x00\x00\x20\x00\x00\x00\x07version\x00"
	for _, c := range []struct {
		want string
		puts []put
	}{
		{"an ext2 file system", ext(0, 2, 1)},
		{"an ext3 file system", ext(4, 2, 3)},
		{"an ext4 file system", ext(4, 0x42, 1)},
		{"an ext4 file system", ext(4, 2, 0x10)},
		{"the journal of an ext file system", ext(0, 8, 0)},
		{"a FAT file system", []put{{0, "\xeb\x3c\x90mkfs.fat\x00\x02\x04\x01\x00\x02\x00\x02\x00\x10\xf8"}, {510, "\x55\xaa"}}},
		{"a NILFS2 file system", []put{{1024, "\x02\x00\x00\x00\x00\x00\x34\x34"}}},
		{"an HFS+ file system", []put{{1024, "H+\x00\x04"}}},
		{"an HFS+ file system", []put{{1024, "HX\x00\x05"}}},
		{"an HFS file system", []put{{1024, "BD"}, {1024 + 20, "\x00\x00\x10\x00"}}},
		{"a minix file system", []put{{1024 + 16, "\x8f\x13\x01\x00"}}},
		{"a minix file system", []put{{1024 + 24, "\x5a\x4d\x00\x00\x00\x04"}}},
		{"an LVM2 physical volume", []put{{512, "LABELONE"}, {512 + 24, "LVM2 001"}}},
		{"an LVM2 physical volume", []put{{3 * 512, "LABELONE"}, {3*512 + 24, "LVM2 001"}}},
		{"a Linux RAID member", []put{{0, mdMagic + "\x01\x00\x00\x00"}}},
		{"a Linux RAID member", []put{{4096, mdMagic + "\x01\x00\x00\x00"}}},
		{"a Linux RAID member", []put{{md10, mdMagic + "\x01\x00\x00\x00"}}},
		{"a Linux RAID member", []put{{md90, mdMagic + "\x00\x00\x00\x00\x5a\x00\x00\x00"}}},
		{"a Linux RAID member", []put{{md90, "\xa9\x2b\x4e\xfc\x00\x00\x00\x00\x00\x00\x00\x5a"}}},
		{"a ZFS label", []put{{16 << 10, pairs}}},
		{"a ZFS label", []put{{256<<10 + 16<<10, pairs}}},
		{"a ZFS label", []put{{guidEnd - 512<<10 + 16<<10, pairs}}},
		{"a ZFS label", []put{{guidEnd - 256<<10 + 16<<10, pairs}}},
		{"a ZFS label", []put{{128 << 10, uberblock}}},
		{"a ZFS label", []put{{255 << 10, uberblock}}},
		{"a ZFS label", []put{{511 << 10, "\x00\x00\x00\x00\x00\xba\xb1\x0c"}}},
		{"a ZFS label", []put{{guidEnd - 1<<10, uberblock}}},
		{"an MBR partition table", []put{{446, entry(0x80, 0xa5)}, {510, "\x55\xaa"}}},
		{"an MBR partition table", []put{{510, "\x55\xaa"}}},
		{"a boot sector", []put{{446, "code"}, {510, "\x55\xaa"}}},
		{"a GPT partition table", []put{{446, entry(0, 0xee)}, {510, "\x55\xaaEFI PART"}}},
		{"a GPT partition table", []put{{4096, "EFI PART"}}},
		{"a GPT partition table and an MBR partition table", []put{{446, entry(0, 0xee) + entry(0, 0x83)}, {510, "\x55\xaaEFI PART"}}},
		{"a GPT partition table, of which the second copy is left", []put{{-512, "EFI PART"}}},
		{"a GPT partition table, of which the second copy is left", []put{{-4096, "EFI PART"}}},
		{"a BSD disk label", []put{{512, "\x57\x45\x56\x82"}, {512 + 132, "\x57\x45\x56\x82"}}},
		{"a BSD disk label", []put{{64, "\x57\x45\x56\x82"}, {64 + 132, "\x57\x45\x56\x82"}}},
		{"an Apple partition map", []put{{0, "ER\x02\x00"}, {512, "PM"}}},
		{"an SGI disk label", []put{{0, "\x0b\xe5\xa9\x41"}}},
		{"a Sun disk label", []put{{0, "\xda\xbe"}, {508, "\xda\xbe"}}},
		{"GELI encryption", []put{{-512, "GEOM::ELI\x00"}}},
		{"a component of gmirror", []put{{-512, "GEOM::MIRROR\x00"}}},
		{"a component of gmirror", []put{{-4096, "GEOM::MIRROR\x00"}}},
		{"a component of gstripe", []put{{-512, "GEOM::STRIPE\x00"}}},
		{"a component of gconcat", []put{{-512, "GEOM::CONCAT\x00"}}},
		{"a component of graid3", []put{{-512, "GEOM::RAID3\x00"}}},
		{"a component of gjournal", []put{{-512, "GEOM::JOURNAL\x00"}}},
		{"a label of glabel", []put{{-512, "GEOM::LABEL\x00"}}},
		{`metadata of the GEOM class "NEW\x1b"`, []put{{-512, "GEOM::NEW\x1b\x00"}}},
		{"an XFS file system and a component of gmirror", []put{{0, "XFSB"}, {-512, "GEOM::MIRROR\x00"}}},
		{"damaged metadata of a volume", []put{{-512, "GEOM::VIRSTOR\x00\x00\x00\x02\x00\x00\x00"}, {-512 + 128, "GVIRSTOR::MEMBER"}}},
	} {
		all, err := Find(with(t, 512, c.puts...))
		if got := Text(all); err != nil || got != c.want {
			t.Errorf("%q: %q (%v)", c.want, got, err)
		}
	}
}

func TestComponentsAndSparesAreNamedWithTheirVolume(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		m := ondisk.Metadata{Version: 1, Name: "my\x1bdata", VirtualSize: 1 << 30, ChunkSize: 4 << 20, ID: 7, Count: 2, No: 1, ProviderSize: size}
		d := disktest.New("d", size, sector)
		if err := geomlib.StoreMetadata(d, m); err != nil {
			t.Fatal(err)
		}
		all, err := Find(d)
		if want := []Found{{`component 1 of the volume "my\x1bdata"`, 7}}; err != nil || !slices.Equal(all, want) {
			t.Errorf("sectors of %d: %v, want %v (%v)", sector, all, want, err)
		}
		if err := geomlib.StoreSpare(d, "other", 9); err != nil {
			t.Fatal(err)
		}
		all, err = Find(d)
		if want := []Found{{"a spare of the volume other", 9}}; err != nil || !slices.Equal(all, want) {
			t.Errorf("sectors of %d: %v, want %v (%v)", sector, all, want, err)
		}
	}
}

func TestWhatOnlyResemblesAMarkIsNotOne(t *testing.T) {
	for what, puts := range map[string][]put{
		"nothing":                      nil,
		"half a BSD label":             {{512, "\x57\x45\x56\x82"}},
		"an LVM label of another kind": {{512, "LABELONE"}, {512 + 24, "LVM1 001"}},
		"a Sun label's mark alone":     {{508, "\xda\xbe"}},
		"HFS+ of no version":           {{1024, "H+\x00\x09"}},
		"two bytes of minix":           {{1024 + 24, "\x5a\x4d\x01\x00\x01\x00"}},
		"the magic of md, version 7":   {{4096, mdMagic + "\x07\x00\x00\x00"}},
		"a jump":                       {{0, "\xeb\x3c\x90"}},
		"a mark in the middle":         {{4 << 20, "XFSB_BHRfS_MLUKS\xba\xbe"}},
		"a mark one byte off":          {{1, "XFSB"}, {-511, "GEOM::MIRROR\x00"}},
	} {
		if got := names(t, with(t, 512, puts...)); got != nil {
			t.Errorf("%s: %q", what, got)
		}
	}
}

// counted counts what is read of a provider of any size.
type counted struct {
	geomlib.Provider
	size  int64
	bytes int
	err   error
}

func (c *counted) MediaSize() int64 { return c.size }
func (c *counted) ReadAt(p []byte, off int64) (int, error) {
	if off%512 != 0 || len(p)%512 != 0 || off < 0 || off+int64(len(p)) > c.size {
		return 0, fmt.Errorf("read of %d bytes at %d", len(p), off)
	}
	c.bytes += len(p)
	clear(p)
	return len(p), c.err
}

func TestNoMoreThanTwoPartsOfAnyProviderAreRead(t *testing.T) {
	for _, size := range []int64{512, 4096, 512 << 10, 1<<20 - 512, 1 << 20, 64 << 20, 1 << 62} {
		c := &counted{Provider: disktest.New("d", 512, 512), size: size}
		if all, err := Find(c); err != nil || all != nil {
			t.Errorf("%d bytes: %v, %v", size, all, err)
		}
		if c.bytes > 1280<<10 {
			t.Errorf("%d bytes: %d were read", size, c.bytes)
		}
	}
}

func TestAProviderThatCannotBeReadIsAnError(t *testing.T) {
	c := &counted{Provider: disktest.New("d", 512, 512), size: 1 << 20, err: syscall.EIO}
	if all, err := Find(c); !errors.Is(err, syscall.EIO) || all != nil {
		t.Errorf("%v, %v", all, err)
	}
}

// FuzzFind looks for what makes Find fail, name a thing twice, or let an escape sequence
// through to a terminal.
func FuzzFind(f *testing.F) {
	f.Add([]byte("XFSB"), []byte("GEOM::ELI"), false)
	f.Add(slices.Concat(make([]byte, 1080), []byte("\x53\xef")), []byte("GVIRSTOR::SPARE"), true)
	f.Fuzz(func(t *testing.T, head, tail []byte, apart bool) {
		d := &disk{head: head, tail: tail, size: int64(len(tail)), sector: 512}
		if apart {
			d.tailAt = 1 << 20
			d.size += d.tailAt
		} else {
			d.head = tail[:min(len(tail), len(head))]
		}
		seen := make(map[string]bool)
		for _, found := range d.find() {
			if seen[found.Name] || strings.ContainsFunc(found.Name, unicode.IsControl) {
				t.Errorf("%q, after %v", found.Name, seen)
			}
			seen[found.Name] = true
		}
	})
}
