package ondisk_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc64"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/gvirstor/gvirstor/ondisk"
)

func someLease() ondisk.Lease {
	return ondisk.Lease{
		VolumeID: 7, Owner: 0x1122334455667788, Sequence: 42, Interval: 5 * time.Second, Settle: time.Minute, Released: true,
		Host: [16]byte{1, 2, 3, 15: 16}, HostName: "db1.example.org", Taken: 1754000000,
	}
}

func leaseBytes(t testing.TB, l ondisk.Lease) []byte {
	t.Helper()
	b := bytes.Repeat([]byte{0xee}, ondisk.LeaseBytes(512))
	if err := l.Encode(b); err != nil {
		t.Fatal(err)
	}
	return b
}

// resealLease gives a changed lease the checksum that makes it intact.
func resealLease(b []byte) []byte {
	end := ondisk.LeaseRecordSize - 8
	binary.LittleEndian.PutUint64(b[end:], crc64.Checksum(b[:end], crc64.MakeTable(crc64.ECMA)))
	return b
}

// What a lease looks like does not change.
func TestTheLeaseIsTheGoldenOne(t *testing.T) {
	want, err := os.ReadFile("testdata/lease.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.Dump(leaseBytes(t, someLease())[:ondisk.LeaseRecordSize]); got != string(want) {
		t.Errorf("now\n%s", got)
	}
}

func TestTheBytesOfALeaseAreWhereTheManualPutsThem(t *testing.T) {
	b := leaseBytes(t, someLease())
	le := binary.LittleEndian
	for _, f := range []struct {
		what string
		off  int
		want uint64
	}{
		{"version and flags", 16, 1<<32 + 1}, {"sequence", 24, 42}, {"volume and interval", 32, 5000<<32 + 7},
		{"settling time", 40, 60000}, {"owner", 48, 0x1122334455667788}, {"taken", 56, 1754000000}, {"host", 64, 0x030201},
	} {
		if got := le.Uint64(b[f.off:]); got != f.want {
			t.Errorf("%s at %d: %#x, want %#x", f.what, f.off, got, f.want)
		}
	}
	if got := string(b[:15]) + " " + string(b[80:95]); got != "GVIRSTOR::LEASE db1.example.org" {
		t.Errorf("magic and name: %q", got)
	}
	if rest := b[ondisk.LeaseRecordSize:]; len(rest) != ondisk.LeaseSize-512 || len(bytes.Trim(rest, "\x00")) > 0 {
		t.Errorf("behind the record: %d bytes, not all zero", len(rest))
	}
}

func TestALeaseNoticesEveryChangedByte(t *testing.T) {
	good := leaseBytes(t, someLease())
	for i := range ondisk.LeaseRecordSize {
		b := bytes.Clone(good)
		b[i] ^= 0x10
		if _, err := ondisk.DecodeLease(b); err == nil {
			t.Errorf("byte %d changed unnoticed", i)
		}
	}
}

