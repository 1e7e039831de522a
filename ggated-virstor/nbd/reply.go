package nbd

import "sync"

const (
	// batchReplies and batchBytes bound what is taken off the reply queue at a
	// time.
	batchReplies = 128
	batchBytes   = 1 << 20
	// much is the amount of queued replies, bytes, that is sent without waiting
	// for more: by the writer goroutine while the reader goes on, or by the
	// reader (see Server.inline).
	much = 128 << 10
)

// sender is the reply queue of a connection.
//
// Whoever sets writing writes batches until the queue is empty: the writer
// goroutine, or the reader, which hands over to it what the client does not
// take soon. If the queue is not empty, nobody is writing and the reader is not
// busy, the writer has been kicked.
type sender struct {
	mu       sync.Mutex
	first    *request
	last     *request
	bytes    int  // of the bodies queued
	busy     bool // the reader will look at the queue before it waits
	writing  bool
	handed   bool // the writer goroutine is to go on with the batch in conn.out
	settling bool // who completes requests will send the replies to them
	waiting  bool // the reader wants c.wake when a request ends
	dead     bool
	unused   *request // answered, to be used again
}

// enqueue queues the reply that is encoded in r.
func (c *conn) enqueue(r *request) {
	s := &c.sender
	s.mu.Lock()
	if s.dead {
		s.mu.Unlock()
		c.drop(r)
		return
	}
	r.next = nil
	if s.last == nil {
		s.first = r
	} else {
		s.last.next = r
	}
	s.last = r
	s.bytes += len(r.body)
	kick := !s.writing && (!s.busy || s.bytes > much && !c.srv.inline)
	if kick && !s.settling && r.op.Batch != nil && c.canSendNow() {
		s.settling = true
		r.op.Batch.After(c)
	}
	kick = kick && !s.settling
	if s.waiting {
		notify(c.wake)
	}
	s.mu.Unlock()
	if kick {
		notify(c.kick)
	}
}

// canSendNow reports whether there is a way to send what the client takes without waiting.
func (c *conn) canSendNow() bool { return !c.isTLS && c.socket.canSend() }

// BatchEnded is geomlib.BatchEnd's: it sends what is queued as far as the client takes it
// now.
func (c *conn) BatchEnded() {
	s := &c.sender
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settling = false
	c.sendQueuedLocked(waitNot)
}

