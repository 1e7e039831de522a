package blackbox

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

// stamp fills b with a block's number and a generation.
func stamp(b []byte, block, generation uint64) {
	for i := 0; i+16 <= len(b); i += 16 {
		binary.LittleEndian.PutUint64(b[i:], block)
		binary.LittleEndian.PutUint64(b[i+8:], generation)
	}
}

// writer writes generations of blocks until the connection breaks, and remembers
// the last one that was acknowledged for each.
type writer struct {
	blocks  uint64
	base    uint64
	spread  int64 // bytes from block to block
	acked   []atomic.Uint64
	started []atomic.Uint64
}

func newWriter(base, blocks uint64, spread int64) *writer {
	return &writer{blocks: blocks, base: base, spread: spread,
		acked: make([]atomic.Uint64, blocks), started: make([]atomic.Uint64, blocks)}
}

const block = 4096

func (w *writer) offset(i uint64) int64 { return int64(w.base+i) * w.spread }

func (w *writer) run(c *nbdclient.Conn, first uint64) {
	b := make([]byte, block)
	for n := first; ; n++ {
		i := n * 7919 % w.blocks
		g := w.started[i].Add(1)
		stamp(b, w.base+i, g)
		if _, err := c.WriteAt(b, w.offset(i)); err != nil {
			return
		}
		w.acked[i].Store(g)
	}
}

// verify checks that every part of a block holds the generation that was
// acknowledged last, or one that was under way. A write under way may have
// reached some sectors and not others.
func (w *writer) verify(t testing.TB, c *nbdclient.Conn) {
	t.Helper()
	b := make([]byte, block)
	for i := range w.blocks {
		if _, err := c.ReadAt(b, w.offset(i)); err != nil {
			t.Fatal(err)
		}
		acked, started := w.acked[i].Load(), w.started[i].Load()
		least, most := started, uint64(0)
		for k := 0; k < block; k += 16 {
			id, g := binary.LittleEndian.Uint64(b[k:]), binary.LittleEndian.Uint64(b[k+8:])
			if g < acked || g > started || g != 0 && id != w.base+i {
				t.Fatalf("byte %d of block %d holds generation %d of block %d; %d was acknowledged, %d begun",
					k, w.base+i, g, id, acked, started)
			}
			least, most = min(least, g), max(most, g)
		}
		w.acked[i].Store(least)
		w.started[i].Store(most)
	}
}

func TestAcknowledgedWritesSurviveSIGKILL(t *testing.T) {
	s := newSite(t, 96*mib, 96*mib)
	s.label("-s", "1g", "-m", "1m")
	writers := []*writer{newWriter(0, 64, 1500000), newWriter(100, 64, 1500000)}
	for round := range 8 {
		s.start()
		check := s.dial()
		for _, w := range writers {
			w.verify(t, check)
		}
		check.Close()
		var wg sync.WaitGroup
		for i, w := range writers {
			c := s.dial()
			wg.Go(func() { w.run(c, uint64(round*1000+i)) })
		}
		total := func() (n uint64) {
			for _, w := range writers {
				for i := range w.acked {
					n += w.acked[i].Load()
				}
			}
			return n
		}
		before := total()
		s.until("writes were acknowledged", func() bool { return total() > before+uint64(50+round*40) })
		s.kill()
		wg.Wait()
	}
	s.start()
	c := s.dial()
	for _, w := range writers {
		w.verify(t, c)
	}
	c.Close()
	s.gvirstor("stop", "vol")
}

func TestWritesWaitWhenFullAndGoOnAfterAdd(t *testing.T) {
	s := newSite(t, 16*mib, 16*mib)
	s.label("-s", "1g", "-m", "1m")
	s.start()
	c := s.dial()
	b := make([]byte, mib)
	results := make(chan error, 64)
	// 13 chunks of the first component and 15 of the second hold data.
	for i := range 40 {
		go func() {
			_, err := c.WriteAt(b, int64(i)*mib)
			results <- err
		}()
	}
	s.until("writes are held", func() bool { return s.status().Held.Count > 0 && s.status().FreeChunks == 0 })
	for range 28 {
		if err := <-results; err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-results:
		t.Fatalf("a write ended while the volume is full: %v", err)
	default:
	}
	if _, err := s.dial().ReadAt(b, 0); err != nil {
		t.Fatalf("read while writes wait: %v", err)
	}
	if err := s.dial().Flush(); err != nil {
		t.Fatalf("flush while writes wait: %v", err)
	}
	s.gvirstor("add", "vol", s.file("more", 32*mib))
	for range 12 {
		if err := <-results; err != nil {
			t.Fatal(err)
		}
	}
}

