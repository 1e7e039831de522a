package fdrpc

import (
	"context"
	"encoding/json"
	"os"
)

// Methods are what an end answers, by the names of what is asked.
type Methods map[string]Handler

// Handler answers a question. It may be called by many goroutines at once; ctx ends with
// the connection. The files of the Reply stay its own, but for those in Once, which are
// closed when they are sent.
type Handler func(ctx context.Context, body json.RawMessage) (Reply, error)

// Reply is what a Handler answers.
type Reply struct {
	Body  any // made JSON of; nil: none
	Files []*os.File
	Once  []*os.File // sent after Files
}

// Handle is a Handler that takes the question's body as JSON of an A.
func Handle[A any](answer func(ctx context.Context, a A) (Reply, error)) Handler {
	return func(ctx context.Context, body json.RawMessage) (Reply, error) {
		var a A
		if err := json.Unmarshal(body, &a); err != nil {
			return Reply{}, err
		}
		return answer(ctx, a)
	}
}

// Bare is a Handler of questions whose body says nothing.
func Bare(answer func(ctx context.Context) (Reply, error)) Handler {
	return func(ctx context.Context, _ json.RawMessage) (Reply, error) { return answer(ctx) }
}

// One is the reply of body with one file, which stays the caller's, unless err says that
// there is none.
func One(body any, f *os.File, err error) (Reply, error) {
	if err != nil {
		return Reply{}, err
	}
	return Reply{Body: body, Files: []*os.File{f}}, nil
}
