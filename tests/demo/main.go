// Command demo shows what gvirstor does, from labelling to running out of space
// and past a crash, in a temporary folder: no root, no kernel, any system. It
// prints every command it runs.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

const (
	mib   = 1 << 20
	tib   = 1 << 40
	block = 64 << 10
)

func main() {
	bin := flag.String("bin", "bin", "folder of the programs")
	flag.Parse()
	if err := run(*bin); err != nil {
		fmt.Fprintln(os.Stderr, "demo: failed:", err)
		os.Exit(1)
	}
	fmt.Println("demo: ok")
}

// demo is one run: a folder, and the daemon that serves the files in it.
type demo struct {
	bin, dir string
	daemon   *exec.Cmd
	ended    chan struct{}
	log      *os.File
}

func run(bin string) (err error) {
	bin, err = filepath.Abs(bin)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "gvirstor")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	log, err := os.Create(filepath.Join(dir, "daemon.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	d := &demo{bin: bin, dir: dir, log: log}
	defer d.kill()
	for _, step := range []func() error{
		d.label, d.start, d.writeAndVerify, d.show, d.snapshot, d.crash, d.fill, d.stop, d.checkAll,
	} {
		if err := step(); err != nil {
			text, _ := os.ReadFile(log.Name())
			return fmt.Errorf("%w\nthe daemon said:\n%s", err, text)
		}
	}
	return nil
}

func say(format string, args ...any) { fmt.Printf("\n# "+format+"\n", args...) }

// gvirstor runs the control utility in the folder and shows both.
func (d *demo) gvirstor(args ...string) error {
	fmt.Println("$ gvirstor " + strings.Join(args, " "))
	c := exec.Command(filepath.Join(d.bin, "gvirstor"), args...)
	c.Dir, c.Stdout, c.Stderr = d.dir, os.Stdout, os.Stdout
	c.Env = append(os.Environ(), "GVIRSTOR_CONTROL="+filepath.Join(d.dir, "control"))
	if err := c.Run(); err != nil {
		return fmt.Errorf("gvirstor %s: %w", args[0], err)
	}
	return nil
}

func (d *demo) truncate(size, name string) error {
	n, err := control.ExpandNumber(size)
	if err != nil {
		return err
	}
	fmt.Printf("$ truncate -s %s %s\n", size, name)
	f, err := os.Create(filepath.Join(d.dir, name))
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(n), f.Close())
}

func (d *demo) label() error {
	say("Two sparse files of 64 MiB become one disk of 1 TiB.")
	for _, name := range []string{"disk0", "disk1"} {
		if err := d.truncate("64m", name); err != nil {
			return err
		}
	}
	return d.gvirstor("label", "-v", "-s", "1t", "demo", "disk0", "disk1")
}

func (d *demo) start() error {
	say("A daemon serves it over NBD.")
	args := []string{"--nbd", "unix:nbd.sock", "--control", "control", "--run-dir", ".", "--backup-dir", "backups", "--state-dir", "state", "--supervise=no", "--http", "127.0.0.1:0", "disk0", "disk1"}
	if _, err := os.Stat(filepath.Join(d.dir, "disk2")); err == nil {
		args = append(args, "disk2")
	}
	fmt.Println("$ ggated-virstor " + strings.Join(args, " ") + " &")
	d.daemon = exec.Command(filepath.Join(d.bin, "ggated-virstor"), args...)
	d.daemon.Dir, d.daemon.Stderr = d.dir, d.log
	if err := d.daemon.Start(); err != nil {
		return err
	}
	d.ended = make(chan struct{})
	go func() {
		_ = d.daemon.Wait()
		close(d.ended)
	}()
	err := d.until("the daemon serves the volume", func() bool {
		st, err := d.status()
		return err == nil && st.VirtualSize == tib
	})
	if err != nil {
		return err
	}
	return d.until("the log tells where the status page is", func() bool {
		text, err := os.ReadFile(d.log.Name())
		at := strings.LastIndex(string(text), " http=")
		if err != nil || at < 0 {
			return false
		}
		fmt.Printf("The status page is at http://%s/\n", strings.Fields(string(text[at:]))[0][len("http="):])
		return true
	})
}

// until polls; the daemon tells nobody that it is ready.
func (d *demo) until(what string, ok func() bool) error {
	for end := time.Now().Add(20 * time.Second); !ok(); {
		select {
		case <-d.ended:
			return fmt.Errorf("the daemon ended before %s", what)
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s: not in 20 s", what)
		}
	}
	return nil
}

func (d *demo) status() (control.VolumeStatus, error) {
	c, err := control.Dial(filepath.Join(d.dir, "control"))
	if err != nil {
		return control.VolumeStatus{}, err
	}
	defer c.Close()
	return c.Volume(context.Background(), "demo")
}

func (d *demo) dial() (*nbdclient.Conn, error) { return d.dialExport("demo") }

func (d *demo) dialExport(name string) (*nbdclient.Conn, error) {
	uri := "nbd+unix:///" + name + "?socket=" + filepath.Join(d.dir, "nbd.sock")
	return nbdclient.Dial(context.Background(), uri, nbdclient.Options{})
}

// stamp fills a block so that it tells where it belongs and when it was written.
func stamp(b []byte, off int64, generation uint64) {
	for i := 0; i < len(b); i += 16 {
		binary.LittleEndian.PutUint64(b[i:], uint64(off))
		binary.LittleEndian.PutUint64(b[i+8:], generation)
	}
}

// places are where the first client writes.
var places = [...]int64{0, tib / 2, tib - block}

