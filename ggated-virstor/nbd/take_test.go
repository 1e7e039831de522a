package nbd

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/gather"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdtest"
)

// takes are how reads were taken.
type takes struct {
	disk        *nbdtest.Disk
	whole, part atomic.Int64
	data        []byte
	hold        chan struct{} // or nil; reads that were taken complete when it is closed
	amid        func()        // or nil; is called when a part was taken, before the rest is copied
}

// newTakes is a rig whose disk lends, and what the disk holds: 8 chunks of 1 MiB, each
// another. fail is the error of reads of which a part was taken.
func newTakes(t *testing.T, inline bool, workers int, fail error) (*rig, *takes) {
	t.Helper()
	k := &takes{data: make([]byte, 8<<20)}
	for i := range k.data {
		k.data[i] = byte(i ^ i>>8 ^ i>>20)
	}
	k.disk = newDisk(t, nbdtest.Config{Size: int64(len(k.data)), ChunkSize: 1 << 20, Workers: workers, Lend: true,
		AfterTake: func(r *virstor.Request, n int) error {
			if int64(n) == r.Length {
				k.whole.Add(1)
			} else {
				k.part.Add(1)
				if k.amid != nil {
					k.amid()
				}
			}
			if k.hold != nil {
				<-k.hold
			}
			return fail
		}})
	r := startServer(t, Config{}, map[string]Disk{"disk": k.disk})
	r.inline = inline
	c := r.dial("disk", nbdclient.Options{})
	if _, err := c.WriteAt(k.data, 0); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "the first client has left", func() bool { return r.Stats().Conns == 0 })
	if !gather.Can {
		t.Skip("nothing is taken on this system")
	}
	return r, k
}

// takePart has p ask for the first chunk until it has room for a part of that only. One comes
// after the other: what comes while another is taken is copied, and may leave no room.
func (k *takes) takePart(p peer) {
	p.t.Helper()
	for i := uint64(0); k.part.Load() == 0; i++ {
		p.request(proto.CmdRead, i, 0, 1<<20, nil)
		until(p.t, "a read is taken, or a part of it", func() bool { return k.whole.Load()+k.part.Load() == int64(i)+1 })
	}
}

// TestLargeReadsAreTaken with every kind of reply, and what is read is what is there.
func TestLargeReadsAreTaken(t *testing.T) {
	for _, workers := range []int{0, 3} {
		for _, inline := range []bool{true, false} {
			for _, opt := range []nbdclient.Options{{Simple: true}, {Compact: true}, {}} {
				r, k := newTakes(t, inline, workers, nil)
				c := r.dial("disk", opt)
				var clients sync.WaitGroup
				for i := range 4 {
					clients.Go(func() {
						for j := range 24 {
							n := []int{1 << 20, leastTaken, leastTaken - 512, 1<<20 - 512, 4096, 2 << 20}[(i+j)%6]
							off := (i + 3*j) % 7 << 20
							if j%5 == 0 {
								off += 512
							}
							b := make([]byte, n)
							if _, err := c.ReadAt(b, int64(off)); err != nil || !bytes.Equal(b, k.data[off:off+n]) {
								t.Errorf("workers %d, inline %v, %+v: %d bytes at %d are others: %v", workers, inline, opt, n, off, err)
								return
							}
						}
					})
				}
				clients.Wait()
				if k.whole.Load() == 0 {
					t.Errorf("workers %d, inline %v, %+v: none was taken, %d in part", workers, inline, opt, k.part.Load())
				}
				r.expectMemoryBack()
			}
		}
	}
}

// TestAClientThatDoesNotReadKeepsNothingLent: all its reads are done though it takes nothing
// of them, and are right when it does.
func TestAClientThatDoesNotReadKeepsNothingLent(t *testing.T) {
	for _, workers := range []int{0, 3} {
		t.Run(fmt.Sprintf("%d workers", workers), func(t *testing.T) {
			const n = 1 << 20
			r, k := newTakes(t, true, workers, nil)
			p := r.connect()
			p.enter("disk")
			for i := range 8 {
				p.request(proto.CmdRead, uint64(i), int64(i)*n, n, nil)
			}
			c := r.only()
			until(t, "what the client does not take is copied", func() bool {
				c.sender.mu.Lock()
				defer c.sender.mu.Unlock()
				// Whole are those that the socket had room for. One more was taken in part, or is
				// the writer's, if it came while another was taken.
				return c.sender.bytes == (7-int(k.whole.Load()))*n && c.sender.writing && k.part.Load() <= 1
			})
			seen := map[uint64]bool{}
			for range 8 {
				errno, i := p.expectReply()
				if errno != 0 || i >= 8 || seen[i] {
					t.Fatalf("error %d in reply to %d", errno, i)
				}
				seen[i] = true
				if !bytes.Equal(p.expect(n), k.data[i*n:(i+1)*n]) {
					t.Errorf("reply to %d: other data", i)
				}
			}
			r.expectMemoryBack()
		})
	}
}

