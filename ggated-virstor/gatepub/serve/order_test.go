package serve

import (
	"testing"

	"pgregory.net/rapid"
)

// model is the order's rule without its economy: every request waits for all
// those it must.
type model struct {
	all       []*slot
	state     map[*slot]string // "waiting", "running", "held", "gone"
	rule      map[*slot]orderEntry
	readsOnly bool
}

func (m *model) mustWait(b *slot) bool {
	pb := m.rule[b]
	if pb.untilActive {
		return true
	}
	for _, a := range m.all {
		pa := m.rule[a]
		if pa.number >= pb.number || m.state[a] == "held" || m.state[a] == "gone" {
			continue
		}
		overlap := pa.lo < pb.hi && pb.lo < pa.hi
		switch {
		case pa.kind == kindFlush:
		case pb.kind == kindFlush:
			if pa.kind == kindWrite {
				return true
			}
		case pa.kind == kindRead && pb.kind == kindRead:
		case pa.untilActive && pb.kind == kindRead:
		case overlap:
			return true
		}
	}
	return false
}

func TestOrderLetsRunExactlyWhatNeedNotWait(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := order{readsOnly: rapid.Bool().Draw(t, "readsOnly")}
		m := model{state: map[*slot]string{}, rule: map[*slot]orderEntry{}, readsOnly: o.readsOnly}
		ran := map[*slot]bool{}
		take := func(ready *list) {
			for s := ready.pop(); s != nil; s = ready.pop() {
				if m.state[s] != "waiting" || m.mustWait(s) {
					t.Fatalf("request %d runs too early", s.number)
				}
				m.state[s], ran[s] = "running", true
			}
			for _, s := range m.all {
				if m.state[s] == "waiting" && !m.mustWait(s) {
					t.Fatalf("request %d still waits", s.number)
				}
			}
		}
		pick := func(state string) *slot {
			var of []*slot
			for _, s := range m.all {
				if m.state[s] == state {
					of = append(of, s)
				}
			}
			if len(of) == 0 {
				t.Skip("none " + state)
			}
			return rapid.SampledFrom(of).Draw(t, state)
		}
		t.Repeat(map[string]func(*rapid.T){
			"arrive": func(t *rapid.T) {
				s := &slot{}
				s.number = uint64(len(m.all) + 1)
				s.kind = rapid.SampledFrom([]kind{kindRead, kindWrite, kindDelete, kindFlush}).Draw(t, "kind")
				if s.kind != kindFlush {
					s.lo = rapid.Int64Range(0, 20).Draw(t, "lo")
					s.hi = s.lo + rapid.Int64Range(1, 6).Draw(t, "length")
				}
				run := o.arrive(s)
				m.all = append(m.all, s)
				pl := s.orderEntry
				pl.untilActive = m.readsOnly && s.kind != kindRead
				m.rule[s] = pl
				m.state[s] = "waiting"
				if wait := m.mustWait(s); wait == run {
					t.Fatalf("request %d: runs %v, must wait %v", s.number, run, wait)
				}
				if run {
					m.state[s], ran[s] = "running", true
				}
			},
			"leave": func(t *rapid.T) {
				s := pick("running")
				m.state[s] = "gone"
				var ready list
				o.leave(s, &ready)
				take(&ready)
			},
			"hold": func(t *rapid.T) {
				s := pick("running")
				if s.kind != kindWrite {
					t.Skip("not a write")
				}
				m.state[s] = "held"
				var ready list
				o.leave(s, &ready)
				take(&ready)
			},
			"rejoin": func(t *rapid.T) {
				s := pick("held")
				m.state[s] = "running"
				o.rejoin(s)
			},
			"answer held": func(t *rapid.T) {
				s := pick("held")
				m.state[s] = "gone"
				var ready list
				o.leave(s, &ready)
				take(&ready)
			},
			"activate": func(t *rapid.T) {
				m.readsOnly = false
				for s, pl := range m.rule {
					pl.untilActive = false
					m.rule[s] = pl
				}
				var ready list
				o.activate(&ready)
				take(&ready)
			},
			"": func(t *rapid.T) {
				waiting := 0
				for _, s := range m.all {
					if m.state[s] == "waiting" {
						waiting++
					}
				}
				if o.waiting.len != waiting {
					t.Fatalf("%d wait, want %d", o.waiting.len, waiting)
				}
			},
		})
	})
}
