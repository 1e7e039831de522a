package supervisor

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/geomlib/virstor/backup"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/gatepub/units"
	"github.com/gvirstor/gvirstor/ggated-virstor/space"
)

func denied(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, fs.ErrPermission) {
		t.Errorf("%s: %v", what, err)
	}
}

func TestAWorkerIsGivenNothingThatNobodyNamed(t *testing.T) {
	p := newPair(t)
	secret, own := file(t, "secret"), file(t, "own")
	p.configure(own)
	_, err := p.c.Open(own, false, 0)
	must(t, err)
	dir := filepath.Dir(own)
	must(t, os.Symlink(secret, filepath.Join(dir, "link")))
	for _, name := range []string{secret, "/dev/" + secret, secret + "/", dir + "/../" + filepath.Base(filepath.Dir(secret)) + "/secret",
		filepath.Join(dir, "link"), own + "\x00", "", "/", "/dev/null", "/etc/shadow", "no such file", "../../" + secret} {
		for _, readOnly := range []bool{false, true} {
			_, err := p.c.Open(name, readOnly, 0)
			denied(t, "open "+name, err)
		}
		_, err := p.c.Peek(name, 0)
		denied(t, "peek at "+name, err)
	}
}

// TestAWorkerIsConnectedToNothingThatNobodyNamed: and not to a file, which is named.
func TestAWorkerIsConnectedToNothingThatNobodyNamed(t *testing.T) {
	p := newPair(t)
	own := file(t, "own")
	p.configure(own)
	for _, name := range []string{file(t, "secret"), "nbd://localhost/x", "nbd+unix:///x?socket=/var/run/secret", ""} {
		_, _, err := connector{p.c}.Connect(t.Context(), name)
		denied(t, "connect to "+name, err)
	}
	if _, _, err := (connector{p.c}).Connect(t.Context(), own); !errors.Is(err, geomlib.ErrNotSupported) {
		t.Errorf("connect to a file: %v", err)
	}
}

func TestAWorkersOwnWordsNameNothing(t *testing.T) {
	p := newPair(t)
	secret := file(t, "secret")
	p.lock(t, 1)
	ctx := t.Context()
	denied(t, "note", p.c.RecordProviders(1, []string{secret}))
	_, err := p.c.Acquire(ctx, units.Spec{Key: units.Key{ID: 1}, Unit: gate.UnitAuto, MediaSize: 1 << 20, SectorSize: 512, Providers: []string{secret}})
	denied(t, "acquire", err)
	u, err := p.c.Acquire(ctx, units.Spec{Key: units.Key{ID: 1}, Unit: gate.UnitAuto, MediaSize: 1 << 20, SectorSize: 512})
	must(t, err)
	denied(t, "note beside a unit", p.c.RecordProviders(1, []string{secret}))
	_, err = p.c.Open(secret, false, 0)
	denied(t, "open", err)
	must(t, p.c.Release(units.Key{ID: 1}, u.Number, false))
}

func TestWhatARequestNamesIsOpenedWhileItLasts(t *testing.T) {
	p := newPair(t)
	for _, c := range []struct{ path, body, name string }{
		{"/v1/volumes/vol/add", `{"providers":["NAME"]}`, file(t, "added")},
		{"/v1/volumes/virstor%2Fvol/spare", `{"providers":["NAME"]}`, file(t, "spare")},
		{"/v1/serve", `{"providers":["NAME"]}`, file(t, "served")},
		{"/v1/volumes/vol/jobs", `{"kind":"replace","args":{"providers":["x"],"target":"NAME"}}`, file(t, "target")},
	} {
		_, err := p.c.Open(c.name, false, 0)
		denied(t, "before "+c.path, err)
		a := control.AccessOf(http.MethodPost, c.path, []byte(strings.Replace(c.body, "NAME", c.name, 1)))
		end := p.s.names.grant(a)
		prov, err := p.c.Open(c.name, false, 0)
		must(t, err)
		must(t, prov.Close())
		end()
		for g := range p.s.names.requests {
			p.s.names.forget(g) // the time for it has passed
		}
		_, err = p.c.Open(c.name, false, 0)
		if kept := strings.HasSuffix(c.path, "spare"); kept != (err == nil) {
			t.Errorf("after %s: %v", c.path, err)
		}
	}
}

