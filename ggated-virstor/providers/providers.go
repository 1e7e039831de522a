// Package providers is the list of what volumes can be made of besides files and
// devices: the schemes that the daemon, its supervisor and gvirstor(8) know. They open
// whatever a user names with it.
package providers

import (
	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdcomp"
)

// Registry is that list, for a process that opens all by itself. A further kind of
// provider is a line in each of the three.
func Registry() geomlib.Registry { return of(nbdcomp.Opener{}) }

// Kept is the list for a supervisor, which opens for its worker.
func Kept() geomlib.Registry { return of(nbdcomp.Keeper{}) }

// Given is the list for a worker that by connects for.
func Given(by geomlib.Connector) geomlib.Registry { return of(nbdcomp.Opener{By: by}) }

// of has one Opener for all the schemes of NBD.
func of(nbd geomlib.Opener) geomlib.Registry {
	r := make(geomlib.Registry)
	for _, scheme := range nbdclient.Schemes() {
		r[scheme] = nbd
	}
	return r
}
