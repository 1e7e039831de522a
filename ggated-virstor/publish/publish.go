package publish

import (
	"context"
	"errors"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// ErrInUse is wrapped by Published.Withdraw when somebody has the volume's device
// open.
var ErrInUse = errors.New("device busy")

// ErrNoClient is wrapped by ClientLister.Disconnect when no client has the number.
var ErrNoClient = errors.New("no such client")

// Publisher makes volumes reachable in one way. Its methods may be called by many
// goroutines at once, for different volumes.
type Publisher interface {
	// Publish makes v reachable. v is open, and stays so until the Published has
	// been withdrawn or left. After an error nothing of v is published, but for a
	// device that a former daemon left and that may still be open.
	Publish(v *virstor.Volume) (Published, error)
}

// Published is a volume made reachable. Withdraw and Leave are called by one
// goroutine at a time, the other methods by any.
type Published interface {
	// Names are those under which clients find the volume, without /dev/.
	Names() []string
	// Describe is what status tells of the publication.
	Describe() []control.Publication
	// Users is how many clients have the volume open, and what they are called;
	// the text is empty when there are none.
	Users() (n int, what string)
	// Disconnect makes users leave. It may wait for the last answers for some
	// seconds. What the volume holds for them the caller has failed before
	// (virstor.Volume.FailHeld).
	Disconnect()
	// Withdraw ends the publication. Requests taken before are answered. With
	// ErrInUse it goes on; after any other error it has ended as far as it could.
	Withdraw(ctx context.Context) error
	// Leave ends the service in a way that the next daemon can go on with
	// for clients that do not notice, where there is one. The caller closes the
	// volume then, before anybody else opens it: writes that it holds are not
	// done, and are the next daemon's where clients do not notice.
	Leave(ctx context.Context) error
}

// Durable is a Publisher whose devices outlive the daemon.
type Durable interface {
	// Leftovers are the volumes, by id, whose devices a former daemon left, and
	// the names of their providers. It does not wait for GEOM.
	Leftovers() (map[uint32][]string, error)
}

// ClientLister is a Publisher whose clients can be told apart.
type ClientLister interface {
	Clients() []control.ClientStatus
	// Disconnect ends the connection of that number (ErrNoClient).
	Disconnect(id uint64) error
}

// Activator is a Published that can serve a volume before it is writable
// (virstor.Volume.Deferred): reads at once, the rest later.
type Activator interface {
	// Activated tells that the volume is. It is called once, on any goroutine.
	Activated()
}

// Follower is a Published that changes with its volume.
type Follower interface {
	// Follow is told of what happened to the volume, one event after the other.
	Follow(virstor.Event) error
}

// ComponentChecker is a Published that cannot do with every provider.
type ComponentChecker interface {
	// MayAdd refuses providers that must not become components of the volume while
	// it is published. They are open, and stay the caller's.
	MayAdd(ctx context.Context, ps []geomlib.Provider) error
}

// SnapshotKeeper is a Published through which the volume's snapshots are read, too, and the
// further volumes of its pool used. What it shows of them has a title: the name of a
// snapshot, "/WEB" of a further volume, and "/WEB@NAME" of one's snapshot (Title).
type SnapshotKeeper interface {
	// ShowSnapshots lets clients have what snapshots and further volumes there are, but for
	// damaged ones, and for snapshots that have to be asked for.
	ShowSnapshots() error
	// LetGo ends that for what is to be deleted or renamed, and with a further volume for its
	// snapshots, until again is called: then it is there for clients once more, if it still
	// is. While they have it, it fails with ErrInUse, but with force: they are made to leave.
	LetGo(title string, force bool) (again func(), err error)
	// Shown is what status tells of them, by title.
	Shown() map[string][]control.Publication
}

// SnapshotPublisher is a Published of which snapshots become part when that is asked for, and
// stay so until it is withdrawn.
type SnapshotPublisher interface {
	// ShowSnapshot has clients find the snapshot of that title (virstor.ErrNoSnapshot,
	// virstor.ErrNoVolume), which they may already.
	ShowSnapshot(title string) error
	// HideSnapshot ends that; without force it fails with ErrInUse while clients have it.
	HideSnapshot(title string, force bool) error
}

// Title is what a SnapshotKeeper calls a snapshot of a volume of the pool, or that volume
// itself: "" is the first one.
func Title(volume, snapshot string) string {
	switch {
	case volume == "":
		return snapshot
	case snapshot == "":
		return "/" + volume
	}
	return "/" + volume + "@" + snapshot
}

// SplitTitle takes apart what Title makes.
func SplitTitle(title string) (volume, snapshot string) {
	own, further := strings.CutPrefix(title, "/")
	if !further {
		return "", title
	}
	volume, snapshot, _ = strings.Cut(own, "@")
	return volume, snapshot
}

// Belongs reports whether what has a title goes when what is called whole does: it is that, or
// a snapshot of that further volume.
func Belongs(title, whole string) bool {
	volume, snapshot := SplitTitle(whole)
	of, _ := SplitTitle(title)
	return title == whole || volume != "" && snapshot == "" && of == volume
}

// Drainer is a Published whose clients may leave requests at work behind.
type Drainer interface {
	// Drain returns when nothing of a client that is gone is at work, or with
	// ctx's error.
	Drain(ctx context.Context) error
}
