// Package proto holds the numbers and the fixed-size messages of the NBD
// protocol, shared by server and client.
//
// Source of every value: the protocol document of the NetworkBlockDevice/nbd
// project (doc/proto.md; of extended headers its branch extension-ext-header). All
// integers on the wire are big-endian.
package proto

import (
	"encoding/binary"
	"errors"
)

// Magic numbers.
const (
	MagicInit       uint64 = 0x4e42444d41474943 // "NBDMAGIC"
	MagicOption     uint64 = 0x49484156454f5054 // "IHAVEOPT"
	MagicOptReply   uint64 = 0x3e889045565a9
	MagicRequest    uint32 = 0x25609513
	MagicSimple     uint32 = 0x67446698
	MagicStructured uint32 = 0x668e33ef
	MagicExtRequest uint32 = 0x21e41c71
	MagicExtReply   uint32 = 0x6e8a278c
)

// Handshake flags of the server (16 bits) and of the client (32 bits).
const (
	FlagFixedNewstyle = 1 << 0
	FlagNoZeroes      = 1 << 1
)

// Options.
const (
	OptExportName      uint32 = 1
	OptAbort           uint32 = 2
	OptList            uint32 = 3
	OptStartTLS        uint32 = 5
	OptInfo            uint32 = 6
	OptGo              uint32 = 7
	OptStructuredReply uint32 = 8
	OptListMetaContext uint32 = 9
	OptSetMetaContext  uint32 = 10
	OptExtendedHeaders uint32 = 11
)

// Replies to options.
const (
	RepAck         uint32 = 1
	RepServer      uint32 = 2
	RepInfo        uint32 = 3
	RepMetaContext uint32 = 4

	RepErr              uint32 = 1 << 31 // set in every error
	RepErrUnsup                = RepErr + 1
	RepErrPolicy               = RepErr + 2
	RepErrInvalid              = RepErr + 3
	RepErrTLSReqd              = RepErr + 5
	RepErrUnknown              = RepErr + 6
	RepErrShutdown             = RepErr + 7
	RepErrTooBig               = RepErr + 9
	RepErrExtHeaderReqd        = RepErr + 10
)

// Information types of INFO and GO.
const (
	InfoExport      uint16 = 0
	InfoName        uint16 = 1
	InfoDescription uint16 = 2
	InfoBlockSize   uint16 = 3
)

// Transmission flags.
const (
	SendHasFlags    uint16 = 1 << 0
	SendReadOnly    uint16 = 1 << 1
	SendFlush       uint16 = 1 << 2
	SendFUA         uint16 = 1 << 3
	SendTrim        uint16 = 1 << 5
	SendWriteZeroes uint16 = 1 << 6
	SendDF          uint16 = 1 << 7
	SendMultiConn   uint16 = 1 << 8
	SendCache       uint16 = 1 << 10
	SendFastZero    uint16 = 1 << 11
)

// Commands.
const (
	CmdRead        uint16 = 0
	CmdWrite       uint16 = 1
	CmdDisc        uint16 = 2
	CmdFlush       uint16 = 3
	CmdTrim        uint16 = 4
	CmdCache       uint16 = 5
	CmdWriteZeroes uint16 = 6
	CmdBlockStatus uint16 = 7
)

// Command flags.
const (
	CmdFlagFUA      uint16 = 1 << 0
	CmdFlagNoHole   uint16 = 1 << 1
	CmdFlagDF       uint16 = 1 << 2
	CmdFlagReqOne   uint16 = 1 << 3
	CmdFlagFastZero uint16 = 1 << 4
	// CmdFlagPayloadLen, with extended headers alone, says that the length is that of
	// a payload which follows, not that of the range.
	CmdFlagPayloadLen uint16 = 1 << 5
)