func TestAFullVolumeAnswersENOSPCWhenToldTo(t *testing.T) {
	s := newSite(t, 16*mib)
	s.label("-s", "1g", "-m", "1m")
	s.start("--when-full", "error")
	c := s.dial()
	b := make([]byte, mib)
	for i := range int64(13) {
		if _, err := c.WriteAt(b, i*mib); err != nil {
			t.Fatal(err)
		}
	}
	_, err := c.WriteAt(b, 500*mib)
	var e *nbdclient.Error
	if !errors.As(err, &e) || e.Errno != 28 {
		t.Fatalf("write to a full volume: %v, want ENOSPC", err)
	}
}

func TestStopRefusesWhileClientsAreConnected(t *testing.T) {
	s := newSite(t, 64*mib, 64*mib)
	s.label("-s", "1g", "-m", "1m")
	s.start()
	c := s.dial()
	if _, err := c.WriteAt(make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	if out, err := s.tryGvirstor("stop", "vol"); err == nil {
		t.Fatalf("stop with a client connected succeeded: %s", out)
	}
	s.gvirstor("stop", "-f", "vol")
	if out := s.gvirstor("dump", s.files[0]); !bytesContain(out, "Metadata version: 1") {
		t.Fatalf("not handed back:\n%s", out)
	}
}

func TestExt4SurvivesSIGKILLWithACleanCheck(t *testing.T) {
	need(t, "mkfs.ext4", "e2fsck", "debugfs")
	s := newSite(t, 256*mib, 256*mib)
	s.label("-s", "2g", "-m", "1m")
	s.start()
	disk, leave := s.asFile(2 * gib)
	command(t, "mkfs.ext4", "-q", "-F", disk)
	files := filepath.Join(s.dir, "tree")
	if err := os.MkdirAll(files, 0o700); err != nil {
		t.Fatal(err)
	}
	image(t, filepath.Join(files, "a"), 3*mib, 0, mib)
	var script bytesBuffer
	script.printf("mkdir d\ncd d\nwrite %s a\n", filepath.Join(files, "a"))
	cmds := filepath.Join(s.dir, "commands")
	if err := os.WriteFile(cmds, script.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, "debugfs", "-w", "-f", cmds, disk)
	leave()
	s.kill()
	s.start()
	disk, leave = s.asFile(2 * gib)
	command(t, "e2fsck", "-f", "-n", disk)
	command(t, "debugfs", "-R", "dump /d/a "+filepath.Join(s.dir, "back"), disk)
	same(t, filepath.Join(files, "a"), filepath.Join(s.dir, "back"))
	leave()
}

func TestAPebibyteVolumeIsLabelledAndOpenedQuickly(t *testing.T) {
	s := newSite(t, 8<<30, 8<<30)
	begin := time.Now()
	s.label("-s", "1p")
	if d := time.Since(begin); d > 20*time.Second {
		t.Errorf("label took %s", d)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(s.files[0], &st); err != nil || st.Blocks*512 > 64*mib {
		t.Errorf("%d bytes of a map of 2 GiB without an entry are written, %v", st.Blocks*512, err)
	}
	begin = time.Now()
	s.start()
	if d := time.Since(begin); d > 20*time.Second {
		t.Errorf("open took %s", d)
	}
	c := s.dial()
	for _, off := range []int64{0, 1 << 49, 1<<50 - 4096} {
		b := make([]byte, 4096)
		stamp(b, uint64(off), 1)
		if _, err := c.WriteAt(b, off); err != nil {
			t.Fatal(err)
		}
	}
	if kb := residentKB(t, s.cmd.Process.Pid); kb > 100<<10 {
		t.Errorf("the daemon has %d kB resident", kb)
	}
}

func TestTheControlSocketIsPrivate(t *testing.T) {
	s := newSite(t, 64*mib)
	s.label("-s", "1g", "-m", "1m")
	s.start()
	fi, err := os.Stat(s.control)
	if err != nil {
		t.Fatal(err)
	}
	if fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %o", fi.Mode().Perm())
	}
	if _, err := control.Dial(s.control); err != nil {
		t.Fatal(err)
	}
}
