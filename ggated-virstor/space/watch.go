package space

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
)

// Host is what is watched, one volume, and what the daemon does for it. Its methods
// are called by goroutines of a Watch and of its Spares, and by whoever calls those;
// none may wait for one of them.
type Host interface {
	Name() string // of the volume
	ID() uint32
	Figures() Figures
	// SpareOptions are those in force. They may change from one call to the next.
	SpareOptions() SpareOptions
	// Open opens a provider for writing, with its exclusive lock. sectorSize is
	// that of a regular file, in bytes; 0 is the volume's.
	Open(name string, sectorSize int) (geomlib.Provider, error)
	// MayAdd refuses a provider that must not become a component.
	MayAdd(ctx context.Context, p geomlib.Provider) error
	// Add makes a provider a component. Then the volume owns it; after an error it
	// is the caller's.
	Add(p geomlib.Provider) error
	// Publish tells those who watch events, and returns how many they are. It does
	// not wait.
	Publish(a Alert) (watching int)
}

// AlertOptions say when alerts are told, and to whom beside the log, the
// metrics and those who watch events.
type AlertOptions struct {
	Levels  Thresholds
	Command Runner        // nil: none
	Timeout time.Duration // of the command; 0: HookTimeout
}

// Watch watches the space of one volume, on a goroutine of its own: the
// engine's events only wake it. Its methods may be called by many goroutines.
type Watch struct {
	host   Host
	log    *slog.Logger
	opt    AlertOptions // at the start
	spares *Spares
	wake   chan struct{}
	task   *publish.Task

	full atomic.Bool // a write found no chunk since the last look

	monitor *Monitor                   // the goroutine's
	levels  atomic.Pointer[Thresholds] // that the monitor is to take on

	mu     sync.Mutex
	hook   *Hook // nil before Start
	active []Alert
	secs   float64
	quotas map[uint64]float64 // not changed any more
	counts map[Level]uint64
}

// New makes a Watch and the Spares of a volume. Of the Host nothing but its options is
// asked before Start.
func New(h Host, o AlertOptions, log *slog.Logger) (*Watch, *Spares) {
	w := &Watch{host: h, log: log, opt: o, wake: make(chan struct{}, 1), monitor: NewMonitor(o.Levels),
		counts: make(map[Level]uint64)}
	w.secs = w.monitor.SecondsToFull()
	w.spares = &Spares{host: h, watch: w, log: log, short: make(chan struct{}, 1)}
	return w, w.spares
}

// Post takes an event of the engine. It does not wait, and may be called before Start.
func (w *Watch) Post(e virstor.Event) {
	if e.Kind == virstor.EventFull {
		w.full.Store(true)
	}
	w.Look()
}

// Look has the goroutine look at the volume soon.
func (w *Watch) Look() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Start begins with a first look.
func (w *Watch) Start() {
	w.mu.Lock()
	w.hook = StartHook(w.opt.Command, w.opt.Timeout, w.log)
	w.mu.Unlock()
	w.Look()
	w.task = publish.StartTask(func(ctx context.Context) {
		tick := time.NewTicker(interval(w.opt.Levels)) // the prediction changes though nothing happens
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-w.wake:
			case <-tick.C:
			}
			if c := w.levels.Swap(nil); c != nil {
				w.monitor.SetThresholds(*c)
				tick.Reset(interval(*c))
			}
			w.check()
		}
	})
}

// interval is how often a volume is looked at when nothing happens.
func interval(c Thresholds) time.Duration {
	return min(max(c.Window/60, time.Second), time.Minute)
}

// SetLevels has the goroutine take on other levels.
func (w *Watch) SetLevels(c Thresholds) {
	w.levels.Store(&c)
	w.Look()
}

// SetCommand changes who runs the command, nil for nobody, and how long it may take,
// as Hook.Set does. It is called after Start.
func (w *Watch) SetCommand(r Runner, timeout time.Duration) { w.theHook().Set(r, timeout) }

