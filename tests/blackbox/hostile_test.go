package blackbox

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	hostileTime  = flag.Duration("hostile.duration", 2*time.Second, "how long hostile peers go on")
	hostilePeers = flag.Int("hostile.peers", 400, "connections of theirs that are half open")
)

// hostile is what peers do that mean harm, each on connections of its own.
type hostile struct {
	addr  string
	stop  chan struct{}
	conns atomic.Int64 // opened

	mu   sync.Mutex
	open []net.Conn
}

// connect opens a connection, and says the words. It is nil when the server has had
// enough.
func (h *hostile) connect(words []byte) net.Conn {
	nc, err := net.DialTimeout("tcp", h.addr, time.Minute)
	if err != nil {
		return nil
	}
	h.conns.Add(1)
	h.mu.Lock()
	h.open = append(h.open, nc)
	h.mu.Unlock()
	nc.SetWriteDeadline(time.Now().Add(10 * time.Second))
	nc.Write(words) // fails for those that are refused
	return nc
}

func (h *hostile) stopped() bool {
	select {
	case <-h.stop:
		return true
	default:
		return false
	}
}

func (h *hostile) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, nc := range h.open {
		nc.Close()
	}
}

// entered are client flags, and the export by the oldest option.
const entered = "\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x01\x00\x00\x00\x03vol"

// request is a header, with nothing behind it.
func request(cmd uint16, length uint32) []byte {
	b := binary.BigEndian.AppendUint32(nil, 0x25609513)
	b = binary.BigEndian.AppendUint32(b, uint32(cmd))
	b = binary.BigEndian.AppendUint64(b, 7)
	b = binary.BigEndian.AppendUint64(b, 0)
	return binary.BigEndian.AppendUint32(b, length)
}

// halfOpen says nothing, on n connections.
func (h *hostile) halfOpen(n int) {
	for range n {
		if h.stopped() {
			return
		}
		h.connect(nil)
	}
}

// optionFlood asks for what there is not, over and over.
func (h *hostile) optionFlood() {
	option := []byte("IHAVEOPT\x00\x00\x00\x63\x00\x00\x00\x04abcd")
	for !h.stopped() {
		if nc := h.connect(append([]byte{0, 0, 0, 3}, bytes.Repeat(option, 1000)...)); nc != nil {
			nc.SetReadDeadline(time.Now().Add(time.Second))
			io.Copy(io.Discard, nc)
			nc.Close()
		}
	}
}

// slowReaders ask for 256 MiB each, and take none of it.
func (h *hostile) slowReaders(n int) {
	for range n {
		h.connect(append([]byte(entered), bytes.Repeat(request(0, 32<<20), 8)...))
	}
}

// emptyPromises announce payloads that never come.
func (h *hostile) emptyPromises(n int) {
	for range n {
		h.connect(append([]byte(entered), request(1, 32<<20)...))
	}
}

// latencies of requests, sorted.
type latencies []time.Duration

func (l latencies) at(percent int) time.Duration {
	if len(l) == 0 {
		return 0
	}
	return l[min(len(l)-1, len(l)*percent/100)]
}

// verifying writes blocks at random, reads each back, and compares, until stop.
func (s *site) verifying(stop <-chan struct{}) (all latencies, err error) {
	c := s.dial()
	defer c.Close()
	rng := rand.New(rand.NewPCG(1, 2))
	out, in := make([]byte, 4096), make([]byte, 4096)
	for {
		select {
		case <-stop:
			slices.Sort(all)
			return all, nil
		default:
		}
		off := rng.Int64N(8*mib/4096) * 4096
		binary.BigEndian.PutUint64(out, rng.Uint64())
		begin := time.Now()
		if _, err := c.WriteAt(out, off); err != nil {
			return all, err
		}
		all = append(all, time.Since(begin))
		begin = time.Now()
		if _, err := c.ReadAt(in, off); err != nil {
			return all, err
		}
		all = append(all, time.Since(begin))
		if !bytes.Equal(in, out) {
			return all, fmt.Errorf("at %d something else is read than was written", off)
		}
	}
}

// peakMemory is the most that the process which serves has had resident, bytes; 0
// where the system does not tell.
func (s *site) peakMemory() int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.worker()))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err == nil {
				return kib << 10
			}
		}
	}
	return 0
}

// TestHostilePeersDoNotHarmAGoodClient: half-open connections, floods of options,
// readers that do not read and payloads that never come, beside a client that
// verifies what it writes. That one sees no error, and the daemon stays within
// bounds.
func TestHostilePeersDoNotHarmAGoodClient(t *testing.T) {
	s := newSite(t, 128*mib)
	s.label("-s", "64m", "-m", "1m")
	s.start("--nbd", "tcp:127.0.0.1:0")
	c := s.dial()
	if _, err := c.WriteAt(bytes.Repeat([]byte{1}, 32*mib), 0); err != nil {
		t.Fatal(err)
	}
	c.Close()
	alone := make(chan struct{})
	time.AfterFunc(*hostileTime/4, func() { close(alone) })
	before, err := s.verifying(alone)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(s.tcpURI())
	if err != nil {
		t.Fatal(err)
	}
	h := &hostile{addr: u.Host, stop: make(chan struct{})}
	defer h.end()
	var wg sync.WaitGroup
	for _, harm := range []func(){
		func() { h.slowReaders(24) }, func() { h.emptyPromises(24) },
		func() { h.halfOpen(*hostilePeers) }, h.optionFlood, h.optionFlood,
	} {
		wg.Go(harm)
	}
	time.AfterFunc(*hostileTime, func() { close(h.stop) })
	during, err := s.verifying(h.stop)
	wg.Wait()
	if err != nil {
		t.Fatalf("the good client: %v\n%s", err, s.log)
	}
	peak := s.peakMemory()
	t.Logf("hostile: %d connections in %s; the good client: %d requests, 0 errors, p50 %s, p99 %s, longest %s (alone p50 %s, p99 %s); daemon's peak memory %d MiB",
		h.conns.Load(), *hostileTime, len(during), during.at(50), during.at(99), during.at(100), before.at(50), before.at(99), peak/mib)
	// Payloads of reads and of writes are bounded, and one more buffer may be mapped;
	// the rest is the program, the map of a small volume, and connections that are
	// negotiating, which have 4 KiB.
	const most = (128 + 128 + 32 + 64) * mib
	if peak > most {
		t.Errorf("the daemon had %d MiB, want at most %d", peak/mib, most/mib)
	}
	h.end()
	s.until("the hostile are gone", func() bool {
		for _, c := range s.clients() {
			if c.Address != "" {
				return false
			}
		}
		return true
	})
	s.term()
}
