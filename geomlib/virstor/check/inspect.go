package check

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Options modify Inspect. The zero value is a full check of what nobody uses.
type Options struct {
	// Live: somebody serves the volumes meanwhile. What looks wrong is read
	// again before it is believed, and what is normal in use is no finding.
	Live bool
	// Search is how many bytes before the end of a provider without metadata
	// are searched for what lay in its last sector before it grew. 0: 64 MiB;
	// negative: none.
	Search int64
	// MaxEach is how many findings of one code are listed for a volume. One more
	// tells how many there are beyond. 0: 100.
	MaxEach int
	// History, if not nil, is one of the providers: of several histories of its volume,
	// the one that it belongs to is checked, and the others are no findings.
	History geomlib.Provider
	// Progress, if not nil, is told again and again how far the reading of maps
	// is, in bytes. It is called by the goroutine that checks.
	Progress func(done, total int64)
}

const (
	defaultSearch  = 64 << 20
	defaultMaxEach = 100
	// keptSuspects is how many entries repair can be asked to decide on.
	keptSuspects = 4096
	liveTries    = 3
)

// Inspect checks all volumes that have a component among providers. It only
// reads; providers may be read-only, and stay the caller's. It fails when ctx
// ends; whatever is wrong with the providers is a finding.
func Inspect(ctx context.Context, providers []geomlib.Provider, opt Options) (*Report, error) {
	if opt.Search == 0 {
		opt.Search = defaultSearch
	}
	if opt.MaxEach <= 0 {
		opt.MaxEach = defaultMaxEach
	}
	in := &inspector{ctx: ctx, opt: opt, report: &Report{Volumes: []*Volume{}, Findings: []Finding{}}}
	groups := in.group(providers)
	in.findSwapped(groups)
	for _, members := range groups {
		if err := in.inspect(members); err != nil {
			return nil, fmt.Errorf("check: %w", err)
		}
	}
	in.findStrangers()
	slices.SortStableFunc(in.report.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(b.Severity, a.Severity))
	})
	return in.report, nil
}

type inspector struct {
	ctx    context.Context
	opt    Options
	report *Report
}

func (in *inspector) add(f Finding) { in.report.Findings = append(in.report.Findings, f) }

// group reads the metadata of all providers and sorts them by volume id, in
// the order of volume names.
func (in *inspector) group(providers []geomlib.Provider) [][]*member {
	var all []*member
	for _, p := range providers {
		if m := in.read(p); m != nil {
			all = append(all, m)
		}
	}
	slices.SortStableFunc(all, func(a, b *member) int {
		return cmp.Or(cmp.Compare(a.found.Name, b.found.Name), cmp.Compare(a.found.ID, b.found.ID))
	})
	var groups [][]*member
	place := make(map[uint32]int)
	ids := adopted(all)
	for _, m := range all {
		id := m.found.ID
		if now, ok := ids[m.p]; ok {
			id = now
		}
		m.id = id
		i, ok := place[id]
		if !ok {
			i = len(groups)
			place[id] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], m)
	}
	return groups
}

// adopted are the ids of the volumes that have providers with another id: their new one
// is not on all members yet.
func adopted(all []*member) map[geomlib.Provider]uint32 {
	var found []virstor.Member
	for _, m := range all {
		if !m.damaged && m.moved == 0 {
			found = append(found, virstor.Member{Provider: m.p, Metadata: m.found})
		}
	}
	ids := make(map[geomlib.Provider]uint32)
	for _, a := range virstor.Assemble(found) {
		for _, m := range a.Members {
			if m.Provider != nil && m.Metadata.ID != a.ID {
				ids[m.Provider] = a.ID
			}
		}
	}
	return ids
}

// read finds the metadata of one provider, or says that there is none.
func (in *inspector) read(p geomlib.Provider) *member {
	m, err := readMember(p)
	if err == nil {
		return m
	}
	if !isNoMetadata(err) {
		in.add(Finding{Severity: Error, Code: ProviderUnreadable, Provider: p.Name(), Mend: MendByHand,
			Text:   fmt.Sprintf("the last sector cannot be read: %v", err),
			Remedy: "Replace the disk. `gvirstor restore` writes the metadata again from a backup."})
		return nil
	}
	if in.opt.Search > 0 {
		m, err := searchMoved(p, in.opt.Search)
		if err != nil {
			in.add(Finding{Severity: Error, Code: ProviderUnreadable, Provider: p.Name(), Mend: MendByHand,
				Text: err.Error(), Remedy: "Replace the disk."})
			return nil
		}
		if m != nil {
			return m
		}
	}
	in.add(Finding{Severity: Error, Code: ProviderNoMetadata, Provider: p.Name(), Mend: MendByHand,
		Text:   "no GEOM::VIRSTOR metadata in the last sector",
		Remedy: "If it was a component, `gvirstor restore` writes the metadata again from a backup."})
	return nil
}

