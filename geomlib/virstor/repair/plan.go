package repair

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor/check"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Choices are what the user decided, by virtual chunk.
type Choices struct {
	// Keep: of several virtual chunks on one chunk this one keeps it; an entry
	// that may have lost its flag is allocated.
	Keep []uint64
	// Drop: the virtual chunk becomes unallocated and reads as zeros.
	Drop []uint64
	// GiveUp are the names of damaged snapshots that are deleted.
	GiveUp []string
}

func (c Choices) empty() bool { return len(c.Keep)+len(c.Drop)+len(c.GiveUp) == 0 }

// ErrChoices: choices for more than one volume.
var ErrChoices = errors.New("virtual chunks and snapshots are decided on in one volume at a time")

// ErrRefused: the plan says why nothing is done.
var ErrRefused = errors.New("not repaired")

// Action is one thing that a plan does.
type Action struct {
	Provider string `json:"provider"`
	Text     string `json:"text"`
}

// Refusal is why nothing is done.
type Refusal struct {
	Code     check.Code `json:"code,omitempty"`
	Provider string     `json:"provider,omitempty"`
	Text     string     `json:"text"`
	Remedy   string     `json:"remedy,omitempty"`
}

// Plan is what is to be done with one volume. With Refusals nothing is.
type Plan struct {
	Volume   string    `json:"volume"`
	ID       string    `json:"id"`
	Actions  []Action  `json:"actions"`
	Refusals []Refusal `json:"refusals"`
	// Left is what is wrong and stays so: it keeps the volume from nothing, and
	// only the user can put it right.
	Left []Refusal `json:"left"`

	// Above is the highest generation of the volume that this host is known to have
	// served. The volume's is above it when it is repaired.
	Above uint64 `json:"-"`

	volume *check.Volume
	edits  map[uint64]ondisk.Entry // by virtual chunk; the zero Entry clears
	lost   []string                // damaged snapshots that are given up
}

// NumericID is the volume's id, by which it is locked.
func (p *Plan) NumericID() uint32 { return p.volume.NumericID() }

// Zero is component 0 and the metadata that the plan wants on it; nil where there is none.
func (p *Plan) Zero() (zero geomlib.Provider, m ondisk.Metadata) {
	all := p.volume.Members()
	if len(all) == 0 || all[0].Wanted == nil {
		return nil, m
	}
	return all[0].Provider, *all[0].Wanted
}

// Needed reports whether anything is to be done.
func (p *Plan) Needed() bool { return len(p.Actions) > 0 }

// Make plans the repair of every volume of a report on providers that nobody
// else uses. It fails with ErrChoices only.
func Make(r *check.Report, c Choices) ([]*Plan, error) {
	if !c.empty() && len(r.Volumes) > 1 {
		return nil, fmt.Errorf("%d volumes: %w", len(r.Volumes), ErrChoices)
	}
	var plans []*Plan
	for _, v := range r.Volumes {
		p := &Plan{Volume: v.Name, ID: v.ID, Actions: []Action{}, Refusals: []Refusal{}, Left: []Refusal{}, volume: v, edits: make(map[uint64]ondisk.Entry)}
		p.giveUp(c.GiveUp)
		p.refuse(r.Findings)
		p.choose(c)
		p.planActions(r.Findings)
		plans = append(plans, p)
	}
	return plans, nil
}

// giveUp takes the damaged snapshots that the user gives up.
func (p *Plan) giveUp(names []string) {
	for _, name := range names {
		i := slices.IndexFunc(p.volume.Snapshots, func(s check.Snapshot) bool { return s.Damaged && s.Name == name })
		if i < 0 {
			p.refuseChoice(fmt.Sprintf("there is no damaged snapshot %s, and an intact one is not given up here", ondisk.Printable(name)))
			continue
		}
		if clones := p.volume.Snapshots[i].Clones; clones != nil {
			p.refuseChoice(fmt.Sprintf("snapshot %s is needed by what began as it: %s; `gvirstor check` says how they are kept", ondisk.Printable(name), strings.Join(clones, ", ")))
			continue
		}
		p.lost = append(p.lost, name)
	}
}

// refuse takes over the findings that only the user can do something about. Of a map that
// is refused as a whole no single entry is one.
func (p *Plan) refuse(findings []check.Finding) {
	_, complete := p.volume.Suspects()
	for _, f := range findings {
		if !complete && f.Virtual != nil && f.Code != check.MapUnreadable {
			continue
		}
		if f.VolumeID != p.ID || f.Mend != check.MendByHand && f.Code != check.TwoHistories && f.Code != check.SnapshotDamaged ||
			f.Code == check.SnapshotDamaged && slices.Contains(p.lost, f.Snapshot) {
			continue
		}
		r := Refusal{Code: f.Code, Provider: f.Provider, Text: f.Text, Remedy: f.Remedy}
		if f.Prevents || f.Code == check.ComponentSwapped {
			p.Refusals = append(p.Refusals, r)
		} else {
			p.Left = append(p.Left, r)
		}
	}
	if !complete {
		p.Refusals = append(p.Refusals, Refusal{Text: "more of the allocation map is damaged than can be decided entry by entry",
			Remedy: "`gvirstor restore` brings the map back from a backup."})
	}
}

