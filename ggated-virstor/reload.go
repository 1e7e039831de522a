package main

import (
	"bytes"
	"crypto/tls"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd"
	"github.com/gvirstor/gvirstor/ggated-virstor/space"
)

// liveKeys are the ones that change while volumes are served.
var liveKeys = []string{
	"debug", "provider", "nbd-allow", "when-full", "full-timeout", "held-memory", "reserve",
	"alert-chunks", "alert-components", "alert-percent", "alert-time", "alert-window", "on-alert", "on-alert-timeout",
	"spare", "spare-at", "grow", "grow-max",
}

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
	look   func() (world, error)
	now    options // in force
	daemon configurable
	space  func(*options) (space.AlertOptions, space.SpareOptions, error)
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
func lookHere() (world, error) { return newHereWorld(), nil }

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
	all, err := next.policies()
	if err != nil {
		r.log.Error("configuration not applied", "error", err)
		return
	}
	alerts, spares, err := r.space(&next)
	if err != nil {
		r.log.Error("configuration not applied", "error", err)
		return
	}
	grants, err := next.grants()
	if err != nil {
		r.log.Error("configuration not applied", "error", err)
		return
	}
	applied, later := changes(r.now.settings, next.settings)
	r.now.level.Set(next.level.Level())
	r.daemon.SetPolicies(all, next.perVolume)
	r.daemon.SetAlertLevels(alerts.Levels)
	if slices.ContainsFunc(applied, func(key string) bool { return slices.Contains(commandKeys, key) }) {
		r.daemon.SetAlertCommand(alerts.Command, alerts.Timeout)
	}
	r.daemon.SetSpares(spares)
	r.clients.SetGrants(grants)
	r.reloadTLS()
	n := r.daemon.ServeAll(slices.Concat(next.providers, next.space.spareProviders()))
	r.log.Info("configuration read again", "applied", strings.Join(applied, " "), "volumes", n)
	if len(later) > 0 {
		r.log.Warn("needs a restart", "keys", strings.Join(later, ", "))
	}
	for _, key := range applied {
		r.now.settings[key] = next.settings[key]
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

// changes are the keys whose values differ, in order.
func changes(before, after map[string]string) (live, later []string) {
	keys := maps.Clone(before)
	maps.Copy(keys, after)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if before[key] == after[key] {
			continue
		}
		short := key[strings.LastIndexByte(key, ' ')+1:]
		if slices.Contains(liveKeys, short) {
			live = append(live, key)
		} else {
			later = append(later, key)
		}
	}
	return live, later
}
