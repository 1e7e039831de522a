package daemon

import (
	"sync"
	"testing"
	"time"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/gate/gatetest"
	"github.com/gvirstor/gvirstor/geomlib/state"
)

// meetingOpener opens nothing of a meeting for writing before all of it are being opened.
type meetingOpener struct {
	*opener
	t        *testing.T
	meetings map[string]*meeting // by provider
}

type meeting struct {
	mu     sync.Mutex
	absent int
	full   chan struct{}
}

// meet is a meeting of these providers.
func (o *meetingOpener) meet(names ...string) {
	m := &meeting{absent: len(names), full: make(chan struct{})}
	for _, name := range names {
		o.meetings[name] = m
	}
}

func (o *meetingOpener) Open(name string, readOnly bool, sectorSize int) (geomlib.Provider, error) {
	if m := o.meetings[name]; m != nil {
		m.mu.Lock()
		if m.absent--; m.absent == 0 {
			close(m.full)
		}
		m.mu.Unlock()
		select {
		case <-m.full:
		case <-time.After(10 * time.Second):
			o.t.Errorf("%s is opened, and others wait for that", name)
		}
	}
	return o.opener.Open(name, readOnly, sectorSize)
}

// makeMeeting is make with an opener that meets.
func (s *site) makeMeeting() *meetingOpener {
	s.make()
	o := &meetingOpener{opener: s.o, t: s.t, meetings: make(map[string]*meeting)}
	s.d.opener = newPatient(o, s.d.log)
	return o
}

// recalls is a Memory that knows where the components of a volume were.
type recalls struct {
	Memory
	id    uint32
	names []string
}

func (r recalls) Recall(id uint32) (state.Volume, bool, error) {
	return state.Volume{Providers: r.names}, id == r.id, nil
}
func (recalls) Remember(state.Volume) error { return nil }

// An open of a component over a network waits for what a dead writer may have on its way:
// those of a volume wait together, at a start, at a takeover, and where nobody named them.
func TestComponentsOverTheNetworkAreOpenedTogether(t *testing.T) {
	s := newSite(t, gatetest.Options{})
	s.prefix = "nbd://there/"
	names := s.label("vol", 1, 8*mib, 4, 4, 4)
	o := s.makeMeeting()
	o.meet(names...)
	if n := s.d.ServeAll(names); n != 1 {
		t.Fatalf("%+v", s.d.problems)
	}
	dev := s.open("ggate0")
	s.crash()

	more := s.label("more", 2, 8*mib, 4, 4)
	o = s.makeMeeting()
	o.meet(names...)
	o.meet(more...)
	if n := s.d.ServeAll(append(names, more...)); n != 2 {
		t.Fatalf("%+v", s.d.problems)
	}
	_, err := dev.WriteAt(make([]byte, 4096), 0)
	must(t, err)
	must(t, dev.Close())
	must(t, s.d.Close())

	s.memory = recalls{id: 1, names: names}
	o = s.makeMeeting()
	o.meet(names[1:]...)
	if n := s.d.ServeAll(names[:1]); n != 1 {
		t.Fatalf("%+v", s.d.problems)
	}
	for _, name := range append(names, more...) {
		want := 1
		if name == more[0] || name == more[1] {
			want = 0
		}
		if n := s.o.open(name); n != want {
			t.Errorf("%s is open %d times", name, n)
		}
	}
}

// What begins to be opened is closed though nobody asks for it.
func TestWhatIsOpenedAheadInVainIsClosed(t *testing.T) {
	s := newSite(t, gatetest.Options{})
	s.prefix = "nbd://there/"
	names := s.label("vol", 1, 8*mib, 4, 4)
	s.make()
	opens := s.d.openAhead(false)
	for _, name := range append(names, "nbd://there/nothing") {
		opens.begin(name, 0)
		opens.begin(name, 0)
	}
	p, err := opens.open(names[0], 0)
	must(t, err)
	opens.close()
	for i, want := range []int{1, 0} {
		if n := s.o.open(names[i]); n != want {
			t.Errorf("%s is open %d times", names[i], n)
		}
	}
	must(t, p.Close())
}
