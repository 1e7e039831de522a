package control

import (
	"context"
	"net/http"
)

// onlooker is a request that changes nothing although it has a body.
type onlooker interface{ looks() }

// DiffRequest asks where a volume, or a snapshot of it, differs from an older snapshot.
type DiffRequest struct {
	From   string `json:"from,omitempty"`   // the older snapshot; empty: a disk of nothing
	To     string `json:"to,omitempty"`     // the snapshot; empty: the volume as it is
	Offset int64  `json:"offset,omitempty"` // bytes: where to begin
}

func (r *DiffRequest) check() error {
	if r.Offset < 0 {
		return Errorf(Invalid, "bad offset %d", r.Offset)
	}
	return nil
}
func (r *DiffRequest) looks() {}

// Diff is where two differ, or the beginning of that.
type Diff struct {
	// FromID and ToID are the ids of the snapshots, 0 where there is none: the same names
	// may mean others later.
	FromID uint64      `json:"from_id"`
	ToID   uint64      `json:"to_id"`
	Size   int64       `json:"size"`   // of what is compared with the older snapshot, bytes
	Ranges []DiffRange `json:"ranges"` // in their order
	Next   int64       `json:"next"`   // where to ask on, bytes; Size: that was all
}

// DiffRange is a range that differs.
type DiffRange struct {
	Offset int64 `json:"offset"` // bytes
	Length int64 `json:"length"`
	Hole   bool  `json:"hole"` // nothing is allocated there any more: it reads as zeros
}

var diff = verb[DiffRequest, Diff]{"diff", http.MethodPost, "volumes/{name}/diff",
	func(ctx context.Context, v Verbs, name string, r DiffRequest) (Diff, error) {
		return v.Diff(ctx, name, r)
	}}

// Diff tells where a volume differs from an older snapshot.
func (c *Client) Diff(ctx context.Context, name string, r DiffRequest) (Diff, error) {
	return diff.ask(ctx, c, name, r)
}
