package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/geomlib/gate/gatetest"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/gatepub"
	"github.com/gvirstor/gvirstor/ggated-virstor/gatepub/serve"
	"github.com/gvirstor/gvirstor/ggated-virstor/gatepub/units"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
	"github.com/gvirstor/gvirstor/ondisk"
)

const (
	sector = 512
	mib    = 1 << 20
)

// site is a machine: a geom_gate, disks, a run folder, and at times a daemon.
type site struct {
	t     *testing.T
	k     *gatetest.Kernel
	g     *gate.Gate
	dir   string
	disks map[string]*disktest.Disk
	waits units.Waits
	log   *strings.Builder
	logMu sync.Mutex

	name   string // --gate-name
	unit   int    // --unit
	volume virstor.Config
	lease  LeaseOptions
	far    bool   // other hosts reach the disks, too
	prefix string // of the names of disks
	memory Memory
	last   *leaseNote

	d *Daemon
	o *opener

	serving []int // what Publisher.Serving was told
}

func newSite(t *testing.T, opts gatetest.Options) *site {
	s := &site{t: t, k: gatetest.New(opts), dir: t.TempDir(), disks: make(map[string]*disktest.Disk),
		waits: units.Waits{Trust: 300 * time.Millisecond, Guess: time.Second, Confirm: time.Minute},
		unit:  gate.UnitAuto, log: new(strings.Builder)}
	s.g = s.k.Open()
	t.Cleanup(s.k.Close)
	t.Cleanup(func() {
		if s.d != nil {
			s.crash()
		}
		if err := s.k.Panicked(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			s.logMu.Lock()
			defer s.logMu.Unlock()
			t.Log(s.log.String())
		}
	})
	return s
}

func (s *site) Write(p []byte) (int, error) {
	s.logMu.Lock()
	defer s.logMu.Unlock()
	return s.log.Write(p)
}

// label makes a volume of new disks of these sizes, in MiB, named NAME0, NAME1, ….
func (s *site) label(name string, id uint32, virtual int64, sizes ...int64) []string {
	s.t.Helper()
	req := ondisk.LabelRequest{Name: name, VirtualSize: virtual, ChunkSize: 128 << 10, ID: id, ChunkMultiple: ondisk.MinChunkMultiple}
	var ps []geomlib.Provider
	var names []string
	for i, size := range sizes {
		d := s.disk(fmt.Sprintf("%s%s%d", s.prefix, name, i), size*mib)
		ps, names = append(ps, d), append(names, d.Name())
		req.Providers = append(req.Providers, ondisk.LabelProvider{Name: d.Name(), Size: d.MediaSize(), SectorSize: sector})
	}
	l, err := ondisk.Plan(req)
	must(s.t, err)
	must(s.t, virstor.Label(context.Background(), ps, l, virstor.LabelOptions{}))
	return names
}

func (s *site) disk(name string, size int64) *disktest.Disk {
	d := disktest.New(name, size, sector).FillJunk(uint64(len(s.disks) + 1))
	s.disks[name] = d
	return d
}

// make is a daemon that serves nothing yet.
func (s *site) make() {
	log := slog.New(slog.NewTextHandler(s, nil))
	manager := units.New(s.g, geomlib.NewTreeReader(s.k.Confxml), s.dir, s.waits, log)
	s.o = &opener{s: s, life: new(life), opens: make(map[string]int)}
	s.d = New(Options{Version: "test", Volume: s.volume, Lease: s.lease, Memory: s.memory}, s.o, []publish.Publisher{&gatepub.Publisher{
		Gate: s.g, Units: manager, Name: s.name, Unit: s.unit, Log: log,
		Serve:   serve.Config{BufferSize: 64 << 10, Slots: 16, Receivers: 2, MayBlock: true},
		Serving: func(n int) { s.serving = append(s.serving, n) },
	}}, log)
}

// start starts a daemon, which must serve n volumes.
func (s *site) start(n int, names ...string) {
	s.t.Helper()
	s.make()
	if got := s.d.ServeAll(names); got != n {
		s.t.Fatalf("%d volumes served, want %d: %+v", got, n, s.d.problems)
	}
}

// crash ends the daemon as SIGKILL does: nothing more is answered or written.
func (s *site) crash() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s.d.mu.Lock()
	var all []*served
	for _, v := range s.d.volumes {
		all = append(all, v)
	}
	s.d.mu.Unlock()
	for _, v := range all {
		for _, p := range v.pubs {
			if g, ok := p.(interface{ Abandon(context.Context) error }); ok {
				if err := g.Abandon(ctx); err != nil {
					s.t.Error(err)
				}
			}
		}
	}
	s.o.life.end()
	over, end := context.WithCancel(ctx)
	end() // nobody waits
	for _, v := range all {
		if v.takeover != nil {
			v.takeover.Stop(over)
		}
	}
	s.d = nil
}

