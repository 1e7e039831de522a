package main

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/control/controltest"
)

// poolWithDevices is a pool in service, of which all are devices.
func poolWithDevices() *controltest.Fake {
	st := fakeStatus("99% physical free")
	v := &st.Volumes[0]
	v.Published = []control.Publication{{Kind: control.Gate, Name: "virstor/mydata"}}
	v.Volumes = []control.PoolVolume{{Name: "web", Size: 2 << 20, Published: []control.Publication{
		{Kind: control.Gate, Name: "virstor/mydata+web", Mode: control.Mode{Read: 1}},
		{Kind: control.NBD, Name: "mydata/web", URI: "nbd://localhost/mydata/web"},
	}}}
	return controltest.New(st)
}

func TestDevicesOfFurtherVolumesAreShownWithTheirPool(t *testing.T) {
	path := startFake(t, poolWithDevices())
	for _, c := range []struct{ verb, want string }{
		{"status", "virstor/mydata+web  99% physical free  ada4"},
		{"list", "2. Name: virstor/mydata+web\n   Mediasize: 2097152 (2.0M)\n   Sectorsize: 0\n   Mode: r1w0e0\n"},
		{"list", "1. Name: virstor/mydata\n"},
	} {
		e, stdout, stderr := testEnv("--control", path, c.verb)
		e.dial = control.Dial
		if code := run(context.Background(), e); code != 0 || !strings.Contains(stdout.String(), c.want) {
			t.Errorf("%s: %d, %s%s", c.verb, code, stdout, stderr)
		}
	}
}

func TestASnapshotIsPublishedAndUnpublishedWhereItsVolumeIsServed(t *testing.T) {
	fake := poolWithDevices()
	fake.Fail("unpublish", control.Errorf(control.Busy, "unpublish mydata/web@s: device busy"))
	path := startFake(t, fake)
	for _, c := range []struct{ verb, want string }{
		{"publish mydata/web@s", ""},
		{"publish virstor/mydata@s", ""},
		{"publish -n mydata@s", ""},
		{"publish mydata", "is not name@snap"},
		{"publish other@s", "other"},
		{"unpublish mydata/web@s", "Can't unpublish mydata/web@s: device busy"},
		{"unpublish -f mydata/web@s", "Can't unpublish mydata/web@s: device busy"},
	} {
		e, _, stderr := testEnv(append([]string{"--control", path}, strings.Fields(c.verb)...)...)
		e.dial = control.Dial
		if code := run(context.Background(), e); (code == 0) != (c.want == "") || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("%s: %d, %s", c.verb, code, stderr)
		}
	}
	want := []string{"publish mydata/web {Snapshot:s DryRun:false}", "publish virstor/mydata {Snapshot:s DryRun:false}",
		"publish mydata {Snapshot:s DryRun:true}",
		"unpublish mydata/web {Snapshot:s Force:false}", "unpublish mydata/web {Snapshot:s Force:true}"}
	if got := fake.Calls(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