// notify wakes who waits on ch, a channel with room for one.
func notify(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// drop forgets a request whose reply nobody will see.
func (c *conn) drop(r *request) {
	r.release()
	c.outstanding.Add(-1)
	c.exp.order.freed(c)
}

// forgo forgets a request that was not submitted.
func (c *conn) forgo(r *request) {
	if r.isWrite() {
		c.unwritten.Add(-1)
	}
	c.drop(r)
}

// writeLoop is the writer goroutine.
func (c *conn) writeLoop() {
	for {
		select {
		case <-c.kick:
			c.sender.mu.Lock()
			c.goOnLocked()
			c.sendQueuedLocked(waitLong)
			c.sender.mu.Unlock()
		case <-c.stop:
			c.sender.mu.Lock()
			c.goOnLocked() // which fails, and counts the requests
			c.sender.mu.Unlock()
			return
		}
	}
}

// setBusy promises that the reader will flush.
func (c *conn) setBusy() {
	c.sender.mu.Lock()
	c.sender.busy = true
	c.sender.mu.Unlock()
}

// setWaiting asks for c.wake whenever a request ends, or no more.
func (c *conn) setWaiting(on bool) {
	c.sender.mu.Lock()
	c.sender.waiting = on
	c.sender.mu.Unlock()
}

// flushReplies is called by the reader before it waits for anything. It sends
// what is queued, or leaves it to the writer goroutine when that is at it or
// when it is much.
func (c *conn) flushReplies() {
	c.push()
	s := &c.sender
	s.mu.Lock()
	if c.srv.inline || s.bytes <= much {
		c.sendQueuedLocked(waitSoon)
	}
	s.busy = false
	kick := s.first != nil && !s.writing
	s.mu.Unlock()
	if kick {
		notify(c.kick)
	}
}

// push has the requests that the disk keeps done (see virstor.Gather). The reader calls it
// before it waits, and before it ends.
func (c *conn) push() {
	if c.gathers {
		c.gathers = false
		c.disk.Push()
	}
}

// flushMuch is called by the reader after each request. Where it sends the
// replies, it does not let them grow to more than is taken at a time.
func (c *conn) flushMuch() {
	if !c.srv.inline {
		return
	}
	s := &c.sender
	s.mu.Lock()
	if s.bytes > much {
		c.sendQueuedLocked(waitSoon)
	}
	s.mu.Unlock()
}

// sendQueuedLocked writes the queue unless somebody does. Who does not wait long for the
// client hands over what that does not take. The caller holds c.sender.mu, which is
// released while writing.
func (c *conn) sendQueuedLocked(w wait) {
	s := &c.sender
	for s.first != nil && !s.writing && !s.dead {
		s.writing = true
		c.out.begin(c.takeBatchLocked())
		s.mu.Unlock()
		all, err := c.sendBatch(w)
		s.mu.Lock()
		if !all && !s.dead && (err == nil || w == waitNot) { // who goes on meets the error, too
			s.handed = true
			notify(c.kick)
			return
		}
		c.endBatchLocked(err)
	}
}

// goOnLocked writes what is left of a batch that was handed over.
func (c *conn) goOnLocked() {
	s := &c.sender
	if !s.handed {
		return
	}
	s.handed = false
	s.mu.Unlock()
	_, err := c.sendBatch(waitLong)
	s.mu.Lock()
	c.endBatchLocked(err)
}

// endBatchLocked ends the batch in c.out, which was written or failed to be.
func (c *conn) endBatchLocked(err error) {
	s := &c.sender
	batch := c.out.end()
	s.mu.Unlock()
	n := c.recycle(batch)
	s.mu.Lock()
	s.writing = false
	c.keepLocked(batch, n)
	if err != nil && !s.dead {
		s.mu.Unlock()
		c.close(stalled(err))
		s.mu.Lock()
	}
}

// takeBatchLocked takes the front of the queue, as a list.
func (c *conn) takeBatchLocked() *request {
	s := &c.sender
	batch := s.first
	last, bytes, n := batch, len(batch.body), 1
	for next := last.next; next != nil && n < batchReplies && bytes < batchBytes; next = next.next {
		last, bytes, n = next, bytes+len(next.body), n+1
	}
	s.first = last.next
	if s.first == nil {
		s.last = nil
	}
	s.bytes -= bytes
	last.next = nil
	return batch
}

// recycle gives back the memory of a batch and counts its requests.
func (c *conn) recycle(batch *request) int {
	n := 0
	for r := batch; r != nil; r = r.next {
		r.release()
		r.body = nil
		n++
	}
	return n
}

// keepLocked makes the n requests of a batch available to the reader again.
func (c *conn) keepLocked(batch *request, n int) {
	s := &c.sender
	last := batch
	for last.next != nil {
		last = last.next
	}
	last.next, s.unused = s.unused, batch
	c.outstanding.Add(int64(-n))
	if s.waiting {
		notify(c.wake)
	}
}

// spareRequest returns a request to use. Only the reader calls it.
func (c *conn) spareRequest() *request {
	if c.unused == nil {
		c.sender.mu.Lock()
		c.unused, c.sender.unused = c.sender.unused, nil
		c.sender.mu.Unlock()
	}
	r := c.unused
	if r == nil {
		r = &request{conn: c}
		r.op.Done = r
		return r
	}
	c.unused, r.next = r.next, nil
	return r
}

// discardReplies empties the queue for good.
func (c *conn) discardReplies() {
	s := &c.sender
	s.mu.Lock()
	s.dead = true
	first := s.first
	s.first, s.last, s.bytes = nil, nil, 0
	s.mu.Unlock()
	for r := first; r != nil; {
		next := r.next
		c.drop(r)
		r = next
	}
}
