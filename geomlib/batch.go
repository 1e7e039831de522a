package geomlib

// Batch is transfers that end together, one after the other on one goroutine. What is worth
// doing once for all of them is done when the last has ended. Its zero value is ready, and
// belongs to that goroutine.
type Batch struct{ after []BatchEnd }

// BatchEnd is told when a Batch has ended. It must not wait.
type BatchEnd interface{ BatchEnded() }

// After has x told, once for each call.
func (b *Batch) After(x BatchEnd) { b.after = append(b.after, x) }

// End is called when the last transfer has ended.
func (b *Batch) End() {
	for i, x := range b.after {
		b.after[i] = nil
		x.BatchEnded()
	}
	b.after = b.after[:0]
}
