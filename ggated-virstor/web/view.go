package web

import (
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/virstor/picture"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

// class says how urgent something is, in the words of the style sheet.
type class string

const (
	well class = "well" // nothing is to be done
	look class = "look" // something is, and it can wait
	act  class = "act"  // something is, now
)

// view is the page in words: everything in it may be shown as it is.
type view struct {
	Title, Verdict string
	Class          class
	Version        string
	PID            int
	Started, Time  viewTime
	Hands          []hand
	Volumes        []volumeView
	Clients        []clientView
	Events         []eventView
}

// viewTime is a time as people read it, and as machines do.
type viewTime struct{ People, Machine string }

// hand is what is to be done about something.
type hand struct {
	Anchor, Volume string // of the volume; without Anchor it is not served
	Class          class
	control.Action
}

type volumeView struct {
	Anchor, Name, State string
	Class               class
	Held                *hand
	Job                 *jobView
	Bar                 []segment
	Space               []spaceView
	Facts               []factView
	Snapshots           []snapshotView // the newest first
	More                bool           // there are older ones
	Further             []furtherView
	Map                 template.HTML
	Components          []componentView
	Others              []otherView
}

// segment is a part of a bar, in percent of it.
type segment struct {
	Class       string
	From, Width string
}

type spaceView struct{ Class, Size, What string }

type factView struct{ What, Text, Code string }

// furtherView is a further volume of a pool, a branch of the tree of its first one.
type furtherView struct {
	Name      string // with its pool's
	Text      string
	Problem   string
	Reached   []string
	Snapshots []snapshotView // the newest first
	More      bool           // there may be older ones
}

// snapshotView is a leaf of the tree of a volume.
type snapshotView struct {
	Name    string // as its export has it
	Created viewTime
	Text    string
	Problem string
}

type jobView struct {
	Text        string
	Known       bool // how much there is to do
	Done, Total int64
}

type componentView struct {
	Name, Color, Size, Used, State string
	Class                          class
	Bar                            []segment
}

type otherView struct{ Name, Text string }

type clientView struct{ Who, Volume, Flight, Read, Written, Idle string }

type eventView struct {
	Time         viewTime
	Volume, Text string
}

// newView puts o into words.
func newView(o Overview) (*view, error) {
	v := &view{Version: ondisk.Printable(o.Version), PID: o.PID, Started: timeOf(o.Started), Time: timeOf(o.Time)}
	anchors, troubled := make(map[string]string), 0
	for i := range o.Volumes {
		s := &o.Volumes[i]
		anchors[s.Name] = fmt.Sprintf("volume-%d", i)
		one, err := viewVolume(s, anchors[s.Name], &o)
		if err != nil {
			return nil, err
		}
		if one.Class != well {
			troubled++
		}
		v.Volumes = append(v.Volumes, one)
	}
	for _, p := range o.Problems {
		v.Hands = append(v.Hands, problemHand(p))
	}
	for _, a := range o.Actions {
		v.Hands = append(v.Hands, hand{Anchor: anchors[a.Volume], Volume: ondisk.Printable(a.Volume), Class: urgency(o.Volumes, a.Volume), Action: shown(a.Action)})
	}
	v.judge(len(o.Problems), troubled)
	for _, c := range o.Clients {
		v.Clients = append(v.Clients, viewClient(c))
	}
	for _, e := range o.Events {
		v.Events = append(v.Events, eventView{timeOf(e.Time), ondisk.Printable(e.Volume), line(e.Text)})
	}
	return v, nil
}

// judge says in a sentence how everything is.
func (v *view) judge(problems, troubled int) {
	n := len(v.Volumes)
	v.Class = well
	for _, one := range v.Volumes {
		v.Class = worse(v.Class, one.Class)
	}
	switch {
	case n == 0 && problems == 0:
		v.Class, v.Verdict = look, "No volume is served."
	case troubled == 0 && n == 1:
		v.Verdict = v.Volumes[0].Name + " is well."
	case troubled == 0 && n > 1:
		v.Verdict = fmt.Sprintf("All %d volumes are well.", n)
	case troubled == 1:
		i := slices.IndexFunc(v.Volumes, func(one volumeView) bool { return one.Class != well })
		v.Verdict = v.Volumes[i].Name + " needs a hand."
	case troubled > 1:
		v.Verdict = fmt.Sprintf("%d of %d volumes need a hand.", troubled, n)
	}
	if problems > 0 {
		v.Class = act
		v.Verdict = strings.TrimSpace(v.Verdict + " Not everything is served.")
	}
	v.Title = "gvirstor: " + v.Verdict
}

// worse is the more urgent of two.
func worse(a, b class) class {
	if a == act || b == act {
		return act
	}
	if a == look || b == look {
		return look
	}
	return well
}

// urgent are the conditions that cannot wait.
var urgent = []control.Condition{control.Degraded, control.Full, control.HeldWrites, control.FlushFailed,
	control.ReadErrors, control.WriteErrors, control.StorageFull, control.NoWrites, control.Incomplete, control.Unleased, control.SnapshotDamaged}

func isUrgent(c control.Condition) bool { return slices.Contains(urgent, c) }

// classOf says how urgent it is to do something about a volume.
func classOf(s *control.VolumeStatus) class {
	if slices.ContainsFunc(s.Conditions, isUrgent) {
		return act
	}
	for _, c := range s.Components {
		if slices.ContainsFunc(c.State, isUrgent) {
			return act
		}
	}
	if len(s.Actions()) > 0 {
		return look
	}
	return well
}

// urgency is classOf of the volume of that name.
func urgency(all []control.VolumeStatus, name string) class {
	for i := range all {
		if all[i].Name == name {
			return classOf(&all[i])
		}
	}
	return look
}

// shown is a as it may be shown.
func shown(a control.Action) control.Action {
	a.Trouble, a.Remedy = line(a.Trouble), line(a.Remedy)
	a.Commands = printable(a.Commands)
	return a
}

func printable(texts []string) []string {
	var out []string
	for _, text := range texts {
		out = append(out, line(text))
	}
	return out
}

// problemHand is what is to be done about what is not served.
func problemHand(p control.Problem) hand {
	trouble := line(p.Reason)
	for _, name := range p.Providers {
		if name = ondisk.Printable(name); !strings.Contains(trouble, name) {
			trouble += " (" + name + ")"
		}
	}
	return hand{Volume: ondisk.Printable(p.Volume), Class: act, Action: control.Action{Trouble: trouble, Remedy: line(p.Remedy)}}
}

func viewVolume(s *control.VolumeStatus, anchor string, o *Overview) (volumeView, error) {
	v := volumeView{Anchor: anchor, Name: ondisk.Printable(s.Name), State: stateText(s.Conditions), Class: classOf(s),
		Job: viewJob(s.Job), Facts: facts(s)}
	if len(s.Conditions) == 0 && v.Class != well {
		v.State = "needs a hand" // for one of its disks
	}
	if s.Held.Count > 0 {
		v.Held = &hand{Class: act, Action: shown(s.Actions()[0])} // which is the most urgent
	}
	v.Bar, v.Space = space(s)
	v.Snapshots = viewSnapshots(s.Name, o)
	v.More = len(v.Snapshots) > 0 && s.Snapshots > len(v.Snapshots) && (s.Volumes == nil || len(v.Snapshots) == MaxSnapshots)
	for i := range s.Volumes {
		v.Further = append(v.Further, viewFurther(s.Name, &s.Volumes[i], o))
	}
	if drawn := o.Maps[s.Name]; drawn != nil {
		var b strings.Builder
		if err := drawn.WriteMap(&b); err != nil {
			return v, fmt.Errorf("draw the map of %s: %w", v.Name, err)
		}
		v.Map = template.HTML(b.String()) // escaped by WriteMap
	}
	for _, c := range s.Components {
		v.Components = append(v.Components, viewComponent(c, s.ChunkSize))
	}
	for _, o := range s.Outsiders {
		v.Others = append(v.Others, otherView{ondisk.Printable(o.Name), line(o.Text)})
	}
	for _, sp := range s.Spares {
		text := "a spare of " + picture.Bytes(sp.Size)
		if sp.Failed != "" {
			text = "a spare that is not used: " + line(sp.Failed)
		}
		v.Others = append(v.Others, otherView{ondisk.Printable(sp.Name), text})
	}
	return v, nil
}

// viewFurther is a further volume of a pool.
func viewFurther(pool string, f *control.PoolVolume, o *Overview) furtherView {
	name := pool + "/" + f.Name
	v := furtherView{Name: ondisk.Printable(name), Problem: line(f.Problem), Snapshots: viewSnapshots(name, o)}
	v.More = len(v.Snapshots) == MaxSnapshots
	v.Text = picture.Bytes(f.Size) + ", " + picture.Bytes(f.Allocated) + " allocated"
	if f.Quota > 0 {
		v.Text += fmt.Sprintf(" of a quota of %s (%d%%)", picture.Bytes(f.Quota), control.Percent(f.Allocated, f.Quota))
	}
	if f.SecondsToFull != nil {
		v.Text += ", which it has in about " + duration(*f.SecondsToFull)
	}
	if f.Origin != "" {
		v.Text += ", a clone of " + ondisk.Printable(f.Origin)
	}
	if f.Held.Count > 0 {
		v.Text += fmt.Sprintf(", %d writes held", f.Held.Count)
	}
	if f.Degraded {
		v.Text += ", degraded"
	}
	for _, p := range f.Published {
		v.Reached = append(v.Reached, reachedAs(p))
	}
	return v
}

// reachedAs is where clients find a publication.
func reachedAs(p control.Publication) string {
	switch {
	case p.Kind != control.NBD:
		return "/dev/" + ondisk.Printable(p.Name)
	case p.URI == "":
		return ondisk.Printable(p.Name)
	}
	return line(p.URI)
}

// viewSnapshots are those of a volume, with who reads them.
func viewSnapshots(volume string, o *Overview) (all []snapshotView) {
	for _, s := range o.Snapshots[volume] {
		v := snapshotView{Name: ondisk.Printable(volume + "@" + s.Name), Created: timeOf(s.Created), Text: picture.Bytes(s.Size), Problem: line(s.Problem)}
		readers := 0
		for i := range o.Clients {
			if o.Clients[i].Volume == volume+"@"+s.Name {
				readers++
			}
		}
		switch {
		case readers == 1:
			v.Text += ", read by 1 client"
		case readers > 1:
			v.Text += fmt.Sprintf(", read by %d clients", readers)
		}
		all = append(all, v)
	}
	return all
}

// stateText are conditions in a few words, "well" for none.
func stateText(conditions []control.Condition) string {
	if len(conditions) == 0 {
		return string(well)
	}
	var words []string
	for _, c := range conditions {
		words = append(words, string(c))
	}
	return strings.Join(words, ", ")
}

// space is what there is of the components' space that data may take.
func space(s *control.VolumeStatus) ([]segment, []spaceView) {
	all := s.AllocatedChunks + s.FreeChunks
	kept := min(s.ReservedChunks, s.FreeChunks)
	size := func(chunks int64) string { return picture.Bytes(chunks * s.ChunkSize) }
	views := []spaceView{{"used", size(s.AllocatedChunks), fmt.Sprintf("allocated (%d%%)", control.Percent(s.AllocatedChunks, all))}}
	if kept > 0 {
		views = append(views, spaceView{"kept", size(kept), "kept in reserve"})
	}
	views = append(views, spaceView{"gv-empty", size(s.FreeChunks - kept), "free"}, spaceView{"", size(all), "in all"})
	return segments(all, part{"used", s.AllocatedChunks}, part{"kept", kept}), views
}

// part is so much of a bar.
type part struct {
	class string
	n     int64
}

// segments are parts that follow each other, of a whole.
func segments(whole int64, parts ...part) []segment {
	var all []segment
	at := 0.0
	for _, p := range parts {
		if p.n <= 0 || whole <= 0 {
			continue
		}
		width := min(100-at, max(1, 100*float64(p.n)/float64(whole))) // a little shows
		all = append(all, segment{p.class, fmt.Sprintf("%.2f", at), fmt.Sprintf("%.2f", width)})
		at += width
	}
	return all
}

// facts are what else there is to know of a volume.
func facts(s *control.VolumeStatus) []factView {
	all := []factView{{What: "Virtual size", Text: picture.Bytes(s.VirtualSize) + ", in chunks of " + picture.Bytes(s.ChunkSize)}}
	if s.SecondsToFull != nil {
		all = append(all, factView{What: "Full in", Text: "about " + duration(*s.SecondsToFull) + " at the present rate"})
	}
	if s.Snapshots > 0 {
		f := factView{What: "Snapshots", Text: fmt.Sprint(s.Snapshots)}
		if len(s.DamagedSnapshots) > 0 {
			f.Text += ", of which cannot be read: " + strings.Join(printable(s.DamagedSnapshots), ", ")
		}
		all = append(all, f)
	}
	if s.Lease != nil {
		all = append(all, factView{What: "Lease", Text: leaseText(s.Lease)})
	}
	full := "writes that need space wait"
	if s.WhenFull == "error" {
		full = "writes that need space fail"
	}
	all = append(all, factView{What: "When it is full", Text: full})
	for _, p := range s.Published {
		all = append(all, factView{What: "Reached as", Code: reachedAs(p)})
	}
	return all
}

// leaseText is the lease in words: whose, until when, and what else keeps another host off.
func leaseText(l *control.Lease) string {
	text := fmt.Sprintf("of this host, %s, since %s, ", ondisk.Printable(l.Host), timeOf(l.Since).People)
	if l.LeftSeconds > 0 {
		text += fmt.Sprintf("for %d s unless it is renewed", int64(l.LeftSeconds))
	} else {
		text += "run out"
	}
	if l.Fencing {
		return text + "; another host is fenced off before it is taken"
	}
	return text + "; not fenced: see LEASES in gvirstor(8)"
}

func viewJob(j *control.JobStatus) *jobView {
	if j == nil {
		return nil
	}
	v := &jobView{Text: ondisk.Printable(j.Kind) + ": " + picture.Bytes(j.Done), Known: j.Total > 0, Done: min(j.Done, j.Total), Total: j.Total}
	if v.Known {
		v.Text += fmt.Sprintf(" of %s, %d%%", picture.Bytes(j.Total), min(100, control.Percent(j.Done, j.Total)))
	}
	if j.Rate > 0 {
		v.Text += ", " + picture.Bytes(j.Rate) + " a second"
		if v.Known && j.Done < j.Total {
			v.Text += ", done in about " + duration((j.Total-j.Done)/j.Rate)
		}
	}
	return v
}

func viewComponent(c control.ComponentStatus, chunk int64) componentView {
	data, used := int64(c.ChunksUsed)+int64(c.ChunksFree)-int64(c.ChunksReserved), int64(c.ChunksUsed)-int64(c.ChunksReserved)
	v := componentView{Name: ondisk.Printable(c.Name), Color: picture.Class(c.Index), Size: picture.Bytes(c.MediaSize), State: stateText(c.State), Class: well,
		Used: fmt.Sprintf("%s of %s, %d%%", picture.Bytes(used*chunk), picture.Bytes(data*chunk), control.Percent(used, data)),
		Bar:  segments(data, part{picture.Class(c.Index), used})}
	if len(c.State) > 0 {
		v.Class = act
	}
	return v
}

func viewClient(c control.ClientStatus) clientView {
	v := clientView{Who: ondisk.Printable(c.Address), Volume: ondisk.Printable(c.Volume), Flight: fmt.Sprint(c.InFlight),
		Read: picture.Bytes(int64(c.BytesRead)), Written: picture.Bytes(int64(c.BytesWritten)), Idle: duration(c.IdleSeconds)}
	switch {
	case c.Name != "":
		v.Who = ondisk.Printable(c.Name) + " at " + v.Who
	case c.Address == "" && c.UID != nil && c.PID != 0:
		v.Who = fmt.Sprintf("process %d of user %d", c.PID, *c.UID)
	case c.Address == "" && c.UID != nil:
		v.Who = fmt.Sprintf("user %d", *c.UID)
	case c.Address == "":
		v.Who = "a process of this machine"
	}
	if c.Volume == "" {
		v.Volume = "chooses"
	}
	if c.ReadOnly {
		v.Volume += ", to read"
	}
	if c.Held > 0 {
		v.Flight += fmt.Sprintf(", %d held", c.Held)
	}
	return v
}

// line is a text, in which there may be names, as the page shows it.
func line(text string) string {
	return strings.ReplaceAll(ondisk.PrintableText(text), "\n", " ")
}

func timeOf(t time.Time) viewTime {
	t = t.UTC()
	return viewTime{t.Format("2006-01-02 15:04:05") + " UTC", t.Format(time.RFC3339)}
}

// duration is so many seconds as people say it.
func duration(seconds int64) string {
	for _, unit := range []struct {
		seconds int64
		name    string
	}{{24 * 60 * 60, "days"}, {60 * 60, "h"}, {60, "min"}} {
		if seconds >= 2*unit.seconds {
			return fmt.Sprintf("%d %s", seconds/unit.seconds, unit.name)
		}
	}
	return fmt.Sprintf("%d s", max(0, seconds))
}
