package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib"
	"github.com/gvirstor/gvirstor/geomlib/state"
	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ondisk"
)

// served opens the volume on files, writes a byte to its beginning and closes it, fenced.
func served(t *testing.T, files []string, b byte) {
	t.Helper()
	v := openVolume(t, files...)
	if _, err := v.WriteAt([]byte(strings.Repeat(string(b), 512)), 0); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}

// generationOf is what is settled on a file.
func generationOf(t *testing.T, file string) uint64 {
	t.Helper()
	m, err := readLabel(nil, file)
	if err != nil {
		t.Fatal(err)
	}
	return m.Member.Settled
}

// twoHistories are two copies of a volume, each of which was written to.
func twoHistories(t *testing.T, dir string) (a, b []string) {
	t.Helper()
	for _, name := range []string{"0", "1"} {
		a = append(a, filepath.Join(dir, "a"+name))
		b = append(b, filepath.Join(dir, "b"+name))
		if err := os.WriteFile(a[len(a)-1], make([]byte, damagedSize), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	e, _, stderr := testEnv("label", "-s", "64m", "-m", "1m", "vol", a[0], a[1])
	if run(context.Background(), e) != 0 {
		t.Fatal(stderr)
	}
	served(t, a, 'x')
	for i := range a {
		image, err := os.ReadFile(a[i])
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(b[i], image, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	served(t, a, 'a')
	served(t, b, 'b')
	return a, b
}

func TestOneOfTwoHistoriesIsTakenWhenItIsChosenAndForced(t *testing.T) {
	dir := t.TempDir()
	a, b := twoHistories(t, dir)
	do := func(args ...string) (code int, out, errs string) {
		e, stdout, stderr := testEnv(args...)
		code = run(context.Background(), e)
		return code, stdout.String(), stderr.String()
	}
	if code, out, _ := do("check", a[0], a[1], b[0], b[1]); code == 0 || !strings.Contains(out, "two-histories") || !strings.Contains(out, "repair --history") {
		t.Errorf("check: %d, %s", code, out)
	}
	if code, out, _ := do("repair", a[0], a[1], b[0], b[1]); code == 0 || !strings.Contains(out, "two histories") {
		t.Errorf("without a choice: %d, %s", code, out)
	}
	known := state.Volume{Name: "vol", Generation: 50, Providers: a}
	known.ID = openedID(t, a[0])
	if err := (state.Dir{Path: filepath.Join(dir, "state")}).Remember(known); err != nil {
		t.Fatal(err)
	}
	repair := func(opts ...string) (int, string, string) {
		args := append([]string{"repair", "--run-dir", dir, "--state-dir", filepath.Join(dir, "state"), "--history", b[1], "--save", filepath.Join(dir, "saved")}, opts...)
		return do(append(args, a[0], a[1], b[0], b[1])...)
	}
	if code, out, errs := repair(); code != 0 || !strings.Contains(out, a[0]+": is given up") {
		t.Errorf("only told: %d, %s%s", code, out, errs)
	}
	if code, _, errs := repair("-y"); code == 0 || !strings.Contains(errs, a[1]) || !strings.Contains(errs, "(-f)") {
		t.Errorf("without -f: %d, %s", code, errs)
	}
	if code, out, errs := repair("-y", "-f"); code != 0 || !strings.Contains(out, "is repaired") {
		t.Fatalf("%d, %s%s", code, out, errs)
	}
	if g := generationOf(t, b[0]); g <= 50 {
		t.Errorf("the volume is at generation %d, this host served 50", g)
	}
	if note, _, err := (state.Dir{Path: filepath.Join(dir, "state")}).Recall(known.ID); err != nil || note.Generation != generationOf(t, b[0]) {
		t.Errorf("noted: %+v, %v", note, err)
	}
	v := openVolume(t, b...)
	defer v.Close()
	got := make([]byte, 512)
	if _, err := v.ReadAt(got, 0); err != nil || got[0] != 'b' {
		t.Errorf("%q, %v", got[0], err)
	}
	if code, _, errs := do("repair", "--history", "elsewhere", a[0]); code == 0 || !strings.Contains(errs, "none of the providers given") {
		t.Errorf("%d, %s", code, errs)
	}
}

func openedID(t *testing.T, file string) uint32 {
	t.Helper()
	m, err := readLabel(nil, file)
	if err != nil {
		t.Fatal(err)
	}
	return m.ID
}

// noted is the note of what this host served of the volume on files.
func noted(t *testing.T, stateDir string, files []string) uint64 {
	t.Helper()
	v, known, err := state.Dir{Path: stateDir}.Recall(openedID(t, files[0]))
	if err != nil || !known {
		t.Fatalf("known %v, %v", known, err)
	}
	return v.Generation
}

func TestWhatIsDoneHereToAStoppedVolumeIsNotedAsServed(t *testing.T) {
	dir := t.TempDir()
	a, _ := twoHistories(t, dir)
	stateDir, saved := filepath.Join(dir, "state"), filepath.Join(dir, "saved")
	fresh := filepath.Join(dir, "fresh")
	if err := os.WriteFile(fresh, make([]byte, damagedSize), 0o600); err != nil {
		t.Fatal(err)
	}
	must := func(args ...string) {
		t.Helper()
		e, _, stderr := testEnv(args...)
		if run(context.Background(), e) != 0 {
			t.Fatalf("%v: %s", args, stderr)
		}
	}
	must("backup", saved, a[0], a[1])
	note := state.Volume{ID: openedID(t, a[0]), Name: "vol", Generation: generationOf(t, a[0]), Providers: a}
	if err := (state.Dir{Path: stateDir}).Remember(note); err != nil {
		t.Fatal(err)
	}
	last := note.Generation
	verb := func(args ...string) {
		t.Helper()
		must(append([]string{args[0], "--run-dir", dir, "--state-dir", stateDir, "--offline", strings.Join(a, ",")}, args[1:]...)...)
		if args[0] == "add" {
			a = append(a, fresh)
		}
		now := noted(t, stateDir, a)
		if now <= last || now != generationOf(t, a[0]) {
			t.Errorf("%s: %d is noted, after %d, and the volume is at %d", args[0], now, last, generationOf(t, a[0]))
		}
		last = now
	}
	verb("pack", "vol")
	verb("resize", "-s", "128m", "vol")
	verb("add", "vol", fresh)
	verb("remove", "vol", fresh)
	a = a[:2]
	verb("rename", "vol", "lov")
	before := last
	verb("newid", "lov")
	must("clear", a[0], a[1])
	must("restore", "-f", "--in-order", "--run-dir", dir, "--state-dir", stateDir, saved, a[0], a[1])
	if now := noted(t, stateDir, a); now <= before || now != generationOf(t, a[0]) {
		t.Errorf("restore: %d is noted, after %d, and the volume is at %d", now, before, generationOf(t, a[0]))
	}
}

func TestOfAVolumeThatIsHandedBackTheNoteBeginsAnew(t *testing.T) {
	dir := t.TempDir()
	a, _ := twoHistories(t, dir)
	stateDir := filepath.Join(dir, "state")
	note := state.Volume{ID: openedID(t, a[0]), Name: "vol", Generation: generationOf(t, a[0]), Providers: a}
	if err := (state.Dir{Path: stateDir}).Remember(note); err != nil {
		t.Fatal(err)
	}
	e, _, stderr := testEnv("stop", "--run-dir", dir, "--state-dir", stateDir, "--offline", strings.Join(a, ","), "vol")
	if run(context.Background(), e) != 0 {
		t.Fatal(stderr)
	}
	if g := noted(t, stateDir, a); g != 0 {
		t.Errorf("generation %d is noted", g)
	}
}

// rewrite changes component 0's record on file.
func rewrite(t *testing.T, file string, change func(*ondisk.Extension)) {
	t.Helper()
	p, err := geomlib.Open(file, geomlib.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	m, err := geomlib.ReadMetadata(p)
	if err != nil {
		t.Fatal(err)
	}
	rec, found, err := virstor.Record(p, m)
	if err != nil || !found {
		t.Fatalf("found %v, %v", found, err)
	}
	change(&rec)
	rec.Sequence++
	b := make([]byte, damagedSector)
	if err := rec.Encode(b); err != nil {
		t.Fatal(err)
	}
	if _, err := p.WriteAt(b, damagedExtension+int64(rec.Slot())*ondisk.ExtensionSlotSize); err != nil {
		t.Fatal(err)
	}
}

func TestDumpShowsWhatComponent0sRecordSays(t *testing.T) {
	a, _ := twoHistories(t, t.TempDir())
	dump := func(args ...string) (string, string) {
		e, stdout, stderr := testEnv(append([]string{"dump"}, args...)...)
		run(context.Background(), e)
		return stdout.String(), stderr.String()
	}
	if out, _ := dump(a...); strings.Count(out, "       Closed in order: yes\n") != 1 || strings.Contains(out, "Takes no writes") {
		t.Errorf("%s", out)
	}
	rewrite(t, a[0], func(e *ondisk.Extension) {
		e.Clean, e.HandBack = false, true
		e.Intent = ondisk.Intent{Kind: ondisk.IntentRemove, Arg: [8]uint64{1, 1}, Leaves: 0xabc, Moves: 0xdef}
		e.Task.Kind = ondisk.TaskPack
		e.Failed[0] = ondisk.FailedMember{ID: 0x123, Generation: 9}
	})
	out, _ := dump(a[0])
	for _, line := range []string{
		"       Closed in order: no", "     Being handed back: yes",
		"   Operation under way: remove, member 0000000000000abc leaves, member 0000000000000def takes its index",
		"        Unfinished job: pack", "       Takes no writes: member 0000000000000123 since generation 9",
	} {
		if !strings.Contains(out, line+"\n") {
			t.Errorf("no %q in\n%s", line, out)
		}
	}
	rewrite(t, a[0], func(e *ondisk.Extension) {
		e.Intent = ondisk.Intent{Kind: ondisk.IntentNewID, Arg: [8]uint64{4711}}
	})
	if out, _ := dump(a[0]); !strings.Contains(out, "   Operation under way: new id in the place of 4711\n") {
		t.Errorf("%s", out)
	}
	out, _ = dump("--json", a[0], a[1])
	var dumps struct {
		Providers []struct {
			Record *struct {
				Clean    bool
				HandBack bool `json:"hand_back"`
				Intent   struct {
					Kind     string
					FormerID ondisk.VolumeID `json:"former_id"`
				}
				Job    string
				Failed []struct {
					ID         string
					Generation uint64
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &dumps); err != nil {
		t.Fatal(err)
	}
	got := dumps.Providers
	r := got[0].Record
	if r == nil || r.Clean || !r.HandBack || r.Intent.Kind != "new id" || r.Intent.FormerID != 4711 || r.Job != "pack" ||
		len(r.Failed) != 1 || r.Failed[0].ID != "0000000000000123" || r.Failed[0].Generation != 9 || got[1].Record != nil {
		t.Errorf("%s", out)
	}
}

func TestDumpShowsWhatADamagedBlockSays(t *testing.T) {
	a, _ := twoHistories(t, t.TempDir())
	f, err := os.OpenFile(a[1], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{1, 2, 3}, damagedSize-damagedSector+248); err != nil {
		t.Fatal(err)
	}
	e, stdout, stderr := testEnv("dump", a[1])
	if code := run(context.Background(), e); code == 0 || !strings.Contains(stdout.String(), "Member ID") || !strings.Contains(stderr.String(), "checksum") {
		t.Errorf("%d, %s%s", code, stdout, stderr)
	}
}

func TestOfAStoppedVolumeItIsSaidWhereWhatIsMissingWas(t *testing.T) {
	dir := t.TempDir()
	a, _ := twoHistories(t, dir)
	stateDir := filepath.Join(dir, "state")
	note := state.Volume{ID: openedID(t, a[0]), Name: "vol", Generation: 1, Providers: a}
	if err := (state.Dir{Path: stateDir}).Remember(note); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"pack", "stop"} {
		for i, given := range a {
			e, _, stderr := testEnv(verb, "--run-dir", dir, "--state-dir", stateDir, "--offline", given, "vol")
			if run(context.Background(), e) == 0 || !strings.Contains(stderr.String(), "when this host last served it, component") ||
				!strings.Contains(stderr.String(), a[1-i]) {
				t.Errorf("%s: %s", verb, stderr)
			}
		}
	}
}

func TestABackupTellsWhichMembersItIsOfAndWhoIsLeftOut(t *testing.T) {
	dir := t.TempDir()
	a, _ := twoHistories(t, dir)
	old := filepath.Join(dir, "old")
	image, err := os.ReadFile(a[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(old, image, 0o600); err != nil {
		t.Fatal(err)
	}
	served(t, a, 'c')
	e, stdout, stderr := testEnv("backup", "-v", filepath.Join(dir, "saved"), a[0], old, a[1])
	if run(context.Background(), e) != 0 {
		t.Fatal(stderr)
	}
	m, err := readLabel(nil, a[1])
	if err != nil {
		t.Fatal(err)
	}
	if want := "  1. " + a[1] + ": member " + memberID(m.Member) + " of generation "; !strings.Contains(stdout.String(), want) {
		t.Errorf("no %q in\n%s", want, stdout)
	}
	if want := "warning: left out: " + old + " is a stale component of vol"; !strings.Contains(stderr.String(), want) {
		t.Errorf("no %q in\n%s", want, stderr)
	}
}
