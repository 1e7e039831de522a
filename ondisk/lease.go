package ondisk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc64"
	"strconv"
	"time"
	"unicode/utf8"
)

// The lease lies in the extension block of component 0, between the records: the locks
// of a host do not reach another one, this does. Whoever serves the volume writes it
// again and again; who finds it fresh keeps away. It is judged by itself, at Version as
// at VersionFenced.
const (
	// LeaseSize is the size of the lease in bytes. The record is its first
	// LeaseRecordSize bytes, which are within the smallest sector; the rest is zero.
	LeaseSize = 4096
	// LeaseRecordSize is the size of the record in bytes.
	LeaseRecordSize = 512
	// MaxHostName is the longest Lease.HostName in bytes.
	MaxHostName = 64
	// MaxLeaseInterval and MaxLeaseSettle are the longest Lease.Interval and
	// Lease.Settle: who waits for a lease waits a few of them.
	MaxLeaseInterval = time.Hour
	MaxLeaseSettle   = 24 * time.Hour

	leaseMagic   = "GVIRSTOR::LEASE"
	leaseVersion = 1
	// leasePlace is where the lease is in the extension block, bytes.
	leasePlace = 32 << 10

	leaseReleased uint32 = 1 // the flag of Lease.Released
)

// Offsets in the record of a lease.
const (
	leaseOffMagic    = 0
	leaseOffVersion  = 16
	leaseOffFlags    = 20
	leaseOffSequence = 24
	leaseOffVolumeID = 32
	leaseOffInterval = 36 // milliseconds
	leaseOffSettle   = 40 // milliseconds; then 4 bytes of zeros
	leaseOffOwner    = 48
	leaseOffTaken    = 56
	leaseOffHost     = 64
	leaseOffName     = 80
	leaseOffEnd      = leaseOffName + MaxHostName // then zeros to the checksum
	leaseOffChecksum = LeaseRecordSize - 8
)

// Lease says who serves the volume.
type Lease struct {
	VolumeID uint32 // Metadata.ID
	// Owner is random, drawn at each opening; not 0.
	Owner uint64
	// Sequence is one more at each writing of an owner.
	Sequence uint64
	// Interval is how often the owner writes the lease: whole milliseconds, from one to
	// MaxLeaseInterval.
	Interval time.Duration
	// Settle is how long after its last moment a request of the owner may still be done:
	// whole milliseconds, up to MaxLeaseSettle.
	Settle time.Duration
	// Released: the owner has ended in order, and writes nothing more.
	Released bool

	// What follows is for people.

	Host     [16]byte // random, of the host's installation; zeros where there is none
	HostName string   // as LeaseHostName gives it
	Taken    int64    // when the owner took it, seconds since 1970 by its host's clock
}

// Encode writes the lease to b, LeaseSize bytes, and makes the rest zero. The checksum is
// CRC-64/ECMA (hash/crc64) of all that precedes it in the record. It fails, and leaves b
// alone, with ErrShort, and with ErrLeaseContents when DecodeLease would not take it.
func (l Lease) Encode(b []byte) error {
	if len(b) < LeaseSize {
		return fmt.Errorf("lease: %w: %d of %d", ErrShort, len(b), LeaseSize)
	}
	if err := l.check(); err != nil {
		return err
	}
	clear(b)
	l.encode(b)
	return nil
}

// encode writes what check has accepted to b, which is zeros.
func (l Lease) encode(b []byte) {
	le := binary.LittleEndian
	copy(b[leaseOffMagic:], leaseMagic)
	le.PutUint32(b[leaseOffVersion:], leaseVersion)
	if l.Released {
		le.PutUint32(b[leaseOffFlags:], leaseReleased)
	}
	le.PutUint64(b[leaseOffSequence:], l.Sequence)
	le.PutUint32(b[leaseOffVolumeID:], l.VolumeID)
	le.PutUint32(b[leaseOffInterval:], uint32(l.Interval.Milliseconds()))
	le.PutUint32(b[leaseOffSettle:], uint32(l.Settle.Milliseconds()))
	le.PutUint64(b[leaseOffOwner:], l.Owner)
	le.PutUint64(b[leaseOffTaken:], uint64(l.Taken))
	copy(b[leaseOffHost:], l.Host[:])
	copy(b[leaseOffName:leaseOffEnd], l.HostName)
	le.PutUint64(b[leaseOffChecksum:], leaseChecksum(b))
}