// TestAReadThatFailsAmidItsReplyEndsTheConnection: its client was told that data comes.
func TestAReadThatFailsAmidItsReplyEndsTheConnection(t *testing.T) {
	for _, workers := range []int{0, 3} {
		r, k := newTakes(t, true, workers, syscall.EIO)
		p := r.connect()
		p.enter("disk")
		k.takePart(p)
		until(t, "the connection ends", func() bool { return r.Stats().Conns == 0 })
		all, _ := io.ReadAll(p) // what it says at the end depends on what the server had not read
		const reply = proto.SimpleSize + 1<<20
		if whole := len(all) / reply; whole > int(k.whole.Load()) {
			t.Errorf("%d workers: %d replies, and %d were taken", workers, whole, k.whole.Load())
		}
		for len(all) > proto.SimpleSize {
			one := all[:min(len(all), reply)]
			all = all[len(one):]
			if binary.BigEndian.Uint32(one) != proto.MagicSimple || one[7] != 0 || !bytes.HasPrefix(k.data, one[proto.SimpleSize:]) {
				t.Errorf("%d workers: %d bytes that are not the beginning of a reply", workers, len(one))
			}
		}
		until(t, "the log tells why", func() bool { return r.log.count("amid the reply") == 1 })
		r.expectMemoryBack()
	}
}

// TestAConnectionMayEndAmidATake: nothing is kept for it.
func TestAConnectionMayEndAmidATake(t *testing.T) {
	for _, workers := range []int{0, 3} {
		r, k := newTakes(t, true, workers, nil)
		for i := range 20 {
			p := r.connect()
			p.enter("disk")
			for j := range 4 {
				p.request(proto.CmdRead, uint64(j), int64(j)<<20, 1<<20, nil)
			}
			p.expect(proto.SimpleSize + i*50_000) // so much, and no more
			p.Close()
			until(t, "the connection ends", func() bool { return r.Stats().Conns == 0 })
		}
		r.expectMemoryBack()
		if k.whole.Load()+k.part.Load() == 0 {
			t.Errorf("%d workers: nothing was taken", workers)
		}
	}
}

// TestATakeMayOutliveItsConnection: what the connection used is free when the disk has
// completed the read.
func TestATakeMayOutliveItsConnection(t *testing.T) {
	for _, whole := range []bool{true, false} {
		r, k := newTakes(t, true, 3, nil)
		k.hold = make(chan struct{})
		letGo := sync.OnceFunc(func() { close(k.hold) })
		t.Cleanup(letGo) // or the disk would never end
		r.cfg.DrainTimeout = time.Millisecond
		p := r.connect()
		p.enter("disk")
		if whole {
			p.request(proto.CmdRead, 1, 0, 1<<20, nil)
			p.expect(proto.SimpleSize + 1<<20)
		} else {
			k.takePart(p)
		}
		c := r.only()
		p.Close()
		<-c.done
		letGo()
		r.expectMemoryBack()
		until(t, "nothing is counted for who is gone", func() bool {
			c.exp.order.mu.Lock()
			defer c.exp.order.mu.Unlock()
			return len(c.exp.order.ended) == 0
		})
	}
}

