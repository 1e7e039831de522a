package stream

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// written is the stream of records.
func written(t testing.TB, s Start, records []Record) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, s)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		if err := w.Write(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// readAll is what a stream has, as far as it can be read.
func readAll(b []byte) (s Start, records []Record, err error) {
	r, err := NewReader(bytes.NewReader(b))
	if err != nil {
		return s, nil, err
	}
	for {
		rec, err := r.Next()
		if err == io.EOF {
			return r.Start(), records, nil
		}
		if err != nil {
			return r.Start(), records, err
		}
		rec.Data = bytes.Clone(rec.Data)
		records = append(records, rec)
	}
}

func someStart() Start {
	return Start{GUID: 0xfedcba9876543210, Base: 0x123456789abcdef, Size: 1 << 20, From: 0x1000, Time: 1_700_000_000, Volume: "vol", Snapshot: "tuesday", Older: "monday"}
}

func someRecords() []Record {
	return []Record{{Offset: 0x1000, Length: 5, Data: []byte("hello")}, {Offset: 0x2000, Length: 0x3000}, {Offset: 0xffff0, Length: 16, Data: bytes.Repeat([]byte{0xa5}, 16)}}
}

// The bytes are those that the manual says: they must not change.
func TestTheBytesOfAStreamStayWhatTheyAre(t *testing.T) {
	got := hex.Dump(written(t, someStart(), someRecords()))
	want, err := os.ReadFile("testdata/stream.txt")
	if err != nil || got != string(want) {
		t.Errorf("%v, now\n%s", err, got)
	}
}

// drawn is a start and records that fit it.
func drawn(t *rapid.T) (Start, []Record) {
	s := Start{
		GUID: 7, Size: rapid.Int64Range(1, 1<<40).Draw(t, "size"), Time: rapid.Int64().Draw(t, "time"),
		Volume: rapid.StringN(0, 20, maxName).Draw(t, "volume"), Snapshot: rapid.StringN(0, 20, maxName).Draw(t, "snapshot"), Older: rapid.StringN(0, 20, maxName).Draw(t, "older"),
	}
	s.From = rapid.Int64Range(0, s.Size).Draw(t, "from")
	var records []Record
	for at := s.From; at < s.Size && len(records) < 8; {
		r := Record{Offset: rapid.Int64Range(at, s.Size-1).Draw(t, "offset")}
		r.Length = rapid.Int64Range(1, s.Size-r.Offset).Draw(t, "length")
		if r.Length <= 2000 {
			r.Data = rapid.SliceOfN(rapid.Byte(), int(r.Length), int(r.Length)).Draw(t, "data")
		}
		records, at = append(records, r), r.Offset+r.Length
	}
	return s, records
}

func TestAStreamIsReadAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s, records := drawn(rt)
		got, all, err := readAll(written(t, s, records))
		if err != nil || got != s || !slices.EqualFunc(all, records, func(a, b Record) bool {
			return a.Offset == b.Offset && a.Length == b.Length && bytes.Equal(a.Data, b.Data) && (a.Data == nil) == (b.Data == nil)
		}) {
			rt.Fatalf("%+v, %v, %v", got, all, err)
		}
	})
}

func TestAStreamThatIsCutOffOrDamagedAnywhereIsNeverWhole(t *testing.T) {
	good := written(t, someStart(), someRecords())
	for i := range good {
		if _, _, err := readAll(good[:i]); !errors.Is(err, ErrCut) {
			t.Fatalf("cut off behind %d bytes: %v", i, err)
		}
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			if _, _, err := readAll(bad); !errors.Is(err, ErrFormat) && !errors.Is(err, ErrVersion) && !errors.Is(err, ErrCut) {
				t.Fatalf("bit %d of byte %d is another: %v", bit, i, err)
			}
		}
	}
}

// TestARecordThatIsMissingDoubledOrOutOfOrderIsNoticed: each is whole by itself.
func TestARecordThatIsMissingDoubledOrOutOfOrderIsNoticed(t *testing.T) {
	s := someStart()
	s.From = 0
	var records []Record
	for i := range int64(3) {
		records = append(records, Record{Offset: i * 512, Length: 512, Data: bytes.Repeat([]byte{byte(i)}, 512)})
	}
	good := written(t, s, records)
	const one, end = recordHead + 512 + sumSize, recordHead + sumSize
	start := len(good) - 3*one - end
	part := func(i int) []byte { return good[start+i*one:][:one] }
	for what, order := range map[string][]int{"missing": {0, 2}, "doubled": {0, 1, 1, 2}, "out of order": {1, 0, 2}, "the last missing": {0, 1}} {
		b := bytes.Clone(good[:start])
		for _, i := range order {
			b = append(b, part(i)...)
		}
		if _, _, err := readAll(append(b, good[len(good)-end:]...)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestWhatDoesNotFitIsNotWritten(t *testing.T) {
	for what, change := range map[string]func(*Start){
		"no GUID":           func(s *Start) { s.GUID = 0 },
		"builds on itself":  func(s *Start) { s.Base = s.GUID },
		"no size":           func(s *Start) { s.Size = 0 },
		"begins beyond":     func(s *Start) { s.From = s.Size + 1 },
		"a name too long":   func(s *Start) { s.Volume = string(make([]byte, 256)) },
		"a negative offset": func(s *Start) { s.From = -1 },
	} {
		s := someStart()
		change(&s)
		if _, err := NewWriter(io.Discard, s); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", what, err)
		}
	}
	w, err := NewWriter(io.Discard, someStart())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(Record{Offset: 0x2000, Length: 512}); err != nil {
		t.Fatal(err)
	}
	for what, r := range map[string]Record{
		"before the last one": {Offset: 0x2000, Length: 512},
		"beyond the end":      {Offset: 1<<20 - 1, Length: 2},
		"of nothing":          {Offset: 0x3000},
		"short of data":       {Offset: 0x3000, Length: 2, Data: []byte{1}},
		"too much data":       {Offset: 0x3000, Length: MaxData + 1, Data: make([]byte, MaxData+1)},
		"without an end":      {Offset: 0x3000, Length: 1<<63 - 1},
	} {
		if err := w.Write(r); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestALaterVersionIsToldApart(t *testing.T) {
	b := written(t, someStart(), nil)
	b[len(magic)] = Version + 1
	if _, _, err := readAll(b); !errors.Is(err, ErrVersion) {
		t.Error(err)
	}
}

// FuzzReader: whatever is read as a whole stream is what a Writer makes of it, but for what
// follows its end.
func FuzzReader(f *testing.F) {
	f.Add(written(f, someStart(), someRecords()))
	f.Add(written(f, someStart(), nil))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, records, err := readAll(b)
		if err != nil {
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrVersion) && !errors.Is(err, ErrCut) {
				t.Error(err)
			}
			return
		}
		if again := written(t, s, records); !bytes.HasPrefix(b, again) {
			t.Errorf("% x is read as % x", b, again)
		}
	})
}
