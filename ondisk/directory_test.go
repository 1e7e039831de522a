package ondisk_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/ondisk"
)

const poolChunk = 128 << 10

// somePool has two components, of which somePoolDirectory uses both.
func somePool() ondisk.Pool {
	return ondisk.Pool{ChunkSize: poolChunk, SectorSize: 512, Components: map[uint64]ondisk.PoolComponent{
		0xa: {Reserved: 2, Chunks: 40}, 0xb: {Chunks: 50},
	}}
}

func someLink(member uint64, chunk uint32) ondisk.Link {
	return ondisk.Link{Place: ondisk.Place{Member: member, Chunk: chunk}, Length: 80, Sum: 0x1122334455667788}
}

func someDirectory() *ondisk.Directory {
	return &ondisk.Directory{
		Sequence: 9, NextMap: 8,
		Members: []ondisk.NumberedMember{{Number: 0, ID: 0xa}, {Number: 3, ID: 0xb}},
		Maps: []ondisk.PoolMap{
			{ID: 1, Kind: ondisk.KindVolume, Quota: 7 << 30},
			{ID: 2, Kind: ondisk.KindSnapshot, Origin: 1, Name: "monday", Time: 1_700_000_000, Size: 1 << 30, GUID: 0xfedcba9876543210, List: someLink(0xa, 5)},
			{ID: 5, Kind: ondisk.KindVolume, Origin: 2, Name: "web", Time: 1_700_000_001, Size: 1 << 30, Quota: 1 << 29, List: someLink(0xb, 6)},
			{ID: 7, Kind: ondisk.KindSnapshot, Origin: 5, Name: "monday", Time: 1_700_000_002, Size: 1 << 30, List: someLink(0xb, 7)},
		},
		Own: []ondisk.Address{{Number: 0, Chunk: 2}, {Number: 3, Chunk: 0}}, Other: []ondisk.Address{{Number: 3, Chunk: 1}},
		Reserve: []ondisk.Address{{Number: 0, Chunk: 39}, {Number: 3, Chunk: 49}},
	}
}

