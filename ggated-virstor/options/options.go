package options

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/geomlib/history"
	"github.com/gvirstor/gvirstor/geomlib/state"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/geomlib/virstor/backup"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdcomp"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Options are what the command line and the configuration file say, checked. What is
// exported is read only.
type Options struct {
	Providers []string // by their whole paths, or below /dev
	NBD       []nbd.Address
	// NBDMaxClients is how many connections are served at once, NBDMaxPeer how many
	// of these of one peer (0: the server's choice), and NBDIdle after what time
	// without a request one is ended (0: never).
	NBDMaxClients, NBDMaxPeer int
	NBDIdle                   time.Duration
	// NBDComponentTimeout is how long requests wait for a component that is not reached,
	// NBDComponentGrace how long its server may do what was sent before.
	NBDComponentTimeout, NBDComponentGrace time.Duration
	Direct                                 bool   // disks and files past the system's cache
	IOUring                                bool   // those with io_uring, where the system has it
	Control                                string // path of the socket
	HTTP                                   string // HOST:PORT, or empty
	RunDir                                 string
	ForceOld                               []string // names of volumes

	Gate      bool
	GateName  string
	Unit      int // of the device, or gate.UnitAuto
	Receivers int // of each device, 1 to 4

	Supervise bool // there is a worker
	User      string
	Capsicum  bool // the worker enters capability mode
	Syslog    bool
	PIDFile   string // empty: none
	LogJSON   bool   // one object a line
	Run       string // command to serve; empty: none
	// ExitWithParent: the service ends when the process that started it has.
	ExitWithParent bool
	ReadOnly       bool
	Level          *slog.LevelVar // of the log

	// Settings are every key and its value; those of the section of a volume have
	// keys that begin with "[volume NAME] ".
	Settings map[string]string
	// PerVolume are the policies of the volumes that have their own.
	PerVolume map[string]virstor.Config

	program    Program
	world      World
	flags      *pflag.FlagSet
	configured []string // those of --provider and of the configuration file
	file       string   // --config

	showVersion, help, checkConfig, debug bool
	supervised                            superviseMode

	nbdInsecure bool
	grants      []nbd.Grant
	tlsCert     string
	tlsKey      string
	tlsClientCA string
	backupDir   string
	backups     int
	stateDir    string
	httpHosts   []string

	policyOptions
	spaceOptions
	leaseOptions
}

// Program is which program reads options.
type Program struct {
	Version string
	// DefaultConfig is read when it exists and no other file is named.
	DefaultConfig string
}

// DefaultUser is who the worker becomes unless --user names another. It owns
// nothing and is nobody else's.
const DefaultUser = "gvirstor"

// ErrUsage and ErrHelp end the program after Parse has said what to say.
var (
	ErrUsage = errors.New("usage")
	ErrHelp  = errors.New("help")
)

// ExitCode is what the program exits with after an error of Parse.
func ExitCode(err error) int {
	if errors.Is(err, ErrHelp) {
		return 0
	}
	return 1
}

// Parse reads options, and the files that they name, in w. It says on stdout and stderr
// what people are to read, such as what is wrong. It fails with ErrUsage, or with
// ErrHelp when the program has nothing to do any more.
func Parse(p Program, w World, args []string, stdout, stderr io.Writer) (*Options, error) {
	o := &Options{Level: new(slog.LevelVar), program: p, world: w}
	f := o.declare()
	flags := f.FlagUsages()
	o.bound(f)
	wrong := func(err error) (*Options, error) {
		fmt.Fprintln(stderr, "ggated-virstor:", ondisk.PrintableText(err.Error()))
		return o, ErrUsage
	}
	if err := f.Parse(args); err != nil {
		if r := asRefused(err); r != nil {
			return wrong(r)
		}
		_, err = wrong(err)
		fmt.Fprintln(stderr, "usage: ggated-virstor [options] [provider ...]; --help lists the options")
		return o, err
	}
	switch {
	case o.help:
		fmt.Fprintf(stdout, "usage: ggated-virstor [options] [provider ...]\n%s", flags)
		return o, ErrHelp
	case o.showVersion:
		fmt.Fprintln(stdout, "ggated-virstor", p.Version)
		return o, ErrHelp
	}
	if err := o.read(); err != nil {
		return wrong(err)
	}
	if !o.checkConfig {
		return o, nil
	}
	if err := o.checkWorld(stderr); err != nil {
		return wrong(err)
	}
	fmt.Fprintln(stdout, "ggated-virstor: the configuration is right")
	return o, ErrHelp
}

// read makes of the flags, and of the files that they name, what the options mean.
func (o *Options) read() error {
	err := o.configure()
	if err == nil {
		err = o.validate()
	}
	if err == nil {
		err = o.findSpares()
	}
	if err != nil {
		return err
	}
	if o.Providers, err = absoluteAll(o.world, append(o.flags.Args(), o.configured...)); err != nil {
		return err
	}
	if o.debug {
		o.Level.Set(slog.LevelDebug)
	}
	return o.decideProcesses()
}