// inspect checks one volume. Of a volume in use it believes what it saw while
// no metadata changed.
func (in *inspector) inspect(members []*member) error {
	for try := 1; ; try++ {
		before := len(in.report.Findings)
		v := newVolumeCheck(in, members)
		if err := v.run(); err != nil {
			return err
		}
		if in.opt.Live && v.changed() {
			in.report.Findings = in.report.Findings[:before]
			if try < liveTries {
				members = in.reread(members)
				if len(members) == 0 {
					return nil
				}
				continue
			}
			v.forget()
			v.find(Finding{Severity: Info, Code: Changing,
				Text:   "its components changed while they were looked at",
				Remedy: "Check again when no component is being added or removed."})
		}
		in.report.Volumes = append(in.report.Volumes, v.Volume)
		return nil
	}
}

func (in *inspector) reread(members []*member) []*member {
	var out []*member
	for _, m := range members {
		if again := in.read(m.p); again != nil {
			again.id = m.id
			out = append(out, again)
		}
	}
	return out
}

// findSwapped finds two providers whose metadata each fits the other's size.
func (in *inspector) findSwapped(groups [][]*member) {
	for _, g := range groups {
		for i, a := range g {
			for _, b := range g[i+1:] {
				if !swapped(a, b) {
					continue
				}
				a.want, b.want = b.found, a.found
				a.why = append(a.why, "it belongs on "+b.name())
				b.why = append(b.why, "it belongs on "+a.name())
				in.add(Finding{Severity: Error, Code: ProviderSwapped, Volume: ondisk.Printable(a.found.Name), VolumeID: hex(a.found.ID),
					Provider: a.name(), Mend: MendRepair, Prevents: true,
					Text:   fmt.Sprintf("has the metadata of %s, and that has its own: each was written for a provider of the other's size", b.name()),
					Remedy: "`gvirstor repair` puts each in its place."})
			}
		}
	}
}

func swapped(a, b *member) bool {
	sizeA, sizeB := uint64(a.p.MediaSize()), uint64(b.p.MediaSize())
	return sizeA != sizeB && a.moved == 0 && b.moved == 0 &&
		a.found.ProviderSize == sizeB && b.found.ProviderSize == sizeA &&
		b.fits(a.found.ChunkCount, a.found.ChunkSize) && a.fits(b.found.ChunkCount, b.found.ChunkSize)
}

// findStrangers says of a provider that stands alone whose volume it may be
// from: one of the same name that lacks just this component.
func (in *inspector) findStrangers() {
	for _, v := range in.report.Volumes {
		for _, o := range in.report.Volumes {
			if v == o || v.Name != o.Name {
				continue
			}
			for _, m := range v.members {
				i := int(m.found.No)
				if i >= len(o.Components) || o.Components[i].Provider != "" {
					continue
				}
				in.add(Finding{Severity: Error, Code: MetadataID, Volume: o.Name, VolumeID: o.ID, Provider: m.name(), Mend: MendByHand,
					Text: fmt.Sprintf("is component %d of a volume of the same name with the id %s: damaged, or left by an earlier label; "+
						"the volume with the id %s lacks its component %d", i, v.ID, o.ID, i),
					Remedy: "If you are sure that it belongs here, `gvirstor restore` writes the metadata again from a backup."})
			}
		}
	}
}

func hex(id uint32) string { return fmt.Sprintf("%08x", id) }

func fenceOf(ms []*member) Fence {
	var on, off int
	for _, m := range ms {
		if m.leave || m.clear {
			continue
		}
		if m.found.Version == ondisk.VersionFenced {
			on++
		} else {
			off++
		}
	}
	switch {
	case on+off == 0:
		return FenceUnset
	case on == 0:
		return FenceNone
	case off == 0:
		return FenceAll
	}
	return FenceSome
}
