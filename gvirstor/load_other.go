//go:build !freebsd

package main

func newKernel() kernel { return noKernel{} }

type noKernel struct{}

func (noKernel) load() error        { return errNoModules }
func (noKernel) find() (int, error) { return 0, errNoModules }
func (noKernel) unload(int) error   { return errNoModules }
