package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

const diskSize = 512 << 20

// bench makes servers on fresh files and runs fio against them.
type bench struct {
	bin, dir string
	old      string // folder of the programs of another revision, or ""
	seconds  int
	loops    []string // devices of the server that is measured
}

// newBench uses the programs in bin and a temporary folder in dir.
func newBench(bin, dir string, seconds int) (*bench, error) {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp(dir, "gvbench")
	if err != nil {
		return nil, err
	}
	return &bench{bin: bin, dir: tmp, seconds: seconds}, nil
}

func (b *bench) close() { os.RemoveAll(b.dir) }

// measure runs one job on one server.
func (b *bench) measure(j job, server string) (result, error) {
	dir, err := os.MkdirTemp(b.dir, server)
	if err != nil {
		return result{}, err
	}
	defer os.RemoveAll(dir)
	defer b.detach()
	cmd, uri, err := b.server(server, dir, j)
	if err != nil {
		return result{}, err
	}
	cmd.Stderr = nil
	if err := cmd.Start(); err != nil {
		return result{}, err
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-ended
	}()
	fill, used := int64(diskSize), int64(diskSize)
	if j.Fresh {
		fill, used = 0, 400<<20
	}
	if server == overlay {
		fill = 0 // what it lies over is
	}
	if err := prepare(uri, fill); err != nil {
		return result{}, err
	}
	if j.Snapshot && server != overlay {
		if err := b.gvirstor(dir, "snapshot", "-f", "vol@s"); err != nil {
			return result{}, err
		}
	}
	if j.View && server == "gvirstor" {
		uri = strings.Replace(uri, "/vol?", "/vol@s?", 1)
	}
	r, err := b.fio(j, uri, used, cmd.Process.Pid)
	r.Server = server
	return r, err
}

// gvirstor runs the tool beside the daemon in dir, if there is one.
func (b *bench) gvirstor(dir string, args ...string) error {
	tool := exec.Command(filepath.Join(b.bin, "gvirstor"), args...)
	tool.Env = append(os.Environ(), "GVIRSTOR_CONTROL="+filepath.Join(dir, "c"))
	if out, err := tool.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", args[0], err, out)
	}
	return nil
}

// overlay is the server of an image of qcow2 over another one that is full.
const overlay = "overlay"

// server makes the command that serves a fresh disk in dir for j, and its URI.
func (b *bench) server(name, dir string, j job) (*exec.Cmd, string, error) {
	sock := filepath.Join(dir, "s")
	file := filepath.Join(dir, "disk")
	plain := "nbd+unix:///?socket=" + sock
	switch name {
	case "gvirstor", "volume", before:
		bin := b.bin
		if name == before {
			bin = b.old
		}
		size, label := int64(diskSize*3/4), []string{"label", "-s", "8g"}
		if j.Snapshot { // and of room for what is copied
			size, label = diskSize*5/4, append(label, "-m", "64k", "--small-chunks")
		}
		var disks []string
		for _, f := range []string{file + "0", file + "1"} {
			disk, err := b.disk(f, size, j.Device)
			if err != nil {
				return nil, "", err
			}
			disks = append(disks, disk)
		}
		tool := exec.Command(filepath.Join(bin, "gvirstor"), append(append(label, "vol"), disks...)...)
		tool.Env = append(os.Environ(), "GVIRSTOR_CONTROL="+filepath.Join(dir, "none"))
		if out, err := tool.CombinedOutput(); err != nil {
			return nil, "", fmt.Errorf("label: %w: %s", err, out)
		}
		program := filepath.Join(bin, "ggated-virstor")
		args := []string{"--nbd", "unix:" + sock, "--control", filepath.Join(dir, "c"), "--run-dir", dir, "--backup-dir", "", "--supervise=false"}
		if help, err := exec.Command(program, "--help").CombinedOutput(); err != nil {
			return nil, "", fmt.Errorf("%s --help: %w", program, err)
		} else if bytes.Contains(help, []byte("--state-dir")) { // an earlier revision has none
			args = append(args, "--state-dir", "")
		}
		if j.Device {
			args = append(args, "--direct")
		}
		return exec.Command(program, append(args, disks...)...), "nbd+unix:///vol?socket=" + sock, nil
	case "native", "io_uring":
		disk, err := b.disk(file, diskSize, j.Device)
		return exec.Command("qemu-nbd", "-t", "-f", "raw", "-e", "16", "--cache=none", "--aio="+name, "-k", sock, disk), plain, err
	case "nbdkit":
		return exec.Command("nbdkit", "-f", "-U", sock, "file", file), plain, sparse(file, diskSize)
	case "qemu-nbd":
		return exec.Command("qemu-nbd", "-t", "-f", "raw", "-e", "16", "-k", sock, file), plain, sparse(file, diskSize)
	case "qcow2":
		out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", file, "8G").CombinedOutput()
		if err != nil {
			return nil, "", fmt.Errorf("qemu-img: %w: %s", err, out)
		}
		return exec.Command("qemu-nbd", "-t", "-f", "qcow2", "-e", "16", "-k", sock, file), plain, nil
	}
	if name == overlay {
		return overlaid(file, sock)
	}
	return nil, "", fmt.Errorf("no server %q", name)
}

