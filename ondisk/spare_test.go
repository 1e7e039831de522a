package ondisk_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/gvirstor/gvirstor/ondisk"
)

var someSpare = ondisk.Spare{Name: "mydata", VolumeID: 0x12345678, ProviderSize: 8 << 30}

func spareSector(t testing.TB, s ondisk.Spare) []byte {
	t.Helper()
	b := bytes.Repeat([]byte{0xA5}, 512)
	if err := s.Encode(b); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestASpareLabelIsTheseBytesAndNoMetadata(t *testing.T) {
	b := spareSector(t, someSpare)
	const want = "47564952" + "53544f52" + "3a3a5350" + "41524500" + // GVIRSTOR::SPARE
		"01000000" + "78563412" + "6d7964617461" + "00000000000000000000" + "0000000002000000" + "0000000000000000"
	if got := hex.EncodeToString(b[:56]); got != want {
		t.Errorf("label %s\nwant  %s", got, want)
	}
	if !bytes.Equal(b[ondisk.SpareSize:], make([]byte, 512-ondisk.SpareSize)) {
		t.Error("the rest of the sector is not zero")
	}
	if s, err := ondisk.DecodeSpare(b); err != nil || s != someSpare {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := ondisk.DecodeMetadata(b); !errors.Is(err, ondisk.ErrMagic) {
		t.Errorf("as metadata: %v", err)
	}
}

func TestADamagedSpareLabelIsRefused(t *testing.T) {
	for i := range ondisk.SpareSize {
		b := spareSector(t, someSpare)
		b[i] ^= 0x10
		if s, err := ondisk.DecodeSpare(b); err == nil {
			t.Errorf("byte %d changed: taken as %+v", i, s)
		}
	}
	if _, err := ondisk.DecodeSpare(make([]byte, 10)); !errors.Is(err, ondisk.ErrShort) {
		t.Errorf("ten bytes: %v", err)
	}
	if err := (ondisk.Spare{Name: "much too long a name"}).Encode(make([]byte, 512)); !errors.Is(err, ondisk.ErrName) {
		t.Errorf("a long name: %v", err)
	}
}

func FuzzDecodeSpare(f *testing.F) {
	f.Add(spareSector(f, someSpare))
	f.Add(make([]byte, 512))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ondisk.DecodeSpare(b)
		if err != nil {
			return
		}
		if again, err := ondisk.DecodeSpare(spareSector(t, s)); err != nil || again != s {
			t.Fatalf("%+v became %+v, %v", s, again, err)
		}
	})
}
