package daemon

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
)

// fullTable is an opener in a process that has no descriptor left.
type fullTable struct{}

func (fullTable) Open(name string, _ bool, _ int) (geomlib.Provider, error) {
	return nil, fmt.Errorf("open %s: %w", name, &os.PathError{Op: "open", Path: name, Err: syscall.EMFILE})
}
func (t fullTable) Peek(name string, _ int) (geomlib.Provider, error) { return t.Open(name, true, 0) }
func (fullTable) LockVolume(uint32) (io.Closer, error)                { return nil, errors.New("not reached") }

// TestTooFewDescriptorsAreOneProblem: however many providers are not open for it.
func TestTooFewDescriptorsAreOneProblem(t *testing.T) {
	var log strings.Builder
	d := New(Options{Version: "test"}, fullTable{}, nil, slog.New(slog.NewTextHandler(&log, nil)))
	var names []string
	for i := range 400 {
		names = append(names, fmt.Sprintf("/dev/da%d", i))
	}
	if n := d.ServeAll(names); n != 0 {
		t.Fatalf("%d volumes", n)
	}
	st, err := d.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(st.Problems) != 1 || !strings.Contains(st.Problems[0].Reason, "400 providers") || !strings.Contains(st.Problems[0].Remedy, "higher by 400") {
		t.Errorf("problems: %+v", st.Problems)
	}
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("%d lines of the log", n)
	}
}