// DecodeLease reads the lease at the start of b, LeaseRecordSize bytes or more. It fails
// with ErrShort, ErrLeaseMagic (there is none), ErrLeaseChecksum, ErrLeaseVersion or
// ErrLeaseContents. What fails otherwise than with ErrLeaseMagic may be somebody's.
func DecodeLease(b []byte) (Lease, error) {
	if len(b) < LeaseRecordSize {
		return Lease{}, fmt.Errorf("lease: %w: %d of %d", ErrShort, len(b), LeaseRecordSize)
	}
	if text(b[leaseOffMagic:]) != leaseMagic {
		return Lease{}, ErrLeaseMagic
	}
	le := binary.LittleEndian
	if got, want := le.Uint64(b[leaseOffChecksum:]), leaseChecksum(b); got != want {
		return Lease{}, fmt.Errorf("%w: %#x, should be %#x", ErrLeaseChecksum, got, want)
	}
	if v := le.Uint32(b[leaseOffVersion:]); v != leaseVersion {
		return Lease{}, fmt.Errorf("%w: %d, known is %d", ErrLeaseVersion, v, leaseVersion)
	}
	l := Lease{
		VolumeID: le.Uint32(b[leaseOffVolumeID:]),
		Owner:    le.Uint64(b[leaseOffOwner:]),
		Sequence: le.Uint64(b[leaseOffSequence:]),
		Interval: time.Duration(le.Uint32(b[leaseOffInterval:])) * time.Millisecond,
		Settle:   time.Duration(le.Uint32(b[leaseOffSettle:])) * time.Millisecond,
		Released: le.Uint32(b[leaseOffFlags:])&leaseReleased != 0,
		Taken:    int64(le.Uint64(b[leaseOffTaken:])),
	}
	name, _, _ := bytes.Cut(b[leaseOffName:leaseOffEnd], []byte{0})
	l.HostName = string(name)
	copy(l.Host[:], b[leaseOffHost:])
	if err := l.check(); err != nil {
		return Lease{}, err
	}
	// What encode would write differently is of no meaning known here.
	var again [LeaseRecordSize]byte
	l.encode(again[:])
	if !bytes.Equal(again[:], b[:LeaseRecordSize]) {
		return Lease{}, fmt.Errorf("%w: unknown flags, or unused bytes that are not zero", ErrLeaseContents)
	}
	return l, nil
}

// check refuses what nobody writes.
func (l Lease) check() error {
	switch {
	case l.Owner == 0:
		return fmt.Errorf("%w: owner 0", ErrLeaseContents)
	case l.Interval < time.Millisecond || l.Interval > MaxLeaseInterval || l.Interval%time.Millisecond != 0:
		return fmt.Errorf("%w: written every %v", ErrLeaseContents, l.Interval)
	case l.Settle < 0 || l.Settle > MaxLeaseSettle || l.Settle%time.Millisecond != 0:
		return fmt.Errorf("%w: settles in %v", ErrLeaseContents, l.Settle)
	case l.HostName != LeaseHostName(l.HostName):
		return fmt.Errorf("%w: host name %q", ErrLeaseContents, l.HostName)
	}
	return nil
}

// LeaseHostName makes a host's name fit Lease.HostName: printable, and of a long one the
// first MaxHostName bytes, but no part of a character.
func LeaseHostName(name string) string {
	var fit []byte
	for _, r := range name {
		if r == utf8.RuneError || !strconv.IsPrint(r) {
			r = '?'
		}
		if len(fit)+utf8.RuneLen(r) > MaxHostName {
			break
		}
		fit = utf8.AppendRune(fit, r)
	}
	return string(fit)
}

// LeaseOffset is where, in bytes, the lease is on the component that m describes, whose
// sectors are of that size. ok is false when there is no room for one: without an
// extension block, and with sectors so large that a record and the lease would share one.
func LeaseOffset(m Metadata, sectorSize int) (off int64, ok bool) {
	block, ok := ExtensionOffset(m)
	if !ok || sectorSize > leasePlace {
		return 0, false
	}
	return block + leasePlace, true
}

// LeaseBytes is how many bytes are read and written at LeaseOffset where sectors are of
// that size.
func LeaseBytes(sectorSize int) int { return max(LeaseSize, sectorSize) }

func leaseChecksum(record []byte) uint64 {
	return crc64.Checksum(record[:leaseOffChecksum], crc64.MakeTable(crc64.ECMA))
}
