// Command nbdio writes, checks and copies what an NBD server exports: the client of the
// kyua cases, which need none of another project.
//
//	nbdio write URI BYTE OFFSET LENGTH   writes BYTE, and flushes
//	nbdio check URI BYTE OFFSET LENGTH   fails unless every byte there is BYTE
//	nbdio copy URI FILE                  makes FILE of the whole export, its zeros as holes
//
// Numbers may end in k, m or g, for powers of 1024. It exits with 1 and a sentence on
// standard error where the server or a check says no, and with 2 for wrong arguments.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/gvirstor/gvirstor/ggated-virstor/nbd/nbdclient"
)

// block is how many bytes are asked for at once.
const block = 1 << 20

var errUsage = errors.New(`usage: nbdio write|check URI BYTE OFFSET LENGTH
       nbdio copy URI FILE`)

func main() {
	err := run(context.Background(), os.Args[1:])
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, err)
	if errors.Is(err, errUsage) {
		os.Exit(2)
	}
	os.Exit(1)
}

func run(ctx context.Context, args []string) error {
	work, err := parse(args)
	if err != nil {
		return err
	}
	conn, err := nbdclient.Dial(ctx, args[1], nbdclient.Options{})
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if err := work(conn); err != nil {
		_ = conn.Abort() // the error of the work says more
		return fmt.Errorf("%s: %w", args[0], err)
	}
	return conn.Close()
}

// parse returns what is to be done on a connection.
func parse(args []string) (func(*nbdclient.Conn) error, error) {
	if len(args) == 3 && args[0] == "copy" {
		return func(c *nbdclient.Conn) error { return copyTo(args[2], c) }, nil
	}
	if len(args) != 5 || args[0] != "write" && args[0] != "check" {
		return nil, errUsage
	}
	value, err := strconv.ParseUint(args[2], 0, 8)
	if err != nil {
		return nil, fmt.Errorf("%w: BYTE: %w", errUsage, err)
	}
	off, err := number(args[3])
	if err != nil {
		return nil, fmt.Errorf("%w: OFFSET: %w", errUsage, err)
	}
	length, err := number(args[4])
	if err != nil {
		return nil, fmt.Errorf("%w: LENGTH: %w", errUsage, err)
	}
	want := bytes.Repeat([]byte{byte(value)}, block)
	if args[0] == "write" {
		return func(c *nbdclient.Conn) error { return write(c, want, off, length) }, nil
	}
	return func(c *nbdclient.Conn) error { return check(c, want, off, length) }, nil
}

// number parses a number of bytes.
func number(s string) (int64, error) {
	digits := strings.TrimRight(s, "kmg")
	shift := map[string]int64{"": 0, "k": 10, "m": 20, "g": 30}
	unit, known := shift[s[len(digits):]]
	n, err := strconv.ParseInt(digits, 10, 33)
	if err != nil || n < 0 || !known {
		return 0, fmt.Errorf("%q is no number of bytes", s)
	}
	return n << unit, nil
}

// write writes length bytes at off, each as in want, and flushes.
func write(c *nbdclient.Conn, want []byte, off, length int64) error {
	for end := off + length; off < end; off += block {
		if _, err := c.WriteAt(want[:min(block, end-off)], off); err != nil {
			return fmt.Errorf("at byte %d: %w", off, err)
		}
	}
	return c.Flush()
}

// check fails at the first of length bytes at off that is not as in want.
func check(c *nbdclient.Conn, want []byte, off, length int64) error {
	got := make([]byte, block)
	for end := off + length; off < end; off += block {
		part := got[:min(block, end-off)]
		if _, err := c.ReadAt(part, off); err != nil {
			return fmt.Errorf("at byte %d: %w", off, err)
		}
		if bytes.Equal(part, want[:len(part)]) {
			continue
		}
		for i, b := range part {
			if b != want[i] {
				return fmt.Errorf("byte %d is %#x, not %#x", off+int64(i), b, want[i])
			}
		}
	}
	return nil
}

// copyTo makes a file of all that is exported.
func copyTo(name string, c *nbdclient.Conn) (err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size := c.Info().Size
	if err := f.Truncate(size); err != nil {
		return err
	}
	buf, zeros := make([]byte, block), make([]byte, block)
	for off := int64(0); off < size; off += block {
		part := buf[:min(block, size-off)]
		if _, err := c.ReadAt(part, off); err != nil {
			return fmt.Errorf("at byte %d: %w", off, err)
		}
		if bytes.Equal(part, zeros[:len(part)]) {
			continue
		}
		if _, err := f.WriteAt(part, off); err != nil {
			return err
		}
	}
	return nil
}
