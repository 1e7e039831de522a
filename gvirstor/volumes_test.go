package main

import (
	"context"
	"strings"
	"testing"
)

func TestFurtherVolumesOfAStoppedPoolComeAndGo(t *testing.T) {
	dir, files := snapshotFiles(t)
	for _, c := range []struct{ verb, operands, says, want string }{
		{"create -n -s 3m", "vol/web", "vol/web: of 3145728 bytes; its map would take 2 chunks, 2097152 bytes\n", ""},
		{"create -s 3m", "vol", "", "Invalid name of a further volume: vol is not name/vol"},
		{"create -s 3m", "vol/..", "", "Invalid name of a further volume: "},
		{"create", "vol/web", "", "-s takes the size of the volume"},
		{"create -s 3m", "vol/web", "", ""},
		{"create -s 3m", "vol/web", "", "there is a volume of that name"},
		{"clone", "vol@friday vol/test", "", "no such snapshot"},
		{"clone", "vol@monday other/test", "", "Can't clone vol@monday as other/test: they are of two pools"},
		{"clone -v", "vol@monday vol/test", "its map takes 2 chunks", ""},
		{"delete -f", "vol@monday", "", "it has clones, which need it (vol/test)"},
		{"delete", "vol@monday", "", "Can't delete vol@monday: it has clones, which need it (vol/test)"},
		{"delete -n", "vol@monday", "", "Can't delete vol@monday: it has clones, which need it (vol/test)"},
		{"snapshot -n", "vol/test@s", "vol/test@s: would take 2 chunks, 2097152 bytes, at most, of ", ""},
		{"snapshot -n --keep 2", "vol/test@s", "", "-n tells nothing of what --keep would delete"},
		{"snapshot", "vol/test@s", "", ""},
		{"snapshot -n", "vol/test@s", "", "there is a snapshot of that name"},
		{"snapshot", "vol/none@s", "", "no such volume"},
		{"clone", "vol/test@s vol/more", "", ""},
		{"delete -f", "vol/test", "", "it has snapshots, which would be lost, too (s)"},
		{"list -p -t snapshot", "vol", "vol/test\ts\t", ""},
		{"rename -n", "vol/web /www", "vol/web: could be called www", ""},
		{"rename -n", "vol/web /test", "", "there is a volume of that name"},
		{"rename -n", "vol/test@s @t", "vol/test@s: could be called t", ""},
		{"rename -n", "vol/test@t @u", "", "no such snapshot"},
		{"rename", "vol/web /www", "", ""},
		{"rename", "vol/www /test", "", "there is a volume of that name"},
		{"rename", "vol/www /a@b", "", "Invalid name of a further volume: "},
		{"rename", "vol/test@s vol/test@in-full", "", ""},
		{"rename", "vol/www vol/in-full", "", ""},
		{"rename", "vol/in-full vol/www", "", ""},
		{"rename", "vol/test@in-full @t", "", ""},
		{"resize -s 5m -v", "vol/www", "vol/www: 5242880 bytes", ""},
		{"resize -s 3m -n", "vol/www", "vol/www: would have 3145728 bytes; 0 chunks, 0 bytes, would be lost", ""},
		{"resize -b -s 3m", "vol/www", "", "without -b and --rate"},
		{"resize -s 1m", "vol/none", "", "Can't resize vol/none: vol/none: no such volume"},
		{"resize -s 3m", "vol/www", "", ""},
		{"quota -n", "2m vol/www", "vol/www: has 0 bytes of its pool; could have 2m at most", ""},
		{"quota -n", "none vol/none", "", "Can't change the quota of vol/none: vol/none: no such volume"},
		{"quota", "2m vol/www", "", ""},
		{"quota", "none vol/none", "", "Can't change the quota of vol/none: vol/none: no such volume"},
		{"quota", "0 vol/www", "", "Invalid quota: 0 is not a size, and not none"},
		{"quota", "2m vol", "", "vol is not name/vol"},
		{"create -s 3m --quota 1m", "vol/small", "", ""},
		{"snapshot -r", "vol/www@all", "", "name the pool"},
		{"snapshot -rf", "vol@all", "", ""},
		{"snapshot -rf", "vol@all", "", "there is a snapshot of that name"},
		{"list -p -t snapshot", "vol", "vol/small\tall\t", ""},
		{"delete -f", "vol/small@all", "", ""},
		{"delete -f", "vol/small", "", ""},
		{"delete -f", "vol/test@all", "", ""},
		{"delete -f", "vol/more@all", "", ""},
		{"delete -f", "vol/www@all", "", ""},
		{"delete -f", "vol@all", "", ""},
		{"delete", "vol/www", "", "Can't delete vol/www: what it alone holds would be lost, 0 chunks, 0 bytes; with -f it is deleted"},
		{"delete -f", "vol/more", "", ""},
		{"rollback -n", "vol/test@t", "vol/test@t: nothing was written since", ""},
		{"rollback", "vol/test@t", "", ""},
		{"rollback -f", "vol/test@u", "", "no such snapshot"},
		{"delete -f", "vol/test@t", "", ""},
		{"rollback -f", "vol/none@t", "", "no such volume"},
		{"pack", "vol", "chunks moved", ""},
		{"delete -f", "vol/test", "", ""},
		{"delete -f", "vol/www", "", ""},
		{"delete -f", "vol/www", "", "no such volume"},
		{"delete -f", "vol@monday", "", ""},
	} {
		args := append(strings.Fields(c.verb), "--run-dir", dir, "--offline", files[0]+","+files[1])
		e, stdout, stderr := testEnv(append(args, strings.Fields(c.operands)...)...)
		if code := run(context.Background(), e); (code == 0) != (c.want == "") || !strings.Contains(stderr.String(), c.want) || !strings.Contains(stdout.String(), c.says) {
			t.Errorf("%s %s: %d, %s%s", c.verb, c.operands, code, stdout, stderr)
		}
	}
	v := openVolume(t, files...)
	if len(v.Volumes())+len(v.Snapshots()) > 0 {
		t.Errorf("volumes %+v, snapshots %+v", v.Volumes(), v.Snapshots())
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
}