// open waits for the volume's node and opens it.
func (s *site) open(name string) *gatetest.Dev {
	s.t.Helper()
	d, err := s.k.OpenDev(name, gatetest.Reader|gatetest.Writer)
	must(s.t, err)
	return d
}

func (s *site) volumeStatus(name string) control.VolumeStatus {
	s.t.Helper()
	v, err := s.d.Volume(context.Background(), name)
	must(s.t, err)
	return v
}

func (s *site) records() []string {
	s.t.Helper()
	names, err := filepath.Glob(filepath.Join(s.dir, "*.unit"))
	must(s.t, err)
	return names
}

// writeRecord forges what a former daemon recorded.
func (s *site) writeRecord(id uint32, text string) {
	s.t.Helper()
	must(s.t, os.WriteFile(filepath.Join(s.dir, fmt.Sprintf("%08x.unit", id)), []byte(text), 0o600))
}

// life is a process's: when it is over, nothing it began has an effect.
type life struct {
	mu   sync.RWMutex
	over bool
}

var errDead = errors.New("the process is dead")

func (l *life) do(f func() error) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.over {
		return errDead
	}
	return f()
}

func (l *life) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
}

// opener opens the site's disks as FreeBSD does: for writing only when GEOM is
// idle.
type opener struct {
	s    *site
	life *life
	fail map[string]error

	mu    sync.Mutex
	opens map[string]int // that were not closed; one closed once more counts less than none
}

// open is how often a disk is open.
func (o *opener) open(name string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.opens[name]
}

func (o *opener) count(name string, n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.opens[name] += n
}

func (o *opener) Open(name string, readOnly bool, _ int) (geomlib.Provider, error) {
	if !readOnly {
		o.s.k.WaitIdle()
	}
	return o.Peek(name, 0)
}

func (o *opener) Peek(name string, _ int) (geomlib.Provider, error) {
	if err := o.fail[name]; err != nil {
		return nil, err
	}
	d := o.s.disks[name]
	if d == nil {
		return nil, os.ErrNotExist
	}
	o.count(name, 1)
	if o.s.far {
		return &farMortal{mortal: mortal{d, o}}, nil
	}
	return &mortal{d, o}, nil
}

type noLock struct{}

func (noLock) Close() error { return nil }

func (o *opener) LockVolume(uint32) (io.Closer, error) {
	if o.s.last != nil {
		return o.s.last, nil
	}
	return noLock{}, nil
}

// leaseNote is a lock that remembers the last lease, as that of a host does.
type leaseNote struct {
	noLock
	owner atomic.Uint64
}

func (n *leaseNote) LastLease() uint64            { return n.owner.Load() }
func (n *leaseNote) NoteLease(owner uint64) error { n.owner.Store(owner); return nil }

// farMortal is a mortal that other hosts reach, too.
type farMortal struct {
	mortal
	gone atomic.Pointer[error]
}

func (m *farMortal) Guard(geomlib.Guard) {}
func (m *farMortal) Abandon(why error)   { m.gone.Store(&why) }

func (m *farMortal) ReadOnce(p []byte, off int64) error {
	_, err := m.ReadAt(p, off)
	return err
}

func (m *farMortal) WriteOnce(p []byte, off int64) error {
	if why := m.gone.Load(); why != nil {
		return *why
	}
	if _, err := m.WriteAt(p, off); err != nil {
		return err
	}
	return m.Flush()
}

// mortal is a disk as one process sees it.
type mortal struct {
	d *disktest.Disk
	o *opener
}

func (m *mortal) Name() string     { return m.d.Name() }
func (m *mortal) MediaSize() int64 { return m.d.MediaSize() }
func (m *mortal) SectorSize() int  { return m.d.SectorSize() }
func (m *mortal) Close() error     { m.o.count(m.d.Name(), -1); return nil }
func (m *mortal) ReadAt(p []byte, off int64) (n int, err error) {
	err = m.o.life.do(func() error { n, err = m.d.ReadAt(p, off); return err })
	return n, err
}
func (m *mortal) WriteAt(p []byte, off int64) (n int, err error) {
	err = m.o.life.do(func() error { n, err = m.d.WriteAt(p, off); return err })
	return n, err
}
func (m *mortal) Flush() error { return m.o.life.do(m.d.Flush) }
func (m *mortal) Delete(off, n int64) error {
	return m.o.life.do(func() error { return m.d.Delete(off, n) })
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits for a condition that has no event of its own.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(200 * time.Microsecond)
	}
}