// Structured and extended replies: the flag of the last chunk, and chunk types.
const (
	ReplyFlagDone uint16 = 1 << 0

	ReplyNone           uint16 = 0
	ReplyOffsetData     uint16 = 1
	ReplyOffsetHole     uint16 = 2
	ReplyBlockStatus    uint16 = 5
	ReplyBlockStatusExt uint16 = 6       // the same with extended headers
	ReplyErr            uint16 = 1 << 15 // set in every error chunk
	ReplyError          uint16 = ReplyErr + 1
	ReplyErrorOffset    uint16 = ReplyErr + 2
)

// States of base:allocation.
const (
	StateHole uint32 = 1 << 0
	StateZero uint32 = 1 << 1
)

// StateDirty is the state of DirtyBitmap.
const StateDirty uint32 = 1 << 0

// BaseAllocation is the one metadata context that the protocol itself defines.
const BaseAllocation = "base:allocation"

// DirtyBitmap with the name of a snapshot is the context of what has changed since, as
// QEMU calls that of its bitmaps (docs/interop/nbd.rst there).
const DirtyBitmap = "qemu:dirty-bitmap:"

// Contexts of our own, which are listed for who asks for XOwn, and never selected: XLiesOn
// with the id of a volume, eight hexadecimal digits, says that the export lies on that.
const (
	XOwn    = "x-gvirstor:"
	XLiesOn = XOwn + "lies-on:"
)

// Error numbers. They are the protocol's own, whatever errno is here.
const (
	EPERM     uint32 = 1
	EIO       uint32 = 5
	ENOMEM    uint32 = 12
	EINVAL    uint32 = 22
	ENOSPC    uint32 = 28
	EOVERFLOW uint32 = 75
	ENOTSUP   uint32 = 95
	ESHUTDOWN uint32 = 108
)

// Sizes of fixed messages, bytes.
const (
	RequestSize    = 28
	SimpleSize     = 16
	ChunkSize      = 20 // structured reply header
	ExtRequestSize = 32
	ExtChunkSize   = 32 // extended reply header
	OptionSize     = 16
	OptReplySize   = 20
	MaxString      = 4096
	ExportInfoSize = 10 // size and transmission flags
	ReservedZeroes = 124
)

// DefaultPort is the TCP port IANA assigned to NBD.
const DefaultPort = "10809"

// ErrMagic means that a message does not start with its magic number: the
// stream is out of step and cannot go on.
var ErrMagic = errors.New("wrong magic number")

// Request is the header of a request.
type Request struct {
	Flags  uint16
	Type   uint16
	Cookie uint64
	Offset uint64
	Length uint64 // of the range or the payload, bytes; below 2^32 but with extended headers
}

// DecodeRequest reads a request header from b, which holds at least
// RequestSize bytes. It fails with ErrMagic.
func DecodeRequest(b []byte) (Request, error) {
	_ = b[RequestSize-1]
	r, err := decodeHead(b, MagicRequest)
	if err == nil {
		r.Length = uint64(binary.BigEndian.Uint32(b[24:]))
	}
	return r, err
}

// DecodeExtRequest is DecodeRequest of an extended header, which has ExtRequestSize
// bytes.
func DecodeExtRequest(b []byte) (Request, error) {
	_ = b[ExtRequestSize-1]
	r, err := decodeHead(b, MagicExtRequest)
	if err == nil {
		r.Length = binary.BigEndian.Uint64(b[24:])
	}
	return r, err
}

// decodeHead reads what both headers have in one place: all but the length.
func decodeHead(b []byte, magic uint32) (Request, error) {
	if binary.BigEndian.Uint32(b) != magic {
		return Request{}, ErrMagic
	}
	return Request{
		Flags:  binary.BigEndian.Uint16(b[4:]),
		Type:   binary.BigEndian.Uint16(b[6:]),
		Cookie: binary.BigEndian.Uint64(b[8:]),
		Offset: binary.BigEndian.Uint64(b[16:]),
	}, nil
}