// TestWhatWaitsBehindATakeIsSent: replies that are queued while a read has the socket.
func TestWhatWaitsBehindATakeIsSent(t *testing.T) {
	r, k := newTakes(t, false, 3, nil)
	p := r.connect()
	p.enter("disk")
	const rounds = 200
	go func() {
		for i := range rounds {
			n, off := 4096, int64(i%8)<<20
			if i%2 == 0 {
				n = 1 << 20
			}
			h := proto.Request{Type: proto.CmdRead, Cookie: uint64(i), Offset: uint64(off), Length: uint64(n)}
			if _, err := p.Write(h.Append(nil)); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for range rounds {
		errno, i := p.expectReply()
		if errno != 0 || i >= rounds {
			t.Fatalf("error %d in reply to %d", errno, i)
		}
		n, off := 4096, i%8<<20
		if i%2 == 0 {
			n = 1 << 20
		}
		if !bytes.Equal(p.expect(n), k.data[off:off+uint64(n)]) {
			t.Fatalf("reply to %d: other data", i)
		}
	}
	r.expectMemoryBack()
}

// takeCounter counts what a disk's reads are offered.
type takeCounter struct {
	Disk
	offered atomic.Int64
}

type countedTaker struct {
	virstor.Taker
	of *takeCounter
}

func (d *takeCounter) Submit(r *virstor.Request) {
	if r.Taker != nil {
		r.Taker = countedTaker{r.Taker, d}
	}
	d.Disk.Submit(r)
}

func (k countedTaker) Take(r *virstor.Request, p []byte) int {
	k.of.offered.Add(1)
	return k.Taker.Take(r, p)
}

// TestAVolumeLendsWhatItsFilesHold: large reads of a volume are sent as its files' memory.
func TestAVolumeLendsWhatItsFilesHold(t *testing.T) {
	v := newVolume(t, 1<<30, 1<<20, 64<<20, virstor.Config{Alloc: virstor.Spread})
	want := make([]byte, 16<<20)
	for i := range want {
		want[i] = byte(i ^ i>>8 ^ i>>20)
	}
	if _, err := v.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	d := &takeCounter{Disk: v}
	r := startServer(t, Config{}, map[string]Disk{"disk": d})
	c := r.dial("disk", nbdclient.Options{})
	got := make([]byte, 1<<20)
	for off := 0; off < len(want); off += len(got) {
		if _, err := c.ReadAt(got, int64(off)); err != nil || !bytes.Equal(got, want[off:off+len(got)]) {
			t.Fatalf("at %d: other data, %v", off, err)
		}
	}
	if n := d.offered.Load(); n == 0 && runtime.GOOS == "linux" && lendsIn(t) {
		t.Error("none was lent")
	} else {
		t.Logf("%d of %d reads were lent", n, len(want)/len(got))
	}
}

// lendsIn reports whether files in a test's folder are lent.
func lendsIn(t *testing.T) bool {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lent")
	if err := os.WriteFile(path, make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := geomlib.Open(path, geomlib.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	lender, ok := p.(geomlib.Lender)
	if !ok {
		return false
	}
	l, ok := lender.Lend(0, 4096, true)
	if ok {
		l.End()
	}
	return ok
}

// TestASectorIsOldOrNewThoughItsReadIsTakenInPart: what was sent may end amid a sector, which
// somebody writes before the rest of the read is copied.
func TestASectorIsOldOrNewThoughItsReadIsTakenInPart(t *testing.T) {
	for _, workers := range []int{0, 3} {
		r, k := newTakes(t, true, workers, nil)
		fresh := bytes.Repeat([]byte{0xee}, 1<<20)
		c := r.dial("disk", nbdclient.Options{})
		k.amid = func() {
			if _, err := c.WriteAt(fresh, 0); err != nil {
				t.Error(err)
			}
		}
		p := r.connect()
		p.enter("disk")
		k.takePart(p)
		for range k.whole.Load() { // they came before
			p.expectReply()
			p.expect(1 << 20)
		}
		p.expectReply()
		got := p.expect(1 << 20)
		const sector = 512
		seen := map[bool]int{}
		for off := 0; off < len(got); off += sector {
			is := got[off : off+sector]
			old := bytes.Equal(is, k.data[off:off+sector])
			if !old && !bytes.Equal(is, fresh[:sector]) {
				t.Errorf("%d workers: the sector at %d is torn", workers, off)
			}
			seen[old]++
		}
		if seen[true] == 0 || seen[false] == 0 {
			t.Errorf("%d workers: %d sectors are old, %d new", workers, seen[true], seen[false])
		}
	}
}

// TestMemoryThatIsGoneIsNotKept, and is no signal.
func TestMemoryThatIsGoneIsNotKept(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "component"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	lent, err := syscall.Mmap(int(f.Fd()), 0, 1<<20, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Munmap(lent)
	to := make([]byte, 300)
	if !copyLent(to, lent[1<<19:1<<19+300]) {
		t.Error("what is there is not kept")
	}
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if copyLent(to, lent[1<<19:1<<19+300]) {
		t.Error("what is gone is kept")
	}
}
