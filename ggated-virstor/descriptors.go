package main

import (
	"fmt"
	"log/slog"

	"golang.org/x/sys/unix"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ggated-virstor/options"
)

// ownDescriptors is what the program itself has open, and what its verbs, jobs and
// backups have for a while.
const ownDescriptors = 40

// descriptors are how many this process needs before any client connects.
func descriptors(o *options.Options) uint64 {
	each := 1
	if o.Gate {
		each = 2 // while a device is taken over
	}
	rings := 0
	if wantsRings(o) {
		rings = geomlib.MaxRings
	}
	return ownDescriptors + uint64(rings+each*(len(o.Providers)+len(o.SpareProviders()))+len(o.NBD))
}

// checkDescriptors refuses to begin what the limit on descriptors would end in the
// middle, and tells when it leaves none for clients.
func checkDescriptors(o *options.Options, log *slog.Logger) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the limit on descriptors: %w", err)
	}
	may, need := uint64(limit.Cur), descriptors(o)
	all := need + uint64(o.NBDMaxClients)
	if may < need {
		return fmt.Errorf("too few descriptors for %d providers: `ulimit -n` must be at least %d, and %d with all NBD clients; it is %d",
			len(o.Providers), need, all, may)
	}
	if may < all {
		log.Warn("too few descriptors for all NBD clients", "ulimit -n", may, "needed", all, "--nbd-max-clients", o.NBDMaxClients)
	}
	return nil
}
