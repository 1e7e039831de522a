package main

import (
	"context"
	"strings"
	"testing"
)

func TestWhatASnapshotAndAStoppedVolumeDifferInIsShown(t *testing.T) {
	dir, files := snapshotFiles(t)
	v := openVolume(t, files...)
	const chunk = 1 << 20
	if _, err := v.WriteAt(make([]byte, chunk+1), 5*chunk); err != nil {
		t.Fatal(err)
	}
	if err := v.Snapshot("tuesday"); err != nil {
		t.Fatal(err)
	}
	if err := v.Discard(6*chunk, chunk); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	const change = "             0        1048576  data\n       5242880        2097152  data\n3145728 bytes in 2 ranges have changed\n"
	for _, c := range []struct{ operands, want, fails string }{
		{"vol@monday vol@tuesday", change, ""},
		{"vol@tuesday", "       6291456        1048576  hole\n1048576 bytes in 1 ranges have changed\n", ""},
		{"vol@tuesday vol", "       6291456        1048576  hole\n1048576 bytes in 1 ranges have changed\n", ""},
		{"--json vol@tuesday", `"ranges": [`, ""},
		{"vol@tuesday vol@monday", "", "the snapshot is not older"},
		{"vol@tuesday other@monday", "", "they are of two volumes"},
		{"vol@friday", "", "no such snapshot"},
		{"vol", "", "is not name@snap"},
	} {
		args := strings.Fields(c.operands)
		if args[0] == "--json" {
			args = append([]string{"--json", "--run-dir", dir, "--offline", strings.Join(files, ",")}, args[1:]...)
		} else {
			args = append([]string{"--run-dir", dir, "--offline", strings.Join(files, ",")}, args...)
		}
		e, stdout, stderr := testEnv(append([]string{"diff"}, args...)...)
		code := run(context.Background(), e)
		if (code == 0) != (c.fails == "") || !strings.Contains(stderr.String(), c.fails) || !strings.Contains(stdout.String(), c.want) {
			t.Errorf("diff %s: %d, %s%s", c.operands, code, stdout, stderr)
		}
	}
}
