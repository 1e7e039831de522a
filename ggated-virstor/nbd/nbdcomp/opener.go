package nbdcomp

import (
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"syscall"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

const (
	// DefaultTimeout is how long requests wait for a server that is not reached.
	DefaultTimeout = 60 * time.Second
	// DefaultGrace is how long a server may still do what was on its way on a
	// connection that was given up. It is what is asked of servers.
	DefaultGrace = 10 * time.Second
)

// Opener opens exports by their URIs. It is a geomlib.Opener.
type Opener struct {
	// RunDir is where an export that is open is locked on this host; empty:
	// geomlib.DefaultRunDir. It must be the same for all programs.
	RunDir string
	// By makes connections for this process; nil: it connects by itself.
	By geomlib.Connector
	// Timeout is how long requests wait for a server that is not reached before they
	// fail; a request without an answer for half of it is asked again on a new
	// connection. 0: DefaultTimeout.
	Timeout time.Duration
	// Grace is how long what was in doubt is left alone: after a connection was given up
	// that the server had not closed, and where the last writer died. 0: DefaultGrace.
	Grace time.Duration
	// Memory is what the providers together keep to be able to write it again; nil:
	// each has its own.
	Memory *Memory
	// Log is told when servers are not reached, and when they are again; nil: nobody is.
	Log *slog.Logger

	breaks  rule
	silence time.Duration // half of Timeout
	limit   int64         // of a journal, bytes; journalLimit
	sleep   func(time.Duration)
}

// settings are what a provider takes from its Opener.
type settings struct {
	timeout, grace time.Duration
	silence        time.Duration // how long a request may have no answer
	limit          int64         // of the journal, bytes
	memory         *Memory
	log            *slog.Logger
	breaks         rule
}

func (o Opener) settings() settings {
	s := settings{timeout: cmp.Or(o.Timeout, DefaultTimeout), grace: cmp.Or(o.Grace, DefaultGrace),
		limit: cmp.Or(o.limit, journalLimit), memory: o.Memory, log: o.Log, breaks: o.breaks}
	s.silence = cmp.Or(o.silence, s.timeout/2)
	if s.memory == nil {
		s.memory = NewMemory(DefaultMemory)
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s
}

func (o Opener) pause(d time.Duration) {
	if o.sleep == nil {
		time.Sleep(d)
		return
	}
	o.sleep(d)
}

// Open connects to the export that the URI names. geomlib.ErrLocked: another provider of
// this host has it. EROFS: the server lets nobody, or not this client, write.
func (o Opener) Open(name string, opt geomlib.OpenOptions) (geomlib.Provider, error) {
	return openLocked(o.RunDir, name, opt, o.adopt)
}

// openLocked opens the lock of the export that the URI names, and has adopt make a provider of it.
func openLocked(runDir, name string, opt geomlib.OpenOptions,
	adopt func(*os.File, nbdclient.URI, geomlib.OpenOptions) (geomlib.Provider, error)) (geomlib.Provider, error) {
	u, err := nbdclient.ParseURI(name)
	if err != nil {
		return nil, err
	}
	f, err := lockFile(runDir, u)
	if err != nil {
		return nil, err
	}
	p, err := adopt(f, u, opt)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return p, nil
}

// Adopt connects to an export whose lock a Keeper has passed on.
func (o Opener) Adopt(f *os.File, name string, _ []byte, opt geomlib.OpenOptions) (geomlib.Provider, error) {
	u, err := nbdclient.ParseURI(name)
	if err != nil {
		return nil, err
	}
	return o.adopt(f, u, opt)
}

func (o Opener) adopt(f *os.File, u nbdclient.URI, opt geomlib.OpenOptions) (geomlib.Provider, error) {
	if err := lock(f, u, opt); err != nil {
		return nil, err
	}
	p := &provider{name: u.String(), uri: u, by: o.By, set: o.settings(), lock: f, readOnly: opt.ReadOnly, closed: opt.Closed,
		flushHasFailed: opt.FlushHasFailed, flushFails: opt.FlushFails}
	if !opt.ReadOnly {
		if usedBefore(f) {
			o.pause(p.set.grace)
		}
		if err := markUsed(f, true); err != nil {
			return nil, fmt.Errorf("%s: %w", u, err)
		}
	}
	if err := p.connect(opt.SectorSize); err != nil {
		if !opt.ReadOnly {
			err = errors.Join(err, markUsed(f, false)) // nothing was written
		}
		return nil, err
	}
	if p.offer.extents {
		return sparse{p}, nil
	}
	return p, nil
}

// connect connects for the first time. What is read from then on is on stable storage: a
// server that is lost and comes back has it, or is found out.
func (p *provider) connect(sector int) error {
	p.link.init()
	s, err := connectAll(p.ctx, p.by, p.uri)
	if err != nil {
		return err
	}
	if err = p.describe(s, sector); err == nil {
		err = p.first(s)
	}
	if err != nil {
		return errors.Join(err, s.close())
	}
	p.tasks.Go(func() { s.watch(p.ctx, p.set.silence) })
	p.tasks.Go(p.keep)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.enterLocked(s)
	return nil
}

// first flushes what others have written, and notes what is in the last sector then. That
// the flush fails is for those to know who flush.
func (p *provider) first(s *session) error {
	p.journal = journal{memory: p.set.memory, limit: p.set.limit}
	p.proofs.init(p.size, p.sector)
	if p.proven = p.readOnly; p.offer.Flushes() {
		err := s.conn().Flush()
		if errors.Is(err, nbdclient.ErrClosed) {
			return fmt.Errorf("%s: flush: %w", p.name, err)
		}
		if p.proven = p.proven || err == nil; err != nil && !p.readOnly {
			p.tellOfLoss()
			p.untold = err
		}
	}
	last := make([]byte, p.sector)
	err := s.read(last, p.size-p.sector)
	if err == nil && p.untold == nil {
		p.proofs.member = proof{p.size - p.sector, p.sector, crc32.Checksum(last, p.proofs.table)}
	}
	if errors.Is(err, nbdclient.ErrClosed) {
		return fmt.Errorf("%s: read the last sector: %w", p.name, err)
	}
	return nil
}

// Keeper keeps exports for another process, which connects by it. It is a geomlib.Opener
// whose providers do nothing but have a name and hold a lock, and a geomlib.Connector.
type Keeper struct {
	RunDir string // see Opener
}

// Open locks the export that the URI names. Nothing is connected yet.
func (k Keeper) Open(name string, opt geomlib.OpenOptions) (geomlib.Provider, error) {
	return openLocked(k.RunDir, name, opt, k.adopt)
}

// Adopt goes on keeping what another Keeper passed on.
func (k Keeper) Adopt(f *os.File, name string, _ []byte, opt geomlib.OpenOptions) (geomlib.Provider, error) {
	u, err := nbdclient.ParseURI(name)
	if err != nil {
		return nil, err
	}
	return k.adopt(f, u, opt)
}

func (k Keeper) adopt(f *os.File, u nbdclient.URI, opt geomlib.OpenOptions) (geomlib.Provider, error) {
	if err := lock(f, u, opt); err != nil {
		return nil, err
	}
	return kept{name: u.String(), f: f, sector: opt.SectorSize}, nil
}

// kept is an export that this process holds for another.
type kept struct {
	name   string
	f      *os.File
	sector int
}

var errKept = fmt.Errorf("kept for another process: %w", syscall.ENOTCONN)

func (k kept) Name() string                                    { return k.name }
func (k kept) MediaSize() int64                                { return 0 }
func (k kept) SectorSize() int                                 { return k.sector }
func (k kept) ReadAt([]byte, int64) (int, error)               { return 0, errKept }
func (k kept) WriteAt([]byte, int64) (int, error)              { return 0, errKept }
func (k kept) Flush() error                                    { return errKept }
func (k kept) Delete(int64, int64) error                       { return errKept }
func (k kept) Close() error                                    { return k.f.Close() }
func (k kept) Descriptor() (f *os.File, state []byte, ok bool) { return k.f, nil, true }