func contentsOf(t testing.TB, d *ondisk.Directory) []byte {
	t.Helper()
	b, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestADirectoryIsReadBackAsItWasWritten(t *testing.T) {
	got, err := ondisk.DecodeDirectory(contentsOf(t, someDirectory()))
	if err != nil || fmt.Sprint(*got) != fmt.Sprint(*someDirectory()) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestADirectoryFindsMembersByNumberAndMapsByID(t *testing.T) {
	d := someDirectory()
	if id, ok := d.Member(3); !ok || id != 0xb {
		t.Errorf("member number 3 is %x, %v", id, ok)
	}
	if m, ok := d.Map(5); !ok || m.Name != "web" {
		t.Errorf("map 5 is %+v, %v", m, ok)
	}
	if _, ok := d.Member(1); ok {
		t.Error("member number 1 is known")
	}
	if _, ok := d.Map(3); ok {
		t.Error("map 3 is known")
	}
}

func TestADirectoryThatMakesNoSenseIsNeitherWrittenNorRead(t *testing.T) {
	tests := []struct {
		name   string
		change func(*ondisk.Directory)
		want   error
	}{
		{"as it should be", func(d *ondisk.Directory) {}, nil},
		{"no first volume", func(d *ondisk.Directory) { d.Maps = d.Maps[1:] }, ondisk.ErrDirectory},
		{"no map", func(d *ondisk.Directory) { d.Maps = nil }, ondisk.ErrDirectory},
		{"first volume is a snapshot", func(d *ondisk.Directory) { d.Maps[0].Kind = ondisk.KindSnapshot }, ondisk.ErrDirectory},
		{"first volume has a name", func(d *ondisk.Directory) { d.Maps[0].Name = "x" }, ondisk.ErrDirectory},
		{"first volume has a size", func(d *ondisk.Directory) { d.Maps[0].Size = 1 << 20 }, ondisk.ErrDirectory},
		{"first volume has a list", func(d *ondisk.Directory) { d.Maps[0].List = someLink(0xa, 9) }, ondisk.ErrDirectory},
		{"unknown kind", func(d *ondisk.Directory) { d.Maps[1].Kind = 3 }, ondisk.ErrDirectory},
		{"no kind", func(d *ondisk.Directory) { d.Maps[1].Kind = 0 }, ondisk.ErrDirectory},
		{"ids fall", func(d *ondisk.Directory) { d.Maps[2].ID = 2 }, ondisk.ErrDirectory},
		{"id is to be given again", func(d *ondisk.Directory) { d.NextMap = 7 }, ondisk.ErrDirectory},
		{"sequence beyond 63 bits", func(d *ondisk.Directory) { d.Sequence = 1 << 63 }, ondisk.ErrDirectory},
		{"size 0", func(d *ondisk.Directory) { d.Maps[2].Size = 0 }, ondisk.ErrDirectory},
		{"size beyond 63 bits", func(d *ondisk.Directory) { d.Maps[2].Size = 1 << 63 }, ondisk.ErrDirectory},
		{"no list", func(d *ondisk.Directory) { d.Maps[2].List = ondisk.Link{} }, ondisk.ErrDirectory},
		{"snapshot of nothing", func(d *ondisk.Directory) { d.Maps[1].Origin = 0 }, ondisk.ErrDirectory},
		{"snapshot of an unknown volume", func(d *ondisk.Directory) { d.Maps[3].Origin = 4 }, ondisk.ErrDirectory},
		{"snapshot of a snapshot", func(d *ondisk.Directory) { d.Maps[3].Origin = 2 }, ondisk.ErrDirectory},
		{"snapshot of a later volume", func(d *ondisk.Directory) { d.Maps[1].Origin = 5 }, ondisk.ErrDirectory},
		{"clone of a volume", func(d *ondisk.Directory) { d.Maps[2].Origin = 1 }, ondisk.ErrDirectory},
		{"clone of its own snapshot", func(d *ondisk.Directory) { d.Maps[2].Origin = 7 }, ondisk.ErrDirectory},
		{"name of a character that is none", func(d *ondisk.Directory) { d.Maps[2].Name = "a@b" }, ondisk.ErrMapName},
		{"no name", func(d *ondisk.Directory) { d.Maps[2].Name = "" }, ondisk.ErrMapName},
		{"name of 64 bytes", func(d *ondisk.Directory) { d.Maps[2].Name = strings.Repeat("x", 64) }, ondisk.ErrMapName},
		{"two volumes of a name", func(d *ondisk.Directory) {
			d.Maps[3] = ondisk.PoolMap{ID: 7, Kind: ondisk.KindVolume, Name: "web", Size: 1 << 30, List: someLink(0xb, 7)}
		}, ondisk.ErrDirectory},
		{"two snapshots of a name", func(d *ondisk.Directory) { d.Maps[3].Origin = 1 }, ondisk.ErrDirectory},
		{"member id 0", func(d *ondisk.Directory) { d.Members[1].ID = 0 }, ondisk.ErrDirectory},
		{"a member of two numbers", func(d *ondisk.Directory) { d.Members[1].ID = 0xa }, ondisk.ErrDirectory},
		{"a number of two members", func(d *ondisk.Directory) { d.Members[1].Number = 0 }, ondisk.ErrDirectory},
		{"a system chunk of two uses", func(d *ondisk.Directory) { d.Other[0] = d.Reserve[0] }, ondisk.ErrDirectory},
		{"a system chunk of an unknown member", func(d *ondisk.Directory) { d.Reserve[0].Number = 1 }, ondisk.ErrDirectory},
	}
	for _, tt := range tests {
		d := someDirectory()
		tt.change(d)
		if _, err := d.Encode(); !errors.Is(err, tt.want) {
			t.Errorf("%s: written with %v, want %v", tt.name, err, tt.want)
		}
		if _, err := ondisk.DecodeDirectory(d.EncodeUnchecked()); tt.want != nil && err == nil {
			t.Errorf("%s: read", tt.name)
		}
	}
}

// TestQuotaAndGUIDBelongToOneKindEach: they have one place in the bytes.
func TestQuotaAndGUIDBelongToOneKindEach(t *testing.T) {
	for what, change := range map[string]func(*ondisk.Directory){
		"a volume with a GUID":    func(d *ondisk.Directory) { d.Maps[2].GUID = 1 },
		"a snapshot with a quota": func(d *ondisk.Directory) { d.Maps[1].Quota = 1 },
	} {
		d := someDirectory()
		change(d)
		if _, err := d.Encode(); !errors.Is(err, ondisk.ErrDirectory) {
			t.Errorf("%s: written with %v", what, err)
		}
	}
}

func TestADirectoryOfOtherBytesIsNotRead(t *testing.T) {
	good := contentsOf(t, someDirectory())
	for name, b := range map[string][]byte{
		"none":                  nil,
		"short":                 good[:39],
		"cut":                   good[:len(good)-1],
		"longer":                append(bytes.Clone(good), 0),
		"byte behind the head":  changed(good, 36, 1),
		"byte behind a number":  changed(good, 42, 1),
		"byte behind a kind":    changed(good, 40+32+41, 1),
		"byte behind a name":    changed(good, 40+32+136+135, 1),
		"chunk with other flag": changed(good, len(good)-8, 3),
		"huge counts":           changed(good, 23, 0xff),
	} {
		if _, err := ondisk.DecodeDirectory(b); !errors.Is(err, ondisk.ErrDirectory) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func changed(b []byte, at int, to byte) []byte {
	b = bytes.Clone(b)
	b[at] = to
	return b
}

func TestADirectoryHasToFitItsPool(t *testing.T) {
	chain := []ondisk.Place{{Member: 0xa, Chunk: 2}}
	tests := []struct {
		name   string
		change func(*ondisk.Directory)
		good   bool
	}{
		{"as it should be", func(d *ondisk.Directory) {}, true},
		{"member that is no component", func(d *ondisk.Directory) { d.Members[1].ID = 0xc }, false},
		{"system chunk in the reserved ones", func(d *ondisk.Directory) { d.Reserve[0].Chunk = 1 }, false},
		{"system chunk behind the last", func(d *ondisk.Directory) { d.Reserve[0].Chunk = 40 }, false},
		{"lies elsewhere", func(d *ondisk.Directory) { d.Own[0].Chunk = 3 }, false},
		{"lies nowhere", func(d *ondisk.Directory) { d.Own = nil }, false},
		{"list in the reserved chunks", func(d *ondisk.Directory) { d.Maps[1].List.Chunk = 0 }, false},
		{"list on no component", func(d *ondisk.Directory) { d.Maps[1].List.Member = 0xc }, false},
		{"list longer than a chunk", func(d *ondisk.Directory) { d.Maps[1].List.Length = poolChunk + 1 }, false},
		{"list where another is", func(d *ondisk.Directory) { d.Maps[1].List = d.Maps[2].List }, false},
		{"list where the directory is", func(d *ondisk.Directory) { d.Maps[1].List.Chunk = 2 }, false},
		{"size of half a sector", func(d *ondisk.Directory) { d.Maps[1].Size += 256 }, false},
		{"size with too long a map", func(d *ondisk.Directory) { d.Maps[1].Size = 1 << 62 }, false},
	}
	for _, tt := range tests {
		d := someDirectory()
		tt.change(d)
		if err := somePool().ValidateDirectory(d, chain); (err == nil) != tt.good || err != nil && !errors.Is(err, ondisk.ErrDirectory) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestNamesOfVolumesAndSnapshots(t *testing.T) {
	for name, good := range map[string]bool{
		"a": true, "web-1.old:2_x": true, strings.Repeat("n", 63): true, "@": false, "": false, ".": false, "..": false,
		"a/b": false, "a b": false, "ä": false, "a\x00": false, strings.Repeat("n", 64): false,
	} {
		if err := ondisk.CheckMapName(name); (err == nil) != good || err != nil && !errors.Is(err, ondisk.ErrMapName) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// The bytes of a directory, of a list, and of the chunks they lie in, as the manual
// says them: they must not change.
func TestTheBytesOfADirectoryStayWhatTheyAre(t *testing.T) {
	list, err := someList().Encode()
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, c := range []struct {
		kind     ondisk.ChainKind
		contents []byte
		at       ondisk.Place
	}{{ondisk.ChainDirectory, contentsOf(t, someDirectory()), ondisk.Place{Member: 0xa, Chunk: 2}}, {ondisk.ChainMapList, list, ondisk.Place{Member: 0xb, Chunk: 6}}} {
		link, chunks, err := ondisk.EncodeChain(c.kind, c.contents, []ondisk.Place{c.at}, poolChunk)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&got, "%v, checksum %016x\n%s", link, link.Sum, hex.Dump(chunks[0]))
	}
	want, err := os.ReadFile("testdata/directory.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("now\n%s", got.String())
	}
}

func TestADirectoryIsFoundByItsBeginningAlone(t *testing.T) {
	d := someDirectory()
	for _, size := range []uint32{poolChunk, 1 << 9} { // the latter in several chunks
		contents := contentsOf(t, d)
		places := somePlaces(ondisk.ChainLength(len(contents), size))
		want, chunks, err := ondisk.EncodeChain(ondisk.ChainDirectory, contents, places, size)
		if err != nil {
			t.Fatal(err)
		}
		head, ok := ondisk.FindDirectory(places[0], chunks[0][:ondisk.DirectoryHead], size)
		if !ok || head.Length != want.Length || head.Sum != 0 {
			t.Errorf("by its head: %v, %v, want %v", head, ok, want)
		}
		if got, ok := ondisk.FindDirectory(places[0], append(chunks[0], make([]byte, 512)...), size); !ok || got != want {
			t.Errorf("%v, %v, want %v", got, ok, want)
		}
		for _, at := range []int{0, 16, 71} { // magic, version, and how many maps it has
			b := bytes.Clone(chunks[0])
			b[at] ^= 0x80
			if got, ok := ondisk.FindDirectory(places[0], b, size); ok {
				t.Errorf("with byte %d changed: %v", at, got)
			}
		}
	}
}
