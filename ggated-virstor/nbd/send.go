package nbd

import (
	"math"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/gather"
)

const (
	// maxWrite bounds one write to the socket, bytes: its deadline is for that.
	maxWrite = 1 << 20
	// maxVec is what a piece can come to: a head and a body a reply.
	maxVec = 2 * batchReplies
	_      = uint(gather.Most - maxVec)
	// stageSize is what is written at once for TLS, bytes.
	stageSize = 64 << 10
)

// outgoing is a batch of replies on its way to the socket, piece by piece.
type outgoing struct {
	batch *request
	next  *request // the first that is not in a piece as a whole
	body  []byte   // what is still to come of its body, if its head went
	begun bool     // its head went
	vec   [maxVec][]byte
	piece [][]byte // what is still to come of the piece; part of vec
}

func (o *outgoing) begin(batch *request) {
	o.batch, o.next, o.begun, o.piece = batch, batch, false, nil
}

// end forgets the batch and returns it.
func (o *outgoing) end() *request {
	batch := o.batch
	o.batch, o.next, o.body, o.piece = nil, nil, nil, nil
	return batch
}

// more makes the next piece. It reports false when there is none.
func (o *outgoing) more() bool {
	vec, size := o.vec[:0], 0
	for o.next != nil && size < maxWrite {
		r := o.next
		if !o.begun {
			vec = append(vec, r.head[:r.headLen])
			o.begun, o.body = true, r.body
		}
		if n := min(len(o.body), maxWrite-size); n > 0 {
			vec = append(vec, o.body[:n])
			o.body = o.body[n:]
			size += n
		}
		if len(o.body) == 0 {
			o.next, o.begun = r.next, false
		}
	}
	o.piece = vec
	return len(vec) > 0
}

// wrote takes n bytes off the piece.
func (o *outgoing) wrote(n int) {
	for n > 0 {
		first := o.piece[0]
		if n < len(first) {
			o.piece[0] = first[n:]
			return
		}
		n -= len(first)
		o.piece = o.piece[1:]
	}
}

// wait is how long somebody waits for the client to take more.
type wait uint8

const (
	waitNot  wait = iota
	waitSoon      // for soon
	waitLong      // as long as the deadlines let him
)

// room is that for who does not wait long.
func (w wait) room() roomWait {
	if w == waitNot {
		return roomWait{}
	}
	return roomWait{each: soon, turns: math.MaxInt}
}

// sendBatch writes the batch in c.out, or what is left of it. It stops, without an error,
// when the client takes no more for now, unless that is waited for.
func (c *conn) sendBatch(w wait) (all bool, err error) {
	o := &c.out
	for len(o.piece) > 0 || o.more() {
		if err := c.writeDeadline.renew(); err != nil {
			return false, err
		}
		switch {
		case c.isTLS:
			err = c.stage.Write(c.nc, o.piece, stageSize)
			o.piece = nil
		case w == waitLong || !c.socket.canSend():
			err = c.sendPiece()
		default:
			var n int
			n, err = c.socket.sendSoon(o.piece, w.room())
			o.wrote(n)
			if err == nil && len(o.piece) > 0 {
				return false, nil
			}
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// sendPiece writes the piece with one system call where that goes.
func (c *conn) sendPiece() error {
	o := &c.out
	var err error
	if len(o.piece) == 1 {
		_, err = c.nc.Write(o.piece[0])
	} else {
		c.buffers = o.piece
		_, err = c.buffers.WriteTo(c.nc)
	}
	o.piece = nil
	return err
}
