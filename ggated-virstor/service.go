package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/gvirstor/gvirstor/geomlib/ownfile"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd"
	"github.com/gvirstor/gvirstor/ggated-virstor/options"
)

// given are the listeners that whoever started this program has opened for it, by the
// protocol of systemd.socket(5): one called "control" is for gvirstor(8), all others are
// for NBD clients.
type given struct {
	control *net.UnixListener // or nil
	nbd     []net.Listener
}

// takeGiven takes them, so that no process started later does. Those that other machines
// reach are refused as --nbd would refuse them.
func takeGiven(o *options.Options) (g given, err error) {
	all, err := activation.ListenersWithNames()
	if err != nil {
		return g, fmt.Errorf("sockets from who started this: %w", err)
	}
	for name, ls := range all {
		for _, l := range ls {
			unix, isUnix := l.(*net.UnixListener)
			switch {
			case l == nil: // no listener, and nothing of ours
			case name != "control":
				if a := (nbd.Address{Network: l.Addr().Network(), Addr: l.Addr().String()}); !isUnix {
					err = errors.Join(err, nbd.CheckListen(a, o.ListenOptions()))
				}
				g.nbd = append(g.nbd, l)
			case !isUnix || g.control != nil:
				err = errors.Join(err, fmt.Errorf("socket %s from who started this: one unix socket is for gvirstor(8)", l.Addr()), l.Close())
			default:
				g.control = unix
			}
		}
	}
	if err != nil {
		return g, errors.Join(err, g.close())
	}
	return g, nil
}

func (g given) close() error {
	err := closeAll(g.nbd)
	if g.control != nil {
		err = errors.Join(err, g.control.Close())
	}
	return err
}

// listenControl is the control socket, which g has, or which is made.
func (g given) listenControl(o *options.Options) (*net.UnixListener, error) {
	if g.control != nil {
		return g.control, nil
	}
	return control.Listen(o.Control)
}

// announcer tells whoever started the program how it stands: systemd(1), by sd_notify(3),
// and others by a file. Its methods may be called by many goroutines.
type announcer struct {
	o    *options.Options
	log  *slog.Logger
	once sync.Once
	stop func() // ends watch's goroutine; set by ready
}

// ready tells that volumes are served.
func (a *announcer) ready() {
	a.once.Do(func() {
		if err := a.writePID(); err != nil {
			a.log.Error("no file with the process's number", "error", err)
		}
		a.watch()
	})
	a.notify(daemon.SdNotifyReady)
}

// reloading tells that the configuration is being read again, until ready.
func (a *announcer) reloading() {
	a.notify(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
}

// end tells that the service ends.
func (a *announcer) end() {
	if a.stop != nil {
		a.stop() // so that it says nothing after this
	}
	a.notify(daemon.SdNotifyStopping + "\nSTATUS=Volumes are being closed")
	if a.o.PIDFile == "" {
		return
	}
	if err := os.Remove(a.o.PIDFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.log.Warn("the file with the process's number stays", "error", err)
	}
}

func (a *announcer) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		a.log.Warn("systemd is not told", "error", err)
	}
}

// writePID writes the number of this process where --pid-file says.
func (a *announcer) writePID() error {
	if a.o.PIDFile == "" {
		return nil
	}
	f, err := ownfile.Open(a.o.PIDFile, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, os.Getpid())
	return errors.Join(err, f.Close())
}

// statusEvery is how often systemd is told how the volumes stand, where no watchdog asks
// for more.
const statusEvery = 10 * time.Second

// watch tells systemd, if that started the program, how the volumes stand, and its
// watchdog, if it has one, that the service lives: as long as the control socket answers,
// which it does by the process that serves.
func (a *announcer) watch() {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		a.log.Warn("systemd is not told", "error", err)
	}
	every, within := statusEvery, statusEvery
	switch {
	case interval > 0:
		every, within = min(every, interval/3), interval/2
	case os.Getenv("NOTIFY_SOCKET") == "":
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	a.stop = func() {
		cancel()
		<-done
	}
	go func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for told := ""; ; {
			if st, err := statusOf(ctx, a.o.Control, within); err == nil {
				if line := st.Headline(); line != told {
					told = line
					a.notify("STATUS=" + line)
				}
				if interval > 0 {
					a.notify(daemon.SdNotifyWatchdog)
				}
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
}

// statusOf is the status of the daemon behind a control socket, if it tells it within a
// time.
func statusOf(ctx context.Context, socket string, within time.Duration) (st control.Status, err error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	c, err := control.Dial(socket)
	if err != nil {
		return st, err
	}
	defer c.Close()
	return c.Status(ctx)
}
