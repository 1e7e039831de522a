package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/gatepub/helper"
	"github.com/gvirstor/gvirstor/ggated-virstor/gatepub/units"
	"github.com/gvirstor/gvirstor/ggated-virstor/options"
	"github.com/gvirstor/gvirstor/ggated-virstor/providers"
	"github.com/gvirstor/gvirstor/ggated-virstor/supervisor"
)

// supervise keeps a worker alive until ctx ends. SIGUSR2 replaces the worker and
// this program by what is on disk; SIGHUP has the worker read the
// configuration again; SIGUSR1 is for the system's shutdown: it
// unmounts what is on the devices and ends.
//
// It calls serving before it runs workers.
func supervise(ctx context.Context, o *options.Options, log *slog.Logger, serving func()) error {
	if _, err := o.LoadTLS(); err != nil {
		return err // as every worker would find
	}
	if err := checkDescriptors(o, log); err != nil {
		return err
	}
	if err := checkUser(o, log); err != nil {
		return err
	}
	signal.Ignore(syscall.SIGHUP)
	requests := make(chan supervisor.Request, 1)
	stop := relay(requests)
	defer stop()
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	registry := providers.Kept(providerOptions(o, nil, log))
	res, held, err := supervisor.Inherit(o.RunDir, registry)
	if err != nil {
		return err
	}
	if res == nil {
		if res, err = openResources(ctx, o, log); err != nil {
			return err
		}
	} else {
		log.Info("upgraded", "version", version)
	}
	opt := supervisor.Options{Providers: slices.Concat(o.Providers, o.SpareProviders()), Registry: registry, RunDir: o.RunDir, ReadOnly: o.ReadOnly,
		GateName: o.GateName, GateUnit: o.Unit, MaxClients: o.NBDMaxClients, Program: program, Args: os.Args[1:],
		Protect: func(int) error { return nil }, Log: log}
	if res.Gate != nil {
		g, err := gateOf(res.Gate)
		if err != nil {
			return err
		}
		defer g.Close()
		opt.Units = unitsOf(g, o, program, res.Gate, log)
		opt.Protect = supervisor.SystemProtector().FromKill
		if err := errors.Join(supervisor.SystemProtector().LockMemory(), opt.Protect(os.Getpid())); err != nil {
			log.Warn("the supervisor is not protected", "error", err)
		}
	}
	if g := o.Grower(o.Gate); g != nil {
		opt.Grower = g
		opt.Grown = grown(ctx, g, log)
	}
	if o.TLS() {
		opt.Certificates = func() (supervisor.Certificates, error) {
			c, err := o.ReadCertificates()
			return supervisor.Certificates(c), err
		}
	}
	if o.Syslog {
		opt.Line = newSyslogger().write
	}
	if f := fencerOf(o); f != nil {
		opt.Fence = f.Fence
	}
	opt.Note = noter(o, log)
	opt.Alert, opt.Archive, opt.Memory = o.Runner(), o.Archive(), o.Memory()
	told := &announcer{o: o, log: log}
	defer told.end()
	opt.Ready = told.ready
	opt.Reload = func() (supervisor.Reloaded, error) {
		told.reloading()
		defer told.ready()
		return reloaded(o.Gate)
	}
	s, err := supervisor.New(opt, *res, held)
	if err != nil {
		return err
	}
	serving()
	return s.Run(ctx, requests)
}

// gateOf is the geom_gate of a control device. The descriptor is passed on as well, so
// the Gate gets one of its own.
func gateOf(device *os.File) (*gate.Gate, error) {
	fd, err := unix.FcntlInt(device.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate the control device of geom_gate: %w", err)
	}
	return gate.FromFile(os.NewFile(uintptr(fd), device.Name()))
}

// unitsOf makes, finds and ends the units of g. A helper, which is program, waits for
// GEOM.
func unitsOf(g *gate.Gate, o *options.Options, program string, device *os.File, log *slog.Logger) *units.Manager {
	kernel := helper.New(program, device)
	m := units.New(g, geomlib.NewTreeReader(kernel.Tree), o.RunDir, units.DefaultWaits(), log)
	m.ResizeWith(kernel.Resize)
	return m
}

// reloaded is what the configuration says now, to a supervisor.
func reloaded(gate bool) (r supervisor.Reloaded, err error) {
	w := options.NewHere()
	next, err := parseAgain(w, os.Args[1:])
	if err != nil {
		return r, err
	}
	seen := w.Seen()
	r.Configuration = supervisor.Configuration{Found: seen.Found, Text: seen.Text, Names: seen.Names, Own: supervisor.Defaults(seen.Own)}
	r.Providers, r.Alert = slices.Concat(next.Providers, next.SpareProviders()), next.Runner()
	if g := next.Grower(gate); g != nil { // a nil *space.FileGrower is no nil Grower
		r.Grower = g
	}
	return r, nil
}

// relay turns signals into requests, until the returned function is called.
func relay(requests chan<- supervisor.Request) func() {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case s := <-signals:
				r := supervisor.Upgrade
				switch s {
				case syscall.SIGUSR1:
					r = supervisor.Shutdown
				case syscall.SIGHUP:
					r = supervisor.Reload
				}
				select {
				case requests <- r:
				case <-done:
					return
				}
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(done)
	}
}

// openResources opens what the supervisor passes on, in the order in which it
// can fail without having disturbed anybody.
func openResources(ctx context.Context, o *options.Options, log *slog.Logger) (*supervisor.Resources, error) {
	guard, err := supervisor.LockGuard(ctx, o.Control+".supervisor", killTime, log)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", control.ErrRunning, err)
	}
	// The worker of a supervisor that was killed may still be about to leave.
	workerGuard, err := supervisor.LockGuard(ctx, o.Control+".worker", leaveTime, log)
	if err != nil {
		return nil, errors.Join(err, guard.Close())
	}
	res := &supervisor.Resources{Guard: guard, WorkerGuard: workerGuard}
	fail := func(err error) (*supervisor.Resources, error) {
		return nil, errors.Join(err, workerGuard.Close(), guard.Close())
	}
	if o.Gate {
		g, err := gate.Open()
		if err != nil {
			return fail(fmt.Errorf("--gate: %w", err))
		}
		if res.Gate, err = g.File(); err != nil {
			return fail(err)
		}
	}
	given, err := takeGiven(o)
	if err != nil {
		return fail(err)
	}
	res.Control, err = given.listenControl(o)
	if err != nil {
		return fail(errors.Join(err, given.close()))
	}
	if res.NBD, err = listenNBD(ctx, o); err != nil {
		return fail(errors.Join(err, given.close(), res.Control.Close()))
	}
	res.NBD = append(res.NBD, given.nbd...)
	return res, nil
}

// killTime covers the time in which a process ends that was killed.
const killTime = 2 * time.Second

// leaveTime covers the time in which a worker ends whose supervisor died.
const leaveTime = 20 * time.Second
