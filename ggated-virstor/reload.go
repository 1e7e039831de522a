package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd"
	"github.com/gvirstor/gvirstor/ggated-virstor/options"
	"github.com/gvirstor/gvirstor/ggated-virstor/space"
)

// commandKeys are the live ones of what alerts run.
var commandKeys = []string{"on-alert", "on-alert-timeout"}

// configurable is what a reload changes: a daemon.Daemon.
type configurable interface {
	SetPolicies(all virstor.Config, each map[string]virstor.Config)
	SetAlertLevels(c space.Thresholds)
	SetAlertCommand(run space.Runner, timeout time.Duration)
	SetSpares(o space.SpareOptions)
	ServeAll(providers []string) int
}

// reloader applies the configuration file anew.
type reloader struct {
	args     []string // of the command line
	settings settings
	now      *options.Options // in force
	daemon   configurable
	clients  clientRules // of the NBD server
	log      *slog.Logger
}

// clientRules is what a reload changes for clients that connect later: an nbd.Server.
type clientRules interface {
	SetGrants(grants []nbd.Grant)
	SetTLS(certs *tls.Config) error
}

// watchReload reloads at every SIGHUP until the returned function is called.
func watchReload(r *reloader) (stop func()) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-hangups:
				r.reload()
			case <-quit:
				return
			}
		}
	}()
	return func() {
		signal.Ignore(syscall.SIGHUP) // one more must not end this process
		close(quit)
		<-done
	}
}

// reload reads the configuration again. Providers are opened even if nothing
// changed: one may have come back.
func (r *reloader) reload() {
	r.settings.Reloading()
	defer r.settings.Reloaded()
	next, err := r.read()
	if err != nil {
		r.log.Error("configuration not applied", "error", err)
		return
	}
	applied, later := options.Changes(r.now.Settings, next.Settings)
	r.now.Level.Set(next.Level.Level())
	r.daemon.SetPolicies(next.Policies(), next.PerVolume)
	r.daemon.SetAlertLevels(next.alerts.Levels)
	if slices.ContainsFunc(applied, func(key string) bool { return slices.Contains(commandKeys, key) }) {
		r.daemon.SetAlertCommand(next.alerts.Command, next.alerts.Timeout)
	}
	r.daemon.SetSpares(next.spares)
	r.clients.SetGrants(next.Grants())
	r.reloadTLS()
	n := r.daemon.ServeAll(slices.Concat(next.Providers, next.SpareProviders()))
	r.log.Info("configuration read again", "applied", strings.Join(applied, " "), "volumes", n)
	if len(later) > 0 {
		r.log.Warn("needs a restart", "keys", strings.Join(later, ", "))
	}
	for _, key := range applied {
		r.now.Settings[key] = next.Settings[key]
	}
}

// reread are options that were read again, and what they mean.
type reread struct {
	*options.Options
	alerts space.AlertOptions
	spares space.SpareOptions
}

// read reads the options again. Nothing is changed by that.
func (r *reloader) read() (next reread, err error) {
	w, err := r.settings.World()
	if err != nil {
		return next, err
	}
	if next.Options, err = parseAgain(w, r.args); err != nil {
		return next, err
	}
	next.alerts, next.spares = spaceOptions(r.settings, next.Options)
	return next, nil
}

// parseAgain reads options where nobody reads what is said of them: the error has the
// first line.
func parseAgain(w options.World, args []string) (*options.Options, error) {
	var said bytes.Buffer
	next, err := parseOptions(w, args, io.Discard, &said)
	if err != nil {
		first, _, _ := strings.Cut(said.String(), "\n")
		return nil, errors.New(strings.TrimPrefix(first, "ggated-virstor: "))
	}
	return next, nil
}

// reloadTLS reads the certificates again, from the files named at the start. When
// they are not right, those before stay in force.
func (r *reloader) reloadTLS() {
	certs, err := r.settings.Certificates()
	if err == nil && certs == nil {
		return // there is no TLS
	}
	if err == nil {
		err = r.clients.SetTLS(certs)
	}
	if err != nil {
		r.log.Error("TLS certificates not read again: those before stay in force", "error", err)
		return
	}
	leaf := certs.Certificates[0].Leaf
	r.log.Info("TLS certificates read again", "subject", leaf.Subject.String(), "expires", leaf.NotAfter.UTC().Format(time.RFC3339))
}
