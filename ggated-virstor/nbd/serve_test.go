package nbd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdtest"
)

// TestWhatIsWrittenIsRead runs random requests on several connections at once
// against a model.
func TestWhatIsWrittenIsRead(t *testing.T) {
	const region = 3 << 20
	clients := []nbdclient.Options{{}, {Compact: true}, {Simple: true}, {ExportName: true}, {Simple: true, ExportName: true}}
	for _, workers := range []int{0, 3} {
		t.Run(fmt.Sprintf("%d workers", workers), func(t *testing.T) {
			d := newDisk(t, nbdtest.Config{Size: int64(4*len(clients)) * region, ChunkSize: 256 << 10, Workers: workers})
			r := startServer(t, Config{}, map[string]Disk{"disk": d})
			var all sync.WaitGroup
			for i, opt := range clients {
				c := r.dial("disk", opt)
				for j := range 4 { // share a connection
					k := 4*i + j
					all.Go(func() {
						if err := exercise(c, int64(k)*region, region, uint64(k)); err != nil {
							t.Errorf("client %d.%d: %v", i, j, err)
						}
					})
				}
			}
			all.Wait()
			r.expectMemoryBack()
		})
	}
}

// exercise does random requests in [base, base+size) and compares.
func exercise(c *nbdclient.Conn, base, size int64, seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 1))
	model := make([]byte, size)
	buf := make([]byte, size)
	for step := range 60 {
		off := rng.Int64N(size)
		n := 1 + rng.Int64N(min(size-off, 1<<rng.IntN(22)))
		p := buf[:n]
		var err error
		switch rng.IntN(7) {
		case 0, 1, 2:
			for i := range p {
				p[i] = byte(rng.Uint32())
			}
			copy(model[off:], p)
			_, err = c.Write(p, base+off, nbdclient.FUA*uint16(rng.IntN(2)))
		case 3, 4:
			if _, err = c.ReadAt(p, base+off); err == nil && !bytes.Equal(p, model[off:off+n]) {
				err = fmt.Errorf("step %d: wrong data in [%d, +%d)", step, off, n)
			}
		case 5:
			clear(model[off : off+n])
			err = c.WriteZeroes(base+off, n, nbdclient.NoHole*uint16(rng.IntN(2)))
		case 6:
			err = c.Flush()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func TestErrorsReachTheClient(t *testing.T) {
	const size = 1 << 20
	var fail atomic.Value // of failure
	type failure struct{ err error }
	fail.Store(failure{})
	d := newDisk(t, nbdtest.Config{Size: size, Before: func(*virstor.Request) error { return fail.Load().(failure).err }})
	ro := newDisk(t, nbdtest.Config{Size: size, ReadOnly: true})
	r := startServer(t, Config{}, map[string]Disk{"rw": d, "ro": ro})
	p := make([]byte, 4096)

	for _, opt := range []nbdclient.Options{{}, {Compact: true}, {Simple: true}} {
		c := r.dial("rw", opt)
		if _, err := c.WriteAt(p, 0); err != nil { // a hole would not be asked for
			t.Fatal(err)
		}
		for _, tt := range []struct{ disk, client error }{
			{virstor.ErrNoSpace, syscall.ENOSPC},
			{fmt.Errorf("write ada4: %w", syscall.ENOSPC), syscall.ENOSPC},
			{virstor.ErrReadOnly, syscall.EPERM},
			{virstor.ErrClosed, syscall.ESHUTDOWN},
			{fmt.Errorf("chunk 3: %w", virstor.ErrRange), syscall.ENOSPC},
			{errors.New("broken"), syscall.EIO},
		} {
			fail.Store(failure{tt.disk})
			if _, err := c.WriteAt(p, 0); !errors.Is(err, tt.client) {
				t.Errorf("write that fails with %v: got %v, want %v", tt.disk, err, tt.client)
			}
		}
		if _, err := c.ReadAt(p, 0); !errors.Is(err, syscall.EIO) {
			t.Errorf("read that fails: got %v", err)
		}
		if err := c.Flush(); !errors.Is(err, syscall.EIO) {
			t.Errorf("flush that fails: got %v", err)
		}
		fail.Store(failure{})
		if _, err := c.ReadAt(p, 0); err != nil {
			t.Errorf("read after failures: %v", err)
		}
		for _, tt := range []struct {
			what string
			err  error
			want error
		}{
			{"read past the end", second(c.ReadAt(p, size-1)), syscall.EINVAL},
			{"read far beyond", second(c.ReadAt(p, 1<<62)), syscall.EINVAL},
			{"read of more than the maximum", second(c.ReadAt(make([]byte, maxPayload+1), 0)), syscall.EINVAL},
			{"write past the end", second(c.WriteAt(p, size-1)), syscall.ENOSPC},
			{"zeroes past the end", c.WriteZeroes(size-1, 2, 0), syscall.ENOSPC},
			{"trim past the end", c.Trim(size, 1, 0), syscall.EINVAL},
			{"cache past the end", c.Cache(size, 1), syscall.EINVAL},
			{"write with a flag of another command", second(c.Write(p, 0, nbdclient.DF)), syscall.EINVAL},
			{"trim with an unknown flag", c.Trim(0, 4096, 1<<9), syscall.EINVAL},
			{"cache", c.Cache(0, size), nil},
			{"trim of nothing", c.Trim(0, 0, 0), nil},
			{"write of nothing at the end", second(c.WriteAt(nil, size)), nil},
			{"read of nothing", second(c.ReadAt(nil, 0)), nil},
			{"read with FUA, as old clients do", second(c.Read(p, 0, nbdclient.FUA)), nil},
		} {
			if !errors.Is(tt.err, tt.want) {
				t.Errorf("%s: got %v, want %v", tt.what, tt.err, tt.want)
			}
		}

		c = r.dial("ro", opt)
		if !c.Info().ReadOnly() {
			t.Error("a read-only disk is not advertised as such")
		}
		for what, err := range map[string]error{
			"write":  second(c.WriteAt(p, 0)),
			"trim":   c.Trim(0, 4096, 0),
			"zeroes": c.WriteZeroes(0, 4096, 0),
		} {
			if !errors.Is(err, syscall.EPERM) {
				t.Errorf("%s on a read-only disk: %v", what, err)
			}
		}
		if _, err := c.ReadAt(p, 0); err != nil {
			t.Errorf("read of a read-only disk: %v", err)
		}
	}
	r.expectMemoryBack()
}

func second[T any](_ T, err error) error { return err }

func TestBlockStatus(t *testing.T) {
	t.Run("extended headers", func(t *testing.T) { blockStatus(t, nbdclient.Options{}) })
	t.Run("compact headers", func(t *testing.T) { blockStatus(t, nbdclient.Options{Compact: true}) })
}

func blockStatus(t *testing.T, opt nbdclient.Options) {
	const chunk = 64 << 10
	d := newDisk(t, nbdtest.Config{Size: 3 * maxDescriptors * chunk, ChunkSize: chunk})
	r := startServer(t, Config{}, map[string]Disk{"disk": d})
	c := r.dial("", opt)
	p := make([]byte, chunk)
	for _, i := range []int64{2, 3, 5} {
		if _, err := c.WriteAt(p[:1], i*chunk+7); err != nil {
			t.Fatal(err)
		}
	}
	data := func(n int64) nbdclient.Extent { return nbdclient.Extent{Length: n} }
	hole := func(n int64) nbdclient.Extent { return nbdclient.Extent{Length: n, Hole: true, Zero: true} }
	for _, tt := range []struct {
		off, n int64
		flags  uint16
		want   []nbdclient.Extent
	}{
		{0, 7 * chunk, 0, []nbdclient.Extent{hole(2 * chunk), data(2 * chunk), hole(chunk), data(chunk), hole(chunk)}},
		{0, 7 * chunk, nbdclient.ReqOne, []nbdclient.Extent{hole(2 * chunk)}},
		{2*chunk + 1, 2*chunk - 2, 0, []nbdclient.Extent{data(2*chunk - 2)}},
		{4*chunk - 1, 2, 0, []nbdclient.Extent{data(1), hole(1)}},
		{4*chunk - 1, 2, nbdclient.ReqOne, []nbdclient.Extent{data(1)}},
	} {
		got, err := c.BlockStatus(tt.off, tt.n, tt.flags)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(tt.want) {
			t.Errorf("[%d, +%d) flags %d: got %v, %v, want %v", tt.off, tt.n, tt.flags, got, err, tt.want)
		}
	}
	if _, err := c.BlockStatus(0, 0, 0); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("status of nothing: %v", err)
	}
	if _, err := c.BlockStatus(d.Size(), 1, 0); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("status past the end: %v", err)
	}
	if _, err := r.dial("", nbdclient.Options{Simple: true}).BlockStatus(0, 1, 0); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("status without a context: %v", err)
	}

	for i := int64(0); i < 3*maxDescriptors; i += 2 {
		if _, err := c.WriteAt(p[:1], i*chunk); err != nil {
			t.Fatal(err)
		}
	}
	got, err := c.BlockStatus(0, d.Size(), 0)
	if err != nil || len(got) != maxDescriptors {
		t.Errorf("a fragmented disk is described with %d extents, %v; want %d", len(got), err, maxDescriptors)
	}
}

