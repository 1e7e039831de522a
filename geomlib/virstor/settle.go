package virstor

import "log/slog"

// Settle does to the disks what opening a volume for writing does and what
// closing it does, and serves nothing: an interrupted operation is finished, the
// components are fenced and their metadata made to agree, and with handBack the
// volume is then handed to the kernel class, if it could go on with it. If it
// could not, the error is a *NotHandedBackError and all else is done. A job that
// was interrupted is not resumed. The providers stay the caller's.
func Settle(a *Assembly, handBack bool, log *slog.Logger) error {
	return settle(a, handBack, log, func(*Volume) error { return nil })
}

// settle is Settle with a change of the open volume, whose metaMu is held.
func settle(a *Assembly, handBack bool, log *slog.Logger, change func(*Volume) error) error {
	if a.Err != nil {
		return a.Err
	}
	cfg := Config{Log: log}
	cfg.setDefaults()
	v, err := newVolume(a, cfg)
	if err != nil {
		return err
	}
	if err := v.prepare(); err != nil {
		return err
	}
	v.writable.Store(true)
	v.metaMu.Lock()
	defer v.metaMu.Unlock()
	if err := change(v); err != nil {
		return err
	}
	if !handBack {
		return v.markCleanLocked()
	}
	kept, err := v.handBackLocked()
	if err != nil {
		return err
	}
	return kept
}
