package control

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/gvirstor/gvirstor/ondisk"
)

// Verbs is what may be asked of a daemon. A Client has it asked of one, or of what
// stands for one. Methods are called by many goroutines at once. A volume is named as
// VolumeStatus.Is takes it; an unknown one is an Error of kind NotFound. ctx ends when
// who asks goes away: what changes a volume should then finish what it has begun.
type Verbs interface {
	Status(ctx context.Context) (Status, error)
	Volume(ctx context.Context, name string) (VolumeStatus, error)
	Add(ctx context.Context, name string, r AddRequest) error
	Remove(ctx context.Context, name string, r RemoveRequest) error
	Stop(ctx context.Context, name string, r StopRequest) (StopResult, error)
	// Identify ends the service of a volume, gives it another name or id, and serves
	// it again.
	Identify(ctx context.Context, name string, r IdentifyRequest) (VolumeStatus, error)
	Reserve(ctx context.Context, name string, r ReserveRequest) error
	// Create makes a further volume of a pool, NAME/VOLUME, or only tells what that takes.
	Create(ctx context.Context, name string, r CreateRequest) (CreateResult, error)
	// Quota changes how much a further volume may have, and Resize how large it is.
	Quota(ctx context.Context, name string, r QuotaRequest) error
	Resize(ctx context.Context, name string, r ResizeRequest) (ResizeResult, error)
	// Snapshots are a volume's, the oldest first; Snapshot takes one, RenameSnapshot gives
	// one another name, and Delete deletes one. The last two take a further volume, too.
	Snapshots(ctx context.Context, name string) (Snapshots, error)
	Snapshot(ctx context.Context, name string, r SnapshotRequest) (SnapshotResult, error)
	RenameSnapshot(ctx context.Context, name string, r RenameSnapshotRequest) error
	Delete(ctx context.Context, name string, r DeleteRequest) (DeleteResult, error)
	// Rollback ends the service of a volume, makes it what it was at a snapshot, and
	// serves it again; or only tells what would be lost.
	Rollback(ctx context.Context, name string, r RollbackRequest) (RollbackResult, error)
	// PublishSnapshot has clients find a snapshot where that has to be asked for, and
	// UnpublishSnapshot takes that back.
	PublishSnapshot(ctx context.Context, name string, r PublishRequest) (PublishResult, error)
	UnpublishSnapshot(ctx context.Context, name string, r UnpublishRequest) error
	// Diff tells where a volume or a snapshot differs from an older one, and Read reads a
	// snapshot. Receive begins to receive one, which Write writes and Snapshot ends.
	Diff(ctx context.Context, name string, r DiffRequest) (Diff, error)
	Read(ctx context.Context, name string, r ReadRequest) (Data, error)
	Receive(ctx context.Context, name string, r ReceiveRequest) (ReceiveResult, error)
	Write(ctx context.Context, name string, r WriteRequest) error
	Spare(ctx context.Context, name string, r SpareRequest) error
	// TestAlert sends an alert that means nothing through every channel.
	TestAlert(ctx context.Context, name string) (AlertTest, error)
	// StartJob starts a long job, Job tells how far it is, CancelJob asks it to end
	// (see JobStatus).
	StartJob(ctx context.Context, name string, r JobRequest) (JobStatus, error)
	Job(ctx context.Context, id string) (JobStatus, error)
	CancelJob(ctx context.Context, id string) (JobStatus, error)
	Clients(ctx context.Context) (Clients, error)
	// Disconnect ends a client's connection; NotFound: there is no such client.
	Disconnect(ctx context.Context, r DisconnectRequest) error
	Serve(ctx context.Context, r ServeRequest) (ServeResult, error)
	// Release lets go of providers that are held but not served.
	Release(ctx context.Context, r ReleaseRequest) error
}

// Backend is the daemon as the server sees it.
type Backend interface {
	Verbs
	// Subscribe returns events from now on until ctx ends (see Hub).
	Subscribe(ctx context.Context) (<-chan Event, error)
}