func TestReadingAllocatesNothing(t *testing.T) {
	d := newDisk(t, nbdtest.Config{Size: 8 << 20})
	r := startServer(t, Config{}, map[string]Disk{"disk": d})
	for _, opt := range []nbdclient.Options{{}, {Compact: true}, {Simple: true}} {
		c := r.dial("disk", opt)
		p := bytes.Repeat([]byte{1}, 8<<20)
		if _, err := c.ReadAt(p, 0); err != nil || bytes.Count(p, []byte{0}) != len(p) {
			t.Errorf("a new disk does not read as zeros: %v", err)
		}
		if n := d.Allocated(); n != 0 {
			t.Errorf("reading allocated %d chunks", n)
		}
	}
}

func TestZeroesAndTrim(t *testing.T) {
	const chunk = 1 << 20
	d := newDisk(t, nbdtest.Config{Size: 4*chunk + 4096, ChunkSize: chunk})
	r := startServer(t, Config{}, map[string]Disk{"disk": d})
	c := r.dial("disk", nbdclient.Options{})
	step := func(what string, err, want error, allocated int) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
		if n := d.Allocated(); n != allocated {
			t.Fatalf("%s: %d chunks are allocated, want %d", what, n, allocated)
		}
	}
	p := bytes.Repeat([]byte{9}, 2*chunk)
	step("zeroes on nothing", c.WriteZeroes(0, d.Size(), 0), nil, 0)
	step("fast zeroes on nothing", c.WriteZeroes(1, d.Size()-1, nbdclient.FastZero), nil, 0)
	step("fast zeroes that have to allocate", c.WriteZeroes(0, chunk, nbdclient.FastZero|nbdclient.NoHole), syscall.ENOTSUP, 0)
	step("trim of nothing", c.Trim(0, d.Size(), 0), nil, 0)
	step("zeroes without hole", c.WriteZeroes(chunk, 1, nbdclient.NoHole), nil, 1)
	step("write", second(c.WriteAt(p, 0)), nil, 2)
	step("fast zeroes on a part of a chunk", c.WriteZeroes(0, chunk+1, nbdclient.FastZero), syscall.ENOTSUP, 2)
	step("fast zeroes on the end of a chunk", c.WriteZeroes(1, 3*chunk, nbdclient.FastZero), syscall.ENOTSUP, 2)
	if _, err := c.ReadAt(p, 0); err != nil || bytes.Count(p, []byte{9}) != len(p) {
		t.Errorf("refused fast zeroes changed the data: %v", err)
	}
	step("fast zeroes on a whole chunk", c.WriteZeroes(0, chunk, nbdclient.FastZero), nil, 1)
	step("trim with FUA", c.Trim(chunk, chunk, nbdclient.FUA), nil, 0)
	step("write at the end", second(c.WriteAt(p[:4096], 4*chunk)), nil, 1)
	step("fast zeroes on all of a last chunk that is cut off", c.WriteZeroes(4*chunk, 4096, nbdclient.FastZero), nil, 1)
}

