//go:build !freebsd

package supervisor

type systemProtector struct{}

func (systemProtector) LockMemory() error  { return nil }
func (systemProtector) FromKill(int) error { return nil }
