package ondisk

import (
	"encoding/binary"
	"fmt"
	"hash/crc64"
)

// A chain is a run of bytes that lies in system chunks, from the start of each:
// a header, then its part of the bytes. Each chunk names the next with its
// checksum, so whoever has the Link to the first has proof of all.
const (
	// LinkSize is the size of an encoded Link in bytes.
	LinkSize = 24
	// MaxChain is how many bytes a chain can hold, and how many of them a chunk
	// of it can.
	MaxChain = 4 << 20

	chainVersion = 1
)

// Offsets in a chunk of a chain.
const (
	chainOffMagic   = 0
	chainOffVersion = 16 // then 4 bytes of zeros
	chainOffNext    = 24
	chainHeader     = chainOffNext + LinkSize
)

// ChainKind is what a chain holds.
type ChainKind uint8

// The kinds.
const (
	ChainDirectory ChainKind = iota // Directory
	ChainMapList                    // MapList
)

var chainMagics = [...]string{"GVIRSTOR::DIR", "GVIRSTOR::LIST"}

// Place is a chunk of a component that is named by its member id, which stays
// when indexes change.
type Place struct {
	Member uint64 // MemberBlock.ID
	Chunk  uint32 // on that component
}

// Link names the beginning of a system chunk and proves what is there. The zero
// Link names nothing.
type Link struct {
	Place
	Length uint32 // bytes from the start of the chunk
	Sum    uint64 // their CRC-64/ECMA
}

// Exists reports whether l names anything.
func (l Link) Exists() bool { return l != Link{} }

// String is where the link leads.
func (l Link) String() string {
	if !l.Exists() {
		return "none"
	}
	return fmt.Sprintf("%d bytes of chunk %d of member %016x", l.Length, l.Chunk, l.Member)
}

// check refuses a link that no chain of chunks of chunkSize bytes has.
func (l Link) check(chunkSize uint32) error {
	switch {
	case l.Member == 0:
		return fmt.Errorf("%w: member id 0", ErrChain)
	case l.Length <= chainHeader || l.Length > chunkSize || l.Length > chainHeader+MaxChain:
		return fmt.Errorf("%w: %v, of chunks of %d bytes", ErrChain, l, chunkSize)
	}
	return nil
}

func (l Link) encode(b []byte) {
	le := binary.LittleEndian
	le.PutUint64(b, l.Member)
	le.PutUint32(b[8:], l.Chunk)
	le.PutUint32(b[12:], l.Length)
	le.PutUint64(b[16:], l.Sum)
}

func decodeLink(b []byte) Link {
	le := binary.LittleEndian
	return Link{Place{le.Uint64(b), le.Uint32(b[8:])}, le.Uint32(b[12:]), le.Uint64(b[16:])}
}

// ChunkSum is the checksum of a link and of a snapshot's map chunk: CRC-64/ECMA
// (hash/crc64).
func ChunkSum(b []byte) uint64 { return AddToSum(0, b) }

// AddToSum is ChunkSum of bytes whose sum is given, with b behind them.
func AddToSum(sum uint64, b []byte) uint64 {
	return crc64.Update(sum, crc64.MakeTable(crc64.ECMA), b)
}

// ChainLength is how many chunks of chunkSize bytes a chain of so many bytes
// takes.
func ChainLength(size int, chunkSize uint32) int {
	part := chainPart(chunkSize)
	return max(1, (size+part-1)/part)
}

// chainPart is how many bytes of a chain a chunk holds.
func chainPart(chunkSize uint32) int {
	return min(int(chunkSize)-chainHeader, MaxChain)
}

// EncodeChain makes contents a chain in the first of places, as many as
// ChainLength says. It gives the link to the first and, for each, the bytes for
// its beginning. It fails with ErrChain when the places do not suffice, or the
// contents are empty or longer than MaxChain.
func EncodeChain(kind ChainKind, contents []byte, places []Place, chunkSize uint32) (first Link, chunks [][]byte, err error) {
	n := ChainLength(len(contents), chunkSize)
	if len(contents) == 0 || len(contents) > MaxChain || n > len(places) {
		return Link{}, nil, fmt.Errorf("%w: %d bytes for %d chunks", ErrChain, len(contents), len(places))
	}
	chunks = make([][]byte, n)
	part := chainPart(chunkSize)
	for i := n - 1; i >= 0; i-- {
		own := contents[i*part : min((i+1)*part, len(contents))]
		b := make([]byte, chainHeader, chainHeader+len(own))
		copy(b[chainOffMagic:], chainMagics[kind])
		binary.LittleEndian.PutUint32(b[chainOffVersion:], chainVersion)
		first.encode(b[chainOffNext:])
		chunks[i] = append(b, own...)
		first = Link{places[i], uint32(len(chunks[i])), ChunkSum(chunks[i])}
		if err := first.check(chunkSize); err != nil {
			return Link{}, nil, err
		}
	}
	return first, chunks, nil
}

// Chain collects what a chain holds, one chunk after the other.
type Chain struct {
	kind      ChainKind
	chunkSize uint32
	next      Link
	places    []Place
	contents  []byte
}

// NewChain begins a chain of chunks of chunkSize bytes. It fails with ErrChain
// when first can lead to none.
func NewChain(kind ChainKind, first Link, chunkSize uint32) (*Chain, error) {
	if err := first.check(chunkSize); err != nil {
		return nil, err
	}
	return &Chain{kind: kind, chunkSize: chunkSize, next: first}, nil
}

// Next is what Take wants; more is false behind the last chunk.
func (c *Chain) Next() (l Link, more bool) { return c.next, c.next.Exists() }

// Take takes the bytes that Next named. It fails with ErrChain when they are not
// those, and when the chain becomes longer than MaxChain; the chain is then as
// it was.
func (c *Chain) Take(b []byte) error {
	if len(b) != int(c.next.Length) || ChunkSum(b) != c.next.Sum {
		return fmt.Errorf("%w: wrong checksum of %v", ErrChain, c.next)
	}
	if version := binary.LittleEndian.Uint64(b[chainOffVersion:]); text(b[chainOffMagic:chainOffVersion]) != chainMagics[c.kind] || version != chainVersion {
		return fmt.Errorf("%w: %v begins with %q, version %d", ErrChain, c.next, b[chainOffMagic:chainOffVersion], version)
	}
	next := decodeLink(b[chainOffNext:])
	if err := next.check(c.chunkSize); next.Exists() && err != nil {
		return fmt.Errorf("behind %v: %w", c.next, err)
	}
	if len(c.contents)+len(b)-chainHeader > MaxChain {
		return fmt.Errorf("%w: a chain of more than %d bytes", ErrChain, MaxChain)
	}
	c.places = append(c.places, c.next.Place)
	c.contents = append(c.contents, b[chainHeader:]...)
	c.next = next
	return nil
}

// Contents are the bytes that were taken so far.
func (c *Chain) Contents() []byte { return c.contents }

// Places are the chunks that were taken so far, in their order.
func (c *Chain) Places() []Place { return c.places }
