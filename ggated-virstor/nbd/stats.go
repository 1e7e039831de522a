package nbd

import (
	"sync/atomic"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
)

// counters count what one connection asked for. Only its own requests touch
// them, so that connections do not contend.
type counters struct {
	ops          [proto.CmdBlockStatus + 1]atomic.Uint64 // by command
	errors       atomic.Uint64
	bytesRead    atomic.Uint64
	bytesWritten atomic.Uint64
}

// moveTo adds the counters to sum and starts again at zero.
func (c *counters) moveTo(sum *counters) {
	for i := range c.ops {
		sum.ops[i].Add(c.ops[i].Swap(0))
	}
	sum.errors.Add(c.errors.Swap(0))
	sum.bytesRead.Add(c.bytesRead.Swap(0))
	sum.bytesWritten.Add(c.bytesWritten.Swap(0))
}

// requests is how many there were, those that failed included.
func (c *counters) requests() (n uint64) {
	for i := range c.ops {
		n += c.ops[i].Load()
	}
	return n
}

func (c *counters) addTo(e *ExportStats) {
	e.Reads += c.ops[proto.CmdRead].Load()
	e.Writes += c.ops[proto.CmdWrite].Load()
	e.Flushes += c.ops[proto.CmdFlush].Load()
	e.Trims += c.ops[proto.CmdTrim].Load()
	e.WriteZeroes += c.ops[proto.CmdWriteZeroes].Load()
	e.BlockStatus += c.ops[proto.CmdBlockStatus].Load()
	e.Caches += c.ops[proto.CmdCache].Load()
	e.Errors += c.errors.Load()
	e.BytesRead += c.bytesRead.Load()
	e.BytesWritten += c.bytesWritten.Load()
}

// Stats is what happened since the server was made.
type Stats struct {
	Conns    int    // connected now, those that negotiate included
	Accepted uint64 // connections
	Refused  uint64 // connections, at the limit
	Failed   uint64 // connections that ended before they reached an export
	Exports  map[string]ExportStats
}

// ExportStats is what clients asked of an export since AddExport.
type ExportStats struct {
	Conns int // clients connected now

	// Requests by command, those that failed included.
	Reads, Writes, Flushes, Trims, WriteZeroes, BlockStatus, Caches uint64
	// Errors is the number of requests answered with an error.
	Errors uint64
	// BytesRead were asked for, BytesWritten were received.
	BytesRead, BytesWritten uint64
}

// Stats returns the counters. They only ever grow, but for Conns.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{
		Conns:    len(s.conns),
		Accepted: s.accepted,
		Refused:  s.refused,
		Failed:   s.failed,
		Exports:  make(map[string]ExportStats, len(s.exports)),
	}
	for name, e := range s.exports {
		es := ExportStats{Conns: len(e.conns)}
		e.past.addTo(&es)
		for c := range s.conns {
			if c.exp == e {
				c.counters.addTo(&es)
			}
		}
		st.Exports[name] = es
	}
	return st
}
