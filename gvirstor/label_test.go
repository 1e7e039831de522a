package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

func TestAnInterruptedLabelSaysWhatToDo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 64<<20); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e, _, stderr := testEnv("label", "-s", "1g", "mydata", path)
	if status := run(ctx, e); status != 1 || stderr.String() != "gvirstor: Can't label mydata: Interrupted; give it again, with -f\n" {
		t.Errorf("%d: %s", status, stderr)
	}
}
