package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

// program is how the tool calls itself in messages and usage.
const program = "gvirstor"

// env is what the program touches of the world.
type env struct {
	args           []string // without the program's name
	stdout, stderr io.Writer
	raw            io.Writer // stdout as run finds it, for control sequences and streams; nil: stdout
	rawErr         io.Writer // stderr as run finds it
	stdin          io.Reader
	typed          func() bool // stdin is a terminal
	getenv         func(string) string
	uid            int // of the user
	dial           func(socket string) (*control.Client, error)
	kernel         kernel
	registry       geomlib.Registry // opens what the user names
	// terminal tells stdout's size; ok is false when it is no terminal.
	terminal func() (width, height int, ok bool)
	// errTerminal is terminal of stderr.
	errTerminal func() (width, height int, ok bool)
}

// screen is where control sequences go.
func (e *env) screen() io.Writer {
	if e.raw != nil {
		return e.raw
	}
	return e.stdout
}

// command is a verb.
type command struct {
	name     string
	brief    string // what it does, in a line
	also     string // what other tools call it, for who types that here
	destroys bool   // what it does cannot be undone: nobody is led to it by a slip
	operands string // of the usage, options included
	verbose  bool   // takes -v, and --json to tell what became of it if it has none of its own
	quiet    bool   // -v does not end with "Done."
	options  func(*options)
	run      func(context.Context, *call) error
	about    string // what it does, for help
	example  string
}

// call is one use of a verb.
type call struct {
	*env
	verb     string
	operands []string
	verbose  bool
	json     bool   // what becomes of it is told as an object
	socket   string // of the daemon
	// socketNamed: the user said which socket, so it must answer.
	socketNamed bool
}

// usageError is a wrong use: its text, if any, and the usage of the verb are printed.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

// errHelp asks for the help of the verb.
var errHelp = errors.New("help requested")

// commands is the table of verbs: the original's, in its order, then ours.
func commands() []*command {
	return []*command{
		clearCommand(), dumpCommand(), labelCommand(), destroyCommand(), stopCommand(), addCommand(), removeCommand(),
		helpCommand(), versionCommand(), completionCommand(), listCommand(), statusCommand(), topCommand(), scanCommand(), historyCommand(), eventsCommand(), loadCommand(), unloadCommand(),
		evacuateCommand(), replaceCommand(), packCommand(), reclaimCommand(), rebalanceCommand(),
		resizeCommand(), expandCommand(), cancelCommand(),
		renameCommand(), newidCommand(),
		createCommand(), cloneCommand(), quotaCommand(), snapshotCommand(), publishCommand(), unpublishCommand(), rollbackCommand(), deleteCommand(), diffCommand(), sendCommand(), receiveCommand(),
		spareCommand(), reserveCommand(), alertCommand(), clientsCommand(),
		checkCommand(), repairCommand(), backupCommand(), restoreCommand(), mapCommand(),
	}
}

// run executes the program and returns its exit status, 0 or 1.
func run(ctx context.Context, e *env) int {
	out := &output{w: e.stdout}
	world := *e
	world.raw, world.rawErr, world.stdout, world.stderr = out, e.stderr, shown{out}, shown{e.stderr}
	status := runVerb(ctx, &world)
	if err := out.failed(); err != nil && status == 0 {
		fmt.Fprintf(e.stderr, "%s: Can't write to the standard output: %s\n", program, errorText(err))
		return 1
	}
	return status
}

func runVerb(ctx context.Context, e *env) int {
	c := &call{env: e, socket: control.DefaultSocket(e.uid, e.getenv), socketNamed: e.getenv("GVIRSTOR_CONTROL") != ""}
	err := checkUsers(e.args)
	if err == nil {
		err = c.dispatch(ctx, e.args)
	}
	var wrong *usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &wrong):
		if wrong.text != "" {
			c.warn(wrong.text)
		}
		c.printUsage()
	case errors.Is(err, errFindings):
	default:
		c.warn(err.Error())
	}
	return 1
}

// checkUsers refuses URIs that say a user, before anybody is told of them.
func checkUsers(args []string) error {
	for _, a := range args {
		if err := geomlib.Name(a).CheckUser(); err != nil {
			return err
		}
	}
	return nil
}

// warn is warnx(3).
func (c *call) warn(text string) { fmt.Fprintf(c.stderr, "%s: %s\n", program, text) }

// dispatch runs the verb that args name.
func (c *call) dispatch(ctx context.Context, args []string) error {
	args, err := c.globalOptions(args)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		return &usageError{}
	}
	switch args[0] {
	case "--version":
		args[0] = "version"
	case "--help", "-h", "-?":
		args[0] = "help"
	}
	cmd := findCommand(args[0])
	if cmd == nil {
		return &usageError{unknownCommand(ondisk.Printable(args[0]))}
	}
	c.verb = cmd.name
	c.operands, err = c.parse(cmd, args[1:])
	if errors.Is(err, errHelp) {
		printHelp(c.stdout, cmd)
		return nil
	}
	if err != nil {
		return err
	}
	if c.json {
		return c.asResult(ctx, func(c *call) error { return cmd.run(ctx, c) })
	}
	if err := cmd.run(ctx, c); err != nil {
		return err
	}
	if c.verbose && !cmd.quiet {
		fmt.Fprintln(c.stdout, "Done.")
	}
	return nil
}

// globalOptions takes --control off the front of args.
func (c *call) globalOptions(args []string) ([]string, error) {
	for len(args) > 0 {
		switch value, found := strings.CutPrefix(args[0], "--control="); {
		case found:
			c.socket, c.socketNamed = value, true
			args = args[1:]
		case args[0] != "--control":
			return args, nil
		case len(args) == 1:
			return nil, &usageError{"option requires an argument -- control"}
		default:
			c.socket, c.socketNamed = args[1], true
			args = args[2:]
		}
	}
	return args, nil
}

func findCommand(name string) *command {
	for _, cmd := range commands() {
		if cmd.name == name {
			return cmd
		}
	}
	return nil
}
