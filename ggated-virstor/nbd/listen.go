package nbd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/ownfile"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/internal/proto"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

// Address is where a server listens.
type Address struct {
	Network string // "unix" or "tcp"
	Addr    string // a path, or HOST:PORT
}

// String is the form that ParseListen reads.
func (a Address) String() string { return a.Network + ":" + a.Addr }

// ParseListen reads "unix:PATH", "tcp:HOST:PORT" or "tcp:HOST", whose port is
// 10809. An empty HOST is every address of the machine, 0.0.0.0 every one of IPv4
// and [::] every one of IPv6; an IPv6 HOST stands in brackets.
func ParseListen(s string) (Address, error) {
	network, addr, ok := strings.Cut(s, ":")
	switch {
	case ok && network == "unix" && addr != "":
		return Address{network, addr}, nil
	case ok && network == "tcp" && addr != "":
		host, port, err := net.SplitHostPort(addr)
		if err != nil { // there may be no port
			host, port, err = net.SplitHostPort(addr + ":" + proto.DefaultPort)
		}
		if err != nil || port == "" {
			return Address{}, fmt.Errorf("NBD address %q: want tcp:HOST:PORT, an IPv6 HOST in brackets", s)
		}
		return Address{network, net.JoinHostPort(host, port)}, nil
	}
	return Address{}, fmt.Errorf("NBD address %q: want unix:PATH or tcp:HOST:PORT", s)
}

// ListenOptions says how to listen. The zero value is safe.
type ListenOptions struct {
	// Mode of a Unix socket; 0 means 0600.
	Mode fs.FileMode
	// TLS says that clients from the network must use TLS (Config.RequireTLS).
	TLS bool
	// Insecure allows TCP without TLS on addresses that other machines reach.
	Insecure bool
}

// Listen opens a listener for Serve. A Unix socket that a dead server left is
// replaced; a path that is anything else, or where a server answers, is an
// error. The process's umask is changed for a moment.
func Listen(ctx context.Context, a Address, opt ListenOptions) (net.Listener, error) {
	var ln net.Listener
	var err error
	switch a.Network {
	case "unix":
		ln, err = listenUnix(ctx, a.Addr, opt)
	case "tcp":
		ln, err = listenTCP(ctx, a.Addr, opt)
	default:
		err = errors.New("neither unix nor tcp")
	}
	if err != nil {
		return nil, fmt.Errorf("listen for NBD clients on %s: %w", a, err)
	}
	return ln, nil
}

// CheckListen refuses an address that Listen would refuse before it listens.
func CheckListen(a Address, opt ListenOptions) error {
	if a.Network != "tcp" {
		return nil
	}
	_, err := checkTCP(a.Addr, opt)
	return err
}

func checkTCP(addr string, opt ListenOptions) (*net.TCPAddr, error) {
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, err
	}
	if !tcp.IP.IsLoopback() && !opt.TLS && !opt.Insecure {
		return nil, errors.New("other machines can reach this address: give a certificate, " +
			"or say that everybody may read and write (--nbd-insecure)")
	}
	return tcp, nil
}

func listenTCP(ctx context.Context, addr string, opt ListenOptions) (net.Listener, error) {
	tcp, err := checkTCP(addr, opt)
	if err != nil {
		return nil, err
	}
	network := "tcp" // of both kinds, for all addresses
	if tcp.IP.To4() != nil {
		network = "tcp4" // or 0.0.0.0 would be [::] as well
	} else if tcp.IP != nil {
		network = "tcp6"
	}
	return new(net.ListenConfig).Listen(ctx, network, tcp.String())
}

func listenUnix(ctx context.Context, path string, opt ListenOptions) (net.Listener, error) {
	if err := removeStale(ctx, path); err != nil {
		return nil, err
	}
	mode := opt.Mode
	if mode == 0 {
		mode = 0o600
	}
	old := syscall.Umask(0o177) // nobody else gets in before the mode is set
	ln, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	syscall.Umask(old)
	if errors.Is(err, syscall.EINVAL) {
		return nil, fmt.Errorf("%w (a socket's path is at most about 100 bytes)", err)
	}
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, mode); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

// removeStale removes a socket on which no server answers.
func removeStale(ctx context.Context, path string) error {
	err := ownfile.CheckSocket(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	nc, err := (&net.Dialer{Timeout: 1500 * time.Millisecond}).DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		nc.Close()
		return errors.New("another server answers on this socket")
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(path)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return fmt.Errorf("see whether another server answers: %w", err)
}

// URI is how clients name an export of a server that listens on a
// (doc/uri.md). With tls set, an address of the network is one that TLS is used
// on.
func URI(a Address, export string, tls bool) string {
	switch {
	case a.Network == "unix":
		return "nbd+unix:///" + nbdclient.Escape(export) + "?socket=" + nbdclient.Escape(a.Addr)
	case tls:
		return "nbds://" + a.Addr + "/" + nbdclient.Escape(export)
	}
	return "nbd://" + a.Addr + "/" + nbdclient.Escape(export)
}
