package options

import (
	"cmp"
	"fmt"
	"os"
	"time"

	"github.com/spf13/pflag"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/ownfile"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/space"
	"github.com/gvirstor/gvirstor/ondisk"
)

// leaseOptions say how leases are taken.
type leaseOptions struct {
	// Shared: other hosts reach the components, too, that are devices.
	Shared bool
	// TakeOver are the names of volumes whose other host is dead.
	TakeOver []string
	// LeaseInterval and LeaseSettle are virstor.LeaseConfig's.
	LeaseInterval, LeaseSettle time.Duration

	fenceCommand string
	fenceTimeout time.Duration
}

// declareLease makes the flags of leaseOptions.
func (o *leaseOptions) declareLease(f *pflag.FlagSet) {
	f.BoolVar(&o.Shared, "shared", false, "other hosts reach the devices, too: take leases, and read and write past every cache")
	f.StringArrayVar(&o.TakeOver, "takeover", nil, "the other host that has the lease of the volume `NAME` is dead: do not wait for it (repeatable)")
	f.DurationVar(&o.LeaseInterval, "lease-interval", virstor.DefaultLeaseInterval, "renew the lease of a volume on components that other hosts reach every `TIME`")
	f.DurationVar(&o.LeaseSettle, "lease-settle", virstor.DefaultLeaseSettle, "what is sent to such a component is done or given up within `TIME` (not less than --nbd-component-timeout)")
	f.StringVar(&o.fenceCommand, "fence-command", "", "before another host's lease is taken, run `COMMAND` with sh(1), which keeps that host from the components")
	f.DurationVar(&o.fenceTimeout, "fence-timeout", 5*time.Minute, "kill that command, and do not take the lease, after `TIME`")
}

// boundLease is bound of leaseOptions.
func (o *leaseOptions) boundLease(f *pflag.FlagSet) {
	whole := func(d time.Duration) bool { return d%time.Millisecond == 0 }
	bound(f, "lease-interval", &o.LeaseInterval, func(d time.Duration) bool {
		return whole(d) && 100*time.Millisecond <= d && d <= ondisk.MaxLeaseInterval
	}, "100ms to 1h, in whole milliseconds")
	bound(f, "lease-settle", &o.LeaseSettle, func(d time.Duration) bool { return whole(d) && 0 < d && d <= ondisk.MaxLeaseSettle },
		"1ms to 24h, in whole milliseconds")
	bound(f, "fence-timeout", &o.fenceTimeout, func(d time.Duration) bool { return d > 0 }, "must be more than nothing")
}

// validateLease refuses a settling time that is less than what components are given.
func (o *Options) validateLease() error {
	if err := ownfile.CheckCommand(o.fenceCommand); err != nil {
		return fmt.Errorf("--fence-command: %w", err)
	}
	switch {
	case o.LeaseSettle >= o.NBDComponentTimeout:
	case o.flags.Changed("lease-settle"):
		return fmt.Errorf("--lease-settle %v: must not be less than --nbd-component-timeout, %v: for so long what was sent may be on its way", o.LeaseSettle, o.NBDComponentTimeout)
	default:
		o.LeaseSettle = o.NBDComponentTimeout
	}
	return nil
}

// Fencer runs the command of --fence-command, which may take so long; nil without.
func (o *Options) Fencer() (run space.Runner, timeout time.Duration) {
	if o.fenceCommand == "" {
		return nil, 0
	}
	return space.Shell{Command: o.fenceCommand}, o.fenceTimeout
}

// HostName is this host's name, for people on other ones.
func HostName() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return cmp.Or(name, "unknown")
}

// HostID is the random number of this installation of the system, zeros where there is
// none.
func HostID() [16]byte { return geomlib.HostID() }
