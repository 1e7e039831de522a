package options

import (
	"bytes"
	"testing"
)

// TestAWorkerReadsTheOptionsOfWhoeverStartedTheProgram though it is another user by then:
// else a reload takes the defaults for changed, and refuses what only root may ask for.
func TestAWorkerReadsTheOptionsOfWhoeverStartedTheProgram(t *testing.T) {
	for _, own := range []Defaults{
		{Root: true, Control: "/run/root.sock", RunDir: "/run/root", BackupDir: "/db/backups", StateDir: "/db/state"},
		{Control: "/home/control", RunDir: "/home/run"},
	} {
		var said bytes.Buffer
		o, err := parseOptions(Told{Own: own}, []string{"--gate=false"}, &said, &said)
		if err != nil {
			t.Fatalf("%v: %s", err, said.String())
		}
		for key, want := range map[string]string{"control": own.Control, "run-dir": own.RunDir, "backup-dir": own.BackupDir, "state-dir": own.StateDir} {
			if got := o.Settings[key]; got != want {
				t.Errorf("%s is %q, want %q", key, got, want)
			}
		}
		if o.Supervise != own.Root {
			t.Errorf("a worker: %t", o.Supervise)
		}
	}
	here := NewHere()
	if _, err := parseOptions(here, nil, new(bytes.Buffer), new(bytes.Buffer)); err != nil {
		t.Fatal(err)
	}
	if here.Seen().Own != here.Defaults() || here.Defaults() != defaults() {
		t.Errorf("told are %+v", here.Seen().Own)
	}
}
