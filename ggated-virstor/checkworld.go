package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"

	"github.com/gvirstor/gvirstor/ggated-virstor/metrics"
)

// checkWorld tells, for --check-config, of what would be wrong at the start with
// what the options name, and on w of what is merely unwise.
func (o *options) checkWorld(w io.Writer) error {
	err := errors.Join(o.checkAddresses(), o.checkHTTP(w), checkFile(o.configFile(), othersWrite), checkFile(o.tlsCert, othersWrite),
		checkFile(o.tlsClientCA, othersWrite), checkFile(o.tlsKey, othersUse))
	if _, e := o.loadTLS(); e != nil {
		err = errors.Join(err, e)
	}
	return err
}

// What others may not do with a file.
const (
	othersWrite fs.FileMode = 0o022
	othersUse   fs.FileMode = 0o077
)

// checkFile refuses a file with which others may do what they must not; path may be
// empty, and what cannot be looked at is told by who reads it.
func checkFile(path string, not fs.FileMode) error {
	fi, err := os.Stat(path)
	if path == "" || err != nil || fi.Mode().Perm()&not == 0 {
		return nil
	}
	what, remedy := "written to", "go-w"
	if not == othersUse {
		what, remedy = "read or written to", "go="
	}
	return fmt.Errorf("%s: can be %s by others (%s): `chmod %s %s`", path, what, fi.Mode().Perm(), remedy, path)
}

// checkHTTP looks at the address of --http without listening on it.
func (o *options) checkHTTP(w io.Writer) error {
	if o.space.http == "" {
		return nil
	}
	tcp, err := metrics.Resolve(o.space.http)
	if err != nil {
		return err
	}
	if !metrics.IsLoopback(tcp) {
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
