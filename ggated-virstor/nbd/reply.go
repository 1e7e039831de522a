package nbd

import (
	"sync"
)

const (
	// batchReplies and batchBytes bound what is taken off the reply queue at a
	// time.
	batchReplies = 128
	batchBytes   = 1 << 20
	// maxWrite bounds one write to the socket, bytes: its deadline is for that.
	maxWrite = 1 << 20
	// maxVec is what a batch can come to: a head and a body a reply, and what
	// maxWrite cuts off.
	maxVec = 2*batchReplies + 2
	// handOver is the amount of queued replies, bytes, from which the writer
	// goroutine sends them while the reader goes on.
	handOver = 128 << 10
)

// sender is the reply queue of a connection.
//
// Whoever sets writing writes batches until the queue is empty: the writer
// goroutine, or the reader when it has nothing else to do. If the queue is not
// empty, nobody is writing and the reader is not busy, the writer has been
// kicked.
type sender struct {
	mu      sync.Mutex
	first   *request
	last    *request
	bytes   int  // of the bodies queued
	busy    bool // the reader will look at the queue before it waits
	writing bool
	waiting bool // the reader wants c.wake when a request ends
	dead    bool
	spare   *request // answered, to be used again
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
	kick := !s.writing && (!s.busy || s.bytes > handOver)
	if s.waiting {
		notify(c.wake)
	}
	s.mu.Unlock()
	if kick {
		notify(c.kick)
	}
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
}

// writeLoop is the writer goroutine.
func (c *conn) writeLoop() {
	for {
		select {
		case <-c.kick:
			c.sender.mu.Lock()
			c.sendQueuedLocked(0)
			c.sender.mu.Unlock()
		case <-c.stop:
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
	s := &c.sender
	s.mu.Lock()
	c.sendQueuedLocked(handOver)
	s.busy = false
	kick := s.first != nil && !s.writing
	s.mu.Unlock()
	if kick {
		notify(c.kick)
	}
}

// sendQueuedLocked writes the queue unless somebody does, or unless there is
// more than most bytes in it, if most > 0. The caller holds c.sender.mu, which
// is released while writing.
func (c *conn) sendQueuedLocked(most int) {
	s := &c.sender
	for s.first != nil && !s.writing && !s.dead && (most == 0 || s.bytes <= most) {
		batch := c.takeBatchLocked()
		s.writing = true
		s.mu.Unlock()
		err := c.writeBatch(batch)
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
	last.next, s.spare = s.spare, batch
	c.outstanding.Add(int64(-n))
	if s.waiting {
		notify(c.wake)
	}
}

// spareRequest returns a request to use. Only the reader calls it.
func (c *conn) spareRequest() *request {
	if c.spare == nil {
		c.sender.mu.Lock()
		c.spare, c.sender.spare = c.sender.spare, nil
		c.sender.mu.Unlock()
	}
	r := c.spare
	if r == nil {
		r = &request{conn: c}
		r.op.Done = r
		return r
	}
	c.spare, r.next = r.next, nil
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

// writeBatch writes the replies of a batch.
func (c *conn) writeBatch(batch *request) error {
	vec, size := c.vec[:0], 0
	for r := batch; r != nil; r = r.next {
		vec = append(vec, r.head[:r.headLen])
		for body := r.body; len(body) > 0; {
			n := min(len(body), maxWrite-size)
			vec = append(vec, body[:n])
			body = body[n:]
			if size += n; size < maxWrite {
				continue
			}
			if err := c.writeVec(vec); err != nil {
				return err
			}
			vec, size = c.vec[:0], 0
		}
	}
	if len(vec) == 0 {
		return nil
	}
	return c.writeVec(vec)
}

// writeVec writes the slices of vec with one system call where that goes.
func (c *conn) writeVec(vec [][]byte) error {
	if err := c.writeDeadline.renew(); err != nil {
		return err
	}
	if c.isTLS {
		return c.stage.write(c.nc, vec)
	}
	if len(vec) == 1 {
		_, err := c.nc.Write(vec[0])
		return err
	}
	c.buffers = vec
	_, err := c.buffers.WriteTo(c.nc)
	return err
}

// stage gathers small pieces for a writer that makes a record of each write.
type stage struct{ buf []byte }

// write writes the slices of vec to nc.
func (s *stage) write(nc interface{ Write([]byte) (int, error) }, vec [][]byte) error {
	const full = 64 << 10
	if s.buf == nil {
		s.buf = make([]byte, 0, full)
	}
	s.buf = s.buf[:0]
	for _, b := range vec {
		for len(b) > 0 {
			n := min(len(b), full-len(s.buf))
			s.buf = append(s.buf, b[:n]...)
			b = b[n:]
			if len(s.buf) < full {
				continue
			}
			if _, err := nc.Write(s.buf); err != nil {
				return err
			}
			s.buf = s.buf[:0]
		}
	}
	if len(s.buf) == 0 {
		return nil
	}
	_, err := nc.Write(s.buf)
	return err
}
