// Package providers is the list of what volumes can be made of besides files and
// devices: the schemes that the daemon, its supervisor and gvirstor(8) know. They open
// whatever a user names with it.
package providers

import (
	"log/slog"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdcomp"
)

// Options are how providers are opened.
type Options struct {
	// NBDTimeout and NBDGrace are nbdcomp.Opener's Timeout and Grace.
	NBDTimeout, NBDGrace time.Duration
	// Shared: other hosts reach the devices that volumes are on, too (geomlib.Shared).
	Shared bool
	// Direct has files and devices read and written past the system's cache.
	Direct bool
	// Rings read and write these (geomlib.OpenOptions), or nil.
	Rings *geomlib.Rings
	// Log is told of what becomes of them; nil: nobody is.
	Log *slog.Logger
}

func (o Options) nbd() nbdcomp.Opener {
	return nbdcomp.Opener{Timeout: o.NBDTimeout, Grace: o.NBDGrace, Log: o.Log, Memory: nbdcomp.NewMemory(nbdcomp.DefaultMemory)}
}

// Registry is that list, for a process that opens all by itself. A further kind of
// provider is a line in each of the three.
func Registry(o Options) geomlib.Registry { return o.files(of(o.nbd())) }

// Kept is the list for a supervisor, which opens for its worker.
func Kept(o Options) geomlib.Registry {
	r := of(nbdcomp.Keeper{})
	r[""] = geomlib.Files{Direct: o.Direct}
	return r
}

// Given is the list for a worker that by connects for.
func Given(by geomlib.Connector, o Options) geomlib.Registry {
	opener := o.nbd()
	opener.By = by
	return o.files(of(opener))
}

// files adds what has no scheme.
func (o Options) files(r geomlib.Registry) geomlib.Registry {
	r[""] = geomlib.Files{Direct: o.Direct, Rings: o.Rings}
	if o.Shared { // which goes past the cache, too
		r[""] = geomlib.Shared{}
	}
	return r
}

// of has one Opener for all the schemes of NBD.
func of(nbd geomlib.Opener) geomlib.Registry {
	r := make(geomlib.Registry)
	for _, scheme := range nbdclient.Schemes() {
		r[scheme] = nbd
	}
	return r
}
