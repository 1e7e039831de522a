package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/geomlib/state"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/geomlib/virstor/backup"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

// options is the command line.
type options struct {
	providers  []string
	configured []string // those of --provider and of the configuration file

	config      string
	checkConfig bool
	flags       *pflag.FlagSet
	settings    map[string]string         // every key and its value
	perVolume   map[string]virstor.Config // of the volumes that have their own policies
	level       *slog.LevelVar
	world       world

	nbd           []string
	nbdInsecure   bool
	nbdAllow      []string
	nbdMaxClients int
	nbdMaxPeer    int
	nbdIdle       time.Duration
	tlsCert       string
	tlsKey        string
	tlsClientCA   string
	control       string
	runDir        string
	backupDir     string
	backups       int
	stateDir      string
	forceOld      []string
	gate          bool
	gateName      string
	unit          int
	receivers     int
	supervised    string // auto, yes or no
	supervise     bool   // what that comes to
	user          string
	syslog        bool
	debug         bool

	readOnly   bool
	whenFull   string
	timeout    time.Duration
	heldMemory string
	alloc      string
	zero       string
	zeroAhead  int
	discard    string
	zeroes     bool

	space spaceOptions
}

// errUsage and errHelp end the program after parseOptions has said what to say.
var (
	errUsage = errors.New("usage")
	errHelp  = errors.New("help")
)

func exitCode(err error) int {
	if errors.Is(err, errHelp) {
		return 0
	}
	return 1
}

