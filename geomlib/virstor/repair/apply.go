package repair

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/geomlib/virstor/check"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/extblock"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/mapio"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Result is what became of a volume.
type Result struct {
	// Report is a check made afterwards.
	Report *check.Report
	// Members are those of the volume by index, nil when it could not be put together.
	Members []virstor.Member
	// StaysFenced are the reasons why a volume that the kernel class could
	// have taken before now is kept from it.
	StaysFenced []string
	// Rivals, if not nil, is why the volume cannot be served beside the providers that
	// were given up: they are a volume by themselves.
	Rivals error
}

// Apply does what p plans. The providers that were checked must be open for
// writing, and locked since before the check. Everything that is replaced is
// saved in j first. ErrRefused when p has refusals. After any other error what
// was done can be taken back with Undo, or gone on with by a new check and plan.
func Apply(ctx context.Context, p *Plan, j *Journal, log *slog.Logger) (*Result, error) {
	if len(p.Refusals) > 0 {
		return nil, fmt.Errorf("%s: %w: %s", p.Volume, ErrRefused, p.Refusals[0].Text)
	}
	a := &applier{ctx: ctx, plan: p, volume: p.volume, journal: j, wrapped: make(map[geomlib.Provider]geomlib.Provider)}
	res := new(Result)
	if p.Needed() {
		for _, step := range []func() error{a.renewRecord, a.storeMetadata, a.mendMap, a.clearLeftovers} {
			if err := step(); err != nil {
				return nil, fmt.Errorf("repair %s: %w", p.Volume, err)
			}
		}
		if err := a.finish(res, log); err != nil {
			return nil, fmt.Errorf("repair %s: %w", p.Volume, err)
		}
	}
	if err := a.look(res); err != nil {
		return nil, fmt.Errorf("repair %s: %w", p.Volume, err)
	}
	return res, nil
}

// look checks what there is now.
func (a *applier) look(res *Result) error {
	members, err := a.members()
	if err != nil {
		return err
	}
	var providers []geomlib.Provider
	for _, m := range members {
		providers = append(providers, m.Provider)
	}
	if res.Report, err = check.Inspect(a.ctx, providers, check.Options{Search: -1}); err != nil {
		return err
	}
	for _, as := range virstor.Assemble(members) {
		if as.ID == a.volume.NumericID() && as.Err == nil {
			res.Members = as.Members
		}
	}
	for _, p := range a.volume.Others() {
		md, err := geomlib.ReadMetadata(p)
		if err != nil {
			return err
		}
		members = append(members, virstor.Member{Provider: p, Metadata: md})
	}
	for _, as := range virstor.Assemble(members) {
		if as.ID == a.volume.NumericID() && as.Err != nil && len(a.volume.Others()) > 0 {
			res.Rivals = as.Err
		}
	}
	return nil
}

type applier struct {
	ctx     context.Context
	plan    *Plan
	volume  *check.Volume
	journal *Journal
	wrapped map[geomlib.Provider]geomlib.Provider
}

// provider is p with a journal before its writes.
func (a *applier) provider(p geomlib.Provider) geomlib.Provider {
	if a.wrapped[p] == nil {
		a.wrapped[p] = a.journal.Guard(p)
	}
	return a.wrapped[p]
}

// renewRecord writes a record instead of one that is lost or cannot be true.
func (a *applier) renewRecord() error {
	rec := a.volume.NewRecord()
	if rec == nil {
		return nil
	}
	zero := a.volume.Members()[0]
	off, room := ondisk.ExtensionOffset(*zero.Wanted)
	if !room {
		return nil // nor was it looked for
	}
	p := a.provider(zero.Provider)
	if err := extblock.Clear(p, *zero.Wanted); err != nil {
		return err
	}
	return extblock.Store(p, off, *rec)
}

