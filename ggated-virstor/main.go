package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/gate"
	"github.com/gvirstor/gvirstor/ggated-virstor/gatepub/helper"
	"github.com/gvirstor/gvirstor/ggated-virstor/options"
	"github.com/gvirstor/gvirstor/ggated-virstor/supervisor"
	"github.com/gvirstor/gvirstor/ondisk"
)

// The build sets these; defaultConfig to where the program is installed.
var (
	version       = "development"
	defaultConfig = "/usr/local/etc/ggated-virstor.conf"
)

// parseOptions reads the options of this program.
func parseOptions(w options.World, args []string, stdout, stderr io.Writer) (*options.Options, error) {
	return options.Parse(options.Program{Version: version, DefaultConfig: defaultConfig}, w, args, stdout, stderr)
}

func main() {
	// The system gives a signal to the first thread of a process if it can, and to it alone: one
	// that waits for a file system without an answer would take SIGTERM to the grave. That
	// thread is this goroutine's, which opens nothing.
	runtime.LockOSThread()
	if question := helper.Asked(); question != "" {
		answerAsHelper(question)
		return
	}
	opt, err := parseOptions(options.NewHere(), os.Args[1:], os.Stdout, os.Stderr)
	if err != nil {
		os.Exit(options.ExitCode(err))
	}
	// Until here a signal just ends this.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if opt.ExitWithParent && !supervisor.IsWorker() {
		ctx, stop = withParent(ctx)
		defer stop()
	}
	if err := run(ctx, opt); err != nil {
		status, told := exitStatus(err)
		if !told {
			fmt.Fprintln(os.Stderr, "ggated-virstor:", ondisk.PrintableText(err.Error()))
		}
		os.Exit(status)
	}
}

// answerAsHelper asks the kernel on behalf of a supervisor.
func answerAsHelper(question string) {
	b, err := helper.Kernel{
		Tree: geomlib.KernelTree,
		Resize: func(f *os.File, unit int, size int64) error {
			g, err := gate.FromFile(f)
			if err != nil {
				return err
			}
			defer g.Close()
			return g.Resize(unit, size)
		},
	}.Answer(question)
	if err == nil {
		_, err = os.Stdout.Write(b)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "ggated-virstor:", err)
		os.Exit(1)
	}
}
