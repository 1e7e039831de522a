package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"

	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/ggated-virstor/confine"
	"github.com/gvirstor/gvirstor/ggated-virstor/daemon"
	"github.com/gvirstor/gvirstor/ggated-virstor/gatepub"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd"
	"github.com/gvirstor/gvirstor/ggated-virstor/options"
	"github.com/gvirstor/gvirstor/ggated-virstor/space"
	"github.com/gvirstor/gvirstor/ggated-virstor/supervisor"
)

// work serves with what the supervisor passes on, until it says otherwise or
// dies.
func work(o *options.Options) error {
	// The supervisor decides when to end, also when a terminal or rc(8) signals
	// both.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	c, err := supervisor.Connect()
	if err != nil {
		return err
	}
	defer c.Close()
	log := newWorkerLogger(o, c).With("worker", os.Getpid())
	ctx := context.Background()
	begin, ls, err := c.Hello(ctx)
	if err != nil {
		return err
	}
	svc := service{
		control: ls.Control, nbd: ls.NBD, opener: c, mustServe: !begin.Again,
		// Spares that could not be opened are not among what the supervisor holds.
		providers: slices.Concat(begin.Providers, o.SpareProviders()),
		ready:     func() error { return c.Ready(ctx) },
	}
	svc.runner = func(o *options.Options) space.Runner {
		if o.Runner() == nil {
			return nil
		}
		return c
	}
	svc.grower = func(g *space.FileGrower) space.Grower { return supervisor.Growth{Client: c, May: g.Has} }
	if o.Archive() != nil {
		svc.archive = &supervisor.Archive{Client: c}
	}
	if o.Memory() != nil {
		svc.memory = supervisor.Memory{Client: c}
	}
	if begin.Gate {
		g, err := gate.FromFile(ls.Gate)
		if err != nil {
			return err
		}
		defer g.Close()
		svc.gate = &gatepub.Publisher{
			Gate: g, Units: c, Name: o.GateName, Unit: o.Unit, Log: log,
			Serving: moreProcs(runtime.GOMAXPROCS(0), o.Receivers),
		}
		svc.gate.Serve.Receivers, svc.gate.Serve.MayBlock = o.Receivers, o.Receivers > 1
		if err := supervisor.SystemProtector().LockMemory(); err != nil {
			log.Warn("memory is not locked: under memory pressure the device may stand still", "error", err)
		}
	}
	svc.readTLS = func() (*tls.Config, error) {
		pem, err := c.Certificates(ctx)
		if err != nil || len(pem.Chain) == 0 {
			return nil, err
		}
		return nbd.Certificates(pem).Config()
	}
	svc.process = c.Process
	svc.look = func() (options.World, error) {
		conf, err := c.Configuration(ctx)
		return options.Told(options.Seen(conf)), err
	}
	if svc.certs, err = svc.readTLS(); err != nil {
		return err
	}
	// Root may be needed for the port, but not later.
	if svc.http, err = listenHTTP(o); err != nil {
		return err
	}
	id, err := workerIdentity(o)
	if err != nil {
		return err
	}
	if err := confineWorker(id, log); err != nil {
		return err
	}
	var how atomic.Value
	how.Store(supervisor.Leave)
	stop := make(chan struct{})
	go func() {
		how.Store(<-c.Stop())
		close(stop)
	}()
	svc.stop = stop
	svc.end = func(d *daemon.Daemon) error {
		if how.Load() == supervisor.Finish {
			return d.Close()
		}
		return d.Leave()
	}
	return serve(o, log, svc)
}

// moreProcs gives the program Ps for the threads of devices. Each device has one
// asleep in the kernel, which wants to go on at once when it wakes, and the
// other receivers may wait for a disk.
func moreProcs(base, receivers int) func(devices int) {
	return func(devices int) {
		n := base
		if devices > 0 {
			n += devices + receivers - 1
		}
		runtime.GOMAXPROCS(n)
	}
}

// confineWorker gives up what root, this user and this process may do but for what
// the worker does. A system that cannot keep it from more is told of, and served on.
func confineWorker(id *identity, log *slog.Logger) error {
	if err := confine.OS().Capabilities(); err != nil {
		log.Warn("the worker may do more than it needs", "error", err)
	}
	if err := become(id); err != nil {
		return err
	}
	if err := confine.OS().Calls(); err != nil && !errors.Is(err, confine.ErrUnsupported) {
		log.Warn("the worker may do more than it needs", "error", err)
	}
	return nil
}

// become makes this process another user's for good. All that root is needed for is
// open, or the supervisor does it.
func become(id *identity) error {
	if id == nil {
		return nil
	}
	for _, drop := range []func() error{
		func() error { return syscall.Setgroups([]int{id.gid}) },
		func() error { return syscall.Setgid(id.gid) },
		func() error { return syscall.Setuid(id.uid) },
	} {
		if err := drop(); err != nil {
			return fmt.Errorf("become %s: %w", id.name, err)
		}
	}
	return nil
}
