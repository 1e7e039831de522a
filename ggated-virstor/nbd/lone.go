package nbd

import "github.com/gvirstor/gvirstor/geomlib/virstor"

// loneEnough is how many requests must have come alone, so that the next one is
// taken to be alone, too.
const (
	loneEnough = 64
	// loneLoss is what one that did not come alone takes off. A client that asks
	// for one thing at a time sometimes is so quick that its previous request
	// still counts.
	loneLoss = 8
)

// lone knows a client that asks for one thing at a time. Nobody else waits for
// its connection's reader, which then may as well wait for the device itself:
// a flush handed to a worker and its reply to the writer are two wakeups of
// sleeping threads.
type lone struct {
	streak int // requests that came alone, less loneLoss for each that did not
}

// note looks at a request that was taken, when it was read whole.
func (l *lone) note(alone bool) {
	switch {
	case !alone:
		l.streak = max(0, l.streak-loneLoss)
	case l.streak < loneEnough:
		l.streak++
	}
}

func (l *lone) is() bool { return l.streak == loneEnough }

// forget is called when a request had to wait because the reader did.
func (l *lone) forget() { l.streak = 0 }

// submitSync gives the disk a request that waits for stable storage.
func (c *conn) submitSync(r *request) {
	if !c.lone.is() {
		c.disk.Submit(&r.op)
		return
	}
	r.op.Flags |= virstor.MayBlock
	c.disk.Submit(&r.op)
	if c.socket.inputWaits() {
		c.lone.forget()
	}
}