// HookFailures is how often the command failed (Hook.Failures).
func (w *Watch) HookFailures() uint64 {
	if hook := w.theHook(); hook != nil {
		return hook.Failures()
	}
	return 0
}

// theHook is nil before Start.
func (w *Watch) theHook() *Hook {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.hook
}

// hookGrace is how long commands for what was told last may go on when the
// volume ends.
const hookGrace = 5 * time.Second

// Stop ends the goroutine, and lets the command run for what was told. It does
// nothing before Start.
func (w *Watch) Stop(ctx context.Context) {
	if w.task == nil {
		return
	}
	w.task.Stop(ctx)
	if hook := w.theHook(); hook != nil {
		ctx, cancel := context.WithTimeout(ctx, hookGrace)
		defer cancel()
		hook.Stop(ctx)
	}
}

// check looks at the volume once.
func (w *Watch) check() {
	full := w.full.Swap(false)
	f := w.host.Figures()
	told := w.monitor.Check(time.Now(), f, full)
	w.mu.Lock()
	w.active, w.secs, w.quotas = w.monitor.Active(), w.monitor.SecondsToFull(), w.monitor.SecondsToQuota()
	w.mu.Unlock()
	for _, a := range told {
		w.tell(a)
	}
	w.spares.consider(&f)
}

// tell sends a through every channel. It does not wait.
func (w *Watch) tell(a Alert) {
	w.mu.Lock()
	if !a.Recovered {
		w.counts[a.Level]++
	}
	w.mu.Unlock()
	w.logAlert(a)
	w.host.Publish(a)
	if hook := w.theHook(); hook != nil {
		hook.Post(a)
	}
}

func (w *Watch) logAlert(a Alert) {
	w.log.Log(context.Background(), a.Severity, a.Text, "level", string(a.Level), "recovered", a.Recovered)
}

// say tells what is no level's: facts and all.
func (w *Watch) say(level Level, severity slog.Level, component, text string) {
	w.tell(w.make(level, severity, component, text))
}

func (w *Watch) make(level Level, severity slog.Level, component, text string) Alert {
	f := w.host.Figures()
	w.mu.Lock()
	secs := w.secs
	w.mu.Unlock()
	a := facts(time.Now(), &f, secs)
	a.Level, a.Severity, a.Component, a.Text = level, severity, component, text
	return a
}

// Report is what status and metrics tell: the alerts whose levels are crossed, in how
// many seconds the volume is full (+Inf: it does not grow), and how often alerts of
// each level were told.
func (w *Watch) Report() (active []Alert, secs float64, counts map[Level]uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]Alert(nil), w.active...), w.secs, maps.Clone(w.counts)
}

// SecondsToQuota is in how many seconds further volumes have what their quotas allow, as
// Monitor.SecondsToQuota has it. It is not to be changed.
func (w *Watch) SecondsToQuota() map[uint64]float64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.quotas
}

// TestResult is what became of an alert that was a test.
type TestResult struct {
	Text     string        // as it was logged
	Watching int           // took it as an event
	Count    uint64        // of tests up to now
	Runs     bool          // there is a command
	Took     time.Duration // the command, which ended well
	Err      error         // why the command did not
}

// Test sends an alert through every channel and waits for what becomes of it, or until
// ctx ends.
func (w *Watch) Test(ctx context.Context) TestResult {
	a := w.make(Test, slog.LevelWarn, "", fmt.Sprintf("GEOM_VIRSTOR[2]: Device %s: this is a test of alerts", w.host.Name()))
	w.mu.Lock()
	w.counts[Test]++
	r := TestResult{Text: a.Text, Count: w.counts[Test]}
	w.mu.Unlock()
	w.logAlert(a)
	r.Watching = w.host.Publish(a)
	if hook := w.theHook(); hook != nil && hook.Runs() {
		begin := time.Now()
		r.Runs, r.Err = true, hook.Do(ctx, a)
		r.Took = time.Since(begin)
	}
	return r
}
