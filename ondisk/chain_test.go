package ondisk_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc64"
	"math/rand/v2"
	"testing"

	"github.com/gvirstor/gvirstor/ondisk"
	"pgregory.net/rapid"
)

func somePlaces(n int) []ondisk.Place {
	places := make([]ondisk.Place, n)
	for i := range places {
		places[i] = ondisk.Place{Member: uint64(i%3) + 1, Chunk: uint32(i)}
	}
	return places
}

// takeAll reads a chain whose chunks were written where the links lead.
func takeAll(kind ondisk.ChainKind, first ondisk.Link, chunkSize uint32, chunks map[ondisk.Place][]byte) (*ondisk.Chain, error) {
	c, err := ondisk.NewChain(kind, first, chunkSize)
	if err != nil {
		return nil, err
	}
	for l, more := c.Next(); more; l, more = c.Next() {
		b := chunks[l.Place]
		if err := c.Take(b[:min(len(b), int(l.Length))]); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func TestAChainGivesBackWhatItWasMadeOf(t *testing.T) {
	const chunkSize = 64 << 10
	rapid.Check(t, func(t *rapid.T) {
		contents := make([]byte, rapid.IntRange(1, 4*chunkSize).Draw(t, "bytes"))
		rand.NewChaCha8([32]byte{byte(len(contents))}).Read(contents)
		n := ondisk.ChainLength(len(contents), chunkSize)
		places := somePlaces(n + rapid.IntRange(0, 2).Draw(t, "spare"))
		first, chunks, err := ondisk.EncodeChain(ondisk.ChainMapList, contents, places, chunkSize)
		if err != nil || len(chunks) != n {
			t.Fatalf("%d chunks, want %d: %v", len(chunks), n, err)
		}
		at := make(map[ondisk.Place][]byte)
		for i, b := range chunks {
			if len(b) > chunkSize {
				t.Fatalf("chunk %d has %d bytes", i, len(b))
			}
			at[places[i]] = append(bytes.Clone(b), make([]byte, chunkSize-len(b))...)
		}
		c, err := takeAll(ondisk.ChainMapList, first, chunkSize, at)
		if err != nil || !bytes.Equal(c.Contents(), contents) || len(c.Places()) != n || c.Places()[n-1] != places[n-1] {
			t.Fatalf("%v", err)
		}
		// Any other byte, in any chunk, is noticed.
		broken := places[rapid.IntRange(0, n-1).Draw(t, "broken")]
		at[broken][rapid.IntRange(0, int(min(len(contents), 100))).Draw(t, "byte")] ^= 0x20
		if _, err := takeAll(ondisk.ChainMapList, first, chunkSize, at); !errors.Is(err, ondisk.ErrChain) {
			t.Fatalf("taken with a changed byte: %v", err)
		}
	})
}

func TestAChainThatCannotBeIsNotMade(t *testing.T) {
	for name, try := range map[string]struct {
		size, places int
		chunkSize    uint32
	}{
		"empty":               {0, 1, 64 << 10},
		"without places":      {1, 0, 64 << 10},
		"of too few places":   {64 << 10, 1, 64 << 10},
		"longer than can be":  {ondisk.MaxChain + 1, 1000, 64 << 10},
		"longer in one chunk": {ondisk.MaxChain + 1, 1000, 1 << 30},
	} {
		if _, _, err := ondisk.EncodeChain(ondisk.ChainDirectory, make([]byte, try.size), somePlaces(try.places), try.chunkSize); !errors.Is(err, ondisk.ErrChain) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := ondisk.EncodeChain(ondisk.ChainDirectory, []byte{1}, []ondisk.Place{{}}, 64<<10); !errors.Is(err, ondisk.ErrChain) {
		t.Errorf("on no member: %v", err)
	}
	if first, _, err := ondisk.EncodeChain(ondisk.ChainDirectory, make([]byte, ondisk.MaxChain), somePlaces(1), 1<<30); err != nil || first.Length != ondisk.MaxChain+48 {
		t.Errorf("the longest: %v, %v", first, err)
	}
}

func TestAChainTakesOnlyWhatItIsOf(t *testing.T) {
	place := ondisk.Place{Member: 1, Chunk: 1}
	first, chunks, err := ondisk.EncodeChain(ondisk.ChainDirectory, []byte("contents"), []ondisk.Place{place}, 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	sealed := func(b []byte) (ondisk.Link, []byte) {
		return ondisk.Link{Place: place, Length: uint32(len(b)), Sum: ondisk.ChunkSum(b)}, b
	}
	tests := []struct {
		name string
		kind ondisk.ChainKind
		give func() (ondisk.Link, []byte)
		want error
	}{
		{"its chunk", ondisk.ChainDirectory, func() (ondisk.Link, []byte) { return first, chunks[0] }, nil},
		{"another kind", ondisk.ChainMapList, func() (ondisk.Link, []byte) { return first, chunks[0] }, ondisk.ErrChain},
		{"a shorter one", ondisk.ChainDirectory, func() (ondisk.Link, []byte) { return first, chunks[0][:50] }, ondisk.ErrChain},
		{"another version", ondisk.ChainDirectory, func() (ondisk.Link, []byte) { return sealed(changed(chunks[0], 16, 2)) }, ondisk.ErrChain},
		{"a link to member 0", ondisk.ChainDirectory, func() (ondisk.Link, []byte) { return sealed(changed(chunks[0], 36, 90)) }, ondisk.ErrChain},
		{"a header alone", ondisk.ChainDirectory, func() (ondisk.Link, []byte) { return sealed(chunks[0][:48]) }, ondisk.ErrChain},
	}
	for _, tt := range tests {
		link, b := tt.give()
		c, err := ondisk.NewChain(tt.kind, link, 64<<10)
		if err == nil {
			err = c.Take(b)
		}
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

// Checksums can be made to fit: a chain that leads to itself ends, too.
func TestAChainThatLeadsToItselfEnds(t *testing.T) {
	b := make([]byte, 64<<10)
	link := leadToItself(b)
	c, err := ondisk.NewChain(ondisk.ChainDirectory, link, 64<<10)
	for taken := 0; err == nil && taken <= 2*ondisk.MaxChain; taken += len(b) {
		if l, _ := c.Next(); l != link {
			t.Fatalf("leads to %v", l)
		}
		err = c.Take(b)
	}
	if !errors.Is(err, ondisk.ErrChain) {
		t.Error(err)
	}
}

// leadToItself makes b, of zeros, a chunk of a directory whose link to the next is the
// one to itself: the last eight bytes bring the checksum to what the link says.
func leadToItself(b []byte) ondisk.Link {
	link := ondisk.Link{Place: ondisk.Place{Member: 1}, Length: uint32(len(b)), Sum: 0x1234}
	le := binary.LittleEndian
	copy(b, "GVIRSTOR::DIR")
	le.PutUint32(b[16:], 1)
	le.PutUint64(b[24:], link.Member)
	le.PutUint32(b[36:], link.Length)
	le.PutUint64(b[40:], link.Sum)
	wanted := ^link.Sum
	for range 64 { // back over the last eight bytes
		if wanted>>63 == 1 {
			wanted = (wanted^crc64.ECMA)<<1 | 1
		} else {
			wanted <<= 1
		}
	}
	end := len(b) - 8
	le.PutUint64(b[end:], wanted^^ondisk.ChunkSum(b[:end]))
	return link
}

func TestALinkSaysWhereItLeads(t *testing.T) {
	if got := (ondisk.Link{}).String() + "; " + someLink(0xb, 6).String(); got != "none; 80 bytes of chunk 6 of member 000000000000000b" {
		t.Error(got)
	}
}
