package space

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// snapshot is a volume whose components have the usable chunks given, filled in
// order with used ones.
func snapshot(used int64, usable ...int64) Figures {
	s := Figures{Volume: "mydata", ID: 7, ChunkSize: 1 << 20}
	for i, n := range usable {
		free := n - min(n, used)
		used -= min(n, used)
		s.Components = append(s.Components, ComponentFigures{Name: fmt.Sprintf("ada%d", i+4), Usable: n, Free: free})
		s.Physical += n
		s.Free += free
	}
	return s
}

func words(as []Alert) []string {
	out := []string{}
	for _, a := range as {
		w := string(a.Level)
		if a.Recovered {
			w = "-" + w
		}
		out = append(out, fmt.Sprintf("%s %d", w, a.Value))
	}
	return out
}

func TestFillingAVolumeCrossesEachLevelOnceInOrder(t *testing.T) {
	c := Defaults()
	c.TimeToFull = 0
	m := NewMonitor(c)
	var got []string
	sizes := []int64{400, 400, 400}
	for used := int64(0); used <= 1200; used++ {
		got = append(got, words(m.Check(start, snapshot(used, sizes...), used == 1200))...)
	}
	want := []string{
		"chunks 100",   // of ada4, at 300
		"components 1", // to ada5, at 400
		"chunks 100",   // of ada5, at 700
		"components 0", // to ada6, at 800
		"percent-80 80", "percent-90 90", "chunks 100", "percent-95 95", "full 0",
	}
	// The switch is seen when the next component has given its first chunk or is
	// the only one with free ones.
	if !slices.Equal(got, want) {
		t.Fatalf("told %q\nwant %q", got, want)
	}
	if n := m.Check(start, snapshot(1200, sizes...), true); len(n) != 0 {
		t.Errorf("told again: %v", words(n))
	}
	back := words(m.Check(start, snapshot(1200, 400, 400, 400, 4000), false))
	want = []string{"-percent-80 23", "-percent-90 23", "-percent-95 23", "-full 4000"}
	// One component is left to fill, and it is being filled: the level stays.
	if !slices.Equal(back, append([]string{"components 0"}, want...)) {
		t.Errorf("recovery is told as %q", back)
	}
	if as := m.Active(); len(as) != 1 || as[0].Level != Components {
		t.Errorf("active: %v", words(as))
	}
}

func TestTheWordsAreTheKernels(t *testing.T) {
	c := Defaults()
	m := NewMonitor(c)
	m.Check(start, snapshot(0, 200, 200, 200), false)
	var texts []string
	for _, used := range []int64{100, 200, 600} {
		for _, a := range m.Check(start, snapshot(used, 200, 200, 200), used == 600) {
			texts = append(texts, a.Text)
		}
	}
	all := strings.Join(texts, "\n")
	for _, want := range []string{
		"GEOM_VIRSTOR[2]: Component ada4 of mydata is running out of free space (100 chunks left)",
		"GEOM_VIRSTOR[2]: Device mydata running out of components (switching to 2/3: ada5)",
		"GEOM_VIRSTOR[2]: Device mydata running out of components (switching to 3/3: ada6)",
		"GEOM_VIRSTOR[1]: All physical space allocated for mydata",
	} {
		if strings.Count(all, want) != 1 {
			t.Errorf("%q is not told once in:\n%s", want, all)
		}
	}
}

func TestAnAlertTellsTheFacts(t *testing.T) {
	m := NewMonitor(Thresholds{Percent: []int{80}, Margin: 2, SpareComponents: -1})
	s := snapshot(160, 210)
	s.Reserved, s.Held = 10, 3
	as := m.Check(start, s, false)
	want := Alert{Time: start, Volume: "mydata", ID: 7, Level: "percent-80", Severity: as[0].Severity, Text: as[0].Text,
		Threshold: 80, Value: 80, PhysicalBytes: 210 << 20, AllocatedBytes: 160 << 20, FreeBytes: 50 << 20, ReservedBytes: 10 << 20,
		UsedPercent: 80, SecondsToFull: -1, HeldWrites: 3}
	if len(as) != 1 || as[0] != want {
		t.Fatalf("%+v\nwant %+v", as, want)
	}
}