// declare makes the flags.
func (o *Options) declare() *pflag.FlagSet {
	f := pflag.NewFlagSet("ggated-virstor", pflag.ContinueOnError)
	o.flags = f
	d := o.world.Defaults()
	f.SetOutput(io.Discard)
	f.SortFlags = false
	f.SetInterspersed(false)
	f.StringVar(&o.file, "config", "", "configuration `FILE` (default "+o.program.DefaultConfig+", when it exists)")
	f.BoolVar(&o.checkConfig, "check-config", false, "tell whether the configuration and the options are right, and exit")
	f.StringArrayVar(&o.configured, "provider", nil, "open `PROVIDER`, as those behind the options (repeatable)")
	listVar(f, &o.NBD, "nbd", readAddress, "serve NBD on unix:`PATH` or tcp:HOST:PORT (repeatable)")
	f.BoolVar(&o.nbdInsecure, "nbd-insecure", false, "allow TCP without TLS on addresses that other machines reach")
	listVar(f, &o.grants, "nbd-allow", readGrant, "who may use an export: `EXPORT=ro:WHO` or EXPORT=rw:WHO; WHO is any, unix, uid:N or tls:NAME (repeatable; none: all may write all)")
	f.IntVar(&o.NBDMaxClients, "nbd-max-clients", 256, "serve at most `N` NBD connections at once")
	f.IntVar(&o.NBDMaxPeer, "nbd-max-peer-clients", 0, "of these, `N` of one address, or of one user of unix sockets (0: three quarters)")
	f.DurationVar(&o.NBDIdle, "nbd-idle", 0, "disconnect NBD clients that ask for nothing for `TIME` (0: only those that never asked for anything)")
	f.DurationVar(&o.NBDComponentTimeout, "nbd-component-timeout", nbdcomp.DefaultTimeout, "fail requests for a component over NBD when its server is not reached for `TIME`")
	f.DurationVar(&o.NBDComponentGrace, "nbd-component-grace", nbdcomp.DefaultGrace, "write to a component over NBD again `TIME` after a connection that its server may still do something of")
	o.declareLease(f)
	f.BoolVar(&o.Direct, "direct", false, "read and write disks and files past the system's cache (O_DIRECT)")
	f.BoolVar(&o.IOUring, "io-uring", true, "with --direct, have Linux do so without a thread for each request, where it can (io_uring)")
	f.StringVar(&o.tlsCert, "tls-cert", "", "NBD server certificate `FILE`, PEM")
	f.StringVar(&o.tlsKey, "tls-key", "", "key `FILE` of the certificate, PEM")
	f.StringVar(&o.tlsClientCA, "tls-client-ca", "", "`FILE` of certificates that must have signed a client's, PEM")
	f.StringVar(&o.Control, "control", d.Control, "control socket `PATH`")
	f.StringVar(&o.RunDir, "run-dir", d.RunDir, "`DIR` of the locks by volume id")
	f.StringVar(&o.backupDir, "backup-dir", d.BackupDir, "`DIR` of backups of metadata and maps; empty: none are made")
	f.IntVar(&o.backups, "backups", 10, "keep the last `N` backups of each volume (0: none)")
	f.StringVar(&o.stateDir, "state-dir", d.StateDir, "`DIR` of notes of what this host served, by which older copies are known; empty: none are made")
	f.StringArrayVarP(&o.ForceOld, "force-old", "f", nil, "serve the volume `NAME` even if its components are older than what this host served: what was written since is lost (repeatable)")
	f.BoolVar(&o.Gate, "gate", runtime.GOOS == "freebsd", "publish volumes as devices of geom_gate(4)")
	f.StringVar(&o.GateName, "gate-name", "", "`NAME` of the device below /dev; after a slash at its end comes the volume's (default ggateN)")
	f.IntVar(&o.Unit, "unit", gate.UnitAuto, "`N` of ggateN (default the lowest that is free)")
	f.IntVar(&o.Receivers, "receivers", 2, "goroutines, 1 to 4, that take the requests of each device")
	chooseVar(f, &o.supervised, "supervise", superviseWords, "serve from a worker process that may do little, and is restarted when it dies: `auto|yes|no` (auto: as root; devices always are)")
	f.Lookup("supervise").NoOptDefVal = "yes"
	f.StringVar(&o.User, "user", DefaultUser, "`USER` that the worker becomes when it is started as root; empty for root")
	f.BoolVar(&o.Capsicum, "capsicum", false, "have the worker enter capability mode, see capsicum(4); on FreeBSD only")
	f.BoolVar(&o.Syslog, "syslog", false, "log to syslog(3) instead of the standard error output")
	chooseVar(f, &o.LogJSON, "log-format", []word[bool]{{"text", false}, {"json", true}}, "log lines for people, or objects for programs: `text|json`")
	f.StringVar(&o.PIDFile, "pid-file", "", "`FILE` for the number of the process, once volumes are served")
	f.StringVar(&o.Run, "run", "", "run `COMMAND` with sh(1), with the NBD URI of the first volume as $uri, and end when it ends")
	f.BoolVar(&o.ExitWithParent, "exit-with-parent", false, "end when the process that started this one has ended")
	f.BoolVar(&o.debug, "debug", false, "log more")
	f.BoolVar(&o.ReadOnly, "read-only", false, "write nothing to any component")
	o.declarePolicies(f)
	o.declareSpace(f)
	f.StringVar(&o.HTTP, "http", "", "serve the status page, metrics and health on `HOST:PORT` (default host: loopback)")
	f.StringArrayVar(&o.httpHosts, "http-host", nil, "`NAME` by which --http is asked as well (repeatable)")
	f.BoolVar(&o.showVersion, "version", false, "print the version")
	f.BoolVarP(&o.help, "help", "h", false, "print this")
	return f
}

