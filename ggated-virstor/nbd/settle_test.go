package nbd

import (
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdtest"
)

// TestARequestLeavesTheBatchItCompletedIn: who answers it the next time is not of that, and
// nobody would send the replies.
func TestARequestLeavesTheBatchItCompletedIn(t *testing.T) {
	r := startServer(t, Config{}, map[string]Disk{"disk": newDisk(t, nbdtest.Config{Size: 1 << 20})})
	r.inline = false
	p := r.connect()
	p.enter("disk")
	c := r.only()
	before := &request{conn: c}
	before.op.Done, before.op.Batch = before, new(geomlib.Batch)
	c.sender.mu.Lock()
	c.sender.unused = before
	c.sender.bytes += 2 * much // as if others were queued, so that the writer is kicked
	c.sender.mu.Unlock()
	p.request(99, 1, 0, 0, nil)
	if errno, _ := p.expectReply(); errno != proto.EINVAL {
		t.Fatalf("error %d", errno)
	}
	c.sender.mu.Lock()
	defer c.sender.mu.Unlock()
	if c.sender.settling {
		t.Error("the replies wait for the end of a batch that was before")
	}
}
