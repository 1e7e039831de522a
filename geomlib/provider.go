// Package geomlib is libgeom(3) for Go: providers (disks, partitions, files),
// their last-sector metadata, exclusive locks, and the GEOM tree.
//
// Files opens regular files and devices. A further kind of provider, such as one that
// is reached by a network, is a package of its own with two types: a Provider, with
// those of the roles beside it (HoleFinder, Zeroer, Passable, ...) that fit, and an
// Opener for the scheme of its names. Programs put the Opener into their Registry;
// nothing else opens by name.
package geomlib

import (
	"errors"
	"os"
)

// Provider is one disk, partition or regular file, opened.
//
// Offsets and lengths are bytes and multiples of SectorSize, within
// [0, MediaSize]. ReadAt and WriteAt transfer all of p or return an error. All
// methods but Close may be called by many goroutines at once; a write is
// on stable storage only after a Flush that began after the write returned.
type Provider interface {
	// Name is the provider's name in GEOM without /dev/ ("ada4"), or the
	// cleaned path of a regular file or of a Linux device.
	Name() string
	// MediaSize is the size in bytes. It does not change while open.
	MediaSize() int64
	// SectorSize is the size in bytes of the unit that is written atomically.
	SectorSize() int
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	// Flush puts every write that returned before the call on stable storage.
	// ErrNotSupported means that the device has no volatile cache.
	Flush() error
	// Delete tells the device that a range is no longer needed (TRIM, hole
	// punch). What the range reads as afterwards is undefined unless the
	// provider is also a HoleFinder that reports it as a hole.
	// ErrNotSupported when the device cannot.
	Delete(off, length int64) error
	Close() error
}

// HoleFinder is implemented by providers that can tell, without reading, which
// ranges read as zeros: regular files on file systems whose holes are trusted.
type HoleFinder interface {
	// NextData returns the first range [start, end) at or after off and before
	// limit that may hold anything but zeros. start == limit when there is
	// none. Everything in [off, start) reads as zeros.
	NextData(off, limit int64) (start, end int64, err error)
}

// CachedReader is implemented by providers that can read what needs no wait.
type CachedReader interface {
	// ReadCached fills p from off if that needs no device I/O, and reports
	// whether it did. It never blocks on a device.
	ReadCached(p []byte, off int64) bool
}

// BufferedWriter is implemented by providers whose WriteAt normally copies into
// a cache and returns (regular files), so that callers need no worker for it.
type BufferedWriter interface {
	WritesAreBuffered() bool
}

// Zeroer is implemented by providers that can make a range read as zeros
// without being sent the zeros. The effect is durable after Flush.
type Zeroer interface {
	// WriteZeroes returns ErrNotSupported when the medium cannot do it.
	WriteZeroes(off, length int64) error
}

// BlockSharer is implemented by providers whose medium can let two ranges have the same
// blocks until either is written to.
type BlockSharer interface {
	// ShareBlocks makes the n bytes at off what the n bytes at byte from of src are, which
	// takes neither time nor space for them. It is durable after Flush. ErrNotSupported
	// means that it cannot be, of these two or of this range; after that and any other
	// error the range may hold either.
	ShareBlocks(off int64, src Provider, from, n int64) error
}

// CacheDropper is implemented by providers that the system reads through a cache of
// its own. After a flush that failed such a cache may call clean what the medium
// never got: Linux does so with the pages of a failed fsync(2).
type CacheDropper interface {
	// DropCache makes the cache forget what it holds of the medium, but for
	// writes that are not flushed yet: what is read next comes from the medium.
	// Providers with no such cache return nil; ErrNotSupported means that there is
	// a cache, and no way to make it forget.
	DropCache() error
}

// PassCache makes what is read of p next come from its medium: it flushes p and
// drops what the system's cache holds of it. An error of the flush is returned
// whole. ErrNotSupported means that p is flushed, and its cache cannot be dropped.
func PassCache(p Provider) error {
	if err := p.Flush(); err != nil && !errors.Is(err, ErrNotSupported) {
		return err
	}
	if d, ok := p.(CacheDropper); ok {
		return d.DropCache()
	}
	return nil
}

// FlushHistory is implemented by providers that were open before this process had
// them.
type FlushHistory interface {
	// FlushFailed reports whether a flush failed under a process that had the
	// descriptor before. The system tells of a lost write once: a flush that
	// succeeds afterwards does not bring it back.
	FlushFailed() bool
}

// Layered is implemented by providers that may lie on volumes themselves, as what another
// daemon exports does.
type Layered interface {
	// LiesOn are the ids of the volumes that the provider lies on, however deep, at the
	// time when it was opened.
	LiesOn() []uint32
}

// LiesOn is that of p, nothing when p is not Layered.
func LiesOn(p Provider) []uint32 {
	if l, ok := p.(Layered); ok {
		return l.LiesOn()
	}
	return nil
}

// Kinded is implemented by providers that know what they are made of.
type Kinded interface {
	Kind() Kind
}

// BlockKeeper is implemented by providers that may stand for space which somebody has
// set aside.
type BlockKeeper interface {
	// KeepsBlocks reports whether the provider is a regular file that had all of its
	// blocks when it was opened, as fallocate(1) and dd(1) make them. Delete is then
	// ErrNotSupported, and WriteZeroes gives no block back.
	KeepsBlocks() bool
}

// Passable is implemented by providers that another process can go on with: those
// behind a descriptor.
type Passable interface {
	// Descriptor returns the open file, and what else Opener.Adopt needs to make the
	// same provider of it in another process. The file stays the provider's: do not
	// close it. ok is false when there is none to pass on.
	Descriptor() (f *os.File, state []byte, ok bool)
}

// DescriptorOf is that of p, not ok when p is not Passable.
func DescriptorOf(p Provider) (f *os.File, state []byte, ok bool) {
	if d, passable := p.(Passable); passable {
		return d.Descriptor()
	}
	return nil, nil, false
}

var (
	// ErrNotSupported is what a device answers that has no such operation.
	ErrNotSupported = errors.New("operation not supported by device")
	// ErrLocked means that another process holds the provider or the volume.
	ErrLocked = errors.New("in use by another process")
	// ErrSwap means that the system swaps to the provider. It comes with
	// ErrLocked.
	ErrSwap = errors.New("the system swaps to it")
	// ErrNoMetadata means that the last sector holds no VIRSTOR metadata.
	ErrNoMetadata = errors.New("no GEOM::VIRSTOR metadata in the last sector")
)
