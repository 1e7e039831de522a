package control

import (
	"context"
	"net/http"

	"github.com/gvirstor/gvirstor/ondisk"
)

// MaxPiece is how much ReadRequest and WriteRequest can have, bytes.
const MaxPiece = 512 << 10

// ReadRequest reads a snapshot.
type ReadRequest struct {
	Snapshot string `json:"snapshot"`
	ID       uint64 `json:"id"`     // which it must have (Snapshot.ID)
	Offset   int64  `json:"offset"` // bytes
	Length   int    `json:"length"` // at most MaxPiece
}

func (r *ReadRequest) check() error {
	if r.Length < 0 || r.Length > MaxPiece {
		return Errorf(Invalid, "bad length %d: at most %d are read", r.Length, MaxPiece)
	}
	return nil
}
func (r *ReadRequest) looks() {}

// Data is what was read.
type Data struct {
	Data []byte `json:"data"`
}

var read = verb[ReadRequest, Data]{"read", http.MethodPost, "volumes/{name}/read",
	func(ctx context.Context, v Verbs, name string, r ReadRequest) (Data, error) {
		return v.Read(ctx, name, r)
	}}

// Read reads a snapshot.
func (c *Client) Read(ctx context.Context, name string, r ReadRequest) (Data, error) {
	return read.ask(ctx, c, name, r)
}

// ReceiveRequest begins to receive a stream into a volume, which nobody else can write to
// from then on.
type ReceiveRequest struct {
	Snapshot string      `json:"snapshot"`       // as which it is kept in the end
	GUID     ondisk.GUID `json:"guid"`           // of the snapshot that was sent
	Base     ondisk.GUID `json:"base,omitempty"` // of that before, on which the stream builds
	Size     int64       `json:"size"`           // bytes that the volume must have
	// Mark is the snapshot that keeps how far it was received when it was cut off.
	Mark   string `json:"mark,omitempty"`
	Force  bool   `json:"force,omitempty"` // what the volume holds is lost
	DryRun bool   `json:"dry_run,omitempty"`
}

func (r *ReceiveRequest) check() error {
	if r.Size < 0 {
		return Errorf(Invalid, "a stream of %d bytes", r.Size)
	}
	return nil
}

// ReceiveResult is what a stream begins with.
type ReceiveResult struct {
	Claim uint64 `json:"claim,string"` // for WriteRequest and SnapshotRequest; 0 of a dry run
	Size  int64  `json:"size"`         // of the volume, bytes
	Lost  int64  `json:"lost"`         // what it held before, bytes of chunks
}

var receive = verb[ReceiveRequest, ReceiveResult]{"receive", http.MethodPost, "volumes/{name}/receive",
	func(ctx context.Context, v Verbs, name string, r ReceiveRequest) (ReceiveResult, error) {
		return v.Receive(ctx, name, r)
	}}

// Receive begins to receive a stream.
func (c *Client) Receive(ctx context.Context, name string, r ReceiveRequest) (ReceiveResult, error) {
	return receive.ask(ctx, c, name, r)
}

// WriteRequest writes what is received.
type WriteRequest struct {
	Claim  uint64 `json:"claim,string"`
	Offset int64  `json:"offset"` // bytes
	Length int64  `json:"length"`
	Data   []byte `json:"data,omitempty"` // Length bytes, at most MaxPiece; absent: zeros
	// Last: the claim ends, whatever else is asked for.
	Last bool `json:"last,omitempty"`
}

func (r *WriteRequest) check() error {
	if r.Offset < 0 || r.Length < 0 || len(r.Data) > MaxPiece || r.Data != nil && int64(len(r.Data)) != r.Length {
		return Errorf(Invalid, "write of %d bytes at %d with %d of data", r.Length, r.Offset, len(r.Data))
	}
	return nil
}
func (r *WriteRequest) looks() {} // what it is part of is noted when that begins and ends

var write = verb[WriteRequest, None]{"write", http.MethodPost, "volumes/{name}/write",
	func(ctx context.Context, v Verbs, name string, r WriteRequest) (None, error) {
		return None{}, v.Write(ctx, name, r)
	}}

// Write writes what is received.
func (c *Client) Write(ctx context.Context, name string, r WriteRequest) error {
	return write.tell(ctx, c, name, r)
}
