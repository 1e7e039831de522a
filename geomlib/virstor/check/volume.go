package check

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ondisk"
)

// volumeCheck is the check of one volume.
type volumeCheck struct {
	*Volume
	in   *inspector
	zero *member // component 0; nil when it is missing or in doubt

	ext   ondisk.Extension
	extOK bool
	// extAbsurd: the record in force contradicts the geometry.
	extAbsurd bool
	// recordLost: there must have been a record, and none is found.
	recordLost bool
	// marked: member blocks, which their checksums bear out, say who the members are,
	// and component 0's what the volume is.
	marked   bool
	listed   map[Code]int      // and those that are not
	unlisted map[Code]Severity // the worst of those that are not
	maps     []*bitmap         // by component; nil where it is missing

	scanned int64 // bytes of the map that scans were begun for
}

func newVolumeCheck(in *inspector, members []*member) *volumeCheck {
	m := members[0].found
	v := &volumeCheck{in: in, listed: make(map[Code]int), unlisted: make(map[Code]Severity)}
	v.Volume = &Volume{Name: ondisk.Printable(m.Name), ID: hex(members[0].id), id: members[0].id, members: members, Components: []Component{}, Snapshots: []Snapshot{}}
	return v
}

// run makes all findings, from what concerns one provider to what concerns
// all. Each step uses what the ones before it found to be right.
func (v *volumeCheck) run() error {
	v.checkMoved()
	v.checkVersions()
	if !v.checkMembers() {
		v.describe()
		v.summarise()
		return nil
	}
	v.checkSectorSizes()
	v.checkProviderSizes()
	v.checkProviderNames()
	v.checkChunkSize()
	v.pickZero()
	v.checkVirtualSize()
	v.checkName()
	v.checkCount()
	v.checkIndexes()
	v.checkChunks()
	v.assemble()
	v.readExtension()
	v.checkGenerations()
	v.describe()
	usable := v.geometryIsSound()
	if usable && !(v.in.opt.Live && v.extOK && v.ext.Intent.Kind != ondisk.IntentNone) {
		if err := v.checkMap(); err != nil {
			return err
		}
		if err := v.checkLost(true); err != nil {
			return err
		}
		if err := v.checkPool(); err != nil {
			return err
		}
		v.checkUsage()
	} else if err := v.checkLost(false); err != nil {
		return err
	}
	v.checkFence()
	v.withdrawRemedies()
	v.summarise()
	return nil
}

// find adds a finding about the volume, up to the number that is listed of each.
func (v *volumeCheck) find(f Finding) {
	v.listed[f.Code]++
	if v.listed[f.Code] > v.in.opt.MaxEach {
		v.unlisted[f.Code] = max(v.unlisted[f.Code], f.Severity)
		return
	}
	f.Volume, f.VolumeID = v.Name, v.ID
	v.in.add(f)
}

// withdrawRemedies takes back what findings advise for single entries of a map of which
// more is wrong than can be decided so: repair refuses it as a whole. One of which some
// cannot be read is mended by entries when it has been copied.
func (v *volumeCheck) withdrawRemedies() {
	if !v.overflow || !v.MapChecked {
		return
	}
	for i := range v.in.report.Findings {
		f := &v.in.report.Findings[i]
		if f.VolumeID == v.ID && f.Virtual != nil && (f.Mend == MendRepair || f.Mend == MendChoice) {
			f.Mend, f.Remedy = MendByHand, remedyRestore
		}
	}
}

// summarise says how many findings were not listed.
func (v *volumeCheck) summarise() {
	for _, c := range slices.Sorted(maps.Keys(v.unlisted)) {
		v.find(Finding{Severity: v.unlisted[c], Code: TooManyFindings,
			Text: fmt.Sprintf("%d more findings of the kind %s", v.listed[c]-v.in.opt.MaxEach, c)})
	}
}

// changed reports whether any metadata differs from what it was at the start.
func (v *volumeCheck) changed() bool {
	for _, m := range v.members {
		now, err := readMember(m.p)
		if err != nil || now.read != m.read {
			return true
		}
	}
	return false
}

// forget drops what was learned, which was never true at one moment.
func (v *volumeCheck) forget() {
	v.suspects, v.doubled, v.cleared, v.MapChecked = nil, nil, false, false
	v.assembly, v.marked, v.pool, v.Snapshots = nil, false, false, []Snapshot{}
	v.listed = make(map[Code]int)
	for _, m := range v.members {
		m.want = m.found
	}
}

// active are the members that may take part.
func (v *volumeCheck) active() []*member {
	var out []*member
	for _, m := range v.members {
		if !m.leave && !m.clear {
			out = append(out, m)
		}
	}
	return out
}

