package nbdcomp

import "sync"

const (
	// journalLimit is what one component's journal takes, bytes.
	journalLimit = 64 << 20
	// DefaultMemory is what those of a process take together, bytes.
	DefaultMemory = 256 << 20
	// memoryKept is how much of it is kept while nobody uses it, bytes.
	memoryKept = 16 << 20
)

// Memory is what the journals of several components take together. It is safe for
// concurrent use.
type Memory struct {
	mu     sync.Mutex
	unused [][]byte
	used   int64 // bytes
	limit  int64
}

// NewMemory is memory of so many bytes.
func NewMemory(limit int64) *Memory { return &Memory{limit: limit} }

// take returns a slab; nil where the limit is reached, unless it must be.
func (m *Memory) take(must bool) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !must && m.used+slabSize > m.limit {
		return nil
	}
	m.used += slabSize
	if n := len(m.unused); n > 0 {
		slab := m.unused[n-1]
		m.unused = m.unused[:n-1]
		return slab
	}
	return make([]byte, slabSize)
}

// give takes a slab back.
func (m *Memory) give(slab []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used -= slabSize
	if int64(len(m.unused))*slabSize < memoryKept {
		m.unused = append(m.unused, slab)
	}
}