// rows is the table of the API, in the order of its page. A further verb is a method of
// Verbs, a row here, its request and answer with what they check and open, and the
// method of Client, all in this file, or in diff.go, publish.go and streams.go; what it does to a volume is in package verbs, and
// the daemon finds the volume for it. A test says what the page is to show.
func rows() []row {
	return []row{
		&status, &volume, &add, &remove, &stop, &identify, &reserve,
		&create, &quota, &resize, &snapshots, &snapshot, &renameSnapshot, &deletion, &rollback, &publication, &unpublication, &diff, &read, &receive, &write, &spare, &testAlert, &startJob, &job, &cancelJob, &clients, &disconnect, &serve, &release,
	}
}

var status = verb[None, Status]{"status", http.MethodGet, "status",
	func(ctx context.Context, v Verbs, _ string, _ None) (Status, error) { return v.Status(ctx) }}

// Status asks for everything.
func (c *Client) Status(ctx context.Context) (Status, error) { return status.ask(ctx, c, "", None{}) }

var volume = verb[None, VolumeStatus]{"volume", http.MethodGet, "volumes/{name}",
	func(ctx context.Context, v Verbs, name string, _ None) (VolumeStatus, error) {
		return v.Volume(ctx, name)
	}}

// Volume asks for one volume.
func (c *Client) Volume(ctx context.Context, name string) (VolumeStatus, error) {
	return volume.ask(ctx, c, name, None{})
}

// AddRequest makes providers components of a volume, all or none.
type AddRequest struct {
	Providers []string `json:"providers"`
	Hardcode  bool     `json:"hardcode,omitempty"` // write their names into the metadata
	Force     bool     `json:"force,omitempty"`    // whatever they hold (HoldsData)
	// SectorSize, in bytes, is that of regular files; 0 leaves it to the daemon.
	SectorSize int `json:"sector_size,omitempty"`
}

func (r *AddRequest) check() error {
	if err := checkSectorSize(r.SectorSize); err != nil {
		return err
	}
	return checkProviders(r.Providers)
}

func (r *AddRequest) access() Access { return Access{Open: r.Providers} }

var add = verb[AddRequest, None]{"add", http.MethodPost, "volumes/{name}/add",
	func(ctx context.Context, v Verbs, name string, r AddRequest) (None, error) {
		return None{}, v.Add(ctx, name, r)
	}}

// Add makes providers components of a volume.
func (c *Client) Add(ctx context.Context, name string, r AddRequest) error {
	return add.tell(ctx, c, name, r)
}

// RemoveRequest takes providers out of a volume.
type RemoveRequest struct {
	Providers []string `json:"providers"`
}

func (r *RemoveRequest) check() error   { return checkProviders(r.Providers) }
func (r *RemoveRequest) access() Access { return Access{Drop: r.Providers} }

var remove = verb[RemoveRequest, None]{"remove", http.MethodPost, "volumes/{name}/remove",
	func(ctx context.Context, v Verbs, name string, r RemoveRequest) (None, error) {
		return None{}, v.Remove(ctx, name, r)
	}}

// Remove takes providers out of a volume.
func (c *Client) Remove(ctx context.Context, name string, r RemoveRequest) error {
	return remove.tell(ctx, c, name, r)
}

// StopRequest ends the service of a volume.
type StopRequest struct {
	Force bool `json:"force,omitempty"` // even while it is open or clients are connected
}

// StopResult tells whether the kernel class may have the stopped volume.
type StopResult struct {
	HandedBack bool     `json:"handed_back"`
	Reasons    []string `json:"reasons,omitempty"` // why not
}

var stop = verb[StopRequest, StopResult]{"stop", http.MethodPost, "volumes/{name}/stop",
	func(ctx context.Context, v Verbs, name string, r StopRequest) (StopResult, error) {
		return v.Stop(ctx, name, r)
	}}

// Stop ends the service of a volume.
func (c *Client) Stop(ctx context.Context, name string, r StopRequest) (StopResult, error) {
	return stop.ask(ctx, c, name, r)
}