func TestFlagsReachTheDisk(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	d := newDisk(t, nbdtest.Config{Size: 1 << 20, Before: func(r *virstor.Request) error {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, fmt.Sprintf("%d:%d", r.Op, r.Flags))
		return nil
	}})
	r := startServer(t, Config{}, map[string]Disk{"disk": d})
	c := r.dial("disk", nbdclient.Options{})
	p := make([]byte, 512)
	c.Write(p, 0, 0)
	c.Write(p, 0, nbdclient.FUA)
	c.Trim(0, 512, nbdclient.FUA)
	c.WriteZeroes(0, 512, nbdclient.FUA|nbdclient.NoHole)
	c.Flush()
	want := fmt.Sprint([]string{
		fmt.Sprintf("%d:%d", virstor.OpWrite, virstor.Gather),
		fmt.Sprintf("%d:%d", virstor.OpWrite, virstor.FUA),
		fmt.Sprintf("%d:%d", virstor.OpDelete, virstor.FUA|virstor.Gather),
		fmt.Sprintf("%d:%d", virstor.OpWriteZeroes, virstor.FUA|virstor.NoHole|virstor.Gather),
		fmt.Sprintf("%d:0", virstor.OpFlush),
	})
	mu.Lock()
	defer mu.Unlock()
	if fmt.Sprint(seen) != want {
		t.Errorf("the disk saw %v, want %v", seen, want)
	}
}

