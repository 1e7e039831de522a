package options

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"

	"github.com/gvirstor/gvirstor/geomlib/ownfile"
	"github.com/gvirstor/gvirstor/ggated-virstor/web"
)

// checkWorld tells, for --check-config, of what would be wrong at the start with
// what the options name, and on w of what is merely unwise.
func (o *Options) checkWorld(w io.Writer) error {
	err := errors.Join(o.checkAddresses(), o.checkHTTP(w), o.CheckFolders(), checkFile(o.tlsCert, ownfile.Public),
		checkFile(o.tlsClientCA, ownfile.Public), checkFile(o.tlsKey, ownfile.Private))
	if _, e := o.LoadTLS(); e != nil {
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
func (o *Options) checkHTTP(w io.Writer) error {
	if o.HTTP == "" {
		return nil
	}
	tcp, err := web.Resolve(o.HTTP)
	if err != nil {
		return err
	}
	if !web.IsLoopback(tcp) {
		fmt.Fprintf(w, "ggated-virstor: warning: --http %s: other machines can read the status page, metrics and health there\n", o.HTTP)
	}
	return nil
}

// HTTPNames are the names by which --http is asked: what was said, this machine's,
// and those of --http-host.
func (o *Options) HTTPNames() []string {
	names := slices.Clone(o.httpHosts)
	if host, _, err := net.SplitHostPort(o.HTTP); err == nil && host != "" {
		names = append(names, host)
	}
	if host, err := os.Hostname(); err == nil {
		names = append(names, host)
	}
	return names
}

// CheckFolders refuses folders in which others could put what they like in the
// place of this program's files. Those that are not there will be made.
func (o *Options) CheckFolders() error {
	folders := map[string]string{"--run-dir": o.RunDir}
	if dir := o.Archive(); dir != nil {
		folders["--backup-dir"] = dir.Path
	}
	if o.stateDir != "" {
		folders["--state-dir"] = o.stateDir
	}
	for _, g := range o.grow {
		folders["--grow of "+g.volume] = g.plan.Dir
	}
	for option, dir := range folders {
		if err := ownfile.CheckDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s: %w", option, err)
		}
	}
	return nil
}
