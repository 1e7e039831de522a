package virstor_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ondisk"
)

// twoFiles opens two new files of 64 MiB in dir as providers.
func twoFiles(dir string) (ps []geomlib.Provider, err error) {
	for _, name := range []string{"a", "b"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, 64<<20), 0o600); err != nil {
			return nil, err
		}
		p, err := geomlib.Open(path, geomlib.OpenOptions{})
		if err != nil {
			return nil, err
		}
		ps = append(ps, p)
	}
	return ps, nil
}

// label makes a volume of 1 GiB of providers.
func label(ps []geomlib.Provider) error {
	r := ondisk.LabelRequest{Name: "mydata", VirtualSize: 1 << 30, ChunkSize: 4 << 20, ID: 0x1234abcd}
	for _, p := range ps {
		r.Providers = append(r.Providers, ondisk.LabelProvider{Name: p.Name(), Size: p.MediaSize(), SectorSize: p.SectorSize()})
	}
	layout, err := ondisk.Plan(r)
	if err != nil {
		return err
	}
	return virstor.Label(context.Background(), ps, layout, virstor.LabelOptions{})
}

// open opens the one volume that providers are the components of.
func open(ps []geomlib.Provider) (*virstor.Volume, error) {
	var members []virstor.Member
	for _, p := range ps {
		m, err := geomlib.ReadMetadata(p)
		if err != nil {
			return nil, err
		}
		members = append(members, virstor.Member{Provider: p, Metadata: m})
	}
	return virstor.Open(virstor.Assemble(members)[0], virstor.Config{WhenFull: virstor.Fail})
}

// A virtual disk of 1 GiB takes 128 MiB of real space, of which it uses what is
// written.
func Example() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	ps, err := twoFiles(dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := label(ps); err != nil {
		fmt.Println(err)
		return
	}
	v, err := open(ps)
	if err != nil {
		fmt.Println(err)
		return
	}

	if _, err := v.WriteAt([]byte("kept, whatever becomes of the power"), 512<<20); err != nil {
		fmt.Println(err)
		return
	}
	if err := v.Flush(); err != nil {
		fmt.Println(err)
		return
	}
	text := make([]byte, 4)
	if _, err := v.ReadAt(text, 512<<20); err != nil {
		fmt.Println(err)
		return
	}
	s := v.Status()
	fmt.Printf("%s: %q at the middle; %d of %d chunks used\n", s.Name, text, s.Allocated, s.PhysicalChunks)

	// Stop hands the volume back, so that FreeBSD's kernel may have it; Close would
	// leave it to the next Open. Both close the providers.
	fmt.Println(v.Stop())
	// Output:
	// mydata: "kept" at the middle; 1 of 28 chunks used
	// <nil>
}