// IdentifyRequest gives a volume another name, or a new id, or both.
type IdentifyRequest struct {
	Name  string `json:"name,omitempty"`
	NewID bool   `json:"new_id,omitempty"`
	Force bool   `json:"force,omitempty"` // even while it is open or clients are connected
	// Providers are the volume's components, by index: they are closed meanwhile,
	// and opened again.
	Providers []string `json:"providers"`
	DryRun    bool     `json:"dry_run,omitempty"` // only tell whether that can be
}

func (r *IdentifyRequest) access() Access { return Access{Open: r.Providers} }

var identify = verb[IdentifyRequest, VolumeStatus]{"identify", http.MethodPost, "volumes/{name}/identify",
	func(ctx context.Context, v Verbs, name string, r IdentifyRequest) (VolumeStatus, error) {
		return v.Identify(ctx, name, r)
	}}

// Identify gives a volume another name or id.
func (c *Client) Identify(ctx context.Context, name string, r IdentifyRequest) (VolumeStatus, error) {
	return identify.ask(ctx, c, name, r)
}

// ReserveRequest changes how many chunks ordinary writes leave free.
type ReserveRequest struct {
	Chunks int64 `json:"chunks"`
	Auto   bool  `json:"auto,omitempty"` // by the size of the volume, whatever Chunks says
}

func (r *ReserveRequest) check() error {
	if r.Chunks < 0 {
		return Errorf(Invalid, "a reserve of %d chunks: the number must not be negative", r.Chunks)
	}
	return nil
}

var reserve = verb[ReserveRequest, None]{"reserve", http.MethodPost, "volumes/{name}/reserve",
	func(ctx context.Context, v Verbs, name string, r ReserveRequest) (None, error) {
		return None{}, v.Reserve(ctx, name, r)
	}}

// Reserve changes how many chunks ordinary writes leave free.
func (c *Client) Reserve(ctx context.Context, name string, r ReserveRequest) error {
	return reserve.tell(ctx, c, name, r)
}

// CreateRequest makes a further volume of a pool, whose name, NAME/VOLUME, nobody has yet.
type CreateRequest struct {
	Size int64 `json:"size,omitempty"` // bytes, rounded up to whole chunks; 0 of a clone
	// Quota is how many bytes of chunks it may have at most; 0: no limit. Not of a clone.
	Quota int64 `json:"quota,omitempty"`
	// Snapshot is what a clone begins as: one of the volume Origin, what follows the "/", or
	// of the first one.
	Snapshot string `json:"snapshot,omitempty"`
	Origin   string `json:"origin,omitempty"`
	DryRun   bool   `json:"dry_run,omitempty"` // only tell what it would take
}

// CreateResult is what making a volume takes.
type CreateResult struct {
	Size      int64 `json:"size"`       // that it has, bytes
	MapChunks int64 `json:"map_chunks"` // that are taken at once, for its map
	MapBytes  int64 `json:"map_bytes"`  // of these
}

var create = verb[CreateRequest, CreateResult]{"create", http.MethodPost, "volumes/{name}/create",
	func(ctx context.Context, v Verbs, name string, r CreateRequest) (CreateResult, error) {
		return v.Create(ctx, name, r)
	}}

// Create makes a further volume of a pool.
func (c *Client) Create(ctx context.Context, name string, r CreateRequest) (CreateResult, error) {
	return create.ask(ctx, c, name, r)
}

// QuotaRequest changes how many bytes of chunks a further volume may have at most.
type QuotaRequest struct {
	Bytes  int64 `json:"bytes"`             // 0: no limit
	DryRun bool  `json:"dry_run,omitempty"` // only tell whether that can be
}

var quota = verb[QuotaRequest, None]{"quota", http.MethodPost, "volumes/{name}/quota",
	func(ctx context.Context, v Verbs, name string, r QuotaRequest) (None, error) {
		return None{}, v.Quota(ctx, name, r)
	}}

// Quota changes how many bytes of chunks a further volume may have at most.
func (c *Client) Quota(ctx context.Context, name string, r QuotaRequest) error {
	return quota.tell(ctx, c, name, r)
}