// overlaid is the command that serves an image whose backing file is full: what a snapshot is
// with qcow2. Both have clusters of 64 KiB.
func overlaid(file, sock string) (*exec.Cmd, string, error) {
	raw, err := os.Create(file + ".raw")
	if err != nil {
		return nil, "", err
	}
	for b := pattern(); err == nil; {
		var at int64
		if at, err = raw.Seek(0, io.SeekCurrent); at >= diskSize {
			break
		}
		_, err = raw.Write(b)
	}
	if err := errors.Join(err, raw.Close()); err != nil {
		return nil, "", err
	}
	for _, args := range [][]string{
		{"convert", "-f", "raw", "-O", "qcow2", file + ".raw", file + ".base"},
		{"create", "-q", "-f", "qcow2", "-b", file + ".base", "-F", "qcow2", file},
	} {
		if out, err := exec.Command("qemu-img", args...).CombinedOutput(); err != nil {
			return nil, "", fmt.Errorf("qemu-img %s: %w: %s", args[0], err, out)
		}
	}
	return exec.Command("qemu-nbd", "-t", "-f", "qcow2", "-e", "16", "-k", sock, file), "nbd+unix:///?socket=" + sock, os.Remove(file + ".raw")
}

// pattern is what disks are filled with.
func pattern() []byte {
	b := make([]byte, 1<<20)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

// disk makes a sparse file, and a loop device of it if that is wanted.
func (b *bench) disk(file string, size int64, device bool) (string, error) {
	if err := sparse(file, size); err != nil || !device {
		return file, err
	}
	out, err := exec.Command("losetup", "-f", "--show", file).Output()
	if err != nil {
		return "", fmt.Errorf("losetup: %w", err)
	}
	loop := strings.TrimSpace(string(out))
	b.loops = append(b.loops, loop)
	return loop, nil
}

// detach lets go of the loop devices, whose server has ended.
func (b *bench) detach() {
	for _, loop := range b.loops {
		if out, err := exec.Command("losetup", "-d", loop).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "bench: losetup -d %s: %v: %s\n", loop, err, out)
		}
	}
	b.loops = nil
}

func sparse(name string, size int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// prepare waits for the server and writes the first fill bytes of the disk, so
// that they are in the page cache and, of a thin one, allocated.
func prepare(uri string, fill int64) error {
	var c *nbdclient.Conn
	var err error
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if c, err = dial(uri); err == nil {
			break
		}
		if time.Now().After(end) {
			return err
		}
	}
	defer c.Close()
	b := pattern()
	for off := int64(0); off < fill; off += int64(len(b)) {
		if _, err := c.WriteAt(b, off); err != nil {
			return err
		}
	}
	return c.Flush()
}

