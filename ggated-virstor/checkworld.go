package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib/ownfile"
	"github.com/gvirstor/gvirstor/ggated-virstor/web"
)

// checkWorld tells, for --check-config, of what would be wrong at the start with
// what the options name, and on w of what is merely unwise.
func (o *options) checkWorld(w io.Writer) error {
	err := errors.Join(o.checkAddresses(), o.checkHTTP(w), o.checkFolders(), checkFile(o.tlsCert, ownfile.Public),
		checkFile(o.tlsClientCA, ownfile.Public), checkFile(o.tlsKey, ownfile.Private))
	if _, e := o.loadTLS(); e != nil {
		err = errors.Join(err, e)
	}
	return err
}

// checkFile refuses a file with which others may do what they must not; path may be
// empty, and what cannot be opened is told by who reads it.
func checkFile(path string, secret ownfile.Secret) error {
	if path == "" {
		return nil
	}
	f, err := ownfile.OpenTrusted(path, secret)
	if err == nil {
		return f.Close()
	}
	if errors.Is(err, ownfile.ErrUnsafe) {
		return err
	}
	return nil
}

// checkHTTP looks at the address of --http without listening on it.
func (o *options) checkHTTP(w io.Writer) error {
	if o.space.http == "" {
		return nil
	}
	tcp, err := web.Resolve(o.space.http)
	if err != nil {
		return err
	}
	if !web.IsLoopback(tcp) {
		fmt.Fprintf(w, "ggated-virstor: warning: --http %s: other machines can read metrics and health there\n", o.space.http)
	}
	return nil
}

// httpNames are the names by which --http is asked: what was said, this machine's,
// and those of --http-host.
func (o *options) httpNames() []string {
	names := slices.Clone(o.space.httpHosts)
	if host, _, err := net.SplitHostPort(o.space.http); err == nil && host != "" {
		names = append(names, host)
	}
	if host, err := os.Hostname(); err == nil {
		names = append(names, host)
	}
	return names
}
