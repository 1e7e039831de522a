package supervisor

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/geomlib/gate/gatetest"
	"github.com/gvirstor/gvirstor/ggated-virstor/gatepub/units"
	"github.com/gvirstor/gvirstor/ggated-virstor/supervisor/internal/fdrpc"
)

// FuzzAnswer plays a worker that was taken over: whatever it asks, it is given no
// file but the one that is configured, locks, and the guard.
func FuzzAnswer(f *testing.F) {
	dir := f.TempDir()
	var own, secret string
	for name, path := range map[string]*string{"own": &own, "secret": &secret} {
		*path = filepath.Join(dir, name)
		if err := os.WriteFile(*path, make([]byte, 1<<20), 0o600); err != nil {
			f.Fatal(err)
		}
	}
	for _, seed := range []struct{ method, body string }{
		{methodOpen, `{"name":"own"}`}, {methodPeek, `{"name":"secret"}`}, {methodOpen, `{"name":"own/../secret"}`},
		{methodClose, `{"name":"own"}`}, {methodLock, `{"id":1}`}, {methodUnlock, `{"id":1}`},
		{methodAcquire, `{"id":1,"unit":-1,"media_size":1048576,"sector_size":512,"providers":["secret"]}`},
		{methodRecord, `{"id":1,"providers":["secret"]}`}, {methodRelease, `{"id":1,"unit":{"number":5},"force":true}`},
		{methodResize, `{"unit":{"number":5},"size":512}`}, {methodLeftovers, `{}`}, {methodUnitsOf, `{"id":1}`}, {methodCheck, `{"providers":["x"]}`},
		{methodAlert, `{"env":["GVIRSTOR_CONTROL=x"]}`}, {methodGrow, `{"volume":"../x"}`}, {methodUngrow, `{"volume":"x","provider":"y"}`},
		{methodScratch, `{}`}, {methodKeep, `{}`}, {methodMode, `{}`}, {methodConfirm, `{}`}, {"", `null`}, {methodReady, ``},
	} {
		f.Add(seed.method, []byte(seed.body))
	}
	kernel := gatetest.New(gatetest.Options{})
	f.Cleanup(kernel.Close)
	g := kernel.Open()
	other, err := g.Create(gate.CreateOptions{Unit: 5, MediaSize: 1 << 20, SectorSize: 512, Info: "somebody's"})
	if err != nil {
		f.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	waits := units.Waits{Trust: time.Second, Guess: time.Second, Confirm: time.Second}
	units := units.New(g, geomlib.NewTreeReader(kernel.Confxml), dir, waits, log)
	st, err := os.Stat(secret)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, method string, body []byte) {
		s := &Supervisor{log: log, store: newStore(dir, 0),
			opt: Options{RunDir: dir, Log: log, GateUnit: gate.UnitAuto, Units: units, Alert: noRunner{t}}}
		s.names.remembered = s.remembered
		s.names.configure([]string{own})
		if json.Valid(body) && method == methodAlert {
			var a alertArgs
			if err := json.Unmarshal(body, &a); err == nil && checkAlert(a.Env) == nil {
				return // facts of an alert may have the command run
			}
		}
		w := &worker{}
		if method == methodHello {
			return // needs listeners
		}
		answer := s.methods(w)[method]
		if answer == nil {
			return // there is no such method
		}
		r, err := answer(t.Context(), body)
		for _, got := range append(r.Files, r.Once...) {
			if is, e := got.Stat(); e == nil && os.SameFile(is, st) {
				t.Fatalf("%s %q gave the secret, %v", method, body, err)
			}
		}
		fdrpc.CloseFiles(r.Once)
		if err := s.store.closeAll(); err != nil {
			t.Fatal(err)
		}
		if err := g.Cancel(other, 0); err != nil {
			t.Fatalf("%s %q: somebody's unit: %v", method, body, err)
		}
	})
}
