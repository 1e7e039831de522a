package nbd

import (
	"encoding/binary"
	"math"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
)

const (
	// maxDescriptors bounds the reply to a block status request; the client
	// asks again for the rest.
	maxDescriptors = 4096
	// maxWalk bounds how many chunks are looked at for one request, whose range may
	// be all of a disk: some milliseconds.
	maxWalk = 1 << 22
)

// reach is how far each of so many walks may go, in bytes: whole chunks.
func reach(d Disk, walks int) int64 {
	chunk, chunks := d.ChunkSize(), maxWalk/int64(walks)
	return min(chunks, math.MaxInt64/chunk) * chunk
}

// extentWalk asks a disk about its extents without allocating. It belongs to
// the reader of a connection.
type extentWalk struct {
	headers headers // of who is told

	emitHole     func(int64, bool) bool
	emitFast     func(int64, bool) bool
	emitDescribe func(int64, bool) bool

	at     int64 // where the next run starts
	end    int64 // of the request
	answer bool

	chunk, size int64 // of the disk, for emitFast

	most      int // descriptors, for emitDescribe
	list      []byte
	states    states // that list tells
	runLength int64  // the run being merged; 0 = none
	is        bool   // its state
}

func (w *extentWalk) init(h headers) {
	w.headers = h
	w.emitHole, w.emitFast, w.emitDescribe = w.onHole, w.onFast, w.onDescribe
}

// hole says whether the range is known to be unallocated.
func (w *extentWalk) hole(d Disk, off, n int64) bool {
	w.at, w.end, w.answer = off, off+n, true
	d.Extents(off, n, w.emitHole)
	return w.answer && w.at == w.end
}

func (w *extentWalk) onHole(length int64, allocated bool) bool {
	w.at = min(w.at+length, w.end)
	w.answer = !allocated
	return w.answer
}

// zeroesFast says whether zeroing the range is known to need no zeros to be
// written: what of it is allocated is whole chunks, which are let go.
func (w *extentWalk) zeroesFast(d Disk, off, n int64) bool {
	if n > reach(d, 1) {
		return false
	}
	w.at, w.end, w.answer = off, off+n, true
	w.chunk, w.size = d.ChunkSize(), d.Size()
	d.Extents(off, n, w.emitFast)
	return w.answer && w.at == w.end
}

func (w *extentWalk) onFast(length int64, allocated bool) bool {
	start := w.at
	w.at = min(start+length, w.end)
	if allocated && (start%w.chunk != 0 || w.at%w.chunk != 0 && w.at != w.size) {
		w.answer = false
	}
	return w.answer
}

// states are what a context calls what is so, and what is not.
type states struct{ is, not uint32 }

// describe appends up to most descriptors of a context for the range to list, at least
// one. Neighbours differ. What walk says nothing about is taken to be so: allocated, or
// changed.
func (w *extentWalk) describe(c *metaContext, d Disk, off, n int64, most int, list []byte) []byte {
	w.at, w.end = off, off+n
	w.most, w.list, w.runLength = most, list, 0
	if c.changes != nil {
		w.states = states{is: proto.StateDirty}
		c.changes.Ranges(off, n, w.emitDescribe)
	} else {
		w.states = states{not: proto.StateHole | proto.StateZero}
		d.Extents(off, n, w.emitDescribe)
	}
	if w.at == off {
		w.onDescribe(n, true)
	}
	w.closeRun()
	list, w.list = w.list, nil
	return list
}

func (w *extentWalk) onDescribe(length int64, is bool) bool {
	length = min(length, w.end-w.at)
	if w.runLength > 0 && is != w.is {
		w.closeRun()
		if len(w.list) == w.most*w.headers.descriptor() {
			return false
		}
	}
	w.is = is
	w.runLength += length
	w.at += length
	return true
}

// closeRun appends the run being merged. Without extended headers a request is
// shorter than 4 GiB, and so is a run of it.
func (w *extentWalk) closeRun() {
	if w.runLength == 0 {
		return
	}
	state := w.states.not
	if w.is {
		state = w.states.is
	}
	if w.headers == extended {
		w.list = binary.BigEndian.AppendUint64(w.list, uint64(w.runLength))
		w.list = binary.BigEndian.AppendUint64(w.list, uint64(state))
	} else {
		w.list = binary.BigEndian.AppendUint32(w.list, uint32(w.runLength))
		w.list = binary.BigEndian.AppendUint32(w.list, state)
	}
	w.runLength = 0
}
