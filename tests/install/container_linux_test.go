package install

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// image is what a Containerfile makes: a folder, and what is run in it.
type image struct {
	machine
	entry []string
	env   []string
}

// buildImage does what the Containerfile says, below a folder.
func buildImage(t *testing.T) *image {
	t.Helper()
	dir, err := os.MkdirTemp("", "gv")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	im := &image{machine: machine{t, dir}}
	text, err := os.ReadFile(root + "/ggated-virstor/Containerfile")
	if err != nil {
		t.Fatal(err)
	}
	programs := t.TempDir()
	build := exec.Command("go", "build", "-o", programs, "../../ggated-virstor", "../../gvirstor")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		word, rest, _ := strings.Cut(line, " ")
		args := strings.Fields(rest)
		switch word {
		case "VOLUME":
		case "FROM":
			if rest != "scratch" {
				t.Errorf("it begins with %s, which would have to be fetched", rest)
			}
		case "COPY":
			to := args[len(args)-1]
			for _, from := range args[:len(args)-1] {
				name := filepath.Base(from)
				if from = root + "/" + from; strings.Contains(from, "/bin/") {
					from = filepath.Join(programs, name)
				}
				im.copy(from, to+name)
			}
		case "WORKDIR":
			if err := os.MkdirAll(im.path(rest), 0o755); err != nil {
				t.Fatal(err)
			}
		case "ENV":
			im.env = append(im.env, rest)
		case "ENTRYPOINT":
			if err := json.Unmarshal([]byte(rest), &im.entry); err != nil {
				t.Fatal(err)
			}
		default:
			t.Fatalf("what is %s of the Containerfile?", word)
		}
	}
	return im
}

// TestAContainerOfTheProgramsAloneServesAVolume without a shell, users or libraries, as the
// Containerfile makes it.
func TestAContainerOfTheProgramsAloneServesAVolume(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if testing.Short() {
		t.Skip("builds the programs")
	}
	im := buildImage(t)
	im.write("/data/disk0", "", 0o600)
	if err := os.Truncate(im.path("/data/disk0"), 64<<20); err != nil {
		t.Fatal(err)
	}
	im.run("/usr/local/sbin/gvirstor", "label", "-s", "256m", "-m", "1m", "vol", "/data/disk0")
	cmd := im.chroot(im.entry[0], append(im.entry[1:], "--nbd", "unix:/var/run/virstor.nbd", "/data/disk0")...)
	cmd.Env = im.env
	log, err := os.Create(im.path("/daemon.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer cmd.Process.Kill()
	im.until("the daemon serves", func() bool {
		return im.chroot("/usr/local/sbin/gvirstor", "status", "vol").Run() == nil
	})
	if err := os.MkdirAll(im.path("/run"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../var/run/virstor.nbd", im.path("/run/virstor.nbd")); err != nil {
		t.Fatal(err)
	}
	c := im.newClient()
	c.more()
	c.end()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("it does not end")
	}
}
