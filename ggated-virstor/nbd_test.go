package main

import (
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd"
)

func TestClientsElsewhereFindTheSocket(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	o := options{nbd: []string{"unix:nbd.sock", "tcp:localhost"}}
	_, uris, err := newNBD(o, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	dir, err = filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := uris("vol")
	for i, uri := range []string{
		nbd.URI(nbd.Address{Network: "unix", Addr: filepath.Join(dir, "nbd.sock")}, "vol", false),
		"nbd://localhost:10809/vol",
	} {
		if i >= len(got) || got[i] != uri {
			t.Errorf("%q, want %q among them", got, uri)
		}
	}
}
