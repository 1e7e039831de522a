package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ondisk"
)

// otherHosts are the options of verbs that change components without opening the volume.
type otherHosts struct {
	runDir   string // of the locks, which tell this host's own lease from others
	takeOver bool   // no other host serves the volume, as the user says
}

func (o *otherHosts) declare(f *options) {
	o.runDir = geomlib.DefaultRunDir()
	f.text(&o.runDir, "run-dir")
	f.flag(&o.takeOver, "", "takeover")
}

// otherHostsUsage and otherHostsHelp describe the options.
const (
	otherHostsUsage = "[--takeover] [--run-dir dir]"
	otherHostsHelp  = `
--takeover  no other host serves the volume, as you know for certain: its lease
            is not looked at
--run-dir   folder of the daemon's locks`
)

// leases keep other hosts from volumes until they are released.
type leases struct {
	taken  map[uint32]*virstor.Lease // by the volume's id
	locks  []io.Closer
	locked []uint32 // ids of the volumes whose lock is among locks
}

// release is the end, before the providers are closed.
func (l *leases) release() error {
	var err error
	for _, t := range l.taken {
		if e := t.Close(); e != nil && t.Lost() == nil {
			err = errors.Join(err, e)
		}
	}
	for _, k := range l.locks {
		err = errors.Join(err, k.Close())
	}
	if err != nil {
		return failf("Can't give a lease back: %w", err)
	}
	return nil
}

// has reports whether the volume of that id is locked.
func (l *leases) has(id uint32) bool { return slices.Contains(l.locked, id) }

// moveTo has the lease, if there is one, where it is when zero is component 0 with the
// metadata m, which is about to be written.
func (l *leases) moveTo(zero geomlib.Provider, m ondisk.Metadata) error {
	if t := l.taken[m.ID]; t != nil && zero != nil {
		return t.MoveTo(zero, m)
	}
	return nil
}

// keepOthersOff keeps other hosts from the volumes that providers, open for writing, are
// of: those that other hosts can reach have their lease taken, and what another host has is
// refused, as what may be. write: else it is only looked at.
func (c *call) keepOthersOff(ctx context.Context, providers []geomlib.Provider, o otherHosts, write bool) (*leases, error) {
	l := &leases{taken: make(map[uint32]*virstor.Lease)}
	for _, a := range byVolume(providers) {
		err := c.lookElsewhere(ctx, a, o)
		if err == nil {
			err = l.keep(ctx, a, o, write)
		}
		if err != nil {
			return nil, errors.Join(failf("Can't change %s: %w", a.Name, err), l.release())
		}
	}
	return l, nil
}

// lookElsewhere refuses a, whose component 0 is not among its members, if the lease on that
// is another host's. It is found among this machine's disks, and beside members that are
// files; where it is not, or is nobody's to read, nothing is known.
func (c *call) lookElsewhere(ctx context.Context, a *virstor.Assembly, o otherHosts) error {
	var names []string
	for _, m := range a.Members {
		if m.Metadata.No == 0 || o.takeOver {
			return nil
		}
		names = append(names, m.Provider.Name())
	}
	zero, err := c.findZero(ctx, a.ID, names)
	if zero == nil || err != nil {
		return err
	}
	defer zero.Close() // it is only read
	if err = refuseLeased(zero, a.ID, 0); !errors.Is(err, virstor.ErrLeased) {
		return err
	}
	lock, err := geomlib.LockVolume(o.runDir, a.ID)
	if errors.Is(err, geomlib.ErrLocked) {
		return nil // it is this host's, which has what it serves open
	}
	if err != nil {
		return err
	}
	defer lock.Close() // nothing was noted in it
	return refuseLeased(zero, a.ID, lock.LastLease())
}

// mayTake refuses components of volumes that another host has the lease of, whatever force
// says, which is about what is lost. What a provider itself says is looked at by whoever
// takes it.
func (c *call) mayTake(ctx context.Context, names []string, runDir string) error {
	for _, name := range names {
		p, err := c.registry.Open(name, geomlib.OpenOptions{ReadOnly: true, NoLock: true})
		if err != nil {
			continue // who takes it tells what is wrong
		}
		for _, a := range byVolume([]geomlib.Provider{p}) {
			if e := c.lookElsewhere(ctx, a, otherHosts{runDir: runDir}); e != nil {
				err = failf("Can't take %s, a component of %s: %w", name, a.Name, e)
			}
		}
		_ = p.Close() // it was only read
		if err != nil {
			return err
		}
	}
	return nil
}

// refuseLeased refuses the volume whose component 0 is zero, if the lease there is another
// host's than that of last.
func refuseLeased(zero geomlib.Provider, id uint32, last uint64) error {
	one := []geomlib.Provider{zero}
	if err := shareLeased(one); err != nil {
		return err
	}
	for _, a := range byVolume(one) {
		owner, leased, err := a.Leased(last)
		switch {
		case a.ID != id:
		case errors.Is(err, virstor.ErrNoLease):
		case err != nil:
			return err
		case leased:
			return fmt.Errorf("%w: %v: stop the volume there first, or, if that host is dead for certain, --takeover", virstor.ErrLeased, owner)
		}
	}
	return nil
}