// ResizeRequest makes a further volume larger or smaller. The volume that label made is
// resized by a job (StartJob).
type ResizeRequest struct {
	Size   int64 `json:"size"`              // bytes, rounded up to whole chunks
	Force  bool  `json:"force,omitempty"`   // give up what lies beyond a smaller size
	DryRun bool  `json:"dry_run,omitempty"` // only tell what would be lost
}

// ResizeResult is what a further volume has then.
type ResizeResult struct {
	Size       int64 `json:"size"`        // bytes
	LostChunks int64 `json:"lost_chunks"` // that lay beyond
	LostBytes  int64 `json:"lost_bytes"`  // of these
}

var resize = verb[ResizeRequest, ResizeResult]{"resize", http.MethodPost, "volumes/{name}/resize",
	func(ctx context.Context, v Verbs, name string, r ResizeRequest) (ResizeResult, error) {
		return v.Resize(ctx, name, r)
	}}

// Resize makes a further volume larger or smaller.
func (c *Client) Resize(ctx context.Context, name string, r ResizeRequest) (ResizeResult, error) {
	return resize.ask(ctx, c, name, r)
}

// Snapshots are those of a volume.
type Snapshots struct {
	Snapshots []Snapshot `json:"snapshots"`
}

// Snapshot is what a volume held at one moment.
type Snapshot struct {
	Name    string    `json:"name"` // what follows the "@"
	ID      uint64    `json:"id"`
	Created time.Time `json:"created"`
	Size    int64     `json:"size"` // of the volume then, bytes
	// GUID is the snapshot's wherever it is sent; 0 if it was taken before there were any.
	GUID ondisk.GUID `json:"guid"`
	// Refers are the bytes of the chunks that it has, Unique those of them that nothing
	// else has, which come free when it is deleted, and Written those of the chunks that the
	// volume was written to since, or gave up. All are 0 when it cannot be read, and Unique
	// when another one cannot.
	Refers  int64  `json:"refers"`
	Unique  int64  `json:"unique"`
	Written int64  `json:"written"`
	Problem string `json:"problem,omitempty"` // why it cannot be read
	// Published is where clients find it.
	Published []Publication `json:"published,omitempty"`
}

var snapshots = verb[None, Snapshots]{"snapshots", http.MethodGet, "volumes/{name}/snapshots",
	func(ctx context.Context, v Verbs, name string, _ None) (Snapshots, error) {
		return v.Snapshots(ctx, name)
	}}

// Snapshots are those of a volume.
func (c *Client) Snapshots(ctx context.Context, name string) (Snapshots, error) {
	return snapshots.ask(ctx, c, name, None{})
}

// SnapshotRequest takes a snapshot of a volume.
type SnapshotRequest struct {
	Snapshot string `json:"snapshot"` // its name, what follows the "@"
	// Force takes it even when less space would be left than it takes.
	Force bool `json:"force,omitempty"`
	// Recursive takes one of every volume of the pool, all at one point; the volume is the
	// one that label made.
	Recursive bool `json:"recursive,omitempty"`
	// Claim and GUID, together, are of one that was received: the claim ends, and it has
	// that GUID. GUID 0: a new one.
	Claim  uint64      `json:"claim,string,omitempty"`
	GUID   ondisk.GUID `json:"guid,omitempty"`
	DryRun bool        `json:"dry_run,omitempty"` // only tell what it would take
}

// SnapshotResult is what a snapshot took at most, or would take, for its map.
type SnapshotResult struct {
	Chunks     int64 `json:"chunks"`
	Bytes      int64 `json:"bytes"`
	FreeChunks int64 `json:"free_chunks"` // before it was taken
}

var snapshot = verb[SnapshotRequest, SnapshotResult]{"snapshot", http.MethodPost, "volumes/{name}/snapshots",
	func(ctx context.Context, v Verbs, name string, r SnapshotRequest) (SnapshotResult, error) {
		return v.Snapshot(ctx, name, r)
	}}

// Snapshot takes a snapshot of a volume, or only tells what that would take.
func (c *Client) Snapshot(ctx context.Context, name string, r SnapshotRequest) (SnapshotResult, error) {
	return snapshot.ask(ctx, c, name, r)
}