// Append appends the encoded header to b.
func (r Request) Append(b []byte) []byte {
	b = r.appendStart(b, MagicRequest)
	return binary.BigEndian.AppendUint32(b, uint32(r.Length))
}

// AppendExt appends the header to b as an extended one.
func (r Request) AppendExt(b []byte) []byte {
	b = r.appendStart(b, MagicExtRequest)
	return binary.BigEndian.AppendUint64(b, r.Length)
}

func (r Request) appendStart(b []byte, magic uint32) []byte {
	b = binary.BigEndian.AppendUint32(b, magic)
	b = binary.BigEndian.AppendUint16(b, r.Flags)
	b = binary.BigEndian.AppendUint16(b, r.Type)
	b = binary.BigEndian.AppendUint64(b, r.Cookie)
	return binary.BigEndian.AppendUint64(b, r.Offset)
}

// Chunk is the header of a chunk of a structured or extended reply.
type Chunk struct {
	Flags  uint16
	Type   uint16
	Cookie uint64
	Offset uint64 // of the request; with extended headers alone
	Length uint64 // of the payload that follows, bytes; below 2^32
}

// Append appends the encoded header to b.
func (c Chunk) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, MagicStructured)
	b = binary.BigEndian.AppendUint16(b, c.Flags)
	b = binary.BigEndian.AppendUint16(b, c.Type)
	b = binary.BigEndian.AppendUint64(b, c.Cookie)
	return binary.BigEndian.AppendUint32(b, uint32(c.Length))
}

// AppendExt appends the header to b as that of an extended reply.
func (c Chunk) AppendExt(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, MagicExtReply)
	b = binary.BigEndian.AppendUint16(b, c.Flags)
	b = binary.BigEndian.AppendUint16(b, c.Type)
	b = binary.BigEndian.AppendUint64(b, c.Cookie)
	b = binary.BigEndian.AppendUint64(b, c.Offset)
	return binary.BigEndian.AppendUint64(b, c.Length)
}

// DecodeChunk reads the header from b, which holds at least ChunkSize bytes and
// whose magic number has been looked at.
func DecodeChunk(b []byte) Chunk {
	return Chunk{
		Flags:  binary.BigEndian.Uint16(b[4:]),
		Type:   binary.BigEndian.Uint16(b[6:]),
		Cookie: binary.BigEndian.Uint64(b[8:]),
		Length: uint64(binary.BigEndian.Uint32(b[16:])),
	}
}

// DecodeExtChunk is DecodeChunk of an extended header, which has ExtChunkSize bytes.
func DecodeExtChunk(b []byte) Chunk {
	_ = b[ExtChunkSize-1]
	return Chunk{
		Flags:  binary.BigEndian.Uint16(b[4:]),
		Type:   binary.BigEndian.Uint16(b[6:]),
		Cookie: binary.BigEndian.Uint64(b[8:]),
		Offset: binary.BigEndian.Uint64(b[16:]),
		Length: binary.BigEndian.Uint64(b[24:]),
	}
}

// AppendSimple appends a simple reply to b.
func AppendSimple(b []byte, errno uint32, cookie uint64) []byte {
	b = binary.BigEndian.AppendUint32(b, MagicSimple)
	b = binary.BigEndian.AppendUint32(b, errno)
	return binary.BigEndian.AppendUint64(b, cookie)
}

// AppendOption appends the header of an option with n bytes of data to b.
func AppendOption(b []byte, opt uint32, n int) []byte {
	b = binary.BigEndian.AppendUint64(b, MagicOption)
	b = binary.BigEndian.AppendUint32(b, opt)
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

// AppendOptReply appends the header of a reply of n bytes to opt to b.
func AppendOptReply(b []byte, opt, reply uint32, n int) []byte {
	b = binary.BigEndian.AppendUint64(b, MagicOptReply)
	b = binary.BigEndian.AppendUint32(b, opt)
	b = binary.BigEndian.AppendUint32(b, reply)
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

// AppendString appends a string with its 32-bit length to b.
func AppendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}
