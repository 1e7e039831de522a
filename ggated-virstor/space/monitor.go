package space

import (
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/gvirstor/gvirstor/ondisk"
)

// Monitor knows which levels a volume has crossed. It is for one goroutine at a
// time.
type Monitor struct {
	cfg      Thresholds
	forecast forecast
	quotas   map[uint64]*forecast // of further volumes that have one

	raised  map[Level]Alert
	chunks  map[string]bool // components whose chunks were told of
	lastLow Alert           // the last word on chunks
	failed  map[string]bool // components whose failure was told of
	errors  map[string]bool // those whose errors were
	noRoom  map[string]bool // those that could not be written
	filling string          // component that was being filled
	at      int             // its index
	first   bool            // there was no Check yet
	secs    float64         // predicted; +Inf: none
	toQuota map[uint64]float64

	out []Alert // of the Check under way
	now time.Time
	s   *Figures
}

// NewMonitor makes a Monitor that has crossed nothing.
func NewMonitor(c Thresholds) *Monitor {
	return &Monitor{
		cfg: c.clone(), forecast: forecast{window: c.Window}, quotas: make(map[uint64]*forecast), secs: math.Inf(1), first: true,
		raised: make(map[Level]Alert), chunks: make(map[string]bool), failed: make(map[string]bool),
	}
}

// SetThresholds moves the levels. The next Check tells which of the new ones are
// crossed; of old ones that are gone nothing more is told.
func (m *Monitor) SetThresholds(c Thresholds) {
	old := m.cfg
	m.cfg = c.clone()
	m.forecast.window = c.Window
	for _, f := range m.quotas {
		f.window = c.Window
	}
	if old.FreeChunks != c.FreeChunks {
		m.chunks = make(map[string]bool)
		delete(m.raised, Chunks)
	}
	if old.SpareComponents != c.SpareComponents {
		m.first = true
		delete(m.raised, Components)
	}
	if old.TimeToFull != c.TimeToFull {
		delete(m.raised, TimeToFull)
	}
	levels := c.Levels()
	maps.DeleteFunc(m.raised, func(l Level, _ Alert) bool { return !slices.Contains(levels, l) })
}

// Check looks at s and returns what is to be told, in order. full says that a
// write found no chunk since the last Check.
func (m *Monitor) Check(now time.Time, s Figures, full bool) []Alert {
	m.out, m.now, m.s = nil, now, &s
	m.predict()
	from, at := m.advance()
	m.checkComponents(from, at)
	m.checkChunks(from, at)
	for _, p := range m.cfg.Percent {
		m.checkPercent(p)
	}
	m.checkTime()
	m.checkFull(full)
	m.checkDegraded()
	m.checkFailed()
	m.checkErrors()
	m.checkRoom()
	m.s, m.first = nil, false
	return m.out
}

// Active are the alerts whose levels are crossed now, in the order of Levels.
func (m *Monitor) Active() []Alert {
	var as []Alert
	for _, l := range m.cfg.Levels() {
		if a, ok := m.raised[l]; ok {
			as = append(as, a)
		}
	}
	return as
}

// SecondsToFull is the prediction of the last Check; +Inf when the volume
// does not grow.
func (m *Monitor) SecondsToFull() float64 { return m.secs }

// SecondsToQuota are the predictions of the last Check for further volumes, by the ids of
// their maps, of when they have what their quotas allow; +Inf for one that does not grow.
// Those without a quota are full when the pool is, and are not among them.
func (m *Monitor) SecondsToQuota() map[uint64]float64 { return m.toQuota }

// predict notes how much is allocated and how long the rest lasts.
func (m *Monitor) predict() {
	m.secs = m.forecast.predict(m.now, m.s.used(), m.s.Available())
	m.predictQuotas()
}

