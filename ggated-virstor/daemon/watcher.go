package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
)

// watcher takes a volume's events, which must not wait, to a goroutine that may.
// Of events of one kind that wait, the last is kept.
type watcher struct {
	mu      sync.Mutex
	waiting []virstor.Event
	posted  uint64        // events until now
	done    uint64        // of these, or a later one of the same kind in its place
	further chan struct{} // closed, and made anew, when done grows
	ready   chan struct{} // capacity 1
	task    *publish.Task
}

func newWatcher() *watcher {
	return &watcher{ready: make(chan struct{}, 1), further: make(chan struct{})}
}

func (w *watcher) post(e virstor.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.posted++
	for i := range w.waiting {
		if w.waiting[i].Kind == e.Kind {
			w.waiting[i] = e
			return
		}
	}
	w.waiting = append(w.waiting, e)
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

// start gives events to do, one after the other, until stop.
func (w *watcher) start(do func(virstor.Event)) {
	w.task = publish.StartTask(func(ctx context.Context) {
		for {
			select {
			case <-ctx.Done():
				return
			case <-w.ready:
			}
			w.mu.Lock()
			es, posted := w.waiting, w.posted
			w.waiting = nil
			w.mu.Unlock()
			for _, e := range es {
				do(e)
			}
			w.mu.Lock()
			w.done = posted
			close(w.further)
			w.further = make(chan struct{})
			w.mu.Unlock()
		}
	})
}

// caughtUp waits until everything is done that was posted before.
func (w *watcher) caughtUp(ctx context.Context) error {
	w.mu.Lock()
	posted := w.posted
	w.mu.Unlock()
	for {
		w.mu.Lock()
		done, further := w.done, w.further
		w.mu.Unlock()
		if done >= posted {
			return nil
		}
		select {
		case <-further:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (w *watcher) stop(ctx context.Context) {
	if w.task != nil {
		w.task.Stop(ctx)
	}
}

// follow makes the publications follow the volume.
func (d *Daemon) follow(s *served, e virstor.Event) {
	if t, ok := eventTexts[e.Kind]; ok {
		d.hub.Publish(control.Event{Time: time.Now(), Volume: s.vol.Name(), Kind: t.kind, Text: t.text(s.vol)})
	}
	if e.Kind == virstor.EventLeaseLost {
		d.later.Go(func() { d.lost(s, e.Err) })
	}
	s.backup.note(e)
	if e.Kind == virstor.EventComponents || e.Kind == virstor.EventGeneration {
		s.notes.take()
	}
	for _, p := range s.pubs {
		f, ok := p.(publish.Follower)
		if !ok {
			continue
		}
		if err := f.Follow(e); err != nil {
			d.log.Error("publication does not follow its volume", "volume", s.vol.Name(), "error", err)
		}
	}
}

// followGrace is how long a verb waits for the publications to follow: a device gets its
// new size when GEOM has done what it does, which may wait for a disk.
const followGrace = 10 * time.Second

// followed waits until the publications have followed what a verb has done: who is told that
// it is done may go on with the device, `gvirstor resize && growfs`.
func (d *Daemon) followed(ctx context.Context, s *served) {
	ctx, cancel := context.WithTimeout(ctx, followGrace)
	defer cancel()
	if err := s.events.caughtUp(ctx); err != nil {
		d.log.Warn("publications do not follow their volume yet", "volume", s.vol.Name(), "error", err)
	}
}

// eventTexts are the engine's events that those who watch are told of beside
// the alerts.
var eventTexts = map[virstor.EventKind]struct {
	kind string
	text func(*virstor.Volume) string
}{
	virstor.EventComponents: {"components", func(v *virstor.Volume) string { return "The components changed of " + v.Name() }},
	virstor.EventResized:    {"resized", func(v *virstor.Volume) string { return "The size changed of " + v.Name() }},
	virstor.EventJob: {"job", func(v *virstor.Volume) string {
		j, _ := v.Job()
		return fmt.Sprintf("%s of %s: %s", j.Kind, v.Name(), j.State)
	}},
}

// mayAdd asks the publications whether providers may become components.
func (s *served) mayAdd(ctx context.Context, ps []geomlib.Provider) error {
	var err error
	for _, p := range s.pubs {
		if c, ok := p.(publish.ComponentChecker); ok {
			err = errors.Join(err, c.MayAdd(ctx, ps))
		}
	}
	return err
}