// choose turns choices into edits of the map, and refuses what is undecided. Where more is
// wrong than can be decided no choice is of use.
func (p *Plan) choose(c Choices) {
	if _, complete := p.volume.Suspects(); !complete {
		return
	}
	d := decisions{plan: p, keep: set(c.Keep), drop: set(c.Drop), asked: make(map[uint64]bool)}
	for _, vc := range c.Keep {
		if d.drop[vc] {
			p.refuseChoice(fmt.Sprintf("virtual chunk %d cannot be both kept and dropped", vc))
		}
	}
	for _, s := range d.suspects() {
		d.decide(s)
	}
	for _, shared := range p.volume.Doubled() {
		d.share(shared)
	}
	for _, vc := range slices.Concat(c.Keep, c.Drop) {
		if !d.asked[vc] {
			p.refuseChoice(fmt.Sprintf("virtual chunk %d is not in question", vc))
		}
	}
}

func (p *Plan) refuseChoice(text string) { p.Refusals = append(p.Refusals, Refusal{Text: text}) }

type decisions struct {
	plan       *Plan
	keep, drop map[uint64]bool
	asked      map[uint64]bool         // virtual chunks that there is something to decide about
	kept       map[ondisk.Entry]uint64 // entries that keeping made
}

func (d *decisions) suspects() []check.Suspect {
	list, _ := d.plan.volume.Suspects()
	return list
}

// decide settles one entry that cannot be right as it is.
func (d *decisions) decide(s check.Suspect) {
	d.asked[s.Virtual] = true
	p := d.plan
	switch {
	case d.drop[s.Virtual]:
		p.edits[s.Virtual] = ondisk.Entry{}
	case d.keep[s.Virtual] && s.Taken:
		p.refuseChoice(fmt.Sprintf("virtual chunk %d cannot be kept: snapshots have its chunk for something else", s.Virtual))
	case d.keep[s.Virtual] && s.As == nil:
		p.refuseChoice(fmt.Sprintf("virtual chunk %d cannot be kept: its map entry names no chunk that data can be on", s.Virtual))
	case d.keep[s.Virtual]:
		if d.kept == nil {
			d.kept = make(map[ondisk.Entry]uint64)
		}
		if other, ok := d.kept[*s.As]; ok {
			p.refuseChoice(fmt.Sprintf("virtual chunks %d and %d cannot both be kept: they name the same chunk", other, s.Virtual))
			return
		}
		d.kept[*s.As] = s.Virtual
		p.edits[s.Virtual] = *s.As
	case s.As == nil:
		p.Refusals = append(p.Refusals, Refusal{Code: codeOf(s.Verdict),
			Text:   fmt.Sprintf("the map entry of virtual chunk %d names no chunk that data can be on", s.Virtual),
			Remedy: fmt.Sprintf("Decide with --drop %d, which gives up what it holds, or `gvirstor restore` the map from a backup.", s.Virtual)})
	case s.Taken:
		p.Refusals = append(p.Refusals, Refusal{Code: codeOf(s.Verdict),
			Text:   fmt.Sprintf("the map entry of virtual chunk %d names a chunk that snapshots have for something else", s.Virtual),
			Remedy: fmt.Sprintf("Decide with --drop %d.", s.Virtual)})
	default:
		p.Refusals = append(p.Refusals, Refusal{Code: codeOf(s.Verdict),
			Text:   fmt.Sprintf("the map entry of virtual chunk %d may be an allocated one (chunk %d of component %d)", s.Virtual, s.As.Chunk, s.As.Component),
			Remedy: fmt.Sprintf("Decide with --keep %d or --drop %d.", s.Virtual, s.Virtual)})
	}
}

func codeOf(v check.Verdict) check.Code {
	switch v {
	case check.MayBeLost:
		return check.EntryLost
	case check.OtherOrder:
		return check.MapByteOrder
	case check.BadComponent:
		return check.EntryComponent
	case check.BadReserved:
		return check.EntryReserved
	}
	return check.EntryRange
}

// share settles who keeps a chunk that several virtual chunks claim.
func (d *decisions) share(s check.Doubled) {
	var kept, left []uint64
	for _, vc := range s.Virtual {
		d.asked[vc] = true
		switch {
		case d.keep[vc]:
			kept = append(kept, vc)
		case !d.drop[vc]:
			left = append(left, vc)
		}
	}
	if len(kept) == 0 && len(left) == 1 {
		kept = left
	}
	if len(kept) > 1 || len(kept) == 0 && len(left) > 1 {
		d.plan.Refusals = append(d.plan.Refusals, Refusal{Code: check.ChunkDoubled,
			Text:   fmt.Sprintf("virtual chunks %s are all on chunk %d of component %d, and one alone can be", numbers(s.Virtual), s.Chunk, s.Component),
			Remedy: "Decide with --keep of the one whose data it is."})
		return
	}
	for _, vc := range s.Virtual {
		if len(kept) == 0 || vc != kept[0] {
			d.plan.edits[vc] = ondisk.Entry{}
		}
	}
}