// parseOptions reads options, and the files that they name, in w.
func parseOptions(w world, args []string, stdout, stderr io.Writer) (options, error) {
	o := options{level: new(slog.LevelVar), world: w}
	var showVersion, help bool
	f := pflag.NewFlagSet("ggated-virstor", pflag.ContinueOnError)
	o.flags = f
	f.SetOutput(io.Discard)
	f.SortFlags = false
	f.SetInterspersed(false)
	f.StringVar(&o.config, "config", "", "configuration `FILE` (default "+defaultConfig+", when it exists)")
	f.BoolVar(&o.checkConfig, "check-config", false, "tell whether the configuration and the options are right, and exit")
	f.StringArrayVar(&o.configured, "provider", nil, "open `PROVIDER`, as those behind the options (repeatable)")
	f.StringArrayVar(&o.nbd, "nbd", nil, "serve NBD on unix:`PATH` or tcp:HOST:PORT (repeatable)")
	f.BoolVar(&o.nbdInsecure, "nbd-insecure", false, "allow TCP without TLS on addresses that other machines reach")
	f.StringArrayVar(&o.nbdAllow, "nbd-allow", nil, "who may use an export: `EXPORT=ro:WHO` or EXPORT=rw:WHO; WHO is any, unix, uid:N or tls:NAME (repeatable; none: all may write all)")
	f.IntVar(&o.nbdMaxClients, "nbd-max-clients", 256, "serve at most `N` NBD connections at once")
	f.IntVar(&o.nbdMaxPeer, "nbd-max-peer-clients", 0, "of these, `N` of one address, or of one user of unix sockets (0: three quarters)")
	f.DurationVar(&o.nbdIdle, "nbd-idle", 0, "disconnect NBD clients that ask for nothing for `TIME` (0: only those that never asked for anything)")
	f.StringVar(&o.tlsCert, "tls-cert", "", "NBD server certificate `FILE`, PEM")
	f.StringVar(&o.tlsKey, "tls-key", "", "key `FILE` of the certificate, PEM")
	f.StringVar(&o.tlsClientCA, "tls-client-ca", "", "`FILE` of certificates that must have signed a client's, PEM")
	f.StringVar(&o.control, "control", control.DefaultSocket, "control socket `PATH`")
	f.StringVar(&o.runDir, "run-dir", geomlib.DefaultRunDir(), "`DIR` of the locks by volume id")
	f.StringVar(&o.backupDir, "backup-dir", defaultBackupDir(), "`DIR` of backups of metadata and maps; empty: none are made")
	f.IntVar(&o.backups, "backups", 10, "keep the last `N` backups of each volume (0: none)")
	f.StringVar(&o.stateDir, "state-dir", state.DefaultFor(os.Geteuid()), "`DIR` of notes of what this host served, by which older copies are known; empty: none are made")
	f.StringArrayVarP(&o.forceOld, "force-old", "f", nil, "serve the volume `NAME` even if its components are older than what this host served: what was written since is lost (repeatable)")
	f.BoolVar(&o.gate, "gate", runtime.GOOS == "freebsd", "publish volumes as devices of geom_gate(4)")
	f.StringVar(&o.gateName, "gate-name", "", "`NAME` of the device below /dev; after a slash at its end comes the volume's (default ggateN)")
	f.IntVar(&o.unit, "unit", gate.UnitAuto, "`N` of ggateN (default the lowest that is free)")
	f.IntVar(&o.receivers, "receivers", 2, "goroutines, 1 to 4, that take the requests of each device")
	f.StringVar(&o.supervised, "supervise", "auto", "serve from a worker process that may do little, and is restarted when it dies: `auto|yes|no` (auto: as root; devices always are)")
	f.Lookup("supervise").NoOptDefVal = "yes"
	f.StringVar(&o.user, "user", defaultUser, "`USER` that the worker becomes when it is started as root; empty for root")
	f.BoolVar(&o.syslog, "syslog", false, "log to syslog(3) instead of the standard error output")
	f.BoolVar(&o.debug, "debug", false, "log more")
	f.BoolVar(&o.readOnly, "read-only", false, "write nothing to any component")
	policyFlags(f, &o)
	o.space.declare(f)
	f.BoolVar(&showVersion, "version", false, "print the version")
	f.BoolVarP(&help, "help", "h", false, "print this")
	usage := func(w io.Writer) {
		fmt.Fprintf(w, "usage: ggated-virstor [options] [provider ...]\n%s", f.FlagUsages())
	}
	if err := f.Parse(args); err != nil {
		fmt.Fprintln(stderr, "ggated-virstor:", ondisk.PrintableText(err.Error()))
		usage(stderr)
		return o, errUsage
	}
	switch {
	case help:
		usage(stdout)
		return o, errHelp
	case showVersion:
		fmt.Fprintln(stdout, "ggated-virstor", version)
		return o, errHelp
	}
	_, err := o.policies()
	if err == nil {
		err = o.configure(f)
	}
	if err == nil {
		err = o.checkNBD()
	}
	if err != nil {
		fmt.Fprintln(stderr, "ggated-virstor:", ondisk.PrintableText(err.Error()))
		return o, errUsage
	}
	if err := o.space.check(w); err != nil {
		fmt.Fprintln(stderr, "ggated-virstor:", ondisk.PrintableText(err.Error()))
		return o, errUsage
	}
	if o.providers, err = absoluteAll(w, append(f.Args(), o.configured...)); err != nil {
		fmt.Fprintln(stderr, "ggated-virstor:", ondisk.PrintableText(err.Error()))
		return o, errUsage
	}
	if err := o.decideProcesses(); err != nil {
		fmt.Fprintln(stderr, "ggated-virstor:", ondisk.PrintableText(err.Error()))
		return o, errUsage
	}
	if o.debug {
		o.level.Set(slog.LevelDebug)
	}
	if o.checkConfig {
		if err := o.checkWorld(stderr); err != nil {
			fmt.Fprintln(stderr, "ggated-virstor:", ondisk.PrintableText(err.Error()))
			return o, errUsage
		}
		fmt.Fprintln(stdout, "ggated-virstor: the configuration is right")
		return o, errHelp
	}
	return o, nil
}

// superviseModes are what --supervise says.
var superviseModes = []string{"auto", "yes", "no", "true", "false"}

// decideProcesses makes one process or two of what --supervise says.
func (o *options) decideProcesses() error {
	switch o.supervised {
	case "yes", "true":
		o.supervise = true
	case "no", "false":
		o.supervise = o.gate
	case "auto":
		o.supervise = o.gate || os.Geteuid() == 0
	default:
		return badValue("supervise", o.supervised, superviseModes...)
	}
	return nil
}

