package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// snapshotFiles are the components of a volume that has a snapshot, in a folder of theirs.
func snapshotFiles(t *testing.T) (dir string, files []string) {
	t.Helper()
	images := aSnapshot(t)
	dir = t.TempDir()
	for i, name := range []string{"a", "b"} {
		files = append(files, filepath.Join(dir, name))
		if err := os.WriteFile(files[i], images[i], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, files
}

func TestSnapshotsOfAStoppedVolumeAreTakenAndDeleted(t *testing.T) {
	dir, files := snapshotFiles(t)
	for _, c := range []struct{ verb, name, want string }{
		{"snapshot", "vol@tuesday", ""},
		{"snapshot", "vol@monday", "there is a snapshot of that name"},
		{"snapshot", "vol", "is not name@snap"},
		{"snapshot", "vol@a/b", "bad name"},
		{"delete", "vol@friday", "Can't delete vol@friday: no such snapshot"},
		{"delete -f", "vol@friday", "Can't delete vol@friday: no such snapshot"},
		{"delete -n", "vol@monday", ""},
		{"delete", "vol@monday", "what it alone holds would be lost, 1 chunks, 1048576 bytes; keep that by `gvirstor send vol@monday`, or delete it with -f"},
		{"delete -f", "vol@monday", ""},
	} {
		e, stdout, stderr := testEnv(append(strings.Fields(c.verb), "--run-dir", dir, "--offline", files[0]+","+files[1], c.name)...)
		if code := run(context.Background(), e); (code == 0) != (c.want == "") || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("%s %s: %d, %s", c.verb, c.name, code, stderr)
		}
		if c.verb == "delete -n" && stdout.String() != "vol@monday: 1 chunks, 1048576 bytes, would come free; what it alone holds would be lost\n" {
			t.Errorf("%s", stdout)
		}
	}
	v := openVolume(t, files...)
	if all := v.Snapshots(); len(all) != 1 || all[0].Name != "tuesday" {
		t.Errorf("%+v", all)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
}

func TestOfSnapshotsInTurnTheNewestAreKept(t *testing.T) {
	dir, files := snapshotFiles(t)
	v := openVolume(t, files...)
	for _, name := range []string{"day-20200103T000000Z", "day-20200101T000000Z", "day-20200102T000000Z", "day-now", "day20200101T000000Z", "day-20200101T000000Z-"} {
		if err := v.Snapshot(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	e, stdout, stderr := testEnv("snapshot", "-v", "--keep", "2", "--run-dir", dir, "--offline", strings.Join(files, ","), "vol@day-")
	if code := run(context.Background(), e); code != 0 {
		t.Fatal(stderr)
	}
	for _, gone := range []string{"vol@day-20200101T000000Z: deleted", "vol@day-20200102T000000Z: deleted"} {
		if !strings.Contains(stdout.String(), gone) {
			t.Errorf("not %q: %s", gone, stdout)
		}
	}
	v = openVolume(t, files...)
	var left []string
	for _, s := range v.Snapshots() {
		left = append(left, s.Name)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	if got := strings.Join(left[:5], " "); got != "monday day-20200103T000000Z day-now day20200101T000000Z day-20200101T000000Z-" ||
		len(left) != 6 || !strings.HasPrefix(left[5], "day-2") {
		t.Errorf("left %v", left)
	}
}

func TestASnapshotOfAStoppedVolumeIsRenamed(t *testing.T) {
	dir, files := snapshotFiles(t)
	for _, c := range []struct{ name, to, complaint string }{
		{"vol@never", "@tuesday", "Can't rename vol@never: vol@never: no such snapshot"},
		{"vol@monday", "@a/b", "Invalid name of a snapshot: bad name"},
		{"vol@monday", "@", "Invalid name of a snapshot: bad name"},
		{"vol@monday", "@tuesday", ""},
	} {
		e, stdout, stderr := testEnv("rename", "--run-dir", dir, "--state-dir", dir, "--offline", strings.Join(files, ","), c.name, c.to)
		if code := run(context.Background(), e); (code == 0) != (c.complaint == "") || !strings.Contains(stderr.String(), c.complaint) {
			t.Errorf("%s to %s: %d, %s%s", c.name, c.to, code, stdout, stderr)
		}
	}
	v := openVolume(t, files...)
	if all := v.Snapshots(); len(all) != 1 || all[0].Name != "tuesday" {
		t.Errorf("%+v", all)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
}

func TestAStoppedVolumeIsRolledBack(t *testing.T) {
	dir, files := snapshotFiles(t)
	first := func() byte {
		v := openVolume(t, files...)
		b := make([]byte, 1)
		if _, err := v.ReadAt(b, 0); err != nil {
			t.Error(err)
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
		return b[0]
	}
	would := "1 chunks, 1048576 bytes, were written to or given up since, and would be as they were then; of these 1 chunks, 1048576 bytes, no snapshot has: they would be lost"
	for _, c := range []struct {
		verb, name, said, complaint string
		holds                       byte
	}{
		{"rollback", "vol@never", "", "Can't roll vol back to never: vol@never: no such snapshot", 2},
		{"rollback -f", "vol@never", "", "Can't roll vol back to never: vol@never: no such snapshot", 2},
		{"rollback -f", "vol", "", "is not name@snap", 2},
		{"rollback", "vol@monday", "", "Can't roll vol back to monday: " + would + "; keep that by `gvirstor snapshot vol@NEW`, or roll back with -f", 2},
		{"rollback -n", "vol@monday", "vol@monday: " + would + "\n", "", 2},
		{"rollback -fv", "vol@monday", "vol is what it was at monday; 1 chunks, 1048576 bytes, are taken back.\nDone.\n", "", 1},
		{"rollback -n", "vol@monday", "vol@monday: nothing was written since\n", "", 1},
		{"rollback", "vol@monday", "", "", 1},
	} {
		e, stdout, stderr := testEnv(append(strings.Fields(c.verb), "--run-dir", dir, "--state-dir", dir, "--offline", files[0]+","+files[1], c.name)...)
		code := run(context.Background(), e)
		if (code == 0) != (c.complaint == "") || !strings.Contains(stderr.String(), c.complaint) || stdout.String() != c.said {
			t.Errorf("%s %s: %d, %s%s", c.verb, c.name, code, stdout, stderr)
		}
		if got := first(); got != c.holds {
			t.Errorf("%s %s: the volume holds %d, want %d", c.verb, c.name, got, c.holds)
		}
	}
}

func TestSnapshotsOfAStoppedVolumeAreListedWithTheirSizes(t *testing.T) {
	dir, files := snapshotFiles(t)
	at := []string{"--run-dir", dir, "--state-dir", dir, "--offline", strings.Join(files, ",")}
	for _, c := range []struct {
		args, want, complaint string
	}{
		{"-p vol", "\t67108864\t1048576\t1048576\t1048576\t-\n", ""},
		{"vol", "64M   1.0M    1.0M    1.0M", ""},
		{"--json vol", `"unique": 1048576`, ""},
		{"", "", "Invalid number of arguments"},
		{"other", "", "is a component of vol, not of other"},
	} {
		args := append([]string{"list", "-t", "snapshot"}, at...)
		e, stdout, stderr := testEnv(append(args, strings.Fields(c.args)...)...)
		code := run(context.Background(), e)
		if (code == 0) != (c.complaint == "") || !strings.Contains(stdout.String(), c.want) || !strings.Contains(stderr.String(), c.complaint) {
			t.Errorf("%s: %d, %s%s", c.args, code, stdout, stderr)
		}
	}
	e, _, stderr := testEnv(append([]string{"list"}, append(at, "vol")...)...)
	if code := run(context.Background(), e); code != 1 || !strings.Contains(stderr.String(), "--offline is for snapshots") {
		t.Errorf("%d, %s", code, stderr)
	}
}

func TestASnapshotThatLeavesLittleTakesForceAndSaysSo(t *testing.T) {
	dir, files := snapshotFiles(t)
	want := 0
	taken := func(name string, opts ...string) string {
		args := append([]string{"snapshot", "--run-dir", dir, "--state-dir", dir, "--offline", strings.Join(files, ",")}, opts...)
		e, _, stderr := testEnv(append(args, name)...)
		if code := run(context.Background(), e); code != want {
			t.Errorf("%d, %s", code, stderr)
		}
		return stderr.String()
	}
	if said := taken("vol@roomy"); strings.Contains(said, "leaves") {
		t.Error(said)
	}
	v := openVolume(t, files...)
	for i := range v.Status().Free - 3 {
		if _, err := v.WriteAt(make([]byte, 1<<20), (10+i)<<20); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	want = 1
	if said := taken("vol@last"); !strings.Contains(said, "it takes up to 2 chunks, 2097152 bytes, for its map, of 3 chunks, 3145728 bytes, that are free") {
		t.Error(said)
	}
	want = 0
	if said := taken("vol@last", "-f"); !strings.Contains(said, "warning: vol@last leaves 1 free chunks, 1048576 bytes: ") {
		t.Error(said)
	}
}