// findZero opens component 0 of a volume for reading: one of this machine's disks, or a
// file in a folder of those that are named. An older copy may lie there, too: of several it is
// the one that was served last. It is nil where there is none.
func (c *call) findZero(ctx context.Context, id uint32, beside []string) (geomlib.Provider, error) {
	var names []string
	local := false
	for _, name := range beside {
		if geomlib.Name(name).Scheme() != "" {
			continue // those who are reached by a network are named
		}
		local = true
		if fi, err := os.Stat(name); err != nil || !fi.Mode().IsRegular() {
			continue
		}
		entries, err := os.ReadDir(filepath.Dir(name))
		if err != nil {
			continue
		}
		for _, e := range entries {
			if e.Type().IsRegular() {
				names = append(names, filepath.Join(filepath.Dir(name), e.Name()))
			}
		}
	}
	if !local {
		return nil, nil
	}
	if disks, err := c.disks(ctx); err == nil {
		names = append(names, disks...)
	}
	var zero geomlib.Provider
	var generation uint64
	for _, name := range names {
		p, err := c.registry.Open(name, geomlib.OpenOptions{ReadOnly: true, NoLock: true})
		if err != nil {
			continue // no medium, gone, or nothing that could be a component
		}
		m, err := geomlib.ReadMetadata(p)
		if err != nil || m.ID != id || m.No != 0 || m.ProviderSize != uint64(p.MediaSize()) || zero != nil && m.Member.Generation <= generation {
			_ = p.Close() // only read
			continue
		}
		if zero != nil {
			_ = zero.Close() // likewise
		}
		zero, generation = p, m.Member.Generation
	}
	if zero == nil {
		return nil, ctx.Err()
	}
	return zero, nil
}

// byVolume are the volumes that providers are of, as far as their metadata can be read.
func byVolume(providers []geomlib.Provider) (all []*virstor.Assembly) {
	for _, p := range providers {
		m, err := geomlib.ReadMetadata(p)
		if err != nil && !errors.Is(err, ondisk.ErrMemberBlock) {
			continue // whose it is cannot be told
		}
		i := slices.IndexFunc(all, func(a *virstor.Assembly) bool { return a.ID == m.ID })
		if i < 0 {
			i = len(all)
			all = append(all, &virstor.Assembly{ID: m.ID, Name: ondisk.Printable(m.Name)})
		}
		all[i].Members = append(all[i].Members, virstor.Member{Provider: p, Metadata: m})
	}
	return all
}

// shareLeased has components of volumes with a lease read and written past the caches of
// this host, where only that lease tells that other hosts reach them. What cannot be so is
// left as it is: nobody serves it as what is shared, and whoever writes looks at the lease.
func shareLeased(providers []geomlib.Provider) error {
	for _, a := range byVolume(providers) {
		leased := false
		for _, m := range a.Members {
			l, err := virstor.LeaseOn(m.Provider, m.Metadata)
			if err != nil {
				return failf("Can't tell whether other hosts have %s: %w", a.Name, err)
			}
			leased = leased || l != nil
		}
		if !leased || a.NeedsLease() {
			continue
		}
		for _, m := range a.Members {
			s, err := geomlib.Share(m.Provider)
			switch {
			case err == nil:
				providers[slices.Index(providers, m.Provider)] = s
			case !errors.Is(err, geomlib.ErrNotShared):
				return failf("Can't have %s as what other hosts reach, too: %w", a.Name, err)
			}
		}
	}
	return nil
}

// keep takes the lease of a, if it is of those that other hosts can reach.
func (l *leases) keep(ctx context.Context, a *virstor.Assembly, o otherHosts, write bool) error {
	owner, leased, err := a.Leased(0)
	needs := a.NeedsLease()
	switch {
	case errors.Is(err, virstor.ErrNoLease), errors.Is(err, virstor.ErrLeaseHidden) && (!needs || o.takeOver):
		return nil
	case errors.Is(err, virstor.ErrLeaseHidden):
		return fmt.Errorf("%w: name all components, or, if no other host serves it for certain, --takeover", err)
	case err != nil:
		return err
	case !leased && (!needs || !write):
		return nil
	}
	lock, err := geomlib.LockVolume(o.runDir, a.ID)
	if err != nil {
		return err
	}
	l.locks, l.locked = append(l.locks, lock), append(l.locked, a.ID)
	if last := lock.LastLease(); leased && last != 0 {
		if owner, leased, err = a.Leased(last); err != nil {
			return err
		}
	}
	switch {
	case leased && !o.takeOver:
		return fmt.Errorf("%w: %v: stop the volume there first, or, if that host is dead for certain, --takeover", virstor.ErrLeased, owner)
	case !needs || !write:
		return nil
	}
	t, err := takeLease(ctx, a, lock, o.takeOver, func(owner virstor.LeaseOwner) error {
		return fmt.Errorf("%w: %v", virstor.ErrLeased, owner)
	})
	if err == nil {
		l.taken[a.ID] = t
	}
	return err
}

// takeLease takes the lease of a, whose local lock is held, for as long as a verb lasts.
// One that another host has is refused with what refused says of it.
func takeLease(ctx context.Context, a *virstor.Assembly, lock io.Closer, takeOver bool, refused func(virstor.LeaseOwner) error) (*virstor.Lease, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	cfg := virstor.LeaseConfig{Host: geomlib.HostID(), HostName: host, TakeOver: takeOver,
		Waits: func(owner virstor.LeaseOwner, _ time.Time) { cancel(refused(owner)) }}
	if m, ok := lock.(geomlib.LeaseMemory); ok {
		cfg.Last, cfg.Note = m.LastLease(), m.NoteLease
	}
	l, err := a.Take(ctx, cfg)
	if err != nil {
		if why := context.Cause(ctx); why != nil {
			err = why
		}
		return nil, err
	}
	return l, nil
}
