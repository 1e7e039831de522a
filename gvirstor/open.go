package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

// notTwice refuses a provider that is one of held, by whatever name.
func notTwice(name string, held []geomlib.Provider) error {
	p := geomlib.Twin(name, held)
	if p == nil {
		return nil
	}
	if geomlib.Name(name).Same(p.Name()) {
		return fmt.Errorf("%s is named twice", ondisk.Printable(name))
	}
	return fmt.Errorf("%s is %s: %w", ondisk.Printable(name), ondisk.Printable(p.Name()), geomlib.ErrSame)
}

// open opens a provider that is to be changed. One that the daemon holds without
// serving it, since the rest of its volume is missing, it lets go.
func (c *call) open(ctx context.Context, name string, o geomlib.OpenOptions) (geomlib.Provider, error) {
	p, err := c.registry.Open(name, o)
	if !errors.Is(err, geomlib.ErrLocked) {
		return p, err
	}
	client, e := c.reach()
	if e != nil {
		return nil, err
	}
	defer client.Close()
	path, e := forDaemon(name)
	if e != nil {
		return nil, e
	}
	if e := client.Release(ctx, control.ReleaseRequest{Providers: []string{path}}); e != nil {
		return nil, fmt.Errorf("%w (%w)", err, e)
	}
	return c.registry.Open(name, o)
}

// forDaemon is the provider's name as a daemon in another working folder
// understands it: the absolute path of what is found here, else name.
func forDaemon(name string) (string, error) {
	if geomlib.Name(name).Scheme() != "" {
		return name, nil
	}
	if _, err := os.Stat(name); err != nil {
		return name, nil // below /dev, or the daemon tells what is wrong
	}
	path, err := filepath.Abs(name)
	if err != nil {
		return "", failf("Can't tell where %s is: %w", name, err)
	}
	return path, nil
}

func allForDaemon(names []string) ([]string, error) {
	var all []string
	for _, n := range names {
		path, err := forDaemon(n)
		if err != nil {
			return nil, err
		}
		all = append(all, path)
	}
	return all, nil
}

// openToLook opens providers for reading. live reports that somebody else has one
// of them open and may be serving it, or another host has the volume's lease.
func (c *call) openToLook(names []string) (providers []geomlib.Provider, live bool, err error) {
	for _, name := range names {
		p, err := c.registry.Open(name, geomlib.OpenOptions{ReadOnly: true})
		if errors.Is(err, geomlib.ErrLocked) {
			live = true
			p, err = c.registry.Open(name, geomlib.OpenOptions{ReadOnly: true, NoLock: true})
		}
		if err != nil {
			return providers, live, failf("Can't open %s: %s", name, providerText(name, err))
		}
		providers = append(providers, p)
	}
	if err := shareLeased(providers); err != nil {
		return providers, live, err
	}
	return providers, live || leased(providers), nil
}

// leased reports whether a host has the lease of a volume on providers: it may serve it.
func leased(providers []geomlib.Provider) bool {
	for _, p := range providers {
		m, err := geomlib.ReadMetadata(p)
		if err != nil {
			continue // what is wrong with it is told elsewhere
		}
		if l, err := virstor.LeaseOn(p, m); err == nil && l != nil && !l.Released {
			return true
		}
	}
	return false
}

func closeProviders(ps []geomlib.Provider) {
	for _, p := range ps {
		_ = p.Close() // nothing was written through what is not closed elsewhere
	}
}

// openToChange opens and locks providers for writing.
func (c *call) openToChange(ctx context.Context, names []string) ([]geomlib.Provider, error) {
	var ps []geomlib.Provider
	for _, name := range names {
		p, err := c.open(ctx, name, geomlib.OpenOptions{})
		if errors.Is(err, geomlib.ErrLocked) {
			return ps, failf("Can't open %s: %s; %s", name, providerText(name, err), c.busyText(ctx, name, "stop the volume first"))
		}
		if err != nil {
			return ps, failf("Can't open %s: %s", name, providerText(name, err))
		}
		ps = append(ps, p)
	}
	return ps, shareLeased(ps)
}