// RenameSnapshotRequest gives a snapshot of a volume, or a further volume, another name.
type RenameSnapshotRequest struct {
	Snapshot string `json:"snapshot"`          // its name, what follows the "@"; empty: the volume
	To       string `json:"to"`                // what it is to be called
	DryRun   bool   `json:"dry_run,omitempty"` // only tell whether that can be
}

var renameSnapshot = verb[RenameSnapshotRequest, None]{"rename-snapshot", http.MethodPost, "volumes/{name}/rename-snapshot",
	func(ctx context.Context, v Verbs, name string, r RenameSnapshotRequest) (None, error) {
		return None{}, v.RenameSnapshot(ctx, name, r)
	}}

// RenameSnapshot gives a snapshot of a volume another name.
func (c *Client) RenameSnapshot(ctx context.Context, name string, r RenameSnapshotRequest) error {
	return renameSnapshot.tell(ctx, c, name, r)
}

// DeleteRequest deletes a snapshot of a volume, or a further volume: what it alone held is
// lost.
type DeleteRequest struct {
	Snapshot string `json:"snapshot"`          // its name, what follows the "@"; empty: the volume
	DryRun   bool   `json:"dry_run,omitempty"` // only tell what that would free
}

// DeleteResult is what a snapshot had alone, which is free soon after.
type DeleteResult struct {
	Chunks int64 `json:"chunks"`
	Bytes  int64 `json:"bytes"`
}

var deletion = verb[DeleteRequest, DeleteResult]{"delete", http.MethodPost, "volumes/{name}/delete",
	func(ctx context.Context, v Verbs, name string, r DeleteRequest) (DeleteResult, error) {
		return v.Delete(ctx, name, r)
	}}

// Delete deletes a snapshot of a volume.
func (c *Client) Delete(ctx context.Context, name string, r DeleteRequest) (DeleteResult, error) {
	return deletion.ask(ctx, c, name, r)
}

// RollbackRequest makes a volume what it was at a snapshot.
type RollbackRequest struct {
	Snapshot string `json:"snapshot"`          // its name, what follows the "@"
	DryRun   bool   `json:"dry_run,omitempty"` // only tell what would be lost
	// Force: what was written since is lost, and whoever uses the volume is disconnected.
	Force bool `json:"force,omitempty"`
	// Providers are the volume's components, by index: they are closed meanwhile, and
	// opened again. A DryRun needs none.
	Providers []string `json:"providers,omitempty"`
}

func (r *RollbackRequest) access() Access { return Access{Open: r.Providers} }

// RollbackResult is what a rollback takes back.
type RollbackResult struct {
	Chunks int64 `json:"chunks"` // that were written to, or given up, since the snapshot
	Bytes  int64 `json:"bytes"`  // of these
	// LostChunks are those of them that no other snapshot has either.
	LostChunks int64  `json:"lost_chunks"`
	LostBytes  int64  `json:"lost_bytes"`      // of these
	Smaller    int64  `json:"smaller"`         // bytes that the volume was smaller then
	Users      string `json:"users,omitempty"` // who uses the volume now, in words
}

// Nothing reports whether the volume is what the snapshot holds.
func (r RollbackResult) Nothing() bool { return r.Chunks == 0 && r.Smaller == 0 }

var rollback = verb[RollbackRequest, RollbackResult]{"rollback", http.MethodPost, "volumes/{name}/rollback",
	func(ctx context.Context, v Verbs, name string, r RollbackRequest) (RollbackResult, error) {
		return v.Rollback(ctx, name, r)
	}}

// Rollback makes a volume what it was at a snapshot.
func (c *Client) Rollback(ctx context.Context, name string, r RollbackRequest) (RollbackResult, error) {
	return rollback.ask(ctx, c, name, r)
}

