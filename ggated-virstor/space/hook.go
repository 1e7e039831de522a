package space

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

// Runner runs the administrator's command. A supervisor may stand behind it.
type Runner interface {
	// Run starts the command with env beside the daemon's environment, and
	// waits until it ended. When ctx ends, it and what it started are killed.
	Run(ctx context.Context, env []string, stdin []byte) (output []byte, err error)
}

const (
	hookBacklog = 64 // alerts that wait for the command
	// HookTimeout is how long the command may take unless told otherwise.
	HookTimeout = 30 * time.Second
)

// errHookBusy: more alerts wait than are kept.
var errHookBusy = errors.New("the command is behind: too many alerts wait for it")

// Hook runs the administrator's command for the alerts of one volume, one at a
// time and in order, on a goroutine of its own.
type Hook struct {
	log *slog.Logger

	mu      sync.Mutex
	runner  Runner // or nil
	timeout time.Duration

	queue   chan hookJob
	cancel  context.CancelFunc
	closing chan struct{}
	done    chan struct{}
	once    sync.Once
	failed  atomic.Uint64
}

type hookJob struct {
	alert  Alert
	result chan<- error // or nil
}

// StartHook starts the goroutine, which Stop ends. r and timeout are as for Set.
func StartHook(r Runner, timeout time.Duration, log *slog.Logger) *Hook {
	ctx, cancel := context.WithCancel(context.Background())
	h := &Hook{log: log, queue: make(chan hookJob, hookBacklog), cancel: cancel,
		closing: make(chan struct{}), done: make(chan struct{})}
	h.Set(r, timeout)
	go h.loop(ctx)
	return h
}

// Set changes who runs the command, nil for nobody, and how long it may take; 0
// is HookTimeout. What runs now ends as it began; what waits is the new one's.
func (h *Hook) Set(r Runner, timeout time.Duration) {
	if timeout == 0 {
		timeout = HookTimeout
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.runner, h.timeout = r, timeout
}

func (h *Hook) settings() (Runner, time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.runner, h.timeout
}

// Runs reports whether there is a command.
func (h *Hook) Runs() bool {
	r, _ := h.settings()
	return r != nil
}

// Post has the command run for a, if there is one. It does not wait. What the
// backlog has no room for is logged and counted as failed.
func (h *Hook) Post(a Alert) {
	if !h.Runs() {
		return
	}
	select {
	case h.queue <- hookJob{alert: a}:
	default:
		h.fail(a, errHookBusy)
	}
}

// Do runs the command for a, in its turn, and waits for it.
func (h *Hook) Do(ctx context.Context, a Alert) error {
	result := make(chan error, 1)
	select {
	case h.queue <- hookJob{a, result}:
	default:
		return errHookBusy
	}
	select {
	case err := <-result:
		return err
	case <-h.done:
		return errors.New("the volume is being stopped")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Failures is how often the command failed, took too long, or was not run for
// want of room.
func (h *Hook) Failures() uint64 { return h.failed.Load() }

// Stop has the command run for what waits, and ends the goroutine. What has
// not ended when ctx does is killed.
func (h *Hook) Stop(ctx context.Context) {
	h.once.Do(func() { close(h.closing) })
	select {
	case <-h.done:
	case <-ctx.Done():
		h.cancel()
		<-h.done
	}
	h.cancel()
}

func (h *Hook) loop(ctx context.Context) {
	defer close(h.done)
	for {
		select {
		case j := <-h.queue:
			h.perform(ctx, j)
			continue
		default:
		}
		select {
		case <-h.closing:
			return // after what waits
		case j := <-h.queue:
			h.perform(ctx, j)
		}
	}
}

func (h *Hook) perform(ctx context.Context, j hookJob) {
	err := ctx.Err()
	if err == nil {
		err = h.run(ctx, j.alert)
	}
	if err != nil {
		h.fail(j.alert, err)
	}
	if j.result != nil {
		j.result <- err
	}
}

func (h *Hook) run(ctx context.Context, a Alert) error {
	runner, timeout := h.settings()
	if runner == nil {
		return nil // no more
	}
	body, err := control.MarshalJSON(a)
	if err != nil {
		return fmt.Errorf("encode an alert: %w", err)
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	out, err := runner.Run(limited, Environment(a), append(body, '\n'))
	switch {
	case errors.Is(limited.Err(), context.DeadlineExceeded):
		return fmt.Errorf("command took longer than %s and was killed", timeout)
	case err != nil:
		if said := bytes.TrimSpace(out); len(said) > 0 {
			return fmt.Errorf("command: %w: %.200q", err, said)
		}
		return fmt.Errorf("command: %w", err)
	}
	return nil
}

func (h *Hook) fail(a Alert, err error) {
	h.failed.Add(1)
	h.log.Error("alert command failed", "volume", a.Volume, "level", string(a.Level), "error", err)
}

// Environment is the facts of an alert as a command finds them.
func Environment(a Alert) []string {
	event := "raised"
	if a.Recovered {
		event = "recovered"
	}
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	env := []string{}
	for _, v := range []struct{ name, value string }{
		{"VOLUME", a.Volume},
		{"ID", fmt.Sprintf("%08x", a.ID)},
		{"TIME", a.Time.UTC().Format(time.RFC3339)},
		{"LEVEL", string(a.Level)},
		{"EVENT", event},
		{"SEVERITY", strings.ToLower(a.Severity.String())},
		{"TEXT", a.Text},
		{"COMPONENT", a.Component},
		{"THRESHOLD", number(a.Threshold)},
		{"VALUE", number(a.Value)},
		{"PHYSICAL_BYTES", number(a.PhysicalBytes)},
		{"ALLOCATED_BYTES", number(a.AllocatedBytes)},
		{"FREE_BYTES", number(a.FreeBytes)},
		{"RESERVED_BYTES", number(a.ReservedBytes)},
		{"USED_PERCENT", number(int64(a.UsedPercent))},
		{"SECONDS_TO_FULL", number(a.SecondsToFull)},
		{"HELD_WRITES", number(int64(a.HeldWrites))},
	} {
		// A name with a NUL could not be passed on at all.
		env = append(env, "GVIRSTOR_"+v.name+"="+strings.ReplaceAll(v.value, "\x00", ""))
	}
	return env
}

// IsVariable reports whether Environment gives a variable of that name.
func IsVariable(name string) bool {
	return slices.ContainsFunc(Environment(Alert{}), func(v string) bool {
		known, _, _ := strings.Cut(v, "=")
		return known == name
	})
}
