package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdtest"
)

// serve serves a disk in memory of 8 MiB and a half until the test ends.
func serve(t *testing.T) (uri string) {
	t.Helper()
	disk := nbdtest.New(nbdtest.Config{Size: 8<<20 + 512<<10})
	t.Cleanup(disk.Close)
	server, err := nbd.NewServer(nbd.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := server.AddExport("disk", disk); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, ln) }()
	t.Cleanup(func() {
		_ = server.Shutdown(ctx)
		cancel()
		<-served
	})
	return "nbd://" + ln.Addr().String() + "/disk"
}

func TestWhatIsWrittenIsCheckedAndCopied(t *testing.T) {
	uri := serve(t)
	file := filepath.Join(t.TempDir(), "file")
	for _, args := range [][]string{
		{"write", uri, "0x5a", "1m", "1536k"},
		{"check", uri, "90", "1m", "1536k"},
		{"check", uri, "0", "0", "1m"},
		{"check", uri, "0", "2560k", "6m"},
		{"copy", uri, file},
	} {
		if err := run(context.Background(), args); err != nil {
			t.Errorf("%q: %v", args, err)
		}
	}
	want := make([]byte, 8<<20+512<<10)
	copy(want[1<<20:], bytes.Repeat([]byte{0x5a}, 1536<<10))
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the copy differs (%v)", err)
	}
	if err := run(context.Background(), []string{"copy", uri, file}); !errors.Is(err, os.ErrExist) {
		t.Errorf("a file that is there: %v", err)
	}
}

func TestTheFirstByteThatDiffersIsNamed(t *testing.T) {
	uri := serve(t)
	if err := run(context.Background(), []string{"write", uri, "1", "1537k", "512"}); err != nil {
		t.Fatal(err)
	}
	err := run(context.Background(), []string{"check", uri, "0", "512k", "2m"})
	if err == nil || !strings.Contains(err.Error(), "byte 1573888 is 0x1, not 0x0") {
		t.Error(err)
	}
}

func TestWhatTheServerRefusesIsAnError(t *testing.T) {
	uri := serve(t)
	for _, args := range [][]string{
		{"write", uri, "1", "8m", "1m"},
		{"check", uri, "0", "9m", "512"},
		{"check", strings.Replace(uri, "/disk", "/other", 1), "0", "0", "512"},
	} {
		if err := run(context.Background(), args); err == nil || errors.Is(err, errUsage) {
			t.Errorf("%q: %v", args, err)
		}
	}
}

func TestWrongArgumentsAreNotSentAnywhere(t *testing.T) {
	for _, line := range []string{
		"", "copy", "copy u", "copy u f g", "erase u 0 0 1m", "write u 256 0 1m", "write u x 0 1m",
		"check u 0 0 1q", "check u 0 0 1mm", "check u 0 0 m", "check u 0 -1 1m", "check u 0 0 8589934592g",
	} {
		if err := run(context.Background(), strings.Fields(line)); !errors.Is(err, errUsage) {
			t.Errorf("%q: %v", line, err)
		}
	}
}