// SpareRequest labels providers as spares of a volume, or takes the label off.
// What they hold is lost when they are added, and their last sector at once.
type SpareRequest struct {
	Providers []string `json:"providers"`
	Remove    bool     `json:"remove,omitempty"`
	Force     bool     `json:"force,omitempty"` // whatever they hold (HoldsData)
	// SectorSize, in bytes, is that of regular files; 0 leaves it to the daemon.
	SectorSize int `json:"sector_size,omitempty"`
}

func (r *SpareRequest) check() error {
	if err := checkSectorSize(r.SectorSize); err != nil {
		return err
	}
	return checkProviders(r.Providers)
}

func (r *SpareRequest) access() Access {
	if r.Remove {
		return Access{Drop: r.Providers}
	}
	// A spare that fails is tried again later.
	return Access{Open: r.Providers, Keep: r.Providers}
}

var spare = verb[SpareRequest, None]{"spare", http.MethodPost, "volumes/{name}/spare",
	func(ctx context.Context, v Verbs, name string, r SpareRequest) (None, error) {
		return None{}, v.Spare(ctx, name, r)
	}}

// Spare makes providers spares of a volume, or no spares any more.
func (c *Client) Spare(ctx context.Context, name string, r SpareRequest) error {
	return spare.tell(ctx, c, name, r)
}

// AlertTest is what became of an alert sent on purpose.
type AlertTest struct {
	Channels []AlertChannel `json:"channels"`
}

// AlertChannel is one way that alerts go.
type AlertChannel struct {
	Name   string `json:"name"`   // "log", "events", "command", "metrics"
	Result string `json:"result"` // what happened, in words
	Failed bool   `json:"failed,omitempty"`
}

var testAlert = verb[None, AlertTest]{"test-alert", http.MethodPost, "volumes/{name}/test-alert",
	func(ctx context.Context, v Verbs, name string, _ None) (AlertTest, error) {
		return v.TestAlert(ctx, name)
	}}

// TestAlert has an alert sent through every channel.
func (c *Client) TestAlert(ctx context.Context, name string) (AlertTest, error) {
	return testAlert.ask(ctx, c, name, None{})
}

// JobRequest starts a long job on a volume.
type JobRequest struct {
	Kind string          `json:"kind"` // "evacuate", "pack", …
	Args json.RawMessage `json:"args,omitempty"`
}

func (r *JobRequest) check() error {
	if r.Kind == "" {
		return Errorf(Invalid, "job without a kind")
	}
	return nil
}

func (r *JobRequest) access() Access {
	var a JobArgs
	if r.Kind == "replace" && json.Unmarshal(r.Args, &a) == nil && a.Target != "" {
		return Access{Open: []string{a.Target}}
	}
	return Access{}
}

var startJob = verb[JobRequest, JobStatus]{"start", http.MethodPost, "volumes/{name}/jobs",
	func(ctx context.Context, v Verbs, name string, r JobRequest) (JobStatus, error) {
		return v.StartJob(ctx, name, r)
	}}

// StartJob starts a long job on a volume.
func (c *Client) StartJob(ctx context.Context, name string, r JobRequest) (JobStatus, error) {
	return startJob.ask(ctx, c, name, r)
}

var job = verb[None, JobStatus]{"job", http.MethodGet, "jobs/{name}",
	func(ctx context.Context, v Verbs, id string, _ None) (JobStatus, error) { return v.Job(ctx, id) }}

// Job tells how far a job is.
func (c *Client) Job(ctx context.Context, id string) (JobStatus, error) {
	return job.ask(ctx, c, id, None{})
}

var cancelJob = verb[None, JobStatus]{"cancel", http.MethodDelete, "jobs/{name}",
	func(ctx context.Context, v Verbs, id string, _ None) (JobStatus, error) { return v.CancelJob(ctx, id) }}

// CancelJob asks a job to end.
func (c *Client) CancelJob(ctx context.Context, id string) (JobStatus, error) {
	return cancelJob.ask(ctx, c, id, None{})
}

// Clients are who is connected to exports, in the order in which they came.
type Clients struct {
	Clients []ClientStatus `json:"clients"`
}

