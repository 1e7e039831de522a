package ondisk_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc64"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/gvirstor/gvirstor/ondisk"
)

func someMember() ondisk.Metadata {
	m := sound()
	m.Version = ondisk.VersionFenced
	m.Member = ondisk.MemberBlock{
		ID: 0x1122334455667788, Generation: 9, Settled: 8, List: ondisk.MemberList([]uint64{0x1122334455667788, 2}),
		Began: 1754000000, LastName: "da0p2", Nonce: 0xaabb, SettledNonce: 0xccdd,
	}
	return m
}

func sector(t testing.TB, m ondisk.Metadata) []byte {
	t.Helper()
	b := bytes.Repeat([]byte{0xee}, 512)
	if err := m.Encode(b); err != nil {
		t.Fatal(err)
	}
	return b
}

// The bytes of a member block, as gvirstor(5) has them.
const goldenMember = "" +
	"4756495253544f523a3a4d454d424552" + // magic
	"8877665544332211" + // member id
	"0900000000000000" + // generation
	"0800000000000000" + // settled
	"db0010b73b8f50c0" + // list
	"80ea8b6800000000" + // began
	"6461307032000000000000000000000000000000000000000000000000000000" + // name
	"00000000000000000000000000000000" +
	"bbaa000000000000" + // nonce
	"ddcc000000000000" // nonce of the settled generation