// storeMetadata fences the volume and writes what its metadata should be, when
// there is anything to be changed by hand; component 0 first, as the engine does.
func (a *applier) storeMetadata() error {
	if len(a.volume.Changes()) == 0 && !a.mapChanges() {
		return nil
	}
	members := a.volume.Members()
	for i, m := range members {
		if err := a.ctx.Err(); err != nil {
			return err
		}
		want := *m.Wanted
		if want.Member.Exists() || !members[0].Wanted.Member.Exists() {
			want.Version = ondisk.VersionFenced
		} // else fencing or handing back was interrupted, and a fenced one without a block would be stale
		if m.Found != nil && *m.Found == want {
			continue
		}
		p := a.provider(m.Provider)
		if i == 0 && m.Wanted.Version != ondisk.VersionFenced {
			// What lies in the extension block would come into force.
			if err := extblock.Clear(p, want); err != nil {
				return err
			}
		}
		if err := geomlib.StoreMetadata(p, want); err != nil {
			return err
		}
	}
	return nil
}

func (a *applier) mapChanges() bool { return len(a.plan.edits) > 0 || a.volume.MapNeedsCleaning() }

// mendMap writes the sectors of the map that change. Entries do not depend on
// each other, so that any order of them will do.
func (a *applier) mendMap() error {
	if !a.mapChanges() {
		return nil
	}
	zero := a.volume.Members()[0]
	p := a.provider(zero.Provider)
	g := a.volume.Geometry()
	done := make(map[uint64]bool)
	s := mapio.Scanner{Provider: p, Size: zero.Wanted.MapBytes()}
	err := s.Rewrite(a.ctx, func(vc uint64, sector []byte) bool { return a.mendEntries(&g, vc, sector, done) },
		func(b []byte, off int64) error { _, err := p.WriteAt(b, off); return err })
	if err != nil {
		return err
	}
	if len(done) != len(a.plan.edits) {
		return fmt.Errorf("%d of %d map entries are not what they were when they were checked", len(a.plan.edits)-len(done), len(a.plan.edits))
	}
	return extblock.Flush(p)
}

// mendEntries mends the entries in one sector, the first of which is that of vc.
func (a *applier) mendEntries(g *check.Geometry, vc uint64, sector []byte, done map[uint64]bool) (changed bool) {
	for ; len(sector) > 0; sector, vc = sector[ondisk.EntrySize:], vc+1 {
		verdict, e := g.Judge(sector)
		if verdict == check.EntryFree {
			continue
		}
		want, decided := a.plan.edits[vc]
		switch {
		case decided:
			done[vc] = true
		case verdict == check.StripFlags:
			want = e
			want.Flags = ondisk.FlagAllocated
		case verdict == check.ClearEntry, verdict == check.MayBeLost, verdict == check.OtherOrder:
			// The latter two are decided on, unless another entry has their chunk.
		default:
			continue
		}
		want.Encode(sector, g.Order)
		changed = true
	}
	return changed
}

// clearLeftovers clears the metadata of providers that are no components.
func (a *applier) clearLeftovers() error {
	for _, c := range a.volume.Changes() {
		if c.Wanted != nil {
			continue
		}
		if err := geomlib.ClearMetadata(a.provider(c.Provider)); err != nil {
			return err
		}
	}
	return nil
}

// finish lets the engine do the rest: finish an intent, make the metadata
// agree, fence, and hand back what was not fenced before.
func (a *applier) finish(res *Result, log *slog.Logger) error {
	members, err := a.members()
	if err != nil {
		return err
	}
	for _, as := range virstor.Assemble(members) {
		as.Above = max(a.volume.Highest(), a.plan.Above)
		if len(a.plan.lost) > 0 {
			if err := virstor.GiveUp(as, a.plan.lost, log); err != nil {
				return err
			}
			continue
		}
		err := virstor.FinishInterrupted(as, a.plan.handsBack(), log)
		var kept *virstor.NotHandedBackError
		if errors.As(err, &kept) {
			res.StaysFenced = kept.Reasons
		} else if err != nil {
			return err
		}
	}
	return nil
}

// members are all providers of the volume with the metadata that is on them now,
// also those that an interrupted removal is to clear, but none of another history.
func (a *applier) members() ([]virstor.Member, error) {
	var out []virstor.Member
	others := a.volume.Others()
	for _, p := range a.volume.Providers() {
		if slices.Contains(others, p) {
			continue
		}
		md, err := geomlib.ReadMetadata(p)
		if errors.Is(err, geomlib.ErrNoMetadata) || errors.Is(err, ondisk.ErrMemberBlock) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, virstor.Member{Provider: a.provider(p), Metadata: md})
	}
	return out, nil
}
