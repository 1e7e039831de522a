package ondisk_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc64"
	"os"
	"testing"

	"github.com/gvirstor/gvirstor/ondisk"
)

func record(t testing.TB, e ondisk.Extension) []byte {
	t.Helper()
	b := bytes.Repeat([]byte{0xee}, 4096)
	if err := e.Encode(b); err != nil {
		t.Fatal(err)
	}
	return b
}

// reseal gives a changed record the checksum that makes it intact.
func reseal(b []byte) []byte {
	end := ondisk.ExtensionRecordSize - 8
	binary.LittleEndian.PutUint64(b[end:], crc64.Checksum(b[:end], crc64.MakeTable(crc64.ECMA)))
	return b
}

func someExtension() ondisk.Extension {
	return ondisk.Extension{
		Sequence: 42, VolumeID: 7, ChunkSize: 1 << 20, Clean: true,
		Intent: ondisk.Intent{Kind: ondisk.IntentShrink, Arg: [8]uint64{1, 2, 3, 4, 5, 6, 7, 1 << 63}, Leaves: 15, Moves: 16},
		Task: ondisk.Task{
			Kind: ondisk.TaskEvacuate, ComponentCount: 8, Components: [8]uint32{8, 7, 6, 5, 4, 3, 2, 1},
			Arg:     [8]uint64{9, 8, 7, 6, 5, 4, 3, 2},
			Members: [8]uint64{1 << 63, 2, 3, 4, 5, 6, 7, 8}, Target: 10,
		},
		HandBack: true,
		Failed:   [4]ondisk.FailedMember{{ID: 11, Generation: 12}, {ID: 13, Generation: 14}},

		Directory: ondisk.Link{Place: ondisk.Place{Member: 17, Chunk: 18}, Length: 4096, Sum: 19},
	}
}

// rollingBack is a record of a rollback to snapshot 5.
func rollingBack() ondisk.Extension {
	e := someExtension()
	e.HandBack, e.Task, e.Failed = false, ondisk.Task{}, [4]ondisk.FailedMember{}
	e.Intent = ondisk.Intent{Kind: ondisk.IntentRollback, Arg: [8]uint64{5}}
	return e
}

