package virstor

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/ondisk"
)

// absence is what a start finds where a disk is not what it was when the last one
// ended.
type absence struct {
	w       *world
	k       int              // position of the crash
	disks   []*disktest.Disk // the state, which nobody changes
	now     *view
	i       int // the disk
	how     string
	refused error           // of the last start
	members map[string]bool // of the volume as the whole state has it, by name
}

// absences lets one disk of a crash state be missing, late, or an older copy of itself,
// in its own place or beside it. What comes of it is the right data or a refusal
// that has written nothing.
func (w *world) absences(k int, disks []*disktest.Disk, now *view, how string) error {
	if w.verb != nil && (w.verb.offline || w.verb.alone || w.verb.opens != openAlways) {
		return nil
	}
	rng := rand.New(rand.NewPCG(w.seed, hashOf(how)+1))
	a := absence{w: w, k: k, disks: disks, now: now, i: rng.IntN(len(disks)), how: how, members: make(map[string]bool)}
	whole := assembled(disks)
	if whole == nil || whole.Err != nil || !whole.Members[0].Metadata.Member.Exists() {
		return nil // recovered says what is wrong; without member blocks nothing tells disks of other moments
	}
	name := disks[a.i].Name()
	for _, m := range whole.Members {
		a.members[m.Provider.Name()] = true
	}
	if err := a.missing(); err != nil {
		return fmt.Errorf("%s is missing; %w", name, err)
	}
	if k == 0 {
		return nil
	}
	j := rng.IntN(k)
	old := w.rec.ProcessDeath(j)[a.i].Clone()
	if !a.tells(old, assembled(w.rec.ProcessDeath(j))) {
		w.counts.untold.Add(1)
		return nil
	}
	if err := a.old(old); err != nil {
		return fmt.Errorf("%s is what it was at %d; %w", name, j, err)
	}
	if err := a.beside(old.Renamed("old")); err != nil {
		return fmt.Errorf("%s is there, and what it was at %d; %w", name, j, err)
	}
	return nil
}

// assembled is the one volume on disks, or nil.
func assembled(disks []*disktest.Disk) *Assembly {
	var ms []Member
	for _, d := range disks {
		if m, err := geomlib.ReadMetadata(d); err == nil {
			ms = append(ms, Member{d, m})
		}
	}
	if as := Assemble(ms); len(as) == 1 {
		return as[0]
	}
	return nil
}

// survivors are disks of their own that hold what the state holds.
func (a *absence) survivors() []*disktest.Disk {
	var ds []*disktest.Disk
	for _, d := range a.disks {
		ds = append(ds, d.Survivor())
	}
	return ds
}

// missing starts without the disk, and then with it.
func (a *absence) missing() error {
	a.w.counts.missing.Add(1)
	all := a.survivors()
	rest := slices.Delete(slices.Clone(all), a.i, a.i+1)
	served, err := a.start(rest)
	switch {
	case err != nil:
		return err
	case served: // and an operation under way may have let it go
		return nil
	case !a.members[a.disks[a.i].Name()]:
		return fmt.Errorf("refused, although it is no member: %w", a.refused)
	}
	a.w.counts.late.Add(1)
	if served, err = a.start(all); err == nil && !served {
		err = fmt.Errorf("refused, although it is there now: %w", a.refused)
	}
	if err != nil {
		return fmt.Errorf("and comes late: %w", err)
	}
	return nil
}

// tells reports whether an older copy of the disk can be told from it by what is on
// the disks: something rose since on another member. Whose word counts component 0
// says, so that of then, if it is the copy, must have had such a member.
func (a *absence) tells(old *disktest.Disk, then *Assembly) bool {
	m, err := geomlib.ReadMetadata(old)
	if err != nil || !m.Member.Exists() || !a.members[a.disks[a.i].Name()] || then == nil || then.Err != nil {
		return false
	}
	listed := make(map[uint64]bool)
	for _, t := range then.Members {
		listed[t.Metadata.Member.ID] = true
	}
	var settled uint64
	for i, d := range a.disks {
		o, err := geomlib.ReadMetadata(d)
		if err != nil || i == a.i || o.ID != m.ID || !a.members[d.Name()] {
			continue // a stranger may have its numbers from before a handing back
		}
		if o.Version != ondisk.VersionFenced {
			return false // the fence is on its way
		}
		if m.No != 0 || listed[o.Member.ID] {
			settled = max(settled, o.Member.Settled)
		}
	}
	return m.Member.Generation < settled
}

// old starts with the older copy in the disk's place.
func (a *absence) old(old *disktest.Disk) error {
	a.w.counts.old.Add(1)
	all := a.survivors()
	all[a.i] = old.Clone()
	_, err := a.start(all)
	if err == nil && written(all[a.i]) {
		err = errors.New("it was written to")
	}
	return err
}

// beside starts with the disk and the older copy.
func (a *absence) beside(old *disktest.Disk) error {
	a.w.counts.old.Add(1)
	served, err := a.start(append(a.survivors(), old))
	if err == nil && !served {
		err = fmt.Errorf("refused, although all members are there: %w", a.refused)
	}
	if err == nil && written(old) {
		err = errors.New("the copy was written to")
	}
	return err
}

func written(d *disktest.Disk) bool {
	return d.Count(disktest.Write)+d.Count(disktest.Delete)+d.Count(disktest.Zero) > 0
}

// refusals are what a start may say of disks that are not all of one volume.
var refusals = []error{ErrIncomplete, ErrDuplicate, errNoVolume}

// start opens whatever is on disks. A volume that is served must hold what it should;
// one that is refused must be as it was.
func (a *absence) start(disks []*disktest.Disk) (served bool, err error) {
	w := a.w
	c := &world{seed: w.seed, cfg: w.cfg, counts: w.counts, disks: disks, size: w.size, sector: w.sector, chunk: w.chunk, jobs: w.jobs}
	c.cfg.serial, c.cfg.WhenFull, c.cfg.breakRule, c.cfg.commitSteps = true, Fail, 0, nil
	if c.vol, err = openDisks(c.cfg, disks); err != nil {
		if !slices.ContainsFunc(refusals, func(r error) bool { return errors.Is(err, r) }) {
			return false, fmt.Errorf("open: %w", err)
		}
		for _, d := range disks {
			if written(d) {
				return false, fmt.Errorf("%s was written to by a start that ended with: %w", d.Name(), err)
			}
		}
		a.refused = err
		return false, nil
	}
	_, err = c.readAll(a.now)
	return true, errors.Join(err, c.vol.Close())
}
