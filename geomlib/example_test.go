package geomlib_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/ondisk"
)

// A file is opened as a provider, and gets metadata as component 0 of a volume.
func ExampleOpen() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "disk")
	if err := os.WriteFile(name, make([]byte, 64<<20), 0o600); err != nil {
		fmt.Println(err)
		return
	}

	p, err := geomlib.Open(name, geomlib.OpenOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	fmt.Printf("%d bytes in sectors of %d\n", p.MediaSize(), p.SectorSize())

	_, err = geomlib.ReadMetadata(p)
	fmt.Println("not labelled:", errors.Is(err, geomlib.ErrNoMetadata))

	m := ondisk.Metadata{
		Version: ondisk.Version, Name: "mydata", ID: 1, VirtualSize: 1 << 30, ChunkSize: 4 << 20,
		Count: 1, ProviderSize: uint64(p.MediaSize()), ChunkCount: 15, ChunkNext: 2, ChunkReserved: 2,
	}
	if err := geomlib.StoreMetadata(p, m); err != nil { // which flushes
		fmt.Println(err)
		return
	}
	m, err = geomlib.ReadMetadata(p)
	fmt.Println(m.Name, err)

	// Whoever opens it now is told that it is in use.
	_, err = geomlib.Open(name, geomlib.OpenOptions{})
	fmt.Println("in use:", errors.Is(err, geomlib.ErrLocked))
	// Output:
	// 67108864 bytes in sectors of 512
	// not labelled: true
	// mydata <nil>
	// in use: true
}

// A volume is locked by its id, so that no two processes serve it.
func ExampleLockVolume() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	run := filepath.Join(dir, "run")

	lock, err := geomlib.LockVolume(run, 0x1234abcd)
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = geomlib.LockVolume(run, 0x1234abcd)
	fmt.Println("locked:", errors.Is(err, geomlib.ErrLocked))
	fmt.Println(lock.Close())
	// Output:
	// locked: true
	// <nil>
}
