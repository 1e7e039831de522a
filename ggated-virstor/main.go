// Command ggated-virstor assembles gvirstor volumes from their components and
// publishes them.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the build.
var version = "development"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	opt, err := parseOptions(os.Args[1:], os.Stdout, os.Stderr)
	if err != nil {
		os.Exit(exitCode(err))
	}
	if err := run(ctx, opt); err != nil {
		fmt.Fprintln(os.Stderr, "ggated-virstor:", err)
		os.Exit(1)
	}
}
