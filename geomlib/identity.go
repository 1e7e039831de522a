package geomlib

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// Identity tells a disk or a file from all others of this host, whatever it is called:
// a disk by its device number, a file by its file system and inode. The zero value is
// nobody's.
type Identity struct {
	device   bool
	dev, ino uint64
}

// Identified is implemented by providers that may be opened by several names.
type Identified interface {
	// Identity is the zero value where it cannot be told.
	Identity() Identity
}

// ErrSame means that two names are those of one disk or file.
var ErrSame = errors.New("the same by another name")

// IdentityOf is that of p, the zero value where it cannot be told.
func IdentityOf(p Provider) Identity {
	if i, ok := p.(Identified); ok {
		return i.Identity()
	}
	return Identity{}
}

// Same reports whether p and q are known to be one disk or file, be it by two
// descriptors.
func Same(p, q Provider) bool {
	id := IdentityOf(p)
	return id != Identity{} && id == IdentityOf(q)
}

// Twin is the one of held that the provider called name is, nil when it is none of them
// as far as can be told. Nothing is opened. A name with a scheme is that of one alone.
func Twin(name string, held []Provider) Provider {
	if Name(name).Scheme() != "" {
		if i := slices.IndexFunc(held, func(p Provider) bool { return p.Name() == name }); i >= 0 {
			return held[i]
		}
		return nil
	}
	path, err := findProvider(name)
	if err != nil {
		return nil
	}
	var st unix.Stat_t
	if ignoringEINTR(func() error { return unix.Stat(path, &st) }) != nil {
		return nil
	}
	id := identityOf(&st)
	for _, p := range held {
		if (id != Identity{}) && IdentityOf(p) == id {
			return p
		}
	}
	return nil
}

// Identity implements Identified.
func (p *file) Identity() Identity {
	var st unix.Stat_t
	if ignoringEINTR(func() error { return unix.Fstat(p.fd, &st) }) != nil {
		return Identity{}
	}
	return identityOf(&st)
}

func identityOf(st *unix.Stat_t) Identity {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFBLK, unix.S_IFCHR:
		return Identity{device: true, dev: uint64(st.Rdev)}
	case unix.S_IFREG:
		return Identity{dev: uint64(st.Dev), ino: st.Ino}
	}
	return Identity{}
}