// fio runs a job on the first size bytes, and tells what the server with this pid used, if it
// is not 0.
func (b *bench) fio(j job, uri string, size int64, pid int) (r result, err error) {
	args := append([]string{"--name=j", "--ioengine=nbd", "--uri=" + uri, fmt.Sprintf("--size=%d", size),
		fmt.Sprintf("--numjobs=%d", cmp.Or(j.Connections, 1)), "--group_reporting", "--output-format=json", "--randrepeat=1"}, j.Args...)
	if j.Fresh || j.Snapshot && !j.View { // by how much, since later writes cost less
		args = append(args, "--io_size=64m")
	} else {
		args = append(args, "--time_based", fmt.Sprintf("--runtime=%d", b.seconds))
	}
	var before, after float64
	if pid != 0 {
		if before, err = cpuSeconds(pid); err != nil {
			return r, err
		}
	}
	text, err := runFio(args...)
	if err != nil {
		return r, err
	}
	if pid != 0 {
		if after, err = cpuSeconds(pid); err != nil {
			return r, err
		}
	}
	r, moved, err := parseFio(text, j)
	if err != nil {
		return r, err
	}
	r.ServerCPU = after - before
	r.CPU = r.ServerCPU / (moved / (1 << 30))
	return r, nil
}

// parseFio takes the rate, the bytes moved and what the client used from what fio prints of j.
func parseFio(text []byte, j job) (r result, moved float64, err error) {
	type direction struct {
		IOPS    float64 `json:"iops"`
		BWBytes float64 `json:"bw_bytes"`
		IOBytes float64 `json:"io_bytes"`
	}
	var parsed struct {
		Jobs []struct {
			Read, Write direction
			// Of the clients while they ran, which their process's own accounting
			// blurs by 0.1 s of fio's start: percent of the time of all, milliseconds.
			User    float64 `json:"usr_cpu"`
			System  float64 `json:"sys_cpu"`
			Runtime float64 `json:"job_runtime"`
		}
	}
	if err := json.Unmarshal(text, &parsed); err != nil {
		return r, 0, fmt.Errorf("fio's JSON: %w", err)
	}
	if len(parsed.Jobs) != 1 {
		return r, 0, fmt.Errorf("fio reports %d jobs", len(parsed.Jobs))
	}
	p := parsed.Jobs[0]
	if moved = p.Read.IOBytes + p.Write.IOBytes; moved == 0 || p.Runtime == 0 {
		return r, 0, errors.New("fio moved nothing")
	}
	r.Rate = p.Read.IOPS + p.Write.IOPS
	if j.Bytes {
		r.Rate = p.Read.BWBytes + p.Write.BWBytes
	}
	clients := cmp.Or(j.Connections, 1)
	c := client{
		CPU:        (p.User + p.System) / 100 * p.Runtime / 1000,
		Elapsed:    p.Runtime / 1000 / float64(clients),
		Processors: min(clients, runtime.NumCPU()),
	}
	c.Busy = c.CPU / c.Elapsed / float64(c.Processors)
	r.Client = c
	return r, moved, nil
}

// runFio returns the JSON that fio prints, without what it may say before it.
func runFio(args ...string) ([]byte, error) {
	out, err := exec.Command("fio", args...).Output()
	if err != nil {
		return nil, fmt.Errorf("fio: %w", err)
	}
	return out[max(0, bytes.IndexByte(out, '{')):], nil
}

// cpuSeconds is what a process has used, user and system, as Linux says.
func cpuSeconds(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	text := string(b)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	var user, system float64
	if _, err := fmt.Sscan(fields[11], &user); err != nil {
		return 0, err
	}
	if _, err := fmt.Sscan(fields[12], &system); err != nil {
		return 0, err
	}
	const ticks = 100 // USER_HZ
	return (user + system) / ticks, nil
}
