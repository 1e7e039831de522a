package ondisk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc64"
	"net/url"
	"strings"
	"unicode/utf8"
)

// MemberBlock says which member of its volume a component is, and of which
// moment. It lies in the metadata sector, behind the metadata, and only at
// VersionFenced: the zero value is no block, which is what a component of Version
// has, and one that this project's first release wrote.
//
// The generation rises with every opening for writing, every orderly close and
// every change of the members, in two steps: first Generation, Nonce and List on
// all members, component 0 first but for new members; when that is on stable
// storage, Settled and SettledNonce. So a component whose Generation is below the
// highest Settled of any member missed something.
type MemberBlock struct {
	ID           uint64 // of the member, random, given when it joined; not 0
	Generation   uint64 // counts from 1
	Settled      uint64 // highest generation that is known to be on all members; 0: none
	List         uint64 // MemberList of the ids of all components
	Began        int64  // when this generation began, seconds since 1970
	LastName     string // of the provider, as MemberName gives it
	Nonce        uint64 // random, drawn with Generation, the same on all members
	SettledNonce uint64 // the nonce of generation Settled; 0 when there is none
}

const (
	// MemberBlockEnd is how many bytes of the metadata sector a component with
	// a MemberBlock uses.
	MemberBlockEnd = 256
	// MaxMemberName is the longest MemberBlock.LastName in bytes.
	MaxMemberName = 48

	memberMagic = "GVIRSTOR::MEMBER"
)

// Offsets in the metadata sector.
const (
	offMember       = 128
	offMemberID     = 144
	offGeneration   = 152
	offSettled      = 160
	offList         = 168
	offBegan        = 176
	offLastName     = 184
	offNonce        = 232
	offSettledNonce = 240
	offMemberSum    = 248
)

// Exists reports whether there is a block.
func (b MemberBlock) Exists() bool { return b != MemberBlock{} }

// decodeMemberBlock reads the block of a metadata sector of VersionFenced.
// Bytes that are neither zeros nor an intact block are damage.
func decodeMemberBlock(sector []byte) (MemberBlock, error) {
	if len(sector) < MemberBlockEnd {
		return MemberBlock{}, nil
	}
	area := sector[offMember:MemberBlockEnd]
	if len(bytes.Trim(area, "\x00")) == 0 {
		return MemberBlock{}, nil
	}
	if !bytes.HasPrefix(area, []byte(memberMagic)) {
		return MemberBlock{}, fmt.Errorf("%w: it does not begin with %s", ErrMemberBlock, memberMagic)
	}
	le := binary.LittleEndian
	b := MemberBlock{
		ID:           le.Uint64(sector[offMemberID:]),
		Generation:   le.Uint64(sector[offGeneration:]),
		Settled:      le.Uint64(sector[offSettled:]),
		List:         le.Uint64(sector[offList:]),
		Began:        int64(le.Uint64(sector[offBegan:])),
		Nonce:        le.Uint64(sector[offNonce:]),
		SettledNonce: le.Uint64(sector[offSettledNonce:]),
	}
	name, _, _ := bytes.Cut(sector[offLastName:offNonce], []byte{0})
	b.LastName = string(name)
	if got, want := le.Uint64(sector[offMemberSum:]), memberSum(sector); got != want {
		return b, fmt.Errorf("%w: checksum %#x, should be %#x", ErrMemberBlock, got, want)
	}
	return b, b.check()
}

// encode writes the block behind the metadata, which is in sector already: the
// checksum covers it.
func (b MemberBlock) encode(sector []byte) {
	le := binary.LittleEndian
	copy(sector[offMember:], memberMagic)
	le.PutUint64(sector[offMemberID:], b.ID)
	le.PutUint64(sector[offGeneration:], b.Generation)
	le.PutUint64(sector[offSettled:], b.Settled)
	le.PutUint64(sector[offList:], b.List)
	le.PutUint64(sector[offBegan:], uint64(b.Began))
	copy(sector[offLastName:offNonce], b.LastName)
	le.PutUint64(sector[offNonce:], b.Nonce)
	le.PutUint64(sector[offSettledNonce:], b.SettledNonce)
	le.PutUint64(sector[offMemberSum:], memberSum(sector))
}

// check refuses what no version of this project writes.
func (b MemberBlock) check() error {
	switch {
	case b.ID == 0:
		return fmt.Errorf("%w: member id 0", ErrMemberBlock)
	case b.Generation == 0:
		return fmt.Errorf("%w: generation 0", ErrMemberBlock)
	case b.Settled > b.Generation:
		return fmt.Errorf("%w: generation %d is settled, the member is of %d", ErrMemberBlock, b.Settled, b.Generation)
	case b.Settled == 0 && b.SettledNonce != 0:
		return fmt.Errorf("%w: a nonce of no settled generation", ErrMemberBlock)
	case b.Settled == b.Generation && b.SettledNonce != b.Nonce:
		return fmt.Errorf("%w: two nonces of generation %d", ErrMemberBlock, b.Generation)
	case len(b.LastName) > MaxMemberName || strings.ContainsRune(b.LastName, 0):
		return fmt.Errorf("%w: the name %q is longer than %d bytes or has a NUL", ErrMemberBlock, b.LastName, MaxMemberName)
	}
	return nil
}

func memberSum(sector []byte) uint64 {
	return crc64.Checksum(sector[:offMemberSum], crc64.MakeTable(crc64.ECMA))
}

// MemberList is what MemberBlock.List is for a volume whose components have these
// member ids, in the order of their indexes: the CRC-64/ECMA of the ids, each as 8
// bytes, little-endian.
func MemberList(ids []uint64) uint64 {
	b := make([]byte, 0, 8*len(ids))
	for _, id := range ids {
		b = binary.LittleEndian.AppendUint64(b, id)
	}
	return crc64.Checksum(b, crc64.MakeTable(crc64.ECMA))
}

// MemberName makes a provider's name fit MemberBlock.LastName: one that is longer
// than MaxMemberName bytes keeps its beginning and its end. Of a URI it leaves
// out whatever could be a secret: the user, and all parameters but the socket's
// path.
func MemberName(provider string) string {
	name := strings.ReplaceAll(provider, "\x00", "")
	if scheme, rest, ok := strings.Cut(name, "://"); ok {
		name = withoutSecrets(scheme, rest)
	}
	if len(name) <= MaxMemberName {
		return name
	}
	const dots = "..."
	head := (MaxMemberName - len(dots)) / 2
	tail := len(name) - (MaxMemberName - len(dots) - head)
	for head > 0 && !utf8.RuneStart(name[head]) {
		head--
	}
	for tail < len(name) && !utf8.RuneStart(name[tail]) {
		tail++
	}
	return name[:head] + dots + name[tail:]
}

// withoutSecrets is a URI without its user, its fragment and its parameters, the
// socket's path excepted. Of one that cannot be read only the scheme is left.
func withoutSecrets(scheme, rest string) string {
	u, err := url.Parse(scheme + "://" + rest)
	if err != nil {
		return scheme + "://"
	}
	plain := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	if socket := u.Query().Get("socket"); socket != "" {
		return plain.String() + "?socket=" + socket
	}
	return plain.String()
}
