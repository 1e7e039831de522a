package nbd

import (
	"encoding/binary"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
)

// request is a request of a client from its header until its reply is written.
// The connection reuses it.
type request struct {
	op   virstor.Request
	conn *conn
	next *request // in the reply queue, or among the unused ones

	cmd    uint16
	cookie uint64
	unread int // bytes of payload that follow the header and are still to be read

	buf     *buffer // pooled memory of the payload, or nil
	size    int64   // bytes charged for buf
	reserve bool    // they came from the connection's reserve

	orderEntry      // in the order of the export
	counted    bool // in conn.heldWrites; the disk's until Complete
	most       int  // descriptors, of a block status

	head    [48]byte // encoded reply: head[:headLen], then body
	headLen int
	body    []byte
	sent    int // bytes of head and body that Take sent
}

// Complete takes the disk's answer and queues the reply. It implements
// virstor.Completer and never blocks on the client.
func (r *request) Complete(*virstor.Request) {
	c := r.conn
	c.exp.order.finish(r, r.op.Err == nil)
	r.unhold()
	if r.isWrite() {
		r.release() // before the reply: the client's next write may wait for it
		c.unwritten.Add(-1)
	}
	if r.sent > 0 {
		c.endTaken(r)
		return
	}
	if r.op.Err != nil {
		number, text := errno(r.op.Op, r.op.Err)
		c.fail(r, number, text)
		return
	}
	c.succeed(r)
}

// Held implements virstor.HeldNotifier.
func (r *request) Held(*virstor.Request) bool {
	if !r.conn.exp.order.hold(r) {
		return false
	}
	r.counted = true
	r.conn.heldWrites.Add(1)
	r.conn.sender.mu.Lock()
	defer r.conn.sender.mu.Unlock()
	if r.conn.sender.waiting {
		notify(r.conn.wake)
	}
	return true
}

// Resumed implements virstor.ResumeNotifier.
func (r *request) Resumed(*virstor.Request) bool {
	if !r.conn.exp.order.resume(r) {
		return false
	}
	r.unhold()
	return true
}

func (r *request) unhold() {
	if r.counted {
		r.counted = false
		r.conn.heldWrites.Add(-1)
	}
}

// isWrite says whether a full disk may hold the request.
func (r *request) isWrite() bool {
	return r.cmd == proto.CmdWrite || r.cmd == proto.CmdWriteZeroes
}

// release gives the memory of the payload back.
func (r *request) release() {
	if r.buf == nil {
		return
	}
	p := &r.conn.reads
	if r.cmd == proto.CmdWrite {
		p = &r.conn.writes
	}
	r.conn.srv.pool.put(r.buf)
	r.buf, r.op.Data, r.body = nil, nil, nil
	p.give(r.size, r.reserve)
}

// fail queues an error reply.
func (c *conn) fail(r *request, errno uint32, text string) {
	c.counters.errors.Add(1)
	if r.cmd == proto.CmdRead || r.cmd == proto.CmdBlockStatus {
		r.release()
	}
	if c.headers == simple {
		r.headLen = len(proto.AppendSimple(r.head[:0], errno, r.cookie))
		r.body = nil
		c.enqueue(r)
		return
	}
	b := r.chunk(proto.ReplyError, 4+2+len(text))
	b = binary.BigEndian.AppendUint32(b, errno)
	b = binary.BigEndian.AppendUint16(b, uint16(len(text)))
	r.headLen = len(b)
	r.body = []byte(text)
	c.enqueue(r)
}

// succeed queues the reply to a request that was carried out. A read has its
// data in r.op.Data.
func (c *conn) succeed(r *request) {
	if r.cmd == proto.CmdRead {
		r.body = r.op.Data
	}
	r.encodeSuccess()
	c.enqueue(r)
}

// encodeSuccess encodes the head of the reply to a request that was carried out, and that
// has r.body.
func (r *request) encodeSuccess() {
	c := r.conn
	switch {
	case c.headers >= structured && len(r.body) > 0: // a chunk of data holds at least one byte
		b := r.chunk(proto.ReplyOffsetData, 8+len(r.body))
		r.headLen = len(binary.BigEndian.AppendUint64(b, uint64(r.op.Offset)))
	case c.headers == extended || c.headers == structured && r.cmd == proto.CmdRead:
		r.headLen = len(r.chunk(proto.ReplyNone, 0))
	default:
		r.headLen = len(proto.AppendSimple(r.head[:0], 0, r.cookie))
	}
}

// chunk begins the reply with the header of its one chunk, with n bytes of payload.
func (r *request) chunk(kind uint16, n int) []byte {
	return r.conn.headers.append(r.head[:0], proto.Chunk{
		Flags:  proto.ReplyFlagDone,
		Type:   kind,
		Cookie: r.cookie,
		Offset: uint64(r.op.Offset),
		Length: uint64(n),
	})
}

// succeedHole queues the reply to a structured read of nothing but a hole.
func (c *conn) succeedHole(r *request) {
	b := r.chunk(proto.ReplyOffsetHole, 12)
	b = binary.BigEndian.AppendUint64(b, uint64(r.op.Offset))
	b = binary.BigEndian.AppendUint32(b, uint32(r.op.Length))
	r.headLen = len(b)
	c.enqueue(r)
}

// appendStatusHead appends the header of a chunk of block status to b: all of it but the
// descriptors, size bytes. last: no chunk follows.
func (r *request) appendStatusHead(b []byte, context uint32, size int, last bool) []byte {
	h := r.conn.headers
	c := proto.Chunk{Type: proto.ReplyBlockStatus, Cookie: r.cookie, Offset: uint64(r.op.Offset), Length: uint64(4 + size)}
	if last {
		c.Flags = proto.ReplyFlagDone
	}
	if h != extended {
		return binary.BigEndian.AppendUint32(h.append(b, c), context)
	}
	c.Type, c.Length = proto.ReplyBlockStatusExt, c.Length+4
	b = binary.BigEndian.AppendUint32(h.append(b, c), context)
	return binary.BigEndian.AppendUint32(b, uint32(size/h.descriptor()))
}