// predictQuotas does so for further volumes. What has no quota, or is gone, is forgotten.
func (m *Monitor) predictQuotas() {
	m.toQuota = make(map[uint64]float64)
	for _, v := range m.s.Volumes {
		if v.Quota == 0 {
			continue
		}
		f := m.quotas[v.ID]
		if f == nil {
			f = &forecast{window: m.cfg.Window}
			m.quotas[v.ID] = f
		}
		m.toQuota[v.ID] = f.predict(m.now, v.Allocated, max(0, v.Quota-v.Allocated))
	}
	maps.DeleteFunc(m.quotas, func(id uint64, _ *forecast) bool { _, has := m.toQuota[id]; return !has })
}

// facts are what every alert of s tells.
func facts(now time.Time, s *Figures, secs float64) Alert {
	a := Alert{
		Time: now, Volume: s.Volume, ID: ondisk.VolumeID(s.ID), SecondsToFull: -1,
		PhysicalBytes: s.Physical * s.ChunkSize, AllocatedBytes: s.used() * s.ChunkSize,
		FreeBytes: s.Free * s.ChunkSize, ReservedBytes: s.Reserved * s.ChunkSize,
		UsedPercent: s.percent(), HeldWrites: s.Held,
	}
	if secs < math.MaxInt64/2 {
		a.SecondsToFull = int64(secs)
	}
	return a
}

// tell adds an alert with the facts.
func (m *Monitor) tell(a Alert) {
	f := facts(m.now, m.s, m.secs)
	f.Level, f.Recovered, f.Severity, f.Text = a.Level, a.Recovered, a.Severity, a.Text
	f.Component, f.Threshold, f.Value = a.Component, a.Threshold, a.Value
	if f.Recovered {
		f.Severity = slog.LevelInfo
		delete(m.raised, f.Level)
	} else {
		m.raised[f.Level] = f
	}
	m.out = append(m.out, f)
}

func (m *Monitor) isRaised(l Level) bool {
	_, ok := m.raised[l]
	return ok
}

// advance finds the component that is filled now, and where filling was at the
// last Check. From and at are the same unless allocation went on since. A few
// chunks freed on earlier components are no way back: the next writes take them.
func (m *Monitor) advance() (from, at int) {
	s := m.s
	at = s.filling()
	from = at
	if at < 0 {
		return from, at
	}
	// Otherwise components left or moved: that is no switch.
	if m.at < len(s.Components) && s.Components[m.at].Name == m.filling {
		if m.at < at || !slices.ContainsFunc(s.Components[at:m.at], m.hasSpace) {
			from = m.at
			at = max(at, m.at)
		}
	}
	m.filling, m.at = s.Components[at].Name, at
	return from, at
}

// checkComponents tells each time that allocation went on to one of the last
// components.
func (m *Monitor) checkComponents(from, at int) {
	s, n := m.s, len(m.s.Components)
	if s.Spread || at < 0 || m.cfg.SpareComponents < 0 {
		return
	}
	what := "switching to "
	if m.first { // where filling is now is news
		from, what = at-1, ""
	}
	for i := from + 1; i <= at; i++ {
		if left := n - 1 - i; i > 0 && left <= m.cfg.SpareComponents {
			m.tell(m.components(i, slog.LevelWarn,
				fmt.Sprintf("GEOM_VIRSTOR[2]: Device %s running out of components (%s%d/%d: %s)", s.Volume, what, i+1, n, s.Components[i].Name)))
		}
	}
	if m.isRaised(Components) && (n-1-at > m.cfg.SpareComponents || at == 0) {
		a := m.components(at, slog.LevelInfo,
			fmt.Sprintf("GEOM_VIRSTOR[2]: Device %s has components left again (%d/%d: %s)", s.Volume, at+1, n, s.Components[at].Name))
		a.Recovered = true
		m.tell(a)
	}
}

// components is an alert about component i being filled.
func (m *Monitor) components(i int, severity slog.Level, text string) Alert {
	return Alert{Level: Components, Severity: severity, Component: m.s.Components[i].Name, Text: text,
		Threshold: int64(m.cfg.SpareComponents), Value: int64(len(m.s.Components) - 1 - i)}
}