func TestDecodeLeaseNamesEachReason(t *testing.T) {
	tests := []struct {
		name   string
		change func(b []byte) []byte
		want   error
	}{
		{"intact", func(b []byte) []byte { return b }, nil},
		{"short", func(b []byte) []byte { return b[:511] }, ondisk.ErrShort},
		{"zeros", func(b []byte) []byte { return make([]byte, 4096) }, ondisk.ErrLeaseMagic},
		{"torn", func(b []byte) []byte { clear(b[100:]); return b }, ondisk.ErrLeaseChecksum},
		{"later version", func(b []byte) []byte { b[16] = 2; return resealLease(b) }, ondisk.ErrLeaseVersion},
		{"unknown flag", func(b []byte) []byte { b[20] |= 2; return resealLease(b) }, ondisk.ErrLeaseContents},
		{"no owner", func(b []byte) []byte { clear(b[48:56]); return resealLease(b) }, ondisk.ErrLeaseContents},
		{"no interval", func(b []byte) []byte { clear(b[36:40]); return resealLease(b) }, ondisk.ErrLeaseContents},
		{"interval of 49 days", func(b []byte) []byte { b[39] = 0xff; return resealLease(b) }, ondisk.ErrLeaseContents},
		{"settles in 49 days", func(b []byte) []byte { b[43] = 0xff; return resealLease(b) }, ondisk.ErrLeaseContents},
		{"host name of a terminal's commands", func(b []byte) []byte { b[81] = 27; return resealLease(b) }, ondisk.ErrLeaseContents},
		{"unused byte", func(b []byte) []byte { b[200] = 1; return resealLease(b) }, ondisk.ErrLeaseContents},
		{"byte behind the name's end", func(b []byte) []byte { b[100] = 1; return resealLease(b) }, ondisk.ErrLeaseContents},
	}
	for _, tt := range tests {
		if _, err := ondisk.DecodeLease(tt.change(leaseBytes(t, someLease()))); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestEncodeLeaseRefusesWhatCannotBeReadBack(t *testing.T) {
	tests := []struct {
		name   string
		change func(*ondisk.Lease)
		size   int
		want   error
	}{
		{"small buffer", func(l *ondisk.Lease) {}, 4095, ondisk.ErrShort},
		{"no owner", func(l *ondisk.Lease) { l.Owner = 0 }, 4096, ondisk.ErrLeaseContents},
		{"interval of half a millisecond", func(l *ondisk.Lease) { l.Interval = time.Millisecond / 2 }, 4096, ondisk.ErrLeaseContents},
		{"interval of a day", func(l *ondisk.Lease) { l.Interval = 24 * time.Hour }, 4096, ondisk.ErrLeaseContents},
		{"settles before", func(l *ondisk.Lease) { l.Settle = -time.Second }, 4096, ondisk.ErrLeaseContents},
		{"settles in two days", func(l *ondisk.Lease) { l.Settle = 48 * time.Hour }, 4096, ondisk.ErrLeaseContents},
		{"long name", func(l *ondisk.Lease) { l.HostName = strings.Repeat("x", 65) }, 4096, ondisk.ErrLeaseContents},
	}
	for _, tt := range tests {
		l, b := someLease(), bytes.Repeat([]byte{0xee}, tt.size)
		tt.change(&l)
		if err := l.Encode(b); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if len(bytes.Trim(b, "\xee")) > 0 {
			t.Errorf("%s: written in part", tt.name)
		}
	}
}

// The lease is beside the records in every extension block, or there is none.
func TestTheLeaseSharesNoSectorWithARecord(t *testing.T) {
	m := sound()
	m.No, m.ProviderSize = 0, 1<<40
	block, ok := ondisk.ExtensionOffset(m)
	if !ok {
		t.Fatal("no extension block")
	}
	for sector := 512; sector <= 64<<10; sector *= 2 {
		off, room := ondisk.LeaseOffset(m, sector)
		if want := sector <= 32<<10; room != want {
			t.Errorf("sectors of %d: room %t", sector, room)
		}
		end := off + int64(ondisk.LeaseBytes(sector))
		if room && (off != block+32<<10 || off%int64(sector) != 0 || off < block+int64(sector) || end > block+ondisk.ExtensionSlotSize) {
			t.Errorf("sectors of %d: [%d,%d) of the block at %d", sector, off, end, block)
		}
	}
	m.No = 1
	if _, room := ondisk.LeaseOffset(m, 512); room {
		t.Error("a lease on component 1")
	}
}

func TestALeaseComesBackAsItWas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		milliseconds := func(least int64, most time.Duration, what string) time.Duration {
			return time.Duration(rapid.Int64Range(least, most.Milliseconds()).Draw(t, what)) * time.Millisecond
		}
		l := ondisk.Lease{
			VolumeID: rapid.Uint32().Draw(t, "volume"),
			Owner:    rapid.Uint64Min(1).Draw(t, "owner"),
			Sequence: rapid.Uint64().Draw(t, "sequence"),
			Interval: milliseconds(1, ondisk.MaxLeaseInterval, "interval"),
			Settle:   milliseconds(0, ondisk.MaxLeaseSettle, "settle"),
			Released: rapid.Bool().Draw(t, "released"),
			HostName: ondisk.LeaseHostName(string(rapid.SliceOf(rapid.Byte()).Draw(t, "name"))),
			Taken:    rapid.Int64().Draw(t, "taken"),
		}
		copy(l.Host[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "host"))
		b := make([]byte, ondisk.LeaseSize)
		if err := l.Encode(b); err != nil {
			t.Fatal(err)
		}
		if again, err := ondisk.DecodeLease(b[:512]); err != nil || again != l {
			t.Fatalf("%+v became %+v, %v", l, again, err)
		}
	})
}

func TestAHostNameIsCutBetweenCharacters(t *testing.T) {
	for name, want := range map[string]string{
		"db1":                         "db1",
		"":                            "",
		"a\x1b[2Jb\xff":               "a?[2Jb?",
		strings.Repeat("x", 63) + "é": strings.Repeat("x", 63),
		strings.Repeat("é", 40):       strings.Repeat("é", 32),
	} {
		got := ondisk.LeaseHostName(name)
		if got != want || !utf8.ValidString(got) {
			t.Errorf("%q became %q, want %q", name, got, want)
		}
	}
}
