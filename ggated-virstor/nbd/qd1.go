package nbd

import "github.com/gvirstor/gvirstor/geomlib/virstor"

// qd1Enough is how many requests must have come alone, so that the next one is
// taken to be alone, too.
const (
	qd1Enough = 64
	// qd1Loss is what one that did not come alone takes off. A client that asks
	// for one thing at a time sometimes is so quick that its previous request
	// still counts.
	qd1Loss = 8
)

// qd1 knows a client of queue depth one: it asks for one thing at a time. Nobody else waits for
// its connection's reader, which then may as well wait for the device itself:
// a flush handed to a worker and its reply to the writer are two wakeups of
// sleeping threads.
type qd1 struct {
	streak int // requests that came alone, less qd1Loss for each that did not
}

// note looks at a request that was taken, when it was read whole.
func (q *qd1) note(alone bool) {
	switch {
	case !alone:
		q.streak = max(0, q.streak-qd1Loss)
	case q.streak < qd1Enough:
		q.streak++
	}
}

func (q *qd1) is() bool { return q.streak == qd1Enough }

// forget is called when a request had to wait because the reader did.
func (q *qd1) forget() { q.streak = 0 }

// submitSync gives the disk a request that waits for stable storage.
func (c *conn) submitSync(r *request) {
	if !c.qd1.is() {
		c.disk.Submit(&r.op)
		return
	}
	c.push()
	r.op.Flags |= virstor.MayBlock
	c.disk.Submit(&r.op)
	if c.socket.inputWaits() {
		c.qd1.forget()
	}
}
