package nbd

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// takeRequests takes requests off the socket until the client says goodbye
// (errGoodbye, io.EOF), the server shuts down (errFinish), or something is
// wrong.
func (c *conn) takeRequests() error {
	c.setBusy()
	for {
		if err := c.holdBack(); err != nil {
			return err
		}
		if err := c.awaitHeader(); err != nil {
			return err
		}
		h, err := c.headers.decode(c.in.take(c.headers.size()))
		if err != nil {
			return fmt.Errorf("request: %w", err)
		}
		c.amid = true
		if err := c.dispatch(h); err != nil {
			return err
		}
		c.amid = false
		c.flushMuch()
	}
}

// holdBack waits until the connection may be read: it has too many requests in
// flight, or the disk is full, holds its limit, and has a write of ours.
func (c *conn) holdBack() error {
	if c.outstanding.Load() >= int64(c.srv.cfg.MaxInFlight) {
		if err := c.awaitWhile(c.tooMany); err != nil {
			return err
		}
	}
	if c.unwritten.Load() > 0 && c.disk.HeldFull() != nil {
		return c.awaitWhile(c.held)
	}
	return nil
}

func (c *conn) tooMany() (<-chan struct{}, bool) {
	return nil, c.outstanding.Load() >= int64(c.srv.cfg.MaxInFlight)
}

func (c *conn) held() (<-chan struct{}, bool) {
	event := c.disk.HeldFull()
	return event, event != nil && c.unwritten.Load() > 0
}

// awaitHeader reads until a request header is buffered. Between requests a
// client may take all the time it wants.
func (c *conn) awaitHeader() error {
	for c.in.buffered() < c.headers.size() {
		if c.finishing() { // a payload may have been read past that
			return errFinish
		}
		err := c.readInput()
		switch {
		case err == nil:
		case c.finishing():
			return errFinish
		case errors.Is(err, os.ErrDeadlineExceeded):
			if err := c.readDeadline.off(); err != nil {
				return err
			}
			if c.finishing() { // its deadline may have been wiped out
				return errFinish
			}
		case errors.Is(err, io.EOF) && c.in.buffered() > 0:
			return io.ErrUnexpectedEOF
		default:
			return err
		}
	}
	return nil
}

// readInput sends the replies there are, and reads once into the buffer.
func (c *conn) readInput() error {
	c.flushReplies()
	err := c.in.read(c.source)
	c.setBusy()
	return err
}

// readPayload fills p with what follows the header just taken.
func (c *conn) readPayload(p []byte) error {
	n := copy(p, c.in.bytes())
	c.in.take(n)
	// What is short is read together with the requests behind it.
	const short = 32 << 10
	timed := 0 // bytes that the client has its time for
	for p = p[n:]; len(p) > 0; p = p[n:] {
		if timed <= 0 {
			if err := c.startPiece(); err != nil {
				return err
			}
			timed = maxWrite
		}
		var err error
		if len(p) <= short {
			err = c.readInput()
			n = copy(p, c.in.bytes())
			c.in.take(n)
		} else {
			c.flushReplies()
			n, err = c.payloadSource(len(p)).Read(p[:min(len(p), timed)])
			c.setBusy()
		}
		if err != nil && !c.prolong(err) {
			return c.payloadError(err)
		}
		timed -= n
	}
	return nil
}

// payloadSource is where to read n bytes of a payload. Of 64 KiB most is there
// already, and polling made such writes slower.
func (c *conn) payloadSource(n int) io.Reader {
	const long = 128 << 10
	if c.isTLS || n < long {
		return c.nc
	}
	return c.socket
}

// skipPayload reads n bytes and forgets them.
func (c *conn) skipPayload(n int) error {
	for timed := 0; ; {
		have := min(n, c.in.buffered())
		c.in.take(have)
		if n -= have; n == 0 {
			return nil
		}
		if timed -= have; timed <= 0 {
			if err := c.startPiece(); err != nil {
				return err
			}
			timed = maxWrite
		}
		if err := c.readInput(); err != nil && !c.prolong(err) {
			return c.payloadError(err)
		}
	}
}

// startPiece gives the client its time for the next maxWrite bytes of a payload,
// in however many reads they come.
func (c *conn) startPiece() error {
	if err := c.readDeadline.renew(); err != nil {
		return err
	}
	if c.interrupted() { // its deadline may have been wiped out
		return errFinish
	}
	return nil
}

func (c *conn) payloadError(err error) error {
	switch {
	case c.interrupted():
		return errFinish
	case errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	}
	return stalled(err)
}
