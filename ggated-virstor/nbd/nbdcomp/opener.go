package nbdcomp

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

// Opener opens exports by their URIs. It is a geomlib.Opener.
type Opener struct {
	// RunDir is where an export that is open is locked on this host; empty:
	// geomlib.DefaultRunDir. It must be the same for all programs.
	RunDir string
	// By makes connections for this process; nil: it connects by itself.
	By geomlib.Connector
	// Grace is how long an export is left alone whose last writer died, so that nothing
	// of that is done later; 0: 10 seconds.
	Grace time.Duration
}

func (o Opener) grace() time.Duration {
	if o.Grace > 0 {
		return o.Grace
	}
	return grace
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
	if !opt.ReadOnly {
		if usedBefore(f) {
			time.Sleep(o.grace())
		}
		if err := markUsed(f, true); err != nil {
			return nil, fmt.Errorf("%s: %w", u, err)
		}
	}
	p := &provider{name: u.String(), lock: f, readOnly: opt.ReadOnly, closed: opt.Closed,
		flushHasFailed: opt.FlushHasFailed, flushFails: opt.FlushFails}
	if err := p.begin(o.By, u, opt.SectorSize); err != nil {
		err = errors.Join(err, p.disconnect())
		if !opt.ReadOnly {
			err = errors.Join(err, markUsed(f, false)) // nothing was written
		}
		return nil, err
	}
	if p.conns[0].DescribesExtents() {
		return sparse{p}, nil
	}
	return p, nil
}

// begin connects, as often as is of use.
func (p *provider) begin(by geomlib.Connector, u nbdclient.URI, sector int) error {
	c, err := negotiate(context.Background(), by, u)
	if err != nil {
		return err
	}
	p.conns = append(p.conns, c)
	err = p.describe(c.Info(), sector)
	for err == nil && p.info.MultiConn() && len(p.conns) < connections {
		err = p.another(by, u)
	}
	return err
}

// connections is how many are used where the server says that a flush on one is for all
// (NBD_FLAG_CAN_MULTI_CONN).
const connections = 4

// another adds a connection, whose other end must be the same export.
func (p *provider) another(by geomlib.Connector, u nbdclient.URI) error {
	c, err := negotiate(context.Background(), by, u)
	if err != nil {
		return err
	}
	p.conns = append(p.conns, c)
	if a, b := p.conns[0].Info(), c.Info(); a != b {
		return fmt.Errorf("%s: its connections are to different exports: %+v, and then %+v", p.name, a, b)
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