// bound has the flags refuse values that are wrong by themselves, so that the line of a
// file that has one is known.
func (o *Options) bound(f *pflag.FlagSet) {
	bound(f, "receivers", &o.Receivers, func(n int) bool { return 1 <= n && n <= 4 }, "1 to 4 are possible")
	notNegative(f, "backups", &o.backups)
	bound(f, "unit", &o.Unit, func(n int) bool { return n >= gate.UnitAuto }, "must not be negative")
	bound(f, "gate-name", &o.GateName, func(s string) bool { return !strings.HasPrefix(s, "/") }, "is given without /dev/")
	bound(f, "nbd-max-clients", &o.NBDMaxClients, func(n int) bool { return n >= 1 }, "must be at least 1")
	notNegative(f, "nbd-idle", &o.NBDIdle)
	positive := func(d time.Duration) bool { return d > 0 }
	bound(f, "nbd-component-timeout", &o.NBDComponentTimeout, positive, "must be more than nothing")
	bound(f, "nbd-component-grace", &o.NBDComponentGrace, positive, "must be more than nothing")
	o.boundPolicies(f)
	o.boundSpace(f)
	o.boundLease(f)
}

// validate refuses, when all is read, what contradicts something else.
func (o *Options) validate() error {
	switch {
	case o.Capsicum && runtime.GOOS != "freebsd":
		return errors.New("--capsicum: only FreeBSD has capability mode")
	case o.Syslog && o.LogJSON:
		return errors.New("--syslog and --log-format json: syslog(3) takes lines of text")
	case o.Unit >= 0 && o.GateName != "":
		return errors.New("--unit and --gate-name: only one of them names a device")
	}
	if err := errors.Join(o.validateNBD(), o.validateLease()); err != nil {
		return err
	}
	return o.validateSpace()
}

// superviseMode says whether there is to be a worker.
type superviseMode uint8

const (
	superviseAuto superviseMode = iota // as root
	superviseYes
	superviseNo // but for devices, which are always a worker's
)

var superviseWords = []word[superviseMode]{{"auto", superviseAuto}, {"yes", superviseYes}, {"no", superviseNo},
	{"true", superviseYes}, {"false", superviseNo}}

// decideProcesses makes one process or two of what --supervise says.
func (o *Options) decideProcesses() error {
	o.Supervise = o.Gate || o.supervised == superviseYes || o.supervised == superviseAuto && o.world.Defaults().Root && o.Run == ""
	if o.Run != "" && o.Supervise {
		return errors.New("--run serves from one process: --supervise=no --gate=false")
	}
	if o.Capsicum && !o.Supervise {
		return errors.New("--capsicum needs a worker, whose supervisor opens what it may not: --supervise")
	}
	return o.validateUser()
}

// validateUser refuses a user that nobody would become.
func (o *Options) validateUser() error {
	root := o.world.Defaults().Root
	if o.User == "" || o.User == DefaultUser || root && o.User == "root" {
		return nil
	}
	switch {
	case !root:
		return fmt.Errorf("--user %s: only root can become another user; start it as that user", o.User)
	case !o.Supervise:
		return fmt.Errorf("--user %s needs a worker, which becomes that user: --supervise", o.User)
	}
	return nil
}

// Archive is where backups are kept, nil for nowhere.
func (o *Options) Archive() *backup.Dir {
	if o.backupDir == "" || o.backups == 0 {
		return nil
	}
	return &backup.Dir{Path: o.backupDir, Count: o.backups}
}

// History is where it is noted what was asked for, beside the backups; nil for nowhere.
func (o *Options) History() *history.Dir {
	if o.backupDir == "" {
		return nil
	}
	return &history.Dir{Path: o.backupDir}
}

// Memory is where it is noted what this host serves, nil for nowhere.
func (o *Options) Memory() *state.Dir {
	if o.stateDir == "" {
		return nil
	}
	return &state.Dir{Path: o.stateDir}
}
