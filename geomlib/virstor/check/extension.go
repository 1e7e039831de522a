package check

import (
	"fmt"

	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/extblock"
	"github.com/gvirstor/gvirstor/ondisk"
)

// readExtension is the record in force on m, taken for component 0.
func readExtension(m *member) (ondisk.Extension, bool) {
	if m.found.Version != ondisk.VersionFenced {
		return ondisk.Extension{}, false
	}
	slots, ok, err := extblock.Slots(m.p, m.want)
	if !ok || err != nil {
		return ondisk.Extension{}, false
	}
	e, ok, _ := ondisk.PickExtension(slots, m.want) // of a later version: the volume is refused for that
	return e, ok
}

// readExtension looks at the extension block of component 0. At version 1 it
// means nothing.
func (v *volumeCheck) readExtension() {
	if v.zero == nil || v.zero.broken {
		return
	}
	slots, room, err := extblock.Slots(v.zero.p, v.zero.want)
	if !room {
		v.find(Finding{Severity: Info, Code: ExtensionNone, Provider: v.zero.name(),
			Text: "the label left no room for the extension block: components cannot be removed from the middle, moved or replaced"})
		return
	}
	if v.zero.found.Version != ondisk.VersionFenced {
		return
	}
	if err != nil {
		v.stuck(v.zero, ExtensionDamaged, err.Error(), "Replace the disk.")
		return
	}
	if v.ext, v.extOK, err = ondisk.PickExtension(slots, v.zero.want); err != nil {
		v.stuck(v.zero, ExtensionNewer, err.Error(), "Use the version of this program that wrote it.")
		return
	}
	v.pool = v.ext.Directory.Exists()
	if v.extOK {
		err = v.ext.Validate(v.zero.want, v.zero.p.SectorSize())
	}
	switch {
	case err != nil && v.pool:
		v.ext, v.extOK, v.extAbsurd = ondisk.Extension{}, false, true
		v.stuck(v.zero, ExtensionAbsurd, fmt.Sprintf("the extension block's record, though intact, cannot be one of this volume: %v", err),
			"It names snapshots, which a new one would give up: nothing here writes one.")
		return
	case err != nil:
		v.newRecord = v.blankRecord(v.ext.Sequence)
		v.ext, v.extOK, v.extAbsurd = ondisk.Extension{}, false, true
		v.find(Finding{Severity: Error, Code: ExtensionAbsurd, Provider: v.zero.name(), Mend: MendRepair, Prevents: true,
			Text:   fmt.Sprintf("the extension block's record, though intact, cannot be one of this volume: %v", err),
			Remedy: "`gvirstor repair` writes a new one, which says that no operation and no job is under way."})
		return
	case !v.extOK && mustHaveRecord(v.zero):
		v.recordLost = true // which is told of when what it named was looked for
		return
	case !v.extOK:
		v.find(Finding{Severity: Warning, Code: ExtensionDamaged, Provider: v.zero.name(), Mend: MendRepair,
			Text:   "neither slot of the extension block holds a record: whether an operation was interrupted cannot be told",
			Remedy: "The next start writes a new one, and so does `gvirstor repair`."})
		return
	case v.in.opt.Live:
		return
	}
	if k := v.ext.Intent.Kind; k != ondisk.IntentNone {
		f := Finding{Severity: Warning, Code: IntentPending, Provider: v.zero.name(), Mend: MendRepair,
			Text: fmt.Sprintf("the operation %q was interrupted", k), Remedy: "The next start finishes it, and so does `gvirstor repair`."}
		if k == ondisk.IntentRollback { // nothing does whose snapshot is damaged
			f.Remedy = "The next start finishes it."
		}
		v.find(f)
	}
	if k := v.ext.Task.Kind; k != ondisk.TaskNone {
		v.find(Finding{Severity: Info, Code: TaskPending, Provider: v.zero.name(),
			Text: fmt.Sprintf("the job %q was interrupted", k), Remedy: "The next start resumes it."})
	}
	if !v.ext.Clean {
		v.find(Finding{Severity: Info, Code: Unclean, Provider: v.zero.name(),
			Text: "the volume was not closed in order; its map is verified at every start"})
	}
}

// checkFence looks at the versions of the components that are there.
func (v *volumeCheck) checkFence() {
	switch v.Fence {
	case FenceAll:
		if !v.in.opt.Live {
			v.find(Finding{Severity: Info, Code: FenceOn, Text: "fenced: the kernel class refuses it until `gvirstor stop` hands it back"})
		}
	case FenceSome:
		v.find(Finding{Severity: Warning, Code: FenceMixed, Mend: MendRepair,
			Text:   "fenced on some components only: fencing or handing back was interrupted, and the kernel class would take the rest for a volume",
			Remedy: "The next start finishes the fence, and so does `gvirstor repair`. Do not load the kernel class before."})
	}
}
