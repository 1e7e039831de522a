//go:build !freebsd

package main

import (
	"context"

	"github.com/gvirstor/gvirstor/geomlib"
)

func newKernel() kernel { return noKernel{} }

type noKernel struct{}

func (noKernel) load() error        { return errNoModules }
func (noKernel) find() (int, error) { return 0, errNoModules }
func (noKernel) unload(int) error   { return errNoModules }

func (noKernel) tree(ctx context.Context) (*geomlib.Tree, error) { return geomlib.ReadTree(ctx) }
