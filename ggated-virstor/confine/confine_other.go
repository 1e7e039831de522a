//go:build !linux && !freebsd

package confine

type system struct{}

// Capabilities: a process that became another user has none.
func (system) Capabilities() error { return nil }

func (system) Calls(bool) error { return ErrUnsupported }

func (system) CapabilityMode() error { return ErrUnsupported }