// ClientStatus is a client's connection at one moment.
type ClientStatus struct {
	ID      uint64 `json:"id"`                // as DisconnectRequest takes it; until the daemon, or its worker, ends
	Address string `json:"address,omitempty"` // HOST:PORT; absent for a unix socket
	// PID and UID are of the process on a unix socket, absent where the system does
	// not tell.
	PID    int     `json:"pid,omitempty"`
	UID    *uint32 `json:"uid,omitempty"`
	TLS    string  `json:"tls,omitempty"`      // version, such as "TLS 1.3"
	Name   string  `json:"tls_name,omitempty"` // of the client's certificate, as its authority signed it
	Volume string  `json:"volume,omitempty"`   // absent while the client chooses
	// ReadOnly: the client cannot write.
	ReadOnly     bool      `json:"read_only"`
	Since        time.Time `json:"since"`
	IdleSeconds  int64     `json:"idle_seconds"` // it has asked for nothing, to a few seconds
	InFlight     int64     `json:"in_flight"`    // requests that are not answered
	Held         int64     `json:"held"`         // of these, writes that wait for space
	Requests     uint64    `json:"requests"`
	BytesRead    uint64    `json:"bytes_read"`
	BytesWritten uint64    `json:"bytes_written"`
}

var clients = verb[None, Clients]{"clients", http.MethodGet, "clients",
	func(ctx context.Context, v Verbs, _ string, _ None) (Clients, error) { return v.Clients(ctx) }}

// Clients are who is connected.
func (c *Client) Clients(ctx context.Context) (Clients, error) {
	return clients.ask(ctx, c, "", None{})
}

// DisconnectRequest ends a client's connection.
type DisconnectRequest struct {
	ID uint64 `json:"id"`
	// Volume, when it is given, is the one that the client must be connected to.
	Volume string `json:"volume,omitempty"`
}

var disconnect = verb[DisconnectRequest, None]{"disconnect", http.MethodPost, "disconnect",
	func(ctx context.Context, v Verbs, _ string, r DisconnectRequest) (None, error) {
		return None{}, v.Disconnect(ctx, r)
	}}

// Disconnect ends a client's connection.
func (c *Client) Disconnect(ctx context.Context, r DisconnectRequest) error {
	return disconnect.tell(ctx, c, "", r)
}

// ServeRequest asks the daemon to look at providers and to serve the volumes
// that are complete with them.
type ServeRequest struct {
	Providers []string `json:"providers"`
	// SectorSize, in bytes, is that of regular files; 0 leaves it to the daemon.
	SectorSize int `json:"sector_size,omitempty"`
}

func (r *ServeRequest) check() error {
	if err := checkSectorSize(r.SectorSize); err != nil {
		return err
	}
	return checkProviders(r.Providers)
}

func (r *ServeRequest) access() Access { return Access{Open: r.Providers} }

// ServeResult is what became of it.
type ServeResult struct {
	Volumes  []VolumeStatus `json:"volumes"` // newly served
	Problems []Problem      `json:"problems,omitempty"`
}

var serve = verb[ServeRequest, ServeResult]{"serve", http.MethodPost, "serve",
	func(ctx context.Context, v Verbs, _ string, r ServeRequest) (ServeResult, error) {
		return v.Serve(ctx, r)
	}}

// Serve has the daemon look at providers.
func (c *Client) Serve(ctx context.Context, r ServeRequest) (ServeResult, error) {
	return serve.ask(ctx, c, "", r)
}

// ReleaseRequest asks the daemon to close providers that belong to no volume in
// service, so that somebody else can change them.
type ReleaseRequest struct {
	Providers []string `json:"providers"`
}

func (r *ReleaseRequest) check() error   { return checkProviders(r.Providers) }
func (r *ReleaseRequest) access() Access { return Access{Drop: r.Providers} }

var release = verb[ReleaseRequest, None]{"release", http.MethodPost, "release",
	func(ctx context.Context, v Verbs, _ string, r ReleaseRequest) (None, error) {
		return None{}, v.Release(ctx, r)
	}}

// Release has the daemon close providers that it does not serve.
func (c *Client) Release(ctx context.Context, r ReleaseRequest) error {
	return release.tell(ctx, c, "", r)
}
