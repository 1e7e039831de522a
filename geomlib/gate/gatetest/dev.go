package gatetest

import (
	"sync"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/gate"
)

// Mode is how a device is opened.
type Mode uint8

// The modes of OpenDev.
const (
	Reader Mode = 1 << iota
	Writer
)

// Dev is an open device node. Its methods may be called by many goroutines.
type Dev struct {
	u    *unit
	mode Mode

	mu     sync.Mutex
	closed bool
}

// OpenDev opens /dev/name. Opening for writing waits for GEOM's event thread,
// as the kernel does; ENOENT when there is no such device.
func (k *Kernel) OpenDev(name string, mode Mode) (*Dev, error) {
	if mode&Writer != 0 {
		k.events.waitIdle()
	}
	u := k.holdName(name)
	if u == nil {
		return nil, gate.ENOENT
	}
	defer k.release(u)
	d, errno := k.open(u, mode)
	if errno != 0 {
		return nil, errno
	}
	return d, nil
}

func (k *Kernel) open(u *unit, mode Mode) (*Dev, gate.Errno) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case u.dying:
		return nil, gate.ENXIO
	case u.flags&gate.WriteOnly != 0 && mode&Reader != 0:
		return nil, gate.EPERM
	}
	if mode&Reader != 0 {
		u.readers++
	}
	if mode&Writer != 0 {
		u.writers++
	}
	return &Dev{u: u, mode: mode}, 0
}

// Close closes the device. The last close of a writer has the device tasted
// again, and returns when that is done.
func (d *Dev) Close() error {
	if !d.close(false) {
		return gate.EBADF
	}
	if d.mode&Writer != 0 {
		d.u.k.events.waitIdle()
	}
	return nil
}

func (d *Dev) close(byTaste bool) bool {
	d.mu.Lock()
	was := d.closed
	d.closed = true
	d.mu.Unlock()
	if was {
		return false
	}
	k, u := d.u.k, d.u
	k.mu.Lock()
	defer k.mu.Unlock()
	if d.mode&Reader != 0 {
		u.readers--
	}
	if d.mode&Writer != 0 {
		u.writers--
		if u.writers == 0 && !byTaste && !u.dying {
			k.tasteLocked(u)
		}
	}
	return true
}

// MediaSize is the device's size in bytes now.
func (d *Dev) MediaSize() int64 {
	d.u.k.mu.Lock()
	defer d.u.k.mu.Unlock()
	return d.u.mediaSize
}

// SectorSize is in bytes.
func (d *Dev) SectorSize() int { return d.u.sectorSize }

// ReadAt reads and waits.
func (d *Dev) ReadAt(p []byte, off int64) (int, error) { return d.do(gate.Read, off, int64(len(p)), p) }

// WriteAt writes and waits.
func (d *Dev) WriteAt(p []byte, off int64) (int, error) {
	return d.do(gate.Write, off, int64(len(p)), p)
}

// Flush sends a BIO_FLUSH and waits.
func (d *Dev) Flush() error {
	_, err := d.do(gate.Flush, 0, 0, nil)
	return err
}

// Delete sends one BIO_DELETE for all of the range and waits.
func (d *Dev) Delete(off, length int64) error {
	_, err := d.do(gate.Delete, off, length, nil)
	return err
}

func (d *Dev) do(cmd gate.BIO, off, length int64, p []byte) (int, error) {
	c := NewCall()
	c.Cmd, c.Offset, c.Length, c.Data = cmd, off, length, p
	d.Issue(c)
	if err := c.Wait(); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Call is one request to a device, a struct bio. It can be used again when it
// is done.
type Call struct {
	Cmd    gate.BIO
	Offset int64
	Length int64
	Data   []byte     // Length bytes for a read or a write; not to be touched until done
	Err    gate.Errno // the answer, valid when done

	done       chan struct{}
	born       time.Time
	seq        uint64
	prev, next *Call
}

// NewCall makes an empty Call.
func NewCall() *Call { return &Call{done: make(chan struct{}, 1)} }

// Done receives once for every Issue, when the Call is done.
func (c *Call) Done() <-chan struct{} { return c.done }

// Wait waits until the Call is done and returns nil or a gate.Errno. It takes
// what Done would receive.
func (c *Call) Wait() error {
	<-c.done
	if c.Err != 0 {
		return c.Err
	}
	return nil
}

func (c *Call) deliver(errno gate.Errno) {
	c.Err = errno
	c.done <- struct{}{}
}

// Issue sends the request and returns. It is checked as GEOM does (g_io_check),
// then as g_gate_start does, then queued.
func (d *Dev) Issue(c *Call) {
	c.born = time.Now()
	if errno := d.check(c); errno != 0 {
		c.deliver(errno)
		return
	}
	d.u.enqueue(c)
}

func (d *Dev) check(c *Call) gate.Errno {
	u := d.u
	switch c.Cmd {
	case gate.Read, gate.Write, gate.Delete:
		sector := int64(u.sectorSize)
		end := c.Offset + c.Length
		switch {
		case c.Offset < 0 || c.Length < 0 || end < c.Offset || end > d.MediaSize():
			return gate.EIO
		case c.Offset%sector != 0 || c.Length%sector != 0 || c.Length == 0:
			return gate.EINVAL
		case c.Cmd != gate.Delete && int64(len(c.Data)) != c.Length:
			return gate.EFAULT
		}
	}
	need := Writer
	if c.Cmd == gate.Read {
		need = Reader
	}
	switch {
	case d.mode&need == 0 && c.Cmd != gate.Flush && c.Cmd != gate.Speedup:
		return gate.EPERM
	case c.Cmd != gate.Read && u.flags&gate.ReadOnly != 0:
		return gate.EPERM
	}
	switch c.Cmd {
	case gate.Read, gate.Write, gate.Delete, gate.Flush, gate.Speedup:
		return 0
	}
	return gate.EOPNOTSUPP
}
