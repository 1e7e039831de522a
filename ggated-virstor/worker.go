package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"syscall"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/geomlib/history"
	"github.com/gvirstor/gvirstor/ggated-virstor/confine"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/daemon"
	"github.com/gvirstor/gvirstor/ggated-virstor/gatepub"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd"
	"github.com/gvirstor/gvirstor/ggated-virstor/options"
	"github.com/gvirstor/gvirstor/ggated-virstor/providers"
	"github.com/gvirstor/gvirstor/ggated-virstor/space"
	"github.com/gvirstor/gvirstor/ggated-virstor/supervisor"
	"github.com/gvirstor/gvirstor/ggated-virstor/web"
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
	rings := workerRings(o, c.Until(), log)
	defer closeRings(rings, log)
	c.OpenBy(func(by geomlib.Connector) geomlib.Registry {
		return providers.Given(by, providerOptions(o, rings, log))
	})
	h, err := newWorker(o, log, c)
	if err != nil {
		return err
	}
	if h.gate != nil {
		defer h.gate.Gate.Close()
	}
	id, err := workerIdentity(o)
	if err != nil {
		return err
	}
	if err := confineWorker(id, rings != nil, o.Capsicum, log); err != nil {
		return err
	}
	go h.awaitEnd()
	return serve(o, log, h)
}

// workerRings are newRings for a worker, whose supervisor has to know when all that they
// began is done: one that is older than this program does not.
func workerRings(o *options.Options, until *os.File, log *slog.Logger) *geomlib.Rings {
	if until == nil {
		return nil
	}
	return newRings(o, until, log)
}

// worker is the host of a process that a supervisor has started, and asks that.
type worker struct {
	o         *options.Options
	log       *slog.Logger
	client    *supervisor.Client
	begin     supervisor.Start
	listening listeners
	gate      *gatepub.Publisher // or nil

	ended chan struct{}
	how   supervisor.Ending // set before ended is closed
}

// newWorker takes over what the supervisor passes on, and opens what needs root.
func newWorker(o *options.Options, log *slog.Logger, c *supervisor.Client) (*worker, error) {
	begin, passed, err := c.Hello(context.Background())
	if err != nil {
		return nil, err
	}
	h := &worker{o: o, log: log, client: c, begin: begin, listening: listeners{control: passed.Control}, ended: make(chan struct{})}
	if h.listening.nbd, err = passed.Publish.TakeListeners(control.NBD); err != nil {
		return nil, err
	}
	for _, device := range passed.Publish.Take(control.Gate) { // one, or none
		if h.gate, err = workerGate(o, log, c, device); err != nil {
			return nil, err
		}
	}
	if err := passed.Publish.Close(); err != nil { // what is of no use here
		return nil, err
	}
	if h.listening.certs, err = h.Certificates(); err != nil {
		return nil, err
	}
	// Root may be needed for the port, but not later.
	h.listening.http, err = listenHTTP(o)
	return h, err
}

// workerGate publishes devices with the descriptor of the control device, and with the
// supervisor's units.
func workerGate(o *options.Options, log *slog.Logger, c *supervisor.Client, device *os.File) (*gatepub.Publisher, error) {
	g, err := gate.FromFile(device)
	if err != nil {
		return nil, err
	}
	p := &gatepub.Publisher{Gate: g, Units: c, Name: o.GateName, Unit: o.Unit, Log: log, Serving: moreProcs(runtime.GOMAXPROCS(0), o.Receivers)}
	p.Serve.Receivers, p.Serve.MayBlock = o.Receivers, o.Receivers > 1
	if err := supervisor.SystemProtector().LockMemory(); err != nil {
		log.Warn("memory is not locked: under memory pressure the device may stand still", "error", err)
	}
	return p, nil
}

// awaitEnd waits until the supervisor says how to end, or dies.
func (h *worker) awaitEnd() {
	h.how = <-h.client.Stop()
	close(h.ended)
}

// End ends d as the supervisor said, and if it said nothing so that the next worker goes
// on.
func (h *worker) End(d *daemon.Daemon) error {
	select {
	case <-h.ended:
		if h.how == supervisor.Finish {
			return d.Close()
		}
	default:
	}
	return d.Leave()
}

