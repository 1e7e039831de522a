package daemon

import (
	"fmt"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ondisk"
)

// twin tells when a provider is, by another name, one that the daemon has open: a link to
// a disk, two names of a device, two paths of a file. d.verbs is held.
func (d *Daemon) twin(name string) error {
	tell := func(held []geomlib.Provider, what string) error {
		p := geomlib.Twin(name, held)
		if p == nil || geomlib.Name(name).Same(p.Name()) {
			return nil
		}
		return fmt.Errorf("%s is %s: %w%s", ondisk.Printable(name), ondisk.Printable(p.Name()), geomlib.ErrSame, what)
	}
	for _, s := range d.all() {
		if err := tell(s.vol.Providers(), ", a component of "+s.vol.Name()); err != nil {
			return err
		}
		if err := tell(s.spares.Providers(), ", a spare of "+s.vol.Name()); err != nil {
			return err
		}
	}
	for _, m := range d.loose {
		if err := tell([]geomlib.Provider{m.Provider}, ", which is open already"); err != nil {
			return err
		}
	}
	return nil
}