func TestGrowthIsServed(t *testing.T) {
	d := newDisk(t, nbdtest.Config{Size: 2 << 20})
	d.SetSize(1 << 20)
	r := startServer(t, Config{}, map[string]Disk{"disk": d})
	c := r.dial("disk", nbdclient.Options{})
	p := make([]byte, 512)
	if _, err := c.WriteAt(p, 1<<20); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write past the end: %v", err)
	}
	d.SetSize(2 << 20)
	if _, err := c.WriteAt(p, 1<<20); err != nil {
		t.Errorf("write where the disk has grown: %v", err)
	}
	if n := r.dial("disk", nbdclient.Options{}).Info().Size; n != 2<<20 {
		t.Errorf("a new client is told %d bytes", n)
	}
}

func TestDefaultExport(t *testing.T) {
	d := newDisk(t, nbdtest.Config{Size: 1 << 20})
	r := startServer(t, Config{}, map[string]Disk{"disk": d})
	if name := r.dial("", nbdclient.Options{}).Info().Name; name != "disk" {
		t.Errorf("the empty name leads to %q", name)
	}
	if err := r.AddSnapshot("disk@monday", d); err != nil {
		t.Fatal(err)
	}
	if name := r.dial("", nbdclient.Options{}).Info().Name; name != "disk" {
		t.Errorf("the empty name leads to %q, beside a snapshot", name)
	}
	if err := r.RemoveExport("disk@monday", false); err != nil {
		t.Fatal(err)
	}
	if err := r.AddExport("other", d); err != nil {
		t.Fatal(err)
	}
	if err := r.AddExport("other", d); err == nil {
		t.Error("one name for two exports")
	}
	var refused *nbdclient.OptionError
	_, err := nbdclient.Dial(t.Context(), URI(r.addr, "", false), nbdclient.Options{})
	if !errors.As(err, &refused) {
		t.Errorf("the empty name of two exports: %v", err)
	}
	names, err := nbdclient.List(r.connect())
	if err != nil || fmt.Sprint(names) != "[disk other]" {
		t.Errorf("list: %v, %v", names, err)
	}
	for _, bad := range []string{"", "a\x00b", string(make([]byte, 257)), "\xff"} {
		if r.AddExport(bad, d) == nil {
			t.Errorf("export of name %q", bad)
		}
	}
}