// Clients are those that the worker before left.
func (h *worker) Clients() []nbd.Handed {
	all, err := h.client.TakeClients(context.Background(), h.begin)
	if err != nil {
		h.log.Warn("NBD clients of the worker before are disconnected", "error", err)
	}
	var clients []nbd.Handed
	for _, c := range all {
		handed := nbd.Handed{Socket: c.Socket}
		if err := json.Unmarshal(c.Session, &handed.Session); err != nil {
			h.log.Warn("NBD clients of the worker before are disconnected", "error", errors.Join(err, c.Socket.Close()))
			continue
		}
		clients = append(clients, handed)
	}
	return clients
}

// LeaveClients leaves clients to the next worker through the supervisor, if that lives and
// has said so.
func (h *worker) LeaveClients() func(context.Context, []nbd.Handed) {
	select {
	case <-h.ended:
	default:
		return nil
	}
	if h.how != supervisor.Leave || !h.client.Alive() {
		return nil
	}
	return func(ctx context.Context, clients []nbd.Handed) {
		var all []supervisor.Connection
		for _, c := range clients {
			session, err := json.Marshal(c.Session)
			if err != nil {
				h.log.Warn("NBD clients are not handed on", "error", errors.Join(err, c.Socket.Close()))
				continue
			}
			all = append(all, supervisor.Connection{Socket: c.Socket, Session: session})
		}
		if err := h.client.LeaveClients(ctx, all); err != nil {
			h.log.Warn("NBD clients are not handed on", "error", err)
		}
	}
}

func (h *worker) Listeners() listeners                  { return h.listening }
func (h *worker) Gate() *gatepub.Publisher              { return h.gate }
func (h *worker) Opener() daemon.Opener                 { return h.client }
func (h *worker) Figures() func() ([]web.Figure, error) { return h.client.Process }
func (h *worker) Ready() error                          { return h.client.Ready(context.Background()) }
func (h *worker) LastRoom() <-chan struct{}             { return h.client.LastRoom() }
func (h *worker) Ended() <-chan struct{}                { return h.ended }

// Providers are needed by the first worker; a later one serves what there is.
func (h *worker) Providers() (names []string, needed bool) {
	// Spares that could not be opened are not among what the supervisor holds.
	return slices.Concat(h.begin.Providers, h.o.SpareProviders()), !h.begin.Again
}

func (h *worker) Archive() daemon.Archive {
	if h.o.Archive() == nil {
		return nil
	}
	return &supervisor.Archive{Client: h.client}
}

func (h *worker) Memory() daemon.Memory {
	if h.o.Memory() == nil {
		return nil
	}
	return supervisor.Memory{Client: h.client}
}

// Note implements host: the supervisor, which administrators reach, does it.
func (h *worker) Note() func(history.Deed) { return nil }

// Reloading implements settings: the supervisor reads the configuration, and tells of it.
func (h *worker) Reloading() {}

// Reloaded implements settings.
func (h *worker) Reloaded() {}

func (h *worker) World() (options.World, error) {
	conf, err := h.client.Configuration(context.Background())
	return options.Told{Found: conf.Found, Text: conf.Text, Names: conf.Names, Own: options.Defaults(conf.Own)}, err
}

func (h *worker) Certificates() (*tls.Config, error) {
	pem, err := h.client.Certificates(context.Background())
	if err != nil || len(pem.Chain) == 0 {
		return nil, err
	}
	return nbd.Certificates(pem).Config()
}

func (h *worker) Runner(o *options.Options) space.Runner {
	if o.Runner() == nil {
		return nil
	}
	return h.client
}

func (h *worker) Fencer(o *options.Options) daemon.Fencer {
	if fencerOf(o) == nil {
		return nil
	}
	return h.client
}

func (h *worker) Grower(o *options.Options) space.Grower {
	g := o.Grower(o.Gate)
	if g == nil {
		return nil
	}
	return supervisor.Growth{Client: h.client, May: g.Has}
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
// the worker does, with rings or without, and in capability mode if that is wanted. A system
// that cannot keep it from more is told of, and served on.
func confineWorker(id *identity, rings, capsicum bool, log *slog.Logger) error {
	if err := confine.OS().Capabilities(); err != nil {
		log.Warn("the worker may do more than it needs", "error", err)
	}
	if err := become(id); err != nil {
		return err
	}
	if err := confine.OS().Calls(rings); err != nil && !errors.Is(err, confine.ErrUnsupported) {
		log.Warn("the worker may do more than it needs", "error", err)
	}
	if !capsicum {
		return nil
	}
	if err := confine.OS().CapabilityMode(); err != nil {
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
