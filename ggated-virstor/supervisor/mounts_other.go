//go:build !freebsd

package supervisor

import "errors"

// systemMounts: only FreeBSD has devices of ours.
type systemMounts struct{}

func (systemMounts) on([]string) ([]string, error) { return nil, nil }

func (systemMounts) unmount(string, bool) error { return errors.ErrUnsupported }