func TestALevelIsToldAgainOnlyAfterItWasLeftByTheMargin(t *testing.T) {
	m := NewMonitor(Thresholds{Percent: []int{80}, Margin: 2, SpareComponents: -1})
	var got []string
	for _, used := range []int64{79, 80, 79, 80, 78, 80, 77, 78, 80} {
		got = append(got, words(m.Check(start, snapshot(used, 100), false))...)
	}
	want := []string{"percent-80 80", "-percent-80 77", "percent-80 80"}
	if !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

// TestChunksThatAreFreedAndTakenAgainAreNoNews: a file system that discards and
// writes goes to and fro across every level.
func TestChunksThatAreFreedAndTakenAgainAreNoNews(t *testing.T) {
	for _, tt := range []struct {
		name string
		used int64
		full bool
	}{
		{"where a component ends", 200, false},
		{"where two components end", 400, false},
		{"at a percentage", 480, false},
		{"at a component's watermark", 500, false},
		{"where the volume is full", 600, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := Defaults()
			c.TimeToFull = 0
			m := NewMonitor(c)
			m.Check(start, snapshot(0, 200, 200, 200), false)
			for used := int64(1); used <= tt.used; used++ {
				m.Check(start, snapshot(used, 200, 200, 200), tt.full && used == tt.used)
			}
			// One more may be news, where the next component begins.
			m.Check(start, snapshot(min(600, tt.used+1), 200, 200, 200), tt.full)
			active := words(m.Active())
			for range 20 {
				for i := range 3 { // freed on each component in turn
					s := snapshot(tt.used, 200, 200, 200)
					if s.Components[i].Free < 200 {
						s.Components[i].Free++
						s.Free++
					}
					told := m.Check(start, s, false)
					told = append(told, m.Check(start, snapshot(tt.used, 200, 200, 200), tt.full)...)
					if len(told) != 0 {
						t.Fatalf("told %q", words(told))
					}
				}
			}
			if now := words(m.Active()); len(now) != len(active) {
				t.Errorf("active %q, before %q", now, active)
			}
		})
	}
}

func TestEmptiedComponentsAreFilledAgain(t *testing.T) {
	c := Defaults()
	c.TimeToFull = 0
	m := NewMonitor(c)
	m.Check(start, snapshot(0, 200, 200), false)
	m.Check(start, snapshot(201, 200, 200), false)
	s := snapshot(201, 200, 200)
	s.Components[0].Free, s.Free = 150, s.Free+150 // packed or discarded
	got := words(m.Check(start, s, false))
	if want := []string{"-components 1", "-chunks 150"}; !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

func TestASmallComponentIsNotShortOfSpaceWhenEmpty(t *testing.T) {
	m := NewMonitor(Thresholds{FreeChunks: 100, SpareComponents: -1})
	var got []string
	for used := range int64(41) {
		got = append(got, words(m.Check(start, snapshot(used, 40), false))...)
	}
	if !slices.Equal(got, []string{"chunks 4"}) {
		t.Errorf("told %q", got)
	}
}

func TestComponentsPassedBetweenTwoLooksAreToldOf(t *testing.T) {
	m := NewMonitor(Thresholds{FreeChunks: 100, SpareComponents: 1})
	m.Check(start, snapshot(0, 200, 200, 200, 200), false)
	got := words(m.Check(start, snapshot(790, 200, 200, 200, 200), false))
	want := []string{"components 1", "components 0", "chunks 0", "chunks 0", "chunks 0", "chunks 10"}
	if !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

func TestWhatIsCrossedAtTheFirstLookIsTold(t *testing.T) {
	m := NewMonitor(Defaults())
	s := snapshot(560, 200, 200, 200)
	s.Degraded = true
	got := words(m.Check(start, s, false))
	want := []string{"components 0", "chunks 40", "percent-80 93", "percent-90 93", "degraded 0"}
	if !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

func TestThePredictionFollowsTheRateOverTheWindow(t *testing.T) {
	m := NewMonitor(Thresholds{TimeToFull: 24 * time.Hour, Window: time.Hour, SpareComponents: -1})
	now, used := start, int64(0)
	run := func(minutes int, perMinute int64) (told []string) {
		for range minutes {
			now = now.Add(time.Minute)
			used += perMinute
			told = append(told, words(m.Check(now, snapshot(used, 100000), false))...)
		}
		return told
	}
	// A burst shorter than a twelfth of the window is no trend.
	if told := run(4, 1000); told != nil {
		t.Errorf("told of a burst: %q", told)
	}
	run(90, 0)
	if told := run(120, 50); told != nil { // 100000/50 min = 33 h
		t.Errorf("told of a slow rate: %q", told)
	}
	told := run(120, 100) // 78000/100 min = 13 h
	if len(told) != 1 || !strings.HasPrefix(told[0], "time-to-full ") {
		t.Fatalf("told %q of a fast rate", told)
	}
	if want := float64(100000-used) / 100 * 60; m.SecondsToFull() < want*0.98 || m.SecondsToFull() > want*1.02 {
		t.Errorf("predicted %f s, should be %f", m.SecondsToFull(), want)
	}
	if told := run(120, 0); len(told) != 1 || told[0] != "-time-to-full -1" && !strings.HasPrefix(told[0], "-time-to-full ") {
		t.Errorf("told %q after the load", told)
	}
}

func TestAFurtherVolumeIsPredictedByItsQuota(t *testing.T) {
	c := Defaults()
	c.Window = time.Hour
	m := NewMonitor(c)
	s := snapshot(0, 1000)
	s.Volumes = []VolumeFigures{{ID: 2, Quota: 1 << 30}, {ID: 3}, {ID: 4, Quota: 1 << 30}}
	now := start
	for range 30 {
		m.Check(now, s, false)
		now = now.Add(time.Minute)
		s.Volumes[0].Allocated += 1 << 20
		s.Volumes[1].Allocated += 1 << 20
	}
	m.Check(now, s, false)
	want := map[uint64]float64{2: float64(1<<10-30) * 60, 4: math.Inf(1)} // a MiB each minute
	if got := m.SecondsToQuota(); !maps.Equal(got, want) {
		t.Errorf("predicted %v, should be %v", got, want)
	}
	// A volume whose quota is gone, and comes back, begins anew.
	s.Volumes[0].Quota = 0
	m.Check(now, s, false)
	s.Volumes[0].Quota = 1 << 30
	m.Check(now.Add(time.Minute), s, false)
	if got := m.SecondsToQuota()[2]; !math.IsInf(got, 1) {
		t.Errorf("predicted %v", got)
	}
}

func TestPropertyRaisedAndRecoveredAlternate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := Defaults()
		m := NewMonitor(c)
		now := start
		state := make(map[string]bool)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(1, 3600).Draw(t, "seconds")) * time.Second)
			sizes := rapid.SliceOfN(rapid.Int64Range(1, 300), 1, 4).Draw(t, "sizes")
			s := snapshot(rapid.Int64Range(0, 1200).Draw(t, "used"), sizes...)
			s.Reserved = rapid.Int64Range(0, 300).Draw(t, "reserve")
			s.Held = rapid.IntRange(0, 1).Draw(t, "held")
			s.Spread = rapid.Bool().Draw(t, "spread")
			s.Degraded = rapid.Bool().Draw(t, "degraded")
			for _, a := range m.Check(now, s, rapid.Bool().Draw(t, "full")) {
				key := string(a.Level)
				if a.Level == Chunks {
					key += a.Component
				}
				if a.Level == Components && !a.Recovered {
					continue // each switch is told
				}
				if a.Level != Components && state[key] == !a.Recovered && a.Level != Chunks {
					t.Fatalf("%s told twice", key)
				}
				state[key] = !a.Recovered
				if a.Text == "" || a.UsedPercent < 0 || a.UsedPercent > 100 {
					t.Fatalf("bad alert %+v", a)
				}
			}
		}
	})
}

