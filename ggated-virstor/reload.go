package main

import (
	"bytes"
	"crypto/tls"
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
	args   []string // of the command line
	look   func() (options.World, error)
	now    *options.Options // in force
	daemon configurable
	space  func(*options.Options) (space.AlertOptions, space.SpareOptions, error)
	// clients and readTLS are of the NBD server.
	clients clientRules
	readTLS func() (*tls.Config, error)
	log     *slog.Logger
}

// clientRules is what a reload changes for clients that connect later: an nbd.Server.
type clientRules interface {
	SetGrants(grants []nbd.Grant)
	SetTLS(certs *tls.Config) error
}

// lookHere is reloader.look of a process that may open files.
func lookHere() (options.World, error) { return options.NewHere(), nil }

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
	var said bytes.Buffer
	w, err := r.look()
	if err != nil {
		r.log.Error("configuration not applied", "error", err)
		return
	}
	next, err := parseOptions(w, r.args, &said, &said)
	if err != nil {
		first, _, _ := strings.Cut(said.String(), "\n")
		r.log.Error("configuration not applied", "error", strings.TrimPrefix(first, "ggated-virstor: "))
		return
	}
	all, err := next.Policies()
	if err != nil {
		r.log.Error("configuration not applied", "error", err)
		return
	}
	alerts, spares, err := r.space(next)
	if err != nil {
		r.log.Error("configuration not applied", "error", err)
		return
	}
	grants, err := next.Grants()
	if err != nil {
		r.log.Error("configuration not applied", "error", err)
		return
	}
	applied, later := options.Changes(r.now.Settings, next.Settings)
	r.now.Level.Set(next.Level.Level())
	r.daemon.SetPolicies(all, next.PerVolume)
	r.daemon.SetAlertLevels(alerts.Levels)
	if slices.ContainsFunc(applied, func(key string) bool { return slices.Contains(commandKeys, key) }) {
		r.daemon.SetAlertCommand(alerts.Command, alerts.Timeout)
	}
	r.daemon.SetSpares(spares)
	r.clients.SetGrants(grants)
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

// reloadTLS reads the certificates again, from the files named at the start. When
// they are not right, those before stay in force.
func (r *reloader) reloadTLS() {
	certs, err := r.readTLS()
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