// chunkLevel is the watermark of a component. On one that never had as many
// chunks it is a tenth of them, lest an empty component be short of space.
func (m *Monitor) chunkLevel(c ComponentFigures) int64 {
	if m.cfg.FreeChunks > 0 && m.cfg.FreeChunks < c.Usable {
		return m.cfg.FreeChunks
	}
	return c.Usable / 10
}

// hasSpace reports whether a component is clearly above its watermark.
func (m *Monitor) hasSpace(c ComponentFigures) bool {
	level := m.chunkLevel(c)
	return !c.Failed && c.Free > level+level/10+1
}

// checkChunks looks at the components that were filled since the last Check;
// with Spread at all of them.
func (m *Monitor) checkChunks(from, at int) {
	if m.cfg.FreeChunks <= 0 {
		return
	}
	low := make(map[string]bool)
	for i, c := range m.s.Components {
		level := m.chunkLevel(c)
		filled := i >= from && i <= at || m.s.Spread
		a := Alert{Level: Chunks, Severity: slog.LevelWarn, Component: c.Name, Threshold: level, Value: c.Free}
		switch told := m.chunks[c.Name]; {
		case told && !m.hasSpace(c):
			low[c.Name] = true
		case told:
			a.Recovered = true
			a.Text = fmt.Sprintf("GEOM_VIRSTOR[2]: Component %s of %s has free space again (%d chunks left)", c.Name, m.s.Volume, c.Free)
			m.tell(a)
		case filled && c.Free <= level:
			low[c.Name] = true
			a.Text = fmt.Sprintf("GEOM_VIRSTOR[2]: Component %s of %s is running out of free space (%d chunks left)", c.Name, m.s.Volume, c.Free)
			m.tell(a)
			m.lastLow = m.raised[Chunks]
		}
	}
	m.chunks = low
	// The level is left when the component that is filled has space.
	delete(m.raised, Chunks)
	if at >= 0 && low[m.s.Components[at].Name] {
		m.raised[Chunks] = m.lastLow
	}
}

func (m *Monitor) checkPercent(p int) {
	l := Percent(p)
	a := Alert{Level: l, Severity: slog.LevelWarn, Threshold: int64(p), Value: int64(m.s.percent())}
	words := fmt.Sprintf("%d%% of the physical space is allocated, %d chunks left", m.s.percent(), m.s.Available())
	switch {
	case !m.isRaised(l) && m.s.Above(p):
		a.Text = fmt.Sprintf("GEOM_VIRSTOR[2]: Device %s is running out of physical space (level %d%%: %s)", m.s.Volume, p, words)
		m.tell(a)
	case m.isRaised(l) && !m.s.Above(p-m.cfg.Margin):
		a.Recovered = true
		a.Text = fmt.Sprintf("GEOM_VIRSTOR[2]: Device %s has physical space again (level %d%%: %s)", m.s.Volume, p, words)
		m.tell(a)
	}
}

// checkTime needs half as much again to be content.
func (m *Monitor) checkTime() {
	level := m.cfg.TimeToFull.Seconds()
	if level == 0 {
		return
	}
	a := Alert{Level: TimeToFull, Severity: slog.LevelWarn, Threshold: int64(level), Value: -1}
	if !math.IsInf(m.secs, 1) {
		a.Value = int64(m.secs)
	}
	switch {
	case !m.isRaised(TimeToFull) && m.secs < level:
		a.Text = fmt.Sprintf("GEOM_VIRSTOR[2]: Device %s will be full in %s at the present rate (%d chunks left)",
			m.s.Volume, time.Duration(m.secs*float64(time.Second)).Round(time.Second), m.s.Available())
		m.tell(a)
	case m.isRaised(TimeToFull) && m.secs > level*1.5:
		a.Recovered = true
		a.Text = fmt.Sprintf("GEOM_VIRSTOR[2]: Device %s will not be full within %s at the present rate (%d chunks left)",
			m.s.Volume, m.cfg.TimeToFull, m.s.Available())
		m.tell(a)
	}
}