func TestConfigRefusesWhatMakesNoSense(t *testing.T) {
	if err := Defaults().Check(); err != nil {
		t.Fatal(err)
	}
	for _, change := range []func(*Thresholds){
		func(c *Thresholds) { c.FreeChunks = -1 },
		func(c *Thresholds) { c.SpareComponents = -2 },
		func(c *Thresholds) { c.Percent = []int{0} },
		func(c *Thresholds) { c.Percent = []int{101} },
		func(c *Thresholds) { c.Percent = []int{90, 80} },
		func(c *Thresholds) { c.TimeToFull = -1 },
		func(c *Thresholds) { c.Window = 0 },
		func(c *Thresholds) { c.Margin = -1 },
	} {
		c := Defaults()
		change(&c)
		if c.Check() == nil {
			t.Errorf("%+v is taken", c)
		}
	}
}

func TestLevelsThatMoveAreToldOfOnce(t *testing.T) {
	c := Defaults()
	c.TimeToFull = 0
	m := NewMonitor(c)
	at := snapshot(850, 1000)
	if got, want := words(m.Check(start, at, false)), []string{"percent-80 85"}; !slices.Equal(got, want) {
		t.Fatalf("told %q, want %q", got, want)
	}
	c.Percent, c.FreeChunks = []int{85, 90}, 200
	m.SetThresholds(c)
	if got, want := words(m.Check(start, at, false)), []string{"chunks 150", "percent-85 85"}; !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
	if got, want := words(m.Active()), []string{"chunks 150", "percent-85 85"}; !slices.Equal(got, want) {
		t.Errorf("active %q, want %q", got, want)
	}
	m.SetThresholds(c)
	if got := words(m.Check(start, at, false)); len(got) != 0 {
		t.Errorf("the same levels told again: %q", got)
	}
	c.FreeChunks = 0
	m.SetThresholds(c)
	if got := words(m.Check(start, at, false)); len(got) != 0 || len(m.Active()) != 1 {
		t.Errorf("a level that is off told %q, active %q", got, words(m.Active()))
	}
}
