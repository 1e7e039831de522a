package publish

import "context"

// Task is a goroutine that can be stopped: one that goes along with a publication
// or with a volume in service.
type Task struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// StartTask runs do on a goroutine of its own. Whoever has the Task stops it.
func StartTask(do func(ctx context.Context)) *Task {
	ctx, cancel := context.WithCancel(context.Background())
	t := &Task{cancel, make(chan struct{})}
	go func() {
		defer close(t.done)
		do(ctx)
	}()
	return t
}

// Stop ends the context of the task, and waits until the task returns or until ctx
// ends. It may be called more than once, by any goroutine but the task's own.
func (t *Task) Stop(ctx context.Context) {
	t.cancel()
	select {
	case <-t.done:
	case <-ctx.Done():
	}
}
