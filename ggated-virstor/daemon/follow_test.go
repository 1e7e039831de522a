package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
)

// slowFollower is a publication that takes its time to follow, as a device does while GEOM
// is busy.
type slowFollower struct {
	takes               time.Duration
	resized, components atomic.Int32 // events that were followed
}

func (f *slowFollower) Publish(*virstor.Volume) (publish.Published, error) { return f, nil }
func (f *slowFollower) Names() []string                                    { return nil }
func (f *slowFollower) Describe() []control.Publication                    { return nil }
func (f *slowFollower) Users() (int, string)                               { return 0, "" }
func (f *slowFollower) Disconnect()                                        {}
func (f *slowFollower) Withdraw(context.Context) error                     { return nil }
func (f *slowFollower) Leave(context.Context) error                        { return nil }

func (f *slowFollower) Follow(e virstor.Event) error {
	switch e.Kind {
	case virstor.EventResized:
		time.Sleep(f.takes)
		f.resized.Add(1)
	case virstor.EventComponents:
		time.Sleep(f.takes)
		f.components.Add(1)
	}
	return nil
}

// doJob does a job as gvirstor does, and returns when that is told to have ended.
func doJob(t *testing.T, d *Daemon, kind string, args control.JobArgs) {
	t.Helper()
	raw, err := json.Marshal(args)
	must(t, err)
	j, err := d.StartJob(t.Context(), "vol", control.JobRequest{Kind: kind, Args: raw})
	for ; err == nil && j.State == control.JobRunning; j, err = d.Job(t.Context(), "vol") {
		time.Sleep(time.Millisecond)
	}
	if err != nil || j.State != control.JobDone {
		t.Fatalf("%+v, %v", j, err)
	}
}

// Who is told that a verb is done goes on with the device: `gvirstor resize && growfs`, and
// growfs(8) that finds the old size says that there is nothing to do, and ends well.
func TestAVerbIsDoneWhenThePublicationsHaveFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		names := labelFiles(t, 32<<20, 32<<20, 16<<20)
		f := &slowFollower{takes: time.Second}
		d := New(Options{Version: "test"}, Direct{LockDir: t.TempDir()}, []publish.Publisher{f}, slog.New(slog.DiscardHandler))
		if n := d.ServeAll(names); n != 1 {
			t.Fatalf("%+v", d.problems)
		}
		ctx := t.Context()
		for _, verb := range []struct {
			name     string
			followed *atomic.Int32
			do       func()
		}{
			{"resize", &f.resized, func() { doJob(t, d, "resize", control.JobArgs{Size: 96 << 20}) }},
			{"remove", &f.components, func() { must(t, d.Remove(ctx, "vol", control.RemoveRequest{Providers: names[2:]})) }},
			{"add", &f.components, func() { must(t, d.Add(ctx, "vol", control.AddRequest{Providers: names[2:]})) }},
			{"evacuate", &f.components, func() { doJob(t, d, "evacuate", control.JobArgs{Providers: names[2:]}) }},
			{"resize of a further volume", &f.resized, func() {
				_, err := d.Create(ctx, "vol/web", control.CreateRequest{Size: 8 << 20})
				must(t, err)
				_, err = d.Resize(ctx, "vol/web", control.ResizeRequest{Size: 16 << 20})
				must(t, err)
			}},
		} {
			before := verb.followed.Load()
			verb.do()
			if verb.followed.Load() == before {
				t.Errorf("%s is done before its publication has followed", verb.name)
			}
		}
		must(t, d.Close())
	})
}

// A device that does not follow, since GEOM waits for a disk, keeps nobody waiting for ever.
func TestAVerbDoesNotWaitForEverForAPublication(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		names := labelFiles(t, 32<<20)
		var said bytes.Buffer
		d := New(Options{Version: "test"}, Direct{LockDir: t.TempDir()}, []publish.Publisher{&slowFollower{takes: 2 * followGrace}}, slog.New(slog.NewTextHandler(&said, nil)))
		if n := d.ServeAll(names); n != 1 {
			t.Fatalf("%+v", d.problems)
		}
		begun := time.Now()
		doJob(t, d, "resize", control.JobArgs{Size: 96 << 20})
		if took := time.Since(begun); took < followGrace || took > followGrace+time.Second {
			t.Errorf("it took %v", took)
		}
		if !strings.Contains(said.String(), "publications do not follow their volume yet") {
			t.Errorf("nothing is said:\n%s", said.String())
		}
		must(t, d.Close())
	})
}
