package serve

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
)

// Disk is what is published: a virstor.Volume, or a test's.
//
// Submit may be called by many goroutines. It completes the request, on the
// caller's goroutine or later, with Request.Done.Complete. While it holds a
// write for want of space it says so to Request.Done, which is a
// virstor.HeldNotifier and a virstor.ResumeNotifier.
type Disk interface {
	Submit(*virstor.Request)
}

// Config is how a unit is served. The zero Config is good.
type Config struct {
	// Receivers is the number of goroutines that take requests, 1 to 4;
	// 0 means 1. One is at it; the others stand in for those that are stuck
	// with MayBlock.
	Receivers int
	// MayBlock lets receivers wait for devices in reads and writes, instead of
	// leaving that to the volume's workers, while the devices are quick and
	// there is another receiver to stand in.
	MayBlock bool
	// Slots is the number of requests that can be under way, without
	// those held for space; 0 means 64. The rest waits in the kernel.
	Slots int
	// BufferSize is the length of each slot's buffer in bytes; 0 means
	// gate.MaxPhys. Longer requests get a buffer of their own.
	BufferSize int
	// ReadsOnly serves reads, and keeps everything else back until
	// Publication.ServeAll.
	ReadsOnly bool
	Log       *slog.Logger
}

const (
	maxReceivers = 4
	defaultSlots = 64
	maxSlots     = 1024
)

func (c *Config) complete() error {
	if c.Receivers == 0 {
		c.Receivers = 1
	}
	if c.Slots == 0 {
		c.Slots = defaultSlots
	}
	if c.BufferSize == 0 {
		c.BufferSize = gate.MaxPhys()
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	page := os.Getpagesize()
	switch {
	case c.Receivers < 1 || c.Receivers > maxReceivers:
		return fmt.Errorf("%d receivers: 1 to %d are possible", c.Receivers, maxReceivers)
	case c.Slots < c.Receivers || c.Slots > maxSlots:
		return fmt.Errorf("%d slots: %d (one a receiver) to %d are possible", c.Slots, c.Receivers, maxSlots)
	case c.BufferSize < page || c.BufferSize%page != 0:
		return fmt.Errorf("buffers of %d bytes: a multiple of the page size %d is needed", c.BufferSize, page)
	}
	return nil
}