// policyFlags declares the options that every volume can have its own of.
func policyFlags(f *pflag.FlagSet, o *options) {
	f.StringVar(&o.whenFull, "when-full", "wait", "what a write finds when no chunk is free: `wait|error`")
	f.DurationVar(&o.timeout, "full-timeout", 0, "fail a waiting write after `TIME`, such as 90s (0: never)")
	f.StringVar(&o.heldMemory, "held-memory", "64m", "hold at most `SIZE` of data of waiting writes for each volume")
	f.StringVar(&o.alloc, "alloc", "fill", "give new chunks from component after component, or from all in turn: `fill|spread`")
	f.StringVar(&o.zero, "zero", "auto", "zero new chunks where they are not written: `auto|never`")
	f.IntVar(&o.zeroAhead, "zero-ahead", 8, "zero the next `N` chunks to be allocated while the volume is idle (0: none)")
	f.StringVar(&o.discard, "discard", "on", "what discards do: free chunks, only pass them down, nothing: `on|passdown-only|off`")
	f.BoolVar(&o.zeroes, "detect-zeroes", false, "treat writes of nothing but zeros as write zeroes: they allocate nothing, and free what they cover")
}

// policies are the options that concern the engine.
func (o *options) policies() (virstor.Config, error) {
	c := virstor.Config{ReadOnly: o.readOnly, FullTimeout: o.timeout, Reserve: o.space.reserve, DetectZeroes: o.zeroes, ZeroAhead: o.zeroAhead}
	switch o.whenFull {
	case "wait":
		c.WhenFull = virstor.Wait
	case "error":
		c.WhenFull = virstor.Fail
	default:
		return c, badValue("when-full", o.whenFull, "wait", "error")
	}
	switch o.alloc {
	case "fill":
		c.Alloc = virstor.Fill
	case "spread":
		c.Alloc = virstor.Spread
	default:
		return c, badValue("alloc", o.alloc, "fill", "spread")
	}
	switch o.zero {
	case "auto":
		c.Zero = virstor.ZeroAuto
	case "never":
		c.Zero = virstor.ZeroNever
	default:
		return c, badValue("zero", o.zero, "auto", "never")
	}
	switch o.discard {
	case "on":
		c.Discard = virstor.DiscardOn
	case "passdown-only":
		c.Discard = virstor.DiscardPassdown
	case "off":
		c.Discard = virstor.DiscardOff
	default:
		return c, badValue("discard", o.discard, "on", "passdown-only", "off")
	}
	if o.zeroAhead < 0 {
		return c, fmt.Errorf("--zero-ahead %d: must not be negative", o.zeroAhead)
	}
	n, err := control.ExpandNumber(o.heldMemory)
	if err != nil || n <= 0 {
		return c, fmt.Errorf("--held-memory %s: a size such as 64m is needed", o.heldMemory)
	}
	c.HeldLimit = n
	switch {
	case o.receivers < 1 || o.receivers > 4:
		return c, fmt.Errorf("--receivers %d: 1 to 4 are possible", o.receivers)
	case o.backups < 0:
		return c, fmt.Errorf("--backups %d: must not be negative", o.backups)
	case o.unit < gate.UnitAuto:
		return c, fmt.Errorf("--unit %d: must not be negative", o.unit)
	case o.unit >= 0 && o.gateName != "":
		return c, errors.New("--unit and --gate-name: only one of them names a device")
	case strings.HasPrefix(o.gateName, "/"):
		return c, fmt.Errorf("--gate-name %s: is given without /dev/", o.gateName)
	}
	if o.timeout < 0 {
		return c, fmt.Errorf("--full-timeout %s: must not be negative", o.timeout)
	}
	return c, nil
}

// defaultBackupDir is none for those who may not write to root's.
func defaultBackupDir() string {
	if os.Geteuid() == 0 {
		return backup.DefaultDir
	}
	return ""
}

// archive is where backups are kept, nil for nowhere.
func (o *options) archive() *backup.Dir {
	if o.backupDir == "" || o.backups == 0 {
		return nil
	}
	return &backup.Dir{Path: o.backupDir, Count: o.backups}
}

// memory is where it is noted what this host serves, nil for nowhere.
func (o *options) memory() *state.Dir {
	if o.stateDir == "" {
		return nil
	}
	return &state.Dir{Path: o.stateDir}
}

func badValue(option, value string, want ...string) error {
	return fmt.Errorf("--%s %s: one of %s is needed", option, value, strings.Join(want, ", "))
}
