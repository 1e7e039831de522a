package virstor

// EventKind is what happened to a volume.
type EventKind uint8

// The events of a volume.
const (
	// EventComponentSwitch: allocation went on to the next component.
	EventComponentSwitch EventKind = iota + 1
	// EventAllocated: chunks were allocated or freed; Free tells how many are left.
	EventAllocated
	// EventFull: a write found no free chunk.
	EventFull
	// EventSpace: space appeared after EventFull.
	EventSpace
	// EventDegraded: a map sector could not be written.
	EventDegraded
	// EventRecovered: the end of EventDegraded.
	EventRecovered
	// EventComponentFailed: a component's flush failed.
	EventComponentFailed
	// EventTrouble: a component begins to fail requests, or to be away, or is not any
	// more (ComponentStatus.Trouble).
	EventTrouble
	// EventComponents: the component list changed.
	EventComponents
	// EventResized: the virtual size changed.
	EventResized
	// EventJob: a long job ended.
	EventJob
	// EventGeneration: the generation rose and is settled (Volume.Generation), without
	// any other change.
	EventGeneration
	// EventLeaseLost: another host has the volume (ErrLeaseLost, in Err). Requests fail;
	// what is left to do is to close it.
	EventLeaseLost
	// EventSnapshots: a snapshot was taken, renamed or deleted.
	EventSnapshots
)

// Event tells of a change in a volume.
type Event struct {
	Kind      EventKind
	Component int // index, where it concerns one
	Err       error
}