// planActions lists what Apply does.
func (p *Plan) planActions(findings []check.Finding) {
	v := p.volume
	for _, f := range findings {
		if f.VolumeID == p.ID && f.Code == check.OtherHistory {
			p.act(f.Provider, "is given up: it "+f.Text)
		}
	}
	for _, c := range v.Changes() {
		what := "write the metadata"
		if c.Wanted == nil {
			what = "clear the metadata"
		}
		p.act(c.Provider.Name(), what+": "+strings.Join(c.Why, "; "))
	}
	zero := ""
	if len(v.Components) > 0 {
		zero = v.Components[0].Provider
	}
	if v.MapNeedsCleaning() {
		p.act(zero, "clear what unallocated map entries hold, and unknown flags of allocated ones")
	}
	for _, vc := range sortedKeys(p.edits) {
		if e := p.edits[vc]; e.Allocated() {
			p.act(zero, fmt.Sprintf("make virtual chunk %d allocated on chunk %d of component %d", vc, e.Chunk, e.Component))
		} else {
			p.act(zero, fmt.Sprintf("make virtual chunk %d unallocated: it reads as zeros from then on", vc))
		}
	}
	for _, f := range findings {
		if f.VolumeID != p.ID {
			continue
		}
		switch f.Code {
		case check.IntentPending:
			p.act(f.Provider, "finish what was interrupted: "+f.Text)
		case check.FenceMixed:
			p.act("", "finish the fence")
		case check.HandBackBegun:
			p.act(f.Provider, "take the volume back, whose handing back was interrupted")
		case check.ExtensionAbsurd:
			p.act(f.Provider, "forget the extension block's record, and write a new one")
		case check.ExtensionDamaged:
			if rec := v.NewRecord(); f.Mend == check.MendRepair && rec != nil && rec.Directory.Exists() {
				p.act(f.Provider, "write a new extension record, which names the directory that was found")
			} else if f.Mend == check.MendRepair {
				p.act(f.Provider, "write a new extension record")
			}
		}
	}
	for _, name := range p.lost {
		p.act("", fmt.Sprintf("give up snapshot %s, which is damaged: what it alone has is lost", ondisk.Printable(name)))
	}
	if p.handsBack() {
		p.act("", "hand the volume back to the kernel class, if it could go on with it")
	}
}

// LosesSnapshots are the damaged snapshots that are given up.
func (p *Plan) LosesSnapshots() []string { return p.lost }

// GivesUp are the providers whose history is given up for the one that was chosen.
func (p *Plan) GivesUp() []string {
	var names []string
	for _, o := range p.volume.Others() {
		names = append(names, o.Name())
	}
	return names
}

// handsBack reports whether the volume is handed back in the end, as it was found. One of
// several histories is not: without a generation it would be no later than the others.
func (p *Plan) handsBack() bool {
	return p.Needed() && p.volume.Fence == check.FenceNone && len(p.volume.Others()) == 0
}

func (p *Plan) act(provider, text string) {
	p.Actions = append(p.Actions, Action{Provider: provider, Text: text})
}

// WriteText writes the plan for people.
func (p *Plan) WriteText(w io.Writer) error {
	var b strings.Builder
	switch {
	case len(p.Refusals) > 0:
		fmt.Fprintf(&b, "%s cannot be repaired as it is:\n", p.Volume)
		reasons(&b, p.Refusals)
	case !p.Needed() && len(p.Left) > 0:
		fmt.Fprintf(&b, "%s: nothing that repair can mend.\n", p.Volume)
	case !p.Needed():
		fmt.Fprintf(&b, "%s: nothing to repair.\n", p.Volume)
	default:
		fmt.Fprintf(&b, "%s:\n", p.Volume)
		for _, a := range p.Actions {
			line(&b, a.Provider, a.Text)
		}
	}
	if len(p.Left) > 0 {
		b.WriteString("What only you can put right:\n")
		reasons(&b, p.Left)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write plan: %w", err)
	}
	return nil
}

func reasons(b *strings.Builder, rs []Refusal) {
	for _, r := range rs {
		line(b, r.Provider, r.Text)
		if r.Remedy != "" {
			fmt.Fprintf(b, "    %s\n", r.Remedy)
		}
	}
}

func line(b *strings.Builder, provider, text string) {
	if provider != "" {
		text = provider + ": " + text
	}
	fmt.Fprintf(b, "  %s\n", text)
}

func set(ns []uint64) map[uint64]bool {
	m := make(map[uint64]bool, len(ns))
	for _, n := range ns {
		m[n] = true
	}
	return m
}

func sortedKeys(m map[uint64]ondisk.Entry) []uint64 {
	keys := make([]uint64, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func numbers(ns []uint64) string {
	var s []string
	for _, n := range ns {
		s = append(s, fmt.Sprint(n))
	}
	return strings.Join(s, ", ")
}
