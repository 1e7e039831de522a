package backup_test

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
	"github.com/gvirstor/gvirstor/geomlib/virstor/backup"
	"github.com/gvirstor/gvirstor/geomlib/virstor/internal/voltest"
)

// endless is a file without end that begins with what it is given.
type endless struct {
	begin []byte
	read  int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.begin[min(e.read, len(e.begin)):])
	if n == 0 {
		n = len(p)
		clear(p)
	}
	e.read += n
	return n, nil
}

func TestOfWhatIsNoBackupOnlyTheBeginningIsRead(t *testing.T) {
	disks, _ := voltest.New(t, true)
	good := encode(t, take(t, disks))
	header := bytes.Index(good, []byte("\n}")) + 2
	manyRuns := bytes.Replace(good[:header], []byte(`"runs": `), []byte(`"runs": 4000000`), 1)
	manyRuns[len("GVIRSTOR::BACKUP\n")+4] += 7 // the header is as much longer
	for name, begin := range map[string][]byte{
		"zeros": nil, "text": []byte("#!/bin/sh\n"), "another version": []byte("GVIRSTOR::BACKUP\n\x09\x00\x00\x00\x00\x00\x00\x00"),
		"a huge header": []byte("GVIRSTOR::BACKUP\n\x01\x00\x00\x00\xff\xff\xff\xff"), "more runs than chunks": manyRuns,
	} {
		e := &endless{begin: begin}
		_, err := backup.Read(e)
		mustBe(t, err, backup.ErrFormat)
		if e.read > len(begin)+64<<10 {
			t.Errorf("%s: %d bytes were read", name, e.read)
		}
	}
}

func TestABackupOfOtherProvidersIsRefusedBeforeItsMapIsRead(t *testing.T) {
	disks, _ := voltest.New(t, true)
	good := encode(t, take(t, disks))
	path := filepath.Join(t.TempDir(), "file")
	// Damage in the map would be told if it were read.
	if err := os.WriteFile(path, good[:len(good)-40], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := backup.Recognize(path); err != nil {
		t.Errorf("recognize: %v", err)
	}
	_, err := backup.LoadFor(path, voltest.Providers(disks), false)
	mustBe(t, err, backup.ErrFormat)
	others := []*disktest.Disk{disks[0], disks[1], disktest.New("other", 7*voltest.Chunk, 512)}
	_, err = backup.LoadFor(path, voltest.Providers(others), false)
	mustBe(t, err, backup.ErrProviders)
	_, err = backup.LoadFor(path, voltest.Providers(disks[:2]), false)
	mustBe(t, err, backup.ErrProviders)
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := backup.LoadFor(path, voltest.Providers(disks), false); err != nil {
		t.Errorf("the right ones: %v", err)
	}
	mustBe(t, backup.Recognize(os.DevNull), syscall.EINVAL)
}
