package virstor

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/alloc"
	"github.com/gvirstor/gvirstor/ondisk"
)

// AddOptions modify Add.
type AddOptions struct {
	Hardcode bool // store the providers' names in the metadata
	Force    bool // even those that are labelled for another volume (ErrLabelled)
}

// refusal is an error in the kernel class's words, of a kind that callers decide by.
type refusal struct {
	kind error
	text string
}

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return r.kind }

func refuse(kind error, format string, args ...any) error {
	return &refusal{kind, fmt.Sprintf(format, args...)}
}

// Add makes providers components of the volume, all or none. New chunks are
// taken from them as soon as it returns, and writes held for space go on. On
// success the volume owns the providers.
//
// Their metadata is written first; the sector of component 0 with the new list of
// members commits; the other components follow, and then all note that it is settled.
func (v *Volume) Add(providers []geomlib.Provider, o AddOptions) error {
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	if err := v.readOnly(); err != nil {
		return fmt.Errorf("add to %s: %w", v.name, err)
	}
	if err := v.cond.refusal(deedChangeMembers); err != nil {
		return fmt.Errorf("add to %s: %w", v.name, err)
	}
	if err := v.mayChangeLocked(); err != nil {
		return fmt.Errorf("add to %s: %w", v.name, err)
	}
	if err := v.mayJoinLocked(providers, o.Force); err != nil {
		return err
	}
	comps := v.components()
	count := len(comps) + len(providers)
	metas, err := v.planAdd(providers, count, o)
	if err != nil {
		return err
	}
	next, joins := slices.Clone(comps), []*component(nil)
	for i, p := range providers {
		joins = append(joins, v.newComponent(p, metas[i]))
	}
	next = append(next, joins...)
	if err := v.join(comps, next, joins); err != nil {
		return fmt.Errorf("add to %s: %w", v.name, err)
	}
	v.setComponents(next)
	v.setFurther(v.further())
	if err = v.numberMembersLocked(); v.cfg.breaks(breakMapMembers) {
		v.setDirectory(v.pool.dir)
	}
	for _, c := range next[len(comps):] {
		p := alloc.NewPool(c.first(), c.usable())
		if err != nil { // before anybody finds it
			p.Bar(alloc.BarUnnumbered)
		}
		v.alloc.Append(p)
	}
	v.alloc.Hold(next)
	if err != nil {
		v.emit(Event{Kind: EventComponents})
		return fmt.Errorf("add to %s: the directory of its volumes does not know them: they take data from the next start on: %w", v.name, err)
	}
	v.kick()
	v.emit(Event{Kind: EventComponents})
	return nil
}

// join makes next, which is comps and who joins, the list of members on the disks. What
// was begun when it fails is taken back: if it cannot be, then that is tried again before
// anything else changes the members, and when the volume is closed. v.metaMu is held.
func (v *Volume) join(comps, next, joins []*component) error {
	r := rise{comps: next, joins: joins}
	if v.cfg.breaks(breakAddUnfenced) {
		r.edit = func(c *component, m *ondisk.Metadata) {
			if slices.Contains(joins, c) {
				m.Version, m.Member = ondisk.Version, ondisk.MemberBlock{}
			}
		}
	}
	err := v.riseLocked(r)
	if err == nil {
		return nil
	}
	for _, c := range joins {
		v.meta.unfinished = append(v.meta.unfinished, c.member)
	}
	var not *notCommittedError
	if !errors.As(err, &not) {
		// Component 0 may count the new ones. As long as it may, they keep their labels:
		// an opening after a crash would miss them.
		v.cond.unlist()
		if back := v.relistLocked(); back != nil {
			return fmt.Errorf("%w; the next change of the volume takes back what was begun", err)
		}
	}
	for _, c := range joins {
		v.undoAdd(c.prov())
	}
	return err
}

// relistLocked makes component 0 hold the list of members that memory does, if another
// may have reached it. v.metaMu is held.
func (v *Volume) relistLocked() error {
	if !v.cond.is(stateUnlisted) {
		return nil
	}
	if err := v.riseLocked(rise{comps: v.components()}); err != nil {
		return fmt.Errorf("take an unfinished add back: %w: %w", ErrUnfinished, err)
	}
	return nil
}

// undoAdd clears what was written to a provider that did not become a component.
// Failing at it is harmless: component 0 does not know it.
func (v *Volume) undoAdd(p geomlib.Provider) {
	if err := geomlib.ClearMetadata(p); err != nil && !errors.Is(err, geomlib.ErrNoMetadata) {
		v.log.Warn("metadata of an unfinished add stays", "provider", p.Name(), "error", err)
	}
}

// Fits refuses a provider that by its sectors or its size can be no component of the
// volume: ErrSectorSize, ErrTooSmall.
func (v *Volume) Fits(p geomlib.Provider) error {
	if int64(p.SectorSize()) != v.sector {
		return refuse(ErrSectorSize, "Sector size doesn't fit for %s (%d, needs to be %d)", p.Name(), p.SectorSize(), v.sector)
	}
	if least := ondisk.MinChunks * v.chunk; p.MediaSize() < least {
		return refuse(ErrTooSmall, "Provider too small: %s (%d bytes, needs %d)", p.Name(), p.MediaSize(), least)
	}
	return nil
}

// planAdd checks providers and makes their metadata.
func (v *Volume) planAdd(providers []geomlib.Provider, count int, o AddOptions) ([]ondisk.Metadata, error) {
	if count > ondisk.MaxComponents {
		return nil, fmt.Errorf("add to %s: %d components, at most %d: %w", v.name, count, ondisk.MaxComponents, ondisk.ErrProviders)
	}
	zero := v.component(0).meta()
	var metas []ondisk.Metadata
	for i, p := range providers {
		if err := v.Fits(p); err != nil {
			return nil, err
		}
		chunks := ondisk.UsableChunks(p.MediaSize(), p.SectorSize(), v.chunk)
		m := ondisk.Metadata{
			Version: ondisk.VersionFenced, Name: zero.Name, VirtualSize: zero.VirtualSize,
			ChunkSize: zero.ChunkSize, ID: zero.ID, Count: uint16(count),
			No: uint16(len(v.components()) + i), ProviderSize: uint64(p.MediaSize()), ChunkCount: chunks,
		}
		if o.Hardcode {
			m.Provider = p.Name()
			if len(m.Provider) > ondisk.MaxNameLen {
				return nil, fmt.Errorf("hardcoded name %s: at most %d characters: %w", m.Provider, ondisk.MaxNameLen, ondisk.ErrProviderName)
			}
		}
		metas = append(metas, m)
	}
	return metas, nil
}