// checkFull tells that a write found no chunk; it is over when nothing waits and
// there is space by the margin: not with each chunk that is freed and taken.
func (m *Monitor) checkFull(full bool) {
	s := m.s
	a := Alert{Level: Full, Severity: slog.LevelError, Value: s.Available()}
	if full && !m.isRaised(Full) {
		a.Text = fmt.Sprintf("GEOM_VIRSTOR[1]: All physical space allocated for %s", s.Volume)
		m.tell(a)
	}
	if m.isRaised(Full) && s.Available() > 0 && s.Held == 0 && !s.Above(100-m.cfg.Margin) {
		a.Recovered = true
		a.Text = fmt.Sprintf("GEOM_VIRSTOR[1]: Physical space is free again for %s (%d chunks)", s.Volume, s.Available())
		m.tell(a)
	}
}

func (m *Monitor) checkDegraded() {
	a := Alert{Level: Degraded, Severity: slog.LevelError}
	switch {
	case m.s.Degraded && !m.isRaised(Degraded):
		a.Text = fmt.Sprintf("GEOM_VIRSTOR[0]: Device %s is degraded: its allocation map cannot be written, nothing is allocated", m.s.Volume)
		m.tell(a)
	case !m.s.Degraded && m.isRaised(Degraded):
		a.Recovered = true
		a.Text = fmt.Sprintf("GEOM_VIRSTOR[0]: Device %s is no longer degraded", m.s.Volume)
		m.tell(a)
	}
}

// checkFailed tells of components that lost data they had accepted. They stay so
// until the volume is opened again, or until they leave.
func (m *Monitor) checkFailed() {
	failed := make(map[string]bool)
	for _, c := range m.s.Components {
		if !c.Failed {
			continue
		}
		failed[c.Name] = true
		if !m.failed[c.Name] {
			m.tell(Alert{Level: ComponentFailed, Severity: slog.LevelError, Component: c.Name,
				Text: fmt.Sprintf("GEOM_VIRSTOR[0]: Component %s of %s failed a flush: what was written to it last may be lost", c.Name, m.s.Volume)})
		}
	}
	m.failed = failed
	if len(failed) == 0 && m.isRaised(ComponentFailed) {
		m.tell(Alert{Level: ComponentFailed, Recovered: true,
			Text: fmt.Sprintf("GEOM_VIRSTOR[0]: No component of %s is failed any more", m.s.Volume)})
	}
}

// checkErrors tells of components that fail reads or writes. The engine says so until
// some minutes after the last one.
func (m *Monitor) checkErrors() {
	m.errors = m.checkEach(Errors, m.errors, func(c ComponentFigures) string {
		if c.Errors == "" {
			return ""
		}
		return fmt.Sprintf("GEOM_VIRSTOR[0]: Component %s of %s has %s", c.Name, m.s.Volume, c.Errors)
	}, "GEOM_VIRSTOR[0]: No component of %s has had errors lately")
}

// checkRoom tells of components that cannot be written though chunks are free.
func (m *Monitor) checkRoom() {
	m.noRoom = m.checkEach(StorageFull, m.noRoom, func(c ComponentFigures) string {
		if !c.NoRoom {
			return ""
		}
		return fmt.Sprintf("GEOM_VIRSTOR[0]: The file system or device under component %s of %s is full: make room there", c.Name, m.s.Volume)
	}, "GEOM_VIRSTOR[0]: No component of %s has lacked room lately")
}

// checkEach tells of each component once of which text says something, and once that
// it does of none any more. told are those that it said something of before.
func (m *Monitor) checkEach(level Level, told map[string]bool, text func(ComponentFigures) string, over string) map[string]bool {
	now := make(map[string]bool)
	for _, c := range m.s.Components {
		said := text(c)
		if said == "" {
			continue
		}
		now[c.Name] = true
		if !told[c.Name] {
			m.tell(Alert{Level: level, Severity: slog.LevelError, Component: c.Name, Text: said})
		}
	}
	if len(now) == 0 && m.isRaised(level) {
		m.tell(Alert{Level: level, Recovered: true, Text: fmt.Sprintf(over, m.s.Volume)})
	}
	return now
}