func TestASpareIsForgottenWhenItIsTakenAway(t *testing.T) {
	for _, c := range []struct{ path, body string }{
		{"/v1/volumes/vol/spare", `{"providers":["NAME"],"remove":true}`},
		{"/v1/volumes/vol/remove", `{"providers":["NAME"]}`},
		{"/v1/release", `{"providers":["NAME"]}`},
	} {
		p := newPair(t)
		path := file(t, "spare")
		p.s.names.keep([]string{path})
		prov, err := p.c.Open(path, false, 0)
		must(t, err)
		must(t, prov.Close())
		p.s.names.grant(control.AccessOf(http.MethodPost, c.path, []byte(strings.Replace(c.body, "NAME", path, 1))))()
		_, err = p.c.Open(path, false, 0)
		denied(t, c.path, err)
	}
}

func TestOtherRequestsOpenNothing(t *testing.T) {
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/v1/serve", `{"providers":["x"]}`},
		{"POST", "/v2/serve", `{"providers":["x"]}`},
		{"POST", "//v1/serve", `{"providers":["x"]}`},
		{"POST", "/v1/volumes/vol/add/more", `{"providers":["x"]}`},
		{"POST", "/v1/volumes/vol/add", `{"providers":["x"]} {"providers":["y"]}`},
		{"POST", "/v1/volumes/vol/add", `{"providers":[""]}`},
		{"POST", "/v1/volumes/vol/add", `{"providers":["nbd://user@host/x"]}`},
		{"POST", "/v1/volumes/vol/remove", `{"providers":["x"]}`},
		{"POST", "/v1/volumes/vol/spare", `{"providers":["x"],"remove":true}`},
		{"POST", "/v1/volumes/vol/jobs", `{"kind":"evacuate","args":{"providers":["x"],"target":"y"}}`},
		{"POST", "/v1/volumes/vol/stop", `{}`},
	} {
		if a := control.AccessOf(c.method, c.path, []byte(c.body)); len(a.Open)+len(a.Keep) > 0 {
			t.Errorf("%s %s %s: %+v", c.method, c.path, c.body, a)
		}
	}
}

func TestReadOnlyIsReadOnlyForTheWorkerToo(t *testing.T) {
	p := newPair(t)
	path := file(t, "a")
	p.configure(path)
	p.s.opt.ReadOnly = true
	if _, err := p.c.Open(path, false, 0); err != nil {
		return // the descriptor is not for writing, which the client finds
	}
	if h := p.s.store.providers[path]; !h.opts.ReadOnly {
		t.Error("it is open for writing")
	}
}

func TestAWorkerTouchesNoUnitsButItsVolumes(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	other, err := p.g.Create(gate.CreateOptions{Unit: 5, MediaSize: 1 << 20, SectorSize: 512, Info: "somebody's"})
	must(t, err)
	spec := units.Spec{Key: units.Key{ID: 1}, Unit: gate.UnitAuto, MediaSize: 1 << 20, SectorSize: 512}
	_, err = p.c.Acquire(ctx, spec)
	denied(t, "acquire for a volume that is not locked", err)
	p.lock(t, 1)
	u, err := p.c.Acquire(ctx, spec)
	must(t, err)
	denied(t, "release of another volume", p.c.Release(units.Key{ID: 2}, other, true))
	must(t, p.c.Release(units.Key{ID: 1}, other, true)) // nothing of ours: nothing is done
	if err := p.c.Resize(other, 2<<20); !errors.Is(err, gate.ErrGone) {
		t.Errorf("resize of somebody's unit: %v", err)
	}
	must(t, p.g.Cancel(other, 0))    // it is there still
	must(t, p.g.Cancel(u.Number, 0)) // and so is ours
	must(t, p.c.Release(units.Key{ID: 1}, u.Number, true))
	for _, bad := range []units.Spec{
		{Key: units.Key{ID: 1}, Name: "ada0", Unit: gate.UnitAuto},
		{Key: units.Key{ID: 1}, Name: "virstor/../ada0", Unit: gate.UnitAuto},
		{Key: units.Key{ID: 1}, Name: "virstor/..", Unit: gate.UnitAuto},
		{Key: units.Key{ID: 1}, Name: "virstor/", Unit: gate.UnitAuto},
		{Key: units.Key{ID: 1}, Unit: 7},
		{Key: units.Key{ID: 1, Map: 2}, Name: "ada0", Unit: gate.UnitAuto},
		{Key: units.Key{ID: 1, Map: 2}, Name: "virstor/vol/web", Unit: gate.UnitAuto},
		{Key: units.Key{ID: 1, Map: 2}, Unit: 7},
		{Key: units.Key{ID: 1, Map: 2}, Name: "disk", Unit: gate.UnitAuto},
		{Key: units.Key{ID: 1, Map: 2}, Name: "disk+a/b", Unit: gate.UnitAuto},
		{Key: units.Key{ID: 1, Map: 2}, Name: "diskweb", Unit: gate.UnitAuto},
	} {
		p.s.opt.GateName = ""
		if strings.HasPrefix(bad.Name, "virstor/") {
			p.s.opt.GateName = "virstor/"
		}
		if strings.HasPrefix(bad.Name, "disk") {
			p.s.opt.GateName = "disk"
		}
		bad.MediaSize, bad.SectorSize = 1<<20, 512
		_, err := p.c.Acquire(ctx, bad)
		denied(t, "acquire "+bad.Name, err)
	}
}

