package geomlib

import (
	"io/fs"

	"golang.org/x/sys/unix"
)

// isDisk: only regular files are served on macOS.
func isDisk(fs.FileMode) bool { return false }

func exclusiveFlag(fs.FileMode, OpenOptions) int { return 0 }
func isHeld(error, fs.FileMode) bool             { return false }
func isSwap(int) (bool, error)                   { return false, nil }
func holesAreTrusted(int) bool                   { return false }
func regularMedium(int) medium                   { return regular{} }
func deviceName(_ int, path string) string       { return path }
func writeProtected(int) bool                    { return false }

func pastCaches(int, Kind) error { return ErrNotSupported }
func byCaches(int, int) error    { return nil }

func deviceSize(int) (size int64, sector int, err error) { return 0, 0, errKind }

// writePiece is how much one system call writes, bytes.
const writePiece = maxTransfer

// regular is a regular file.
type regular struct{}

func (regular) buffered() bool    { return true }
func (regular) keepsBlocks() bool { return false }

// flush: fsync(2) of macOS leaves the data in the drive's cache.
func (regular) flush(fd int) error {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_FULLFSYNC, 0)
	return err
}

func (regular) drop(int) error                            { return ErrNotSupported }
func (regular) share(int, int64, int, int64, int64) error { return ErrNotSupported }

func (regular) remove(int, int64, int64) error { return ErrNotSupported }
func (regular) zero(int, int64, int64) error   { return ErrNotSupported }

// disk is never made: isDisk finds none.
type disk = regular
