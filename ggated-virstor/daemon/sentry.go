package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/alert"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
)

// AlertOptions say when alerts are told, and to whom beside the log, the
// metrics and those who watch events.
type AlertOptions struct {
	Levels  alert.Config
	Command alert.Runner  // nil: none
	Timeout time.Duration // of the command; 0: alert.HookTimeout
}

// sentry watches the space of one volume, on a goroutine of its own: the
// engine's events only wake it.
type sentry struct {
	d    *Daemon
	s    *served
	wake chan struct{}
	task *publish.Task

	full atomic.Bool // a write found no chunk since the last look

	monitor *alert.Monitor               // the goroutine's
	levels  atomic.Pointer[alert.Config] // that the monitor is to take on

	mu     sync.Mutex
	hook   *alert.Hook // nil before start
	active []alert.Alert
	secs   float64
	counts map[alert.Level]uint64
}

func newSentry(d *Daemon, s *served) *sentry {
	n := &sentry{d: d, s: s, wake: make(chan struct{}, 1), monitor: alert.NewMonitor(d.alerts().Levels),
		counts: make(map[alert.Level]uint64)}
	n.secs = n.monitor.SecondsToFull()
	return n
}

// post takes an event of the engine. It does not wait.
func (n *sentry) post(e virstor.Event) {
	if e.Kind == virstor.EventFull {
		n.full.Store(true)
	}
	n.look()
}

// look has the goroutine look at the volume soon.
func (n *sentry) look() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// start begins with a first look.
func (n *sentry) start() {
	o := n.d.alerts()
	n.mu.Lock()
	n.hook = alert.StartHook(o.Command, o.Timeout, n.d.log)
	n.mu.Unlock()
	n.look()
	n.task = publish.StartTask(func(ctx context.Context) {
		tick := time.NewTicker(interval(o.Levels)) // the prediction changes though nothing happens
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-n.wake:
			case <-tick.C:
			}
			if c := n.levels.Swap(nil); c != nil {
				n.monitor.SetConfig(*c)
				tick.Reset(interval(*c))
			}
			n.check()
		}
	})
}

// interval is how often a volume is looked at when nothing happens.
func interval(c alert.Config) time.Duration {
	return min(max(c.Window/60, time.Second), time.Minute)
}

// setLevels has the goroutine take on other levels.
func (n *sentry) setLevels(c alert.Config) {
	n.levels.Store(&c)
	n.look()
}

// theHook is nil before start.
func (n *sentry) theHook() *alert.Hook {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.hook
}

// hookGrace is how long commands for what was told last may go on when the
// volume ends.
const hookGrace = 5 * time.Second

func (n *sentry) stop(ctx context.Context) {
	if n.task == nil {
		return
	}
	n.task.Stop(ctx)
	if hook := n.theHook(); hook != nil {
		ctx, cancel := context.WithTimeout(ctx, hookGrace)
		defer cancel()
		hook.Stop(ctx)
	}
}

// check looks at the volume once.
func (n *sentry) check() {
	full := n.full.Swap(false)
	shot := snapshot(n.s.vol.Status())
	shot.Writable = !n.s.vol.ReadOnly() && !n.s.vol.Deferred()
	told := n.monitor.Check(time.Now(), shot, full)
	n.mu.Lock()
	n.active, n.secs = n.monitor.Active(), n.monitor.SecondsToFull()
	n.mu.Unlock()
	for _, a := range told {
		n.tell(a)
	}
	n.s.relief.consider(&shot)
}

// tell sends a through every channel. It does not wait.
func (n *sentry) tell(a alert.Alert) {
	n.mu.Lock()
	if !a.Recovered {
		n.counts[a.Level]++
	}
	n.mu.Unlock()
	n.d.logAlert(a)
	n.d.hub.Publish(eventOf(a))
	if hook := n.theHook(); hook != nil {
		hook.Post(a)
	}
}

func (d *Daemon) logAlert(a alert.Alert) {
	d.log.Log(context.Background(), a.Severity, a.Text, "level", string(a.Level), "recovered", a.Recovered)
}

func eventOf(a alert.Alert) control.Event {
	kind := "alert"
	if a.Recovered {
		kind = "recovery"
	}
	return control.Event{Time: a.Time, Volume: a.Volume, Kind: kind, Text: a.Text}
}

// say tells what is no level's: facts and all.
func (n *sentry) say(level alert.Level, severity slog.Level, component, text string) {
	n.tell(n.make(level, severity, component, text))
}

func (n *sentry) make(level alert.Level, severity slog.Level, component, text string) alert.Alert {
	shot := snapshot(n.s.vol.Status())
	n.mu.Lock()
	secs := n.secs
	n.mu.Unlock()
	a := alert.Facts(time.Now(), &shot, secs)
	a.Level, a.Severity, a.Component, a.Text = level, severity, component, text
	return a
}

// report is what status and metrics tell.
func (n *sentry) report() (active []alert.Alert, secs float64, counts map[alert.Level]uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]alert.Alert(nil), n.active...), n.secs, maps.Clone(n.counts)
}

// test sends an alert through every channel and waits for what becomes of it.
func (n *sentry) test(ctx context.Context) control.AlertTest {
	a := n.make(alert.Test, slog.LevelWarn, "", fmt.Sprintf("GEOM_VIRSTOR[2]: Device %s: this is a test of alerts", n.s.vol.Name()))
	n.mu.Lock()
	n.counts[alert.Test]++
	counted := n.counts[alert.Test]
	n.mu.Unlock()
	n.d.logAlert(a)
	took := n.d.hub.Publish(eventOf(a))
	r := control.AlertTest{Channels: []control.AlertChannel{
		{Name: "log", Result: "written: " + a.Text},
		{Name: "events", Result: fmt.Sprintf("taken by %d who watch", took)},
		{Name: "metrics", Result: fmt.Sprintf("counted: %d tests so far", counted)},
	}}
	command := control.AlertChannel{Name: "command", Result: "none is given (--on-alert)"}
	if hook := n.theHook(); hook != nil && hook.Runs() {
		begin := time.Now()
		if err := hook.Do(ctx, a); err != nil {
			command.Result, command.Failed = err.Error(), true
		} else {
			command.Result = fmt.Sprintf("done in %s", time.Since(begin).Round(time.Millisecond))
		}
	}
	r.Channels = append(r.Channels, command)
	return r
}

// TestAlert implements control.Backend.
func (d *Daemon) TestAlert(ctx context.Context, name string) (control.AlertTest, error) {
	s, err := d.find(name)
	if err != nil {
		return control.AlertTest{}, err
	}
	return s.sentry.test(ctx), nil
}

// snapshot is what the levels are checked against.
func snapshot(st virstor.Status) alert.Snapshot {
	s := alert.Snapshot{Volume: st.Name, ID: st.ID, ChunkSize: st.ChunkSize, Physical: st.PhysicalChunks, Free: st.Free,
		Reserved: st.Reserved, Held: st.Held.Count, Degraded: st.Degraded, Spread: st.Alloc == virstor.Spread}
	for _, c := range st.Components {
		comp := alert.Component{Name: c.Name, Usable: int64(c.Usable), Free: int64(c.Free), Failed: c.FlushFailed}
		var errs []string
		for _, t := range c.Trouble {
			if t == virstor.StorageFull {
				comp.NoRoom = true
				continue
			}
			errs = append(errs, t.String())
		}
		comp.Errors = strings.Join(errs, " and ")
		s.Components = append(s.Components, comp)
	}
	return s
}