func TestStats(t *testing.T) {
	d := newDisk(t, nbdtest.Config{Size: 1 << 20})
	r := startServer(t, Config{}, map[string]Disk{"disk": d})
	c := r.dial("disk", nbdclient.Options{})
	p := make([]byte, 1000)
	c.WriteAt(p, 0)
	c.ReadAt(p[:500], 0)
	c.ReadAt(p, 1<<20)
	c.Flush()
	c.BlockStatus(0, 1, 0)
	want := ExportStats{Conns: 1, Reads: 2, Writes: 1, Flushes: 1, BlockStatus: 1, Errors: 1, BytesRead: 500, BytesWritten: 1000}
	if got := r.Stats().Exports["disk"]; got != want {
		t.Errorf("while connected: %+v, want %+v", got, want)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	until(t, "the connection is gone", func() bool { return r.Stats().Conns == 0 })
	want.Conns = 0
	if got := r.Stats().Exports["disk"]; got != want {
		t.Errorf("afterwards: %+v, want %+v", got, want)
	}
}

func TestRemoveExport(t *testing.T) {
	d := newDisk(t, nbdtest.Config{Size: 1 << 20})
	r := startServer(t, Config{}, map[string]Disk{"disk": d})
	c := r.dial("disk", nbdclient.Options{})
	if n := r.Conns("disk"); n != 1 {
		t.Errorf("%d clients, want 1", n)
	}
	if err := r.RemoveExport("disk", false); !errors.Is(err, ErrInUse) {
		t.Errorf("withdrawn from under a client: %v", err)
	}
	if n := r.Kick(t.Context(), "disk"); n != 1 || r.Conns("disk") != 0 {
		t.Errorf("kicked %d, %d left", n, r.Conns("disk"))
	}
	<-c.Done()
	c = r.dial("disk", nbdclient.Options{})
	if err := r.RemoveExport("disk", true); err != nil {
		t.Error(err)
	}
	<-c.Done()
	if _, err := nbdclient.Dial(t.Context(), URI(r.addr, "disk", false), nbdclient.Options{}); err == nil {
		t.Error("connected to what was withdrawn")
	}
	if err := r.RemoveExport("disk", false); !errors.Is(err, ErrNoExport) {
		t.Errorf("withdrawn twice: %v", err)
	}
	if err := r.AddExport("disk", d); err != nil {
		t.Error(err)
	}
	c = r.dial("disk", nbdclient.Options{})
	c.Close()
	until(t, "the client has left", func() bool { return r.Conns("disk") == 0 })
	if err := r.RemoveExport("disk", false); err != nil {
		t.Error(err)
	}
}

// gate makes a disk whose requests wait until it is opened.
func gate() (before func(*virstor.Request) error, entered chan struct{}, open func()) {
	entered = make(chan struct{}, 100)
	shut := make(chan struct{})
	before = func(*virstor.Request) error {
		entered <- struct{}{}
		<-shut
		return nil
	}
	return before, entered, sync.OnceFunc(func() { close(shut) })
}

func TestShutdownAnswersWhatIsInFlight(t *testing.T) {
	before, entered, open := gate()
	d := newDisk(t, nbdtest.Config{Size: 1 << 20, Workers: 1, Before: before})
	defer open()
	r := startServer(t, Config{}, map[string]Disk{"disk": d})
	c := r.dial("disk", nbdclient.Options{})
	idle := r.dial("disk", nbdclient.Options{})
	written := make(chan error)
	go func() {
		_, err := c.WriteAt([]byte("last words"), 0)
		written <- err
	}()
	<-entered
	down := make(chan error)
	go func() { down <- r.Shutdown(context.Background()) }()
	<-idle.Done() // goes at once
	select {
	case err := <-down:
		t.Fatalf("shut down with a request in flight: %v", err)
	default:
	}
	open()
	if err := <-written; err != nil {
		t.Errorf("write in flight at shutdown: %v", err)
	}
	if err := <-down; err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if err := r.AddExport("more", d); !errors.Is(err, ErrServerClosed) {
		t.Errorf("export of a closed server: %v", err)
	}
}

func TestShutdownDoesNotWaitForEver(t *testing.T) {
	before, entered, open := gate()
	d := newDisk(t, nbdtest.Config{Size: 1 << 20, Workers: 1, Before: before})
	defer open()
	r := startServer(t, Config{}, map[string]Disk{"disk": d})
	c := r.dial("disk", nbdclient.Options{})
	go c.WriteAt([]byte("never answered"), 0)
	<-entered
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("shutdown: %v", err)
	}
	<-c.Done()
}

func TestGoodbyeAnswersWhatIsInFlight(t *testing.T) {
	before, entered, open := gate()
	d := newDisk(t, nbdtest.Config{Size: 1 << 20, Workers: 1, Before: before})
	defer open()
	r := startServer(t, Config{}, map[string]Disk{"disk": d})
	p := r.connect()
	p.enter("disk")
	p.request(1, 77, 0, 3, []byte("abc"))
	<-entered
	p.request(2, 0, 0, 0, nil)
	until(t, "the client is not counted any more", func() bool { return r.Conns("disk") == 0 })
	open()
	if errno, cookie := p.expectReply(); errno != 0 || cookie != 77 {
		t.Errorf("reply %d to %d", errno, cookie)
	}
	p.expectEnd()
}