func TestExtensionFitsTheSmallestSectorAndZeroesTheRest(t *testing.T) {
	b := record(t, someExtension())
	for i, c := range b[ondisk.ExtensionRecordSize:] {
		if c != 0 {
			t.Fatalf("byte %d is %#x", ondisk.ExtensionRecordSize+i, c)
		}
	}
	got, err := ondisk.DecodeExtension(b[:512])
	if err != nil || got != someExtension() {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestExtensionNoticesEveryChangedByte(t *testing.T) {
	good := record(t, someExtension())
	for i := range ondisk.ExtensionRecordSize {
		b := bytes.Clone(good)
		b[i] ^= 0x10
		if _, err := ondisk.DecodeExtension(b); err == nil {
			t.Errorf("byte %d changed unnoticed", i)
		}
	}
}

func TestDecodeExtensionNamesEachReason(t *testing.T) {
	tests := []struct {
		name   string
		change func(b []byte) []byte
		want   error
	}{
		{"intact", func(b []byte) []byte { return b }, nil},
		{"short", func(b []byte) []byte { return b[:511] }, ondisk.ErrShort},
		{"zeros", func(b []byte) []byte { return make([]byte, 512) }, ondisk.ErrExtensionMagic},
		{"torn", func(b []byte) []byte { clear(b[256:]); return b }, ondisk.ErrExtensionChecksum},
		{"later version", func(b []byte) []byte { b[16] = 5; return reseal(b) }, ondisk.ErrExtensionVersion},
		{"unknown flag", func(b []byte) []byte { b[20] |= 4; return reseal(b) }, ondisk.ErrExtensionContents},
		{"version 0", func(b []byte) []byte { b[16] = 0; return reseal(b) }, ondisk.ErrExtensionVersion},
		{"ids of members at version 1", func(b []byte) []byte { b[16] = 1; return reseal(b) }, ondisk.ErrExtensionContents},
		{"failed member without a generation", func(b []byte) []byte { clear(b[240:248]); return reseal(b) }, ondisk.ErrExtensionContents},
		{"failed member behind the last", func(b []byte) []byte { clear(b[216:232]); return reseal(b) }, ondisk.ErrExtensionContents},
		{"directory at version 2", func(b []byte) []byte { b[16] = 2; return reseal(b) }, ondisk.ErrExtensionContents},
		{"no directory at version 3", func(b []byte) []byte { clear(b[368:392]); return reseal(b) }, ondisk.ErrExtensionContents},
		{"directory longer than a chunk", func(b []byte) []byte { b[382] = 0x11; return reseal(b) }, ondisk.ErrExtensionContents},
		{"unknown intent", func(b []byte) []byte { b[40] = 200; return reseal(b) }, ondisk.ErrExtensionContents},
		{"unknown task", func(b []byte) []byte { b[112] = 200; return reseal(b) }, ondisk.ErrExtensionContents},
		{"nine components", func(b []byte) []byte { b[116] = 9; return reseal(b) }, ondisk.ErrExtensionContents},
		{"component beyond the count", func(b []byte) []byte { b[116] = 7; return reseal(b) }, ondisk.ErrExtensionContents},
		{"unused byte", func(b []byte) []byte { b[440] = 1; return reseal(b) }, ondisk.ErrExtensionContents},
		{"byte behind the magic", func(b []byte) []byte { b[15] = 1; return reseal(b) }, ondisk.ErrExtensionContents},
	}
	for _, tt := range tests {
		if _, err := ondisk.DecodeExtension(tt.change(record(t, someExtension()))); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestEncodeExtensionRefusesWhatCannotBeReadBack(t *testing.T) {
	tests := []struct {
		name   string
		change func(*ondisk.Extension)
		size   int
		want   error
	}{
		{"small sector", func(e *ondisk.Extension) {}, 511, ondisk.ErrShort},
		{"unknown intent", func(e *ondisk.Extension) { e.Intent.Kind = 99 }, 512, ondisk.ErrExtensionContents},
		{"unknown task", func(e *ondisk.Extension) { e.Task.Kind = 99 }, 512, ondisk.ErrExtensionContents},
		{"nine components", func(e *ondisk.Extension) { e.Task.ComponentCount = 9 }, 512, ondisk.ErrExtensionContents},
		{"component beyond the count", func(e *ondisk.Extension) { e.Task.ComponentCount = 7 }, 512, ondisk.ErrExtensionContents},
		{"member beyond the count", func(e *ondisk.Extension) { e.Task.ComponentCount, e.Task.Components[7] = 7, 0 }, 512, ondisk.ErrExtensionContents},
		{"rollback to no snapshot", func(e *ondisk.Extension) { *e = rollingBack(); e.Intent.Arg[0] = ondisk.FirstMap }, 512, ondisk.ErrExtensionContents},
		{"rollback with more arguments", func(e *ondisk.Extension) { *e = rollingBack(); e.Intent.Arg[7] = 1 }, 512, ondisk.ErrExtensionContents},
		{"rollback with a member that leaves", func(e *ondisk.Extension) { *e = rollingBack(); e.Intent.Leaves = 1 }, 512, ondisk.ErrExtensionContents},
		{"rollback without a directory", func(e *ondisk.Extension) { *e = rollingBack(); e.Directory = ondisk.Link{} }, 512, ondisk.ErrExtensionContents},
		{"directory of no member", func(e *ondisk.Extension) { e.Directory.Member = 0 }, 512, ondisk.ErrExtensionContents},
		{"directory of nothing but a header", func(e *ondisk.Extension) { e.Directory.Length = 48 }, 512, ondisk.ErrExtensionContents},
		{"members of no intent", func(e *ondisk.Extension) { e.Intent.Kind = ondisk.IntentNone }, 512, ondisk.ErrExtensionContents},
	}
	for _, tt := range tests {
		e := someExtension()
		tt.change(&e)
		b := make([]byte, tt.size)
		if err := e.Encode(b); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if !bytes.Equal(b, make([]byte, tt.size)) {
			t.Errorf("%s: the sector was written", tt.name)
		}
	}
}

func TestExtensionOffsetIsTheEndOfTheReservedArea(t *testing.T) {
	tests := []struct {
		name   string
		change func(*ondisk.Metadata)
		off    int64
		ok     bool
	}{
		{"label's", func(m *ondisk.Metadata) {}, 2<<20 - 128<<10, true},
		{"another component", func(m *ondisk.Metadata) { m.No = 1 }, 0, false},
		{"nothing reserved", func(m *ondisk.Metadata) { m.ChunkReserved = 0 }, 0, false},
		{"smallest chunks", func(m *ondisk.Metadata) { m.ChunkSize, m.VirtualSize = 128<<10, 1<<31 }, 128 << 10, true},
		{"map up to the block", func(m *ondisk.Metadata) { m.VirtualSize = 15 << 34; m.ChunkReserved = 2 }, 15 << 17, true},
		{"map into the block", func(m *ondisk.Metadata) { m.VirtualSize = 15<<34 + 64<<20; m.ChunkReserved = 2 }, 0, false},
		{"reserved area into the last sector", func(m *ondisk.Metadata) { m.ChunkReserved = 64 }, 0, false},
		{"reserved area beyond the provider", func(m *ondisk.Metadata) { m.ChunkReserved = 65535 }, 0, false},
		{"absurd map", func(m *ondisk.Metadata) { m.VirtualSize, m.ChunkSize = 1<<64-1, 1 }, 0, false},
	}
	for _, tt := range tests {
		m := sound()
		tt.change(&m)
		off, ok := ondisk.ExtensionOffset(m)
		if off != tt.off || ok != tt.ok {
			t.Errorf("%s: %d, %v, want %d, %v", tt.name, off, ok, tt.off, tt.ok)
		}
	}
}

func TestPickExtensionTakesTheHighestSequenceOfThisVolume(t *testing.T) {
	m := sound()
	at := func(sequence uint64) []byte {
		return record(t, ondisk.Extension{Sequence: sequence, VolumeID: m.ID, ChunkSize: m.ChunkSize})
	}
	torn := at(11)
	clear(torn[100:])
	foreign := record(t, ondisk.Extension{Sequence: 13, VolumeID: m.ID + 1, ChunkSize: m.ChunkSize})
	rechunked := record(t, ondisk.Extension{Sequence: 13, VolumeID: m.ID, ChunkSize: m.ChunkSize * 2})
	tests := []struct {
		name  string
		slots [2][]byte
		seq   uint64
		ok    bool
	}{
		{"none", [2][]byte{make([]byte, 512), make([]byte, 512)}, 0, false},
		{"nothing read", [2][]byte{}, 0, false},
		{"one", [2][]byte{at(10), make([]byte, 512)}, 10, true},
		{"second is later", [2][]byte{at(10), at(11)}, 11, true},
		{"first is later", [2][]byte{at(12), at(11)}, 12, true},
		{"later one is torn", [2][]byte{at(10), torn}, 10, true},
		{"later one is another volume's", [2][]byte{at(10), foreign}, 10, true},
		{"later one has other chunks", [2][]byte{at(10), rechunked}, 10, true},
		{"later one is in the wrong slot", [2][]byte{at(13), at(11)}, 11, true},
	}
	for _, tt := range tests {
		e, ok, err := ondisk.PickExtension(tt.slots, m)
		if e.Sequence != tt.seq || ok != tt.ok || err != nil {
			t.Errorf("%s: sequence %d, %v, %v; want %d, %v", tt.name, e.Sequence, ok, err, tt.seq, tt.ok)
		}
	}
}

func TestNoRecordIsInForceBesideOneOfALaterVersion(t *testing.T) {
	known := someExtension()
	known.Sequence = 10
	m := ondisk.Metadata{ID: known.VolumeID, ChunkSize: known.ChunkSize}
	later := record(t, known)
	later[16] = 5
	damaged := bytes.Clone(later)
	reseal(later)
	for _, slots := range [][2][]byte{{record(t, known), later}, {later, record(t, known)}} {
		if _, ok, err := ondisk.PickExtension(slots, m); ok || !errors.Is(err, ondisk.ErrExtensionVersion) {
			t.Errorf("%v, %v", ok, err)
		}
	}
	if _, ok, err := ondisk.PickExtension([2][]byte{record(t, known), damaged}, m); !ok || err != nil {
		t.Errorf("beside a damaged one: %v, %v", ok, err)
	}
}

func TestEveryKindHasAName(t *testing.T) {
	seen := make(map[string]bool)
	for k := ondisk.IntentNone; k <= ondisk.IntentRollback; k++ {
		seen[k.String()] = true
	}
	for k := ondisk.TaskNone + 1; k <= ondisk.TaskReclaim; k++ {
		seen["task "+k.String()] = true
	}
	if len(seen) != 14 || seen[""] {
		t.Errorf("names %v", seen)
	}
	if got := ondisk.IntentKind(77).String() + ", " + ondisk.TaskKind(78).String(); got != "intent 77, task 78" {
		t.Errorf("unknown kinds are called %q", got)
	}
}

// A record as the first release wrote it: what version 2 added is zero.
func TestARecordOfVersion1IsReadAndWrittenAgainAsVersion2(t *testing.T) {
	e := ondisk.Extension{Sequence: 3, VolumeID: 7, ChunkSize: 1 << 20, Clean: true}
	b := record(t, e)
	b[16] = 1
	got, err := ondisk.DecodeExtension(reseal(b))
	if err != nil || got != e {
		t.Fatalf("%+v, %v", got, err)
	}
	if again := record(t, got); again[16] != 2 {
		t.Errorf("version %d", again[16])
	}
}

// Earlier releases take version 2 and refuse version 3: a volume that has no second
// map stays theirs, and one that has is not.
func TestOnlyARecordWithADirectoryIsOfVersion3(t *testing.T) {
	e := someExtension()
	if b := record(t, e); b[16] != 3 {
		t.Errorf("with a directory: version %d", b[16])
	}
	e.Directory = ondisk.Link{}
	b := record(t, e)
	if b[16] != 2 || !bytes.Equal(b[368:504], make([]byte, 136)) {
		t.Errorf("without: version %d, %x", b[16], b[368:504])
	}
	if got, err := ondisk.DecodeExtension(b); err != nil || got != e {
		t.Errorf("%+v, %v", got, err)
	}
}

// The release before takes version 3 and refuses version 4, whatever the other slot
// holds: half a map must not be served.
func TestOnlyARecordOfARollbackIsOfVersion4(t *testing.T) {
	e := rollingBack()
	b := record(t, e)
	if got, err := ondisk.DecodeExtension(b); err != nil || got != e || b[16] != 4 {
		t.Errorf("version %d, %+v, %v", b[16], got, err)
	}
	for version := range byte(4) {
		b := bytes.Clone(b)
		b[16] = version
		if _, err := ondisk.DecodeExtension(reseal(b)); err == nil {
			t.Errorf("taken at version %d", version)
		}
	}
	e.Intent = ondisk.Intent{}
	if b = record(t, e); b[16] != 3 {
		t.Errorf("without the rollback: version %d", b[16])
	}
	b[16] = 4
	if _, err := ondisk.DecodeExtension(reseal(b)); !errors.Is(err, ondisk.ErrExtensionContents) {
		t.Errorf("version 4 without a rollback: %v", err)
	}
}

// What a record of a rollback looks like does not change.
func TestTheRecordOfARollbackIsTheGoldenOne(t *testing.T) {
	want, err := os.ReadFile("testdata/rollback.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.Dump(record(t, rollingBack())[:ondisk.ExtensionRecordSize]); got != string(want) {
		t.Errorf("now\n%s", got)
	}
}

func TestTheBytesOfARecordAreWhereTheManualPutsThem(t *testing.T) {
	b := record(t, someExtension())
	le := binary.LittleEndian
	for _, f := range []struct {
		what string
		off  int
		want uint64
	}{
		{"failed member", 216, 11}, {"its generation", 224, 12}, {"second failed member", 232, 13},
		{"who leaves", 280, 15}, {"who moves", 288, 16},
		{"first member of the task", 296, 1 << 63}, {"last member of the task", 352, 8}, {"target of the task", 360, 10},
		{"member of the directory", 368, 17}, {"its chunk and length", 376, 4096<<32 + 18}, {"its checksum", 384, 19},
	} {
		if got := le.Uint64(b[f.off:]); got != f.want {
			t.Errorf("%s, byte %d: %d, want %d", f.what, f.off, got, f.want)
		}
	}
	if got := le.Uint32(b[20:]); got != 3 {
		t.Errorf("flags %#x", got)
	}
}

func TestAFailedMemberIsFoundByItsID(t *testing.T) {
	e := someExtension()
	if g, ok := e.FailedSince(13); !ok || g != 14 {
		t.Errorf("%d, %v", g, ok)
	}
	for _, id := range []uint64{0, 12} {
		if _, ok := e.FailedSince(id); ok {
			t.Errorf("member %d is failed", id)
		}
	}
}