func TestAWorkerGetsTheUnitsOfAPoolOfItsOwn(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	_, err := p.c.UnitsOf(1)
	denied(t, "units of a volume that is not locked", err)
	p.lock(t, 1)
	want := map[uint64]string{0: "disk", 2: "disk+web", 3: "disk+web@s", 4: "disk@s"}
	p.s.opt.GateName = "disk"
	for id, name := range want {
		_, err := p.c.Acquire(ctx, units.Spec{Key: units.Key{ID: 1, Map: id}, Name: name, Unit: gate.UnitAuto, MediaSize: 1 << 20, SectorSize: 512})
		must(t, err)
	}
	us, err := p.c.UnitsOf(1)
	must(t, err)
	for id, name := range want {
		if us[id].Name != name || !us[id].Taken {
			t.Errorf("%d is %+v", id, us[id])
		}
		must(t, p.c.Release(units.Key{ID: 1, Map: id}, us[id].Number, false))
	}
	if us, err = p.c.UnitsOf(1); err != nil || len(us) > 0 {
		t.Errorf("%v, %v", us, err)
	}
}

// noRunner would run a command.
type noRunner struct{ t *testing.T }

func (r noRunner) Run(context.Context, []string, []byte) ([]byte, error) {
	r.t.Error("the command ran")
	return nil, nil
}

func TestAnAlertsVariablesAreItsFactsAlone(t *testing.T) {
	p := newPair(t)
	p.s.opt.Alert = noRunner{t}
	for _, v := range []string{"GVIRSTOR_CONTROL=/tmp/other", "PATH=/tmp", "LD_PRELOAD=x", "GVIRSTOR_TEXT", "", "=", "GVIRSTOR_TEXT =",
		"GVIRSTOR_TEXT=" + strings.Repeat("x", maxAlertValue+1), "GVIRSTOR_NEW=x"} {
		if v == "GVIRSTOR_TEXT" {
			continue // a fact without a value is harmless
		}
		if _, err := p.c.Run(t.Context(), []string{v}, nil); err == nil {
			t.Errorf("%.40q is taken", v)
		}
	}
	if err := checkAlert(space.Environment(space.Alert{Volume: "vol"})); err != nil {
		t.Error(err)
	}
}

func TestBackupsOfVolumesThatAreNotServedAreNotKept(t *testing.T) {
	p := newPair(t)
	dir := filepath.Join(t.TempDir(), "backups")
	p.s.opt.Archive = &backup.Dir{Path: dir, Count: 1}
	a := &Archive{Client: p.c}
	b := someBackup(t)
	_, err := a.Keep(b)
	denied(t, "keep", err)
	p.lock(t, b.ID())
	_, err = a.Keep(b)
	must(t, err)
}
