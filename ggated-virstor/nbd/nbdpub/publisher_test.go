package nbdpub

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"testing"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish"
	"github.com/gvirstor/gvirstor/ggated-virstor/publish/publishtest"
)

// start serves on a socket until the end of the test.
func start(t *testing.T) *Publisher {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "nbd")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server, err := nbd.NewServer(nbd.Config{Log: slog.New(slog.DiscardHandler), MaxConns: 8})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		if err := server.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		<-served
	})
	uris := func(export string) []string {
		return []string{nbd.URI(nbd.Address{Network: "unix", Addr: socket}, export, false)}
	}
	return &Publisher{Server: server, URIs: uris, Log: slog.New(slog.DiscardHandler)}
}

func open(t *testing.T, p publish.Published) *nbdclient.Conn {
	t.Helper()
	c, err := nbdclient.Dial(t.Context(), p.Describe()[0].URI, nbdclient.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Abort() })
	return c
}

func TestAnNBDServerIsAPublisher(t *testing.T) {
	publishtest.Run(t, func(t *testing.T) publishtest.Way {
		p := start(t)
		return publishtest.Way{Publisher: p, Open: func(t *testing.T, p publish.Published) publishtest.Client { return open(t, p) }}
	})
}

func TestAClientThatIsNotThereCannotBeDisconnected(t *testing.T) {
	p := start(t)
	if err := p.Disconnect(7); !errors.Is(err, publish.ErrNoClient) {
		t.Errorf("%v", err)
	}
}
