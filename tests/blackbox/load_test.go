package blackbox

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

// lanes writes by our own client: many requests at once, each lane in blocks of
// its own, so that what overlaps is ordered while all lanes share chunks.
type lanes struct {
	ledger     *ledger
	count      int
	block      int64 // that lanes take in turn
	longest    int64 // request
	generation atomic.Uint64
	acked      atomic.Uint64
	flushed    atomic.Uint64 // of acked, those with FUA or a flush behind them
}

// run writes over connections of dial until they break or stop is closed, and
// returns the first error that a lane met.
func (l *lanes) run(dial func() (*nbdclient.Conn, error), seed uint64, stop <-chan struct{}) error {
	var wg sync.WaitGroup
	errs := make([]error, l.count)
	var c *nbdclient.Conn
	for i := range l.count {
		if i%4 == 0 { // four lanes a connection
			var err error
			if c, err = dial(); err != nil {
				errs[i] = err
				break
			}
			defer c.Abort()
		}
		conn := c
		wg.Go(func() { errs[i] = l.lane(conn, rand.New(rand.NewPCG(seed, uint64(i))), i, stop) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// lane is one request after the other.
func (l *lanes) lane(c *nbdclient.Conn, rng *rand.Rand, lane int, stop <-chan struct{}) error {
	b := make([]byte, l.longest)
	blocks := l.ledger.size / l.block / int64(l.count)
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		// Half of the requests go to an eighth of the blocks, and meet old data.
		k := rng.Int64N(blocks)
		if rng.IntN(2) == 0 {
			k = rng.Int64N(max(1, blocks/8))
		}
		off := l.ledger.base + (k*int64(l.count)+int64(lane))*l.block
		in := rng.Int64N(l.block/sectorSize) * sectorSize
		n := min(1+rng.Int64N(l.longest/sectorSize), (l.block-in)/sectorSize) * sectorSize
		if err := l.request(c, rng, b[:n], off+in); err != nil {
			return err
		}
	}
}

// request is one request of a lane.
func (l *lanes) request(c *nbdclient.Conn, rng *rand.Rand, b []byte, off int64) error {
	n := int64(len(b))
	flags := uint16(0)
	if rng.IntN(8) == 0 {
		flags = nbdclient.FUA
	}
	switch kind := rng.IntN(32); {
	case kind == 0:
		if err := c.Flush(); err != nil {
			return fmt.Errorf("flush: %w", err)
		}
		l.flushed.Add(1)
	case kind < 3:
		l.ledger.trim(off, n)
		if err := c.Trim(off, n, flags); err != nil {
			return fmt.Errorf("trim %d bytes at %d: %w", n, off, err)
		}
	case kind < 5:
		if rng.IntN(2) == 0 {
			flags |= nbdclient.NoHole
		}
		l.ledger.begin(off, n, 0)
		if err := c.WriteZeroes(off, n, flags); err != nil {
			return fmt.Errorf("zero %d bytes at %d: %w", n, off, err)
		}
		l.ledger.acknowledged(off, n, 0)
	case kind < 8: // what was acknowledged is seen at once
		if _, err := c.ReadAt(b, off); err != nil {
			return fmt.Errorf("read %d bytes at %d: %w", n, off, err)
		}
		if err := l.ledger.compare(b, off, false); err != nil {
			return fmt.Errorf("under load: %w", err)
		}
	default:
		g := l.generation.Add(1)
		stampSectors(b, off, g)
		l.ledger.begin(off, n, g)
		if _, err := c.Write(b, off, flags); err != nil {
			return fmt.Errorf("write %d bytes at %d: %w", n, off, err)
		}
		l.ledger.acknowledged(off, n, g)
		if flags != 0 {
			l.flushed.Add(1)
		}
	}
	l.acked.Add(1)
	return nil
}

// fioBlock is the size of every request of fio.
const fioBlock = 4096

// fioLoad is fio writing, and verifying behind itself, in the range of ledger,
// until it has done requests or its connection breaks. Each block holds
// its own address and the generation.
func (s *site) fioLoad(ctx context.Context, l *ledger, generation uint64, seed uint64, requests int) error {
	dir, err := os.MkdirTemp(s.dir, "fio")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l.begin(l.base, l.size, generation)
	var tag [8]byte
	for i := range tag {
		tag[i] = byte(generation >> (8 * i))
	}
	c := exec.CommandContext(ctx, "fio", "--name=job", "--ioengine=nbd", "--uri="+s.uri(), "--thread",
		"--rw=randwrite", "--bs="+strconv.Itoa(fioBlock), "--iodepth=8",
		fmt.Sprintf("--offset=%d", l.base), fmt.Sprintf("--size=%d", l.size), fmt.Sprintf("--number_ios=%d", requests),
		fmt.Sprintf("--randseed=%d", seed), "--rate_iops=8000", "--fsync=256",
		"--verify=pattern", fmt.Sprintf("--verify_pattern=%%o0x%x", tag), "--verify_backlog=64", "--verify_fatal=1", "--do_verify=0",
		"--verify_state_save=0", "--write_lat_log=log", "--log_offset=1", "--disable_slat=1", "--disable_clat=1")
	c.Dir = dir
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	ended := c.Run()
	log, err := os.ReadFile(filepath.Join(dir, "log_lat.1.log"))
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	for line := range strings.Lines(string(log)) { // time, latency, direction, length, offset, priority
		f := strings.Split(strings.TrimSpace(line), ", ")
		if len(f) < 5 || f[2] != "1" {
			continue
		}
		n, err := strconv.ParseInt(f[3], 10, 64)
		if err != nil {
			return fmt.Errorf("fio's log: %q: %w", line, err)
		}
		off, err := strconv.ParseInt(f[4], 10, 64)
		if err != nil {
			return fmt.Errorf("fio's log: %q: %w", line, err)
		}
		l.acknowledged(off, n, generation)
	}
	if strings.Contains(out.String(), "verify: bad") || strings.Contains(out.String(), "verify failed") {
		return fmt.Errorf("%w: fio: %s", errMismatch, &out)
	}
	if ended != nil {
		return fmt.Errorf("fio: %w: %s", ended, &out)
	}
	return nil
}

// qemuLoad is qemu-io writing blocks in the range of ledger, eight at a time,
// until it has done requests or its connection breaks. Each holds one byte.
func (s *site) qemuLoad(ctx context.Context, l *ledger, rng *rand.Rand, requests int) error {
	const span = 32 << 10
	var script bytes.Buffer
	g := uint64(1 + rng.IntN(255))
	// No block twice: qemu-io does not say which of two writes was done.
	for i, k := range rng.Perm(int(l.size / span))[:min(requests, int(l.size/span))] {
		off := l.base + int64(k)*span
		l.begin(off, span, g)
		fmt.Fprintf(&script, "aio_write -P %d %d %d\n", g, off, span)
		if i%8 == 7 {
			fmt.Fprintf(&script, "aio_flush\n")
		}
		if i%32 == 31 {
			fmt.Fprintf(&script, "flush\n")
		}
	}
	fmt.Fprintf(&script, "aio_flush\nquit\n")
	c := exec.CommandContext(ctx, "qemu-io", "-f", "raw", s.uri())
	c.Stdin = &script
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	ended := c.Run()
	for line := range strings.Lines(out.String()) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "qemu-io> ")
		var done, n, off int64
		for strings.HasPrefix(line, "qemu-io> ") {
			line = strings.TrimPrefix(line, "qemu-io> ")
		}
		if k, _ := fmt.Sscanf(line, "wrote %d/%d bytes at offset %d", &done, &n, &off); k == 3 && done == n {
			l.acknowledged(off, n, g)
		}
	}
	if ended == nil && (strings.Contains(out.String(), "failed") || strings.Contains(out.String(), "rror")) {
		ended = fmt.Errorf("%s", &out)
	}
	if ended != nil {
		return fmt.Errorf("qemu-io: %w", ended)
	}
	return nil
}