func (d *demo) writeAndVerify() error {
	say("An NBD client writes and reads back at the beginning, the middle and the end.")
	c, err := d.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	for _, off := range places {
		if err := writeBlock(c, off, 1); err != nil {
			return err
		}
		if err := verifyBlock(c, off, 1, 1); err != nil {
			return err
		}
		fmt.Printf("%d bytes at %d: written, read back, equal\n", block, off)
	}
	return c.Flush()
}

func writeBlock(c *nbdclient.Conn, off int64, generation uint64) error {
	b := make([]byte, block)
	stamp(b, off, generation)
	_, err := c.WriteAt(b, off)
	return err
}

func verifyBlock(c *nbdclient.Conn, off int64, least, most uint64) error {
	b := make([]byte, block)
	if _, err := c.ReadAt(b, off); err != nil {
		return err
	}
	for i := 0; i < block; i += 16 {
		where, when := int64(binary.LittleEndian.Uint64(b[i:])), binary.LittleEndian.Uint64(b[i+8:])
		if where != off || when < least || when > most {
			return fmt.Errorf("byte %d holds write %d of offset %d, want write %d to %d of %d",
				off+int64(i), when, where, least, most, off)
		}
	}
	return nil
}

func (d *demo) show() error {
	say("Only what was written takes space.")
	if err := d.gvirstor("status"); err != nil {
		return err
	}
	return d.gvirstor("list")
}

func (d *demo) snapshot() error {
	say("A snapshot keeps what the disk holds, while it is written to (-f: these disks are small).")
	if err := d.gvirstor("snapshot", "-f", "demo@before"); err != nil {
		return err
	}
	c, err := d.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	if err := writeBlock(c, 0, 2); err != nil {
		return err
	}
	was, err := d.dialExport("demo@before")
	if err != nil {
		return err
	}
	if err := verifyBlock(was, 0, 1, 1); err != nil {
		return err
	}
	if err := verifyBlock(c, 0, 2, 2); err != nil {
		return err
	}
	fmt.Println("the disk holds the second write, and the export demo@before the first")
	if err := was.Close(); err != nil {
		return err
	}
	if err := d.gvirstor("list", "-t", "snapshot"); err != nil {
		return err
	}
	if err := d.until("the client has left the snapshot", func() bool {
		return d.deleted("demo@before")
	}); err != nil {
		return err
	}
	return writeBlock(c, 0, 1) // which later steps look for
}

// deleted deletes a snapshot, unless its client is not gone yet.
func (d *demo) deleted(name string) bool { return d.gvirstor("delete", "-fv", name) == nil }

// crashBlocks is how many blocks are written again and again around the crash.
const crashBlocks = 64

func (d *demo) crash() error {
	say("kill -9 in the middle of writing: every acknowledged byte must be there.")
	c, err := d.dial()
	if err != nil {
		return err
	}
	var acked, begun [crashBlocks]atomic.Uint64
	var total atomic.Int64
	broken := make(chan struct{})
	go func() {
		defer close(broken)
		for g := uint64(1); ; g++ {
			for i := range crashBlocks {
				begun[i].Store(g)
				if writeBlock(c, int64(i+1)*mib/4, g) != nil {
					return
				}
				acked[i].Store(g)
				total.Add(1)
			}
		}
	}()
	if err := d.until("writes are acknowledged", func() bool { return total.Load() > 500 }); err != nil {
		return err
	}
	fmt.Printf("$ kill -9 %d   # ggated-virstor\n", d.daemon.Process.Pid)
	d.kill()
	<-broken
	if err := d.start(); err != nil {
		return err
	}
	c, err = d.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	for i := range crashBlocks {
		if err := verifyBlock(c, int64(i+1)*mib/4, acked[i].Load(), begun[i].Load()); err != nil {
			return err
		}
	}
	for _, off := range places {
		if err := verifyBlock(c, off, 1, 1); err != nil {
			return err
		}
	}
	fmt.Printf("%d writes were acknowledged before the crash: all are there\n", total.Load())
	return nil
}

func (d *demo) fill() error {
	say("The files fill up: writes wait instead of failing, and reads go on.")
	c, err := d.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	const writes = 28
	results := make(chan error, writes)
	for i := range int64(writes) {
		go func() { results <- writeBlock(c, tib/4+i*4*mib, 1) }()
	}
	held := func() bool {
		st, err := d.status()
		return err == nil && st.FreeChunks <= st.ReservedChunks && st.Held.Count > 0
	}
	if err := d.until("writes wait for space", held); err != nil {
		return err
	}
	if err := d.gvirstor("status"); err != nil {
		return err
	}
	if err := verifyBlock(c, 0, 1, 1); err != nil {
		return err
	}
	say("A third file is added while they wait.")
	if err := d.truncate("96m", "disk2"); err != nil {
		return err
	}
	if err := d.gvirstor("add", "-v", "demo", "disk2"); err != nil {
		return err
	}
	for range writes {
		if err := <-results; err != nil {
			return err
		}
	}
	for i := range int64(writes) {
		if err := verifyBlock(c, tib/4+i*4*mib, 1, 1); err != nil {
			return err
		}
	}
	fmt.Printf("all %d writes are done, and read back equal\n", writes)
	return d.gvirstor("status")
}

func (d *demo) stop() error {
	say("The volume is stopped: what FreeBSD's own kernel class could go on with is handed back to it.")
	if err := d.gvirstor("stop", "-v", "demo"); err != nil {
		return err
	}
	if err := d.daemon.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	<-d.ended
	return nil
}

func (d *demo) checkAll() error {
	say("The components are consistent.")
	return d.gvirstor("check", "disk0", "disk1", "disk2")
}

func (d *demo) kill() {
	if d.daemon != nil && d.daemon.Process != nil {
		_ = d.daemon.Process.Kill()
		<-d.ended
	}
}