// at returns the member that is component i, nil when there is none.
func (v *volumeCheck) at(i int) *member {
	if v.assembly == nil || i >= len(v.assembly.Members) {
		return nil
	}
	p := v.assembly.Members[i].Provider
	if p == nil {
		return nil
	}
	for _, m := range v.members {
		if m.p == p {
			return m
		}
	}
	return nil
}

// assembled is what the engine makes of members, nil when there are none.
func (v *volumeCheck) assembled(members []virstor.Member) *virstor.Assembly {
	for _, a := range virstor.Assemble(members) {
		if a.ID == v.id {
			return a
		}
	}
	return nil
}

// assemble puts the volume together as the engine would, from mended metadata.
func (v *volumeCheck) assemble() {
	for _, m := range v.active() {
		if m.want.No == 0 && (m.broken || m.want.Count == 0) {
			return // what it says cannot be gone by
		}
	}
	if v.assembly == nil {
		v.assembly = v.assembled(v.wanted())
	}
	a := v.assembly
	if a == nil {
		if slices.ContainsFunc(v.members, func(m *member) bool { return m.damaged }) {
			v.findMissing(0) // nobody is left to be it
		}
		return
	}
	if !unjudged(a) {
		for _, ig := range a.Ignored {
			v.explainIgnored(ig)
		}
	}
	missing := false
	if len(a.Members) > 0 {
		for i, m := range a.Members {
			if m.Provider == nil {
				missing = true
				v.findMissing(i)
			}
		}
	}
	if v.zero == nil && len(a.Members) == 0 && !v.hasIndex(0) {
		missing = true
		v.findMissing(0)
	}
	if a.Err != nil && !errors.Is(a.Err, virstor.ErrRecord) && !missing && v.listed[ComponentDoubled] == 0 {
		v.find(Finding{Severity: Error, Code: CannotAssemble, Text: a.Err.Error(), Mend: MendByHand, Prevents: true})
	}
}

func (v *volumeCheck) hasIndex(i uint16) bool {
	for _, m := range v.active() {
		if m.want.No == i {
			return true
		}
	}
	return false
}

func (v *volumeCheck) findMissing(i int) {
	if v.listed[ComponentDoubled] > 0 && v.hasIndex(uint16(i)) {
		return // it is there twice
	}
	text := fmt.Sprintf("component %d is missing", i)
	if i == 0 {
		text += "; it holds the allocation map"
	}
	v.find(Finding{Severity: Error, Code: ComponentMissing, Mend: MendByHand, Prevents: true, Text: text,
		Remedy: "Attach it and check again, naming all components."})
}

// explainIgnored says why a provider with the volume's id takes no part in it.
func (v *volumeCheck) explainIgnored(ig virstor.Ignored) {
	for _, m := range v.members {
		if m.p != ig.Provider || m.clear {
			continue
		}
		if outsider(ig) {
			if !m.leave {
				v.findOutsider(m, ig.Reason)
			}
			return
		}
		m.leave = true
		if v.listed[ProviderResized]+v.listed[ProviderName] > 0 && ig.Metadata.ProviderSize != uint64(ig.Provider.MediaSize()) {
			return
		}
		v.find(Finding{Severity: Info, Code: ComponentIgnored, Provider: m.name(), Text: ig.Reason.Error()})
	}
}

// describe fills in what the report says of the volume.
func (v *volumeCheck) describe() {
	v.Fence = fenceOf(v.members)
	if v.zero != nil {
		m := v.zero.want
		if l, err := virstor.LeaseOn(v.zero.p, m); err == nil && l != nil { // what cannot be read is found elsewhere
			v.Lease = &Lease{l.HostName, l.Since.UTC(), l.Released}
		}
		v.Name, v.VirtualSize, v.ChunkSize, v.VirtualChunks = ondisk.Printable(m.Name), m.VirtualSize, m.ChunkSize, m.Entries()
	}
	if v.assembly == nil {
		return
	}
	for i := range v.assembly.Members {
		c := Component{Index: i}
		if m := v.at(i); m != nil {
			c.Provider, c.Reserved = m.name(), uint32(m.want.ChunkReserved)
			c.Member, c.Failed = memberState(m.found.Member), slices.Contains(v.assembly.Failed, i)
			if end := m.dataEnd(); end > c.Reserved {
				c.Chunks = end - c.Reserved
			}
		}
		v.Components = append(v.Components, c)
	}
}

// dataEnd is the first chunk that data should not use.
func (m *member) dataEnd() uint32 { return min(m.want.ChunkCount, m.usable(m.want.ChunkSize)) }