func TestTheBytesOfAMemberBlock(t *testing.T) {
	b := sector(t, someMember())
	if got := hex.EncodeToString(b[128:248]); got != goldenMember {
		t.Errorf("have %s\nwant %s", got, goldenMember)
	}
	if len(bytes.Trim(b[92:128], "\x00")) > 0 || len(bytes.Trim(b[256:], "\x00")) > 0 {
		t.Errorf("bytes beside the block are not zero")
	}
	m, err := ondisk.DecodeMetadata(b)
	if err != nil || m != someMember() {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestAVersion1SectorHasNoMemberBlock(t *testing.T) {
	m := someMember()
	m.Version = ondisk.Version
	b := make([]byte, 512)
	if err := m.Encode(b); !errors.Is(err, ondisk.ErrMemberBlock) {
		t.Errorf("encoded: %v", err)
	}
	if len(bytes.Trim(b, "\x00")) > 0 {
		t.Error("the sector was written")
	}
	m.Member = ondisk.MemberBlock{}
	b = sector(t, m)
	if len(bytes.Trim(b[ondisk.MetadataSize:], "\x00")) > 0 {
		t.Error("there are bytes behind the metadata")
	}
	for i := range b[128:256] { // which the kernel class does not look at either
		b[128+i] = byte(i)
	}
	if got, err := ondisk.DecodeMetadata(b); err != nil || got != m {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestEveryDamagedByteOfAMemberIsDamageAndNotAge(t *testing.T) {
	good := sector(t, someMember())
	for i := range 256 {
		if i < 20 {
			continue // magic and version: something else than a fenced component
		}
		b := bytes.Clone(good)
		b[i] ^= 4
		if _, err := ondisk.DecodeMetadata(b); !errors.Is(err, ondisk.ErrMemberBlock) {
			t.Errorf("byte %d: %v", i, err)
		}
	}
	m, err := ondisk.DecodeMetadata(append(bytes.Clone(good[:200]), make([]byte, 312)...))
	if !errors.Is(err, ondisk.ErrMemberBlock) || m.Name != someMember().Name || m.Member.ID != someMember().Member.ID {
		t.Errorf("torn: %+v, %v", m, err)
	}
}

func TestAMemberBlockOfSenselessValuesIsNeitherWrittenNorBelieved(t *testing.T) {
	tests := []struct {
		name   string
		change func(*ondisk.MemberBlock)
	}{
		{"no id", func(b *ondisk.MemberBlock) { b.ID = 0 }},
		{"no generation", func(b *ondisk.MemberBlock) { b.Generation, b.Settled = 0, 0 }},
		{"settled before it began", func(b *ondisk.MemberBlock) { b.Settled = 10 }},
		{"nonce of nothing settled", func(b *ondisk.MemberBlock) { b.Settled = 0 }},
		{"two nonces of one generation", func(b *ondisk.MemberBlock) { b.Settled = 9 }},
		{"long name", func(b *ondisk.MemberBlock) { b.LastName = strings.Repeat("x", 49) }},
		{"name with a NUL", func(b *ondisk.MemberBlock) { b.LastName = "a\x00b" }},
	}
	for _, tt := range tests {
		m := someMember()
		tt.change(&m.Member)
		if err := m.Encode(make([]byte, 512)); !errors.Is(err, ondisk.ErrMemberBlock) {
			t.Errorf("%s: encoded: %v", tt.name, err)
		}
		if err := m.Validate(int64(m.ProviderSize), 512); !errors.Is(err, ondisk.ErrMemberBlock) {
			t.Errorf("%s: valid: %v", tt.name, err)
		}
	}
	if err := someMember().Encode(make([]byte, 200)); !errors.Is(err, ondisk.ErrShort) {
		t.Errorf("short sector: %v", err)
	}
}

func TestAMembersNameKeepsBothEndsAndNoSecret(t *testing.T) {
	long := "/dev/disk/by-id/scsi-SATA_VENDOR_MODEL-0123456789-part17"
	for _, tt := range []struct{ name, want string }{
		{"da0p2", "da0p2"},
		{long, "/dev/disk/by-id/scsi-S...DEL-0123456789-part17"},
		{"nbd://joe:secret@host:10809/exp", "nbd://host:10809/exp"},
		{"nbds://joe@host/exp?tls-psk-file=/etc/key&tls-username=joe#frag", "nbds://host/exp"},
		{"nbd+unix:///exp?socket=/run/s&tls-certificates=/secret", "nbd+unix:///exp?socket=/run/s"},
		{"nbd://joe:se/cret@host/exp", "nbd://"},
		{"nbd://%zz", "nbd://"},
	} {
		got := ondisk.MemberName(tt.name)
		if tt.name == long {
			if len(got) > 48 || !strings.HasPrefix(got, "/dev/disk/by-id/scsi-") || !strings.HasSuffix(got, "-0123456789-part17") {
				t.Errorf("%s: %s", tt.name, got)
			}
			continue
		}
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestAnyMembersNameFits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.String().Draw(t, "name")
		got := ondisk.MemberName(name)
		if len(got) > ondisk.MaxMemberName || strings.Contains(got, "\x00") {
			t.Fatalf("%q", got)
		}
		if utf8.ValidString(name) && !utf8.ValidString(got) {
			t.Fatalf("%q became %q", name, got)
		}
	})
}

func TestTheListDependsOnTheOrderOfItsMembers(t *testing.T) {
	ids := []uint64{5, 6, 7}
	other := slices.Clone(ids)
	other[0], other[1] = other[1], other[0]
	if ondisk.MemberList(ids) == ondisk.MemberList(other) || ondisk.MemberList(ids) == ondisk.MemberList(ids[:2]) {
		t.Error("two lists are one")
	}
}

func FuzzDecodeMemberBlock(f *testing.F) {
	f.Add(sector(f, someMember()), true)
	f.Add(sector(f, someMember())[:250], false)
	f.Fuzz(func(t *testing.T, b []byte, intact bool) {
		if intact && len(b) >= 256 {
			b = resealMember(bytes.Clone(b))
		}
		m, err := ondisk.DecodeMetadata(b)
		if err != nil || !m.Member.Exists() {
			return
		}
		if m.Version != ondisk.VersionFenced {
			t.Fatalf("a block at version %d", m.Version)
		}
		again, err := ondisk.DecodeMetadata(sector(t, m))
		if err != nil || again != m {
			t.Fatalf("%+v became %+v, %v", m, again, err)
		}
	})
}

// resealMember gives a changed metadata sector the checksum that makes its block intact.
func resealMember(b []byte) []byte {
	binary.LittleEndian.PutUint64(b[248:], crc64.Checksum(b[:248], crc64.MakeTable(crc64.ECMA)))
	return b
}
