package nbd

import (
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdtest"
)

// The reader waits for the device itself while its client asks for one thing
// at a time, and stops doing so when a request had to wait behind that.
func TestReaderFlushesForALoneClientOnly(t *testing.T) {
	inline := make(chan bool)
	goOn := make(chan struct{})
	d := nbdtest.New(nbdtest.Config{Size: 1 << 20, Before: func(r *virstor.Request) error {
		if r.Op == virstor.OpFlush {
			inline <- r.Flags&virstor.MayBlock != 0
			<-goOn
		}
		return nil
	}})
	defer d.Close()
	p := startServer(t, Config{}, map[string]Disk{"disk": d}).connect()
	p.enter("disk")
	flush := proto.Request{Type: proto.CmdFlush}.Append(nil)
	read := proto.Request{Type: proto.CmdRead, Length: 512}.Append(nil)
	const readReply = proto.SimpleSize + 512
	// check flushes, with a read sent while the flush is done, and
	// tells whether the reader was allowed to wait for it.
	check := func(disturb bool) bool {
		t.Helper()
		p.send(flush)
		got := <-inline
		want := proto.SimpleSize
		if disturb {
			p.send(read)
			want += readReply
		}
		goOn <- struct{}{}
		p.expect(want)
		return got
	}
	if check(false) {
		t.Error("the reader waits for the first flush of a client it does not know")
	}
	oneByOne := func() {
		for range qd1Enough {
			p.send(read)
			p.expect(readReply)
		}
	}
	oneByOne()
	if !check(false) {
		t.Errorf("after %d requests one at a time the flush is handed to a worker", qd1Enough)
	}
	if !check(true) {
		t.Error("the flush is handed to a worker before anything had to wait")
	}
	if check(false) {
		t.Error("a request waited behind the flush, and the reader does it again")
	}
	oneByOne()
	p.send(append(read, flush...))
	if <-inline {
		t.Error("the reader waits for a flush that did not come alone")
	}
	goOn <- struct{}{}
	p.expect(readReply + proto.SimpleSize)
}
