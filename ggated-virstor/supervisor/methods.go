package supervisor

import (
	"context"
	"encoding/json"
	"fmt"
	"net"

	"github.com/gvirstor/gvirstor/geomlib/state"
	"github.com/gvirstor/gvirstor/ggated-virstor/gatepub/units"
	"github.com/gvirstor/gvirstor/ggated-virstor/supervisor/internal/fdrpc"
)

// peerOf is the supervisor's end of the connection to w.
func (s *Supervisor) peerOf(w *worker, conn *net.UnixConn) *fdrpc.Peer {
	return fdrpc.New(conn, fdrpc.Config{Self: "supervisor", Methods: s.methods(w), Sentinels: sentinels})
}

// methods are what a worker can have done. What they may be asked for is in the files
// that they are in: names, open, units, archive, space, memory.
func (s *Supervisor) methods(w *worker) fdrpc.Methods {
	all := fdrpc.Methods{
		methodHello: plain(s.hello),
		methodReady: plain(func() (fdrpc.Reply, error) { return s.ready(w) }),

		methodOpen: fdrpc.Handle(func(ctx context.Context, a openArgs) (fdrpc.Reply, error) { return s.openNamed(ctx, w.tenure, a) }),
		methodPeek: fdrpc.Handle(func(ctx context.Context, a openArgs) (fdrpc.Reply, error) { return s.peekNamed(ctx, w.tenure, a) }),

		methodConnect: fdrpc.Handle(s.connectNamed),
		methodClose: does(func(_ context.Context, a openAnswer) error {
			if w.keep.Load() {
				return nil
			}
			return s.store.close(w.tenure, a.Name)
		}),
		methodFailed: does(func(_ context.Context, a openAnswer) error { s.store.failed(a.Name); return nil }),
		methodLock: fdrpc.Handle(func(ctx context.Context, a lockArgs) (fdrpc.Reply, error) {
			f, err := s.store.lock(ctx, w.tenure, a.ID)
			return fdrpc.One(nil, f, err)
		}),
		methodUnlock: does(func(_ context.Context, a lockArgs) error {
			if w.keep.Load() {
				return nil
			}
			return s.store.unlock(w.tenure, a.ID)
		}),

		methodFence:  does(s.fence),
		methodAlert:  fdrpc.Handle(s.runAlert),
		methodGrow:   fdrpc.Handle(s.grow),
		methodUngrow: does(s.ungrow),

		methodScratch: plain(func() (fdrpc.Reply, error) { return s.makeScratch(w) }),
		methodKeep:    plain(func() (fdrpc.Reply, error) { return s.keepBackup(w) }),

		methodRecall: s.remembers(fdrpc.Handle(func(_ context.Context, a lockArgs) (fdrpc.Reply, error) { return s.recall(a.ID) })),
		methodServes: s.remembers(does(func(_ context.Context, v state.Volume) error { return s.remember(v) })),
		methodAnew:   s.remembers(does(func(_ context.Context, a lockArgs) error { return s.beginAnew(a.ID) })),

		methodClients: plain(func() (fdrpc.Reply, error) { return s.clients.some(), nil }),

		methodProcess:       plain(func() (fdrpc.Reply, error) { return s.process(w) }),
		methodLog:           does(func(_ context.Context, a logArgs) error { return s.logLine(a) }),
		methodConfiguration: plain(s.configuration),
		methodCertificates:  plain(s.certificates),
	}
	for method, h := range s.unitMethods() {
		all[method] = s.withGate(method, h)
	}
	return all
}

// plain is a handler of questions that say nothing.
func plain(answer func() (fdrpc.Reply, error)) fdrpc.Handler {
	return fdrpc.Bare(func(context.Context) (fdrpc.Reply, error) { return answer() })
}

// does is a handler that answers nothing but that it is done.
func does[A any](do func(ctx context.Context, a A) error) fdrpc.Handler {
	return fdrpc.Handle(func(ctx context.Context, a A) (fdrpc.Reply, error) { return fdrpc.Reply{}, do(ctx, a) })
}

// unitMethods are those that concern devices.
func (s *Supervisor) unitMethods() fdrpc.Methods {
	return fdrpc.Methods{
		methodAcquire:   fdrpc.Handle(func(ctx context.Context, a units.Spec) (fdrpc.Reply, error) { return s.acquire(ctx, a) }),
		methodConfirm:   does(func(ctx context.Context, a unitArgs) error { return s.opt.Units.Confirm(ctx, a.Key, a.Unit) }),
		methodMode:      fdrpc.Handle(s.mode),
		methodResize:    does(func(_ context.Context, a unitArgs) error { return s.resizeUnit(a) }),
		methodRecord:    does(func(_ context.Context, a unitArgs) error { return s.recordProviders(a) }),
		methodRelease:   does(func(_ context.Context, a unitArgs) error { return s.releaseUnit(a) }),
		methodLeftovers: plain(s.leftovers),
		methodUnitsOf:   fdrpc.Handle(func(_ context.Context, a unitArgs) (fdrpc.Reply, error) { return s.unitsOf(a.ID) }),
		methodCheck:     does(func(ctx context.Context, a unitArgs) error { return s.opt.Units.CheckComponents(ctx, a.Providers) }),
	}
}

// withGate is h where there is geom_gate.
func (s *Supervisor) withGate(method string, h fdrpc.Handler) fdrpc.Handler {
	return func(ctx context.Context, body json.RawMessage) (fdrpc.Reply, error) {
		if s.opt.Units == nil {
			return fdrpc.Reply{}, fmt.Errorf("%s: there is no geom_gate here", method)
		}
		return h(ctx, body)
	}
}

// hello is what a worker begins with.
func (s *Supervisor) hello() (fdrpc.Reply, error) {
	s.mu.Lock()
	again := s.served
	s.mu.Unlock()
	st := Start{Providers: append(s.opt.Providers[:len(s.opt.Providers):len(s.opt.Providers)], s.opt.Grown...), Again: again, NBD: len(s.files) - 1, Gate: s.res.Gate != nil, Clients: s.clients.count()}
	if again {
		st.Providers = s.store.names()
	}
	files := append(s.files[1:len(s.files):len(s.files)], s.res.WorkerGuard.f)
	if st.Gate {
		files = append(files, s.res.Gate)
	}
	return fdrpc.Reply{Body: st, Files: files}, nil
}

// ready notes that the worker serves, and closes what it did not ask for.
func (s *Supervisor) ready(w *worker) (fdrpc.Reply, error) {
	w.ready.Store(true)
	s.tellReload(w)
	s.mu.Lock()
	s.served = true
	s.mu.Unlock()
	if s.opt.Ready != nil {
		s.opt.Ready()
	}
	return fdrpc.Reply{}, s.store.tidy(w.tenure)
}
