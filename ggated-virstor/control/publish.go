package control

import (
	"context"
	"net/http"
)

// PublishRequest has clients find a snapshot where that has to be asked for: as a device.
type PublishRequest struct {
	Snapshot string `json:"snapshot"`          // its name, what follows the "@"
	DryRun   bool   `json:"dry_run,omitempty"` // only tell whether that can be
}

// PublishResult is where clients find it, or would not yet, if that was only asked.
type PublishResult struct {
	Published []Publication `json:"published"`
}

var publication = verb[PublishRequest, PublishResult]{"publish", http.MethodPost, "volumes/{name}/publish",
	func(ctx context.Context, v Verbs, name string, r PublishRequest) (PublishResult, error) {
		return v.PublishSnapshot(ctx, name, r)
	}}

// PublishSnapshot has clients find a snapshot.
func (c *Client) PublishSnapshot(ctx context.Context, name string, r PublishRequest) (PublishResult, error) {
	return publication.ask(ctx, c, name, r)
}

// UnpublishRequest takes back what PublishRequest asked for.
type UnpublishRequest struct {
	Snapshot string `json:"snapshot"`        // its name, what follows the "@"
	Force    bool   `json:"force,omitempty"` // even while the device is open
}

var unpublication = verb[UnpublishRequest, None]{"unpublish", http.MethodPost, "volumes/{name}/unpublish",
	func(ctx context.Context, v Verbs, name string, r UnpublishRequest) (None, error) {
		return None{}, v.UnpublishSnapshot(ctx, name, r)
	}}

// UnpublishSnapshot takes back what PublishSnapshot asked for.
func (c *Client) UnpublishSnapshot(ctx context.Context, name string, r UnpublishRequest) error {
	return unpublication.tell(ctx, c, name, r)
}
