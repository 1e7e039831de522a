package control

import "context"

// Backend is the daemon as the server sees it. Methods are called by many
// goroutines at once. A volume is named as VolumeStatus.Is takes it; an
// unknown one is an Error of kind NotFound. ctx ends when the client goes
// away: what changes a volume should then finish what it has begun.
type Backend interface {
	Status(ctx context.Context) (Status, error)
	Volume(ctx context.Context, name string) (VolumeStatus, error)
	Add(ctx context.Context, name string, r AddRequest) error
	Remove(ctx context.Context, name string, r RemoveRequest) error
	Stop(ctx context.Context, name string, r StopRequest) (StopResult, error)
	// Identify ends the service of a volume, gives it another name or id, and serves
	// it again.
	Identify(ctx context.Context, name string, r IdentifyRequest) (VolumeStatus, error)
	Serve(ctx context.Context, r ServeRequest) (ServeResult, error)
	// Release lets go of providers that are held but not served.
	Release(ctx context.Context, r ReleaseRequest) error
	Reserve(ctx context.Context, name string, r ReserveRequest) error
	Spare(ctx context.Context, name string, r SpareRequest) error
	// TestAlert sends an alert that means nothing through every channel.
	TestAlert(ctx context.Context, name string) (AlertTest, error)
	Clients(ctx context.Context) (Clients, error)
	// Disconnect ends a client's connection; NotFound: there is no such client.
	Disconnect(ctx context.Context, r DisconnectRequest) error

	// Subscribe returns events from now on until ctx ends (see Hub).
	Subscribe(ctx context.Context) (<-chan Event, error)

	// StartJob starts a long job, Job tells how far it is, CancelJob asks it to end
	// (see JobStatus).
	StartJob(ctx context.Context, name string, r JobRequest) (JobStatus, error)
	Job(ctx context.Context, id string) (JobStatus, error)
	CancelJob(ctx context.Context, id string) (JobStatus, error)
}
