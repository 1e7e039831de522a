package fdrpc

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// SocketPair makes the two ends of a connection.
func SocketPair() (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("connect supervisor and worker: %w", err)
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	theirs = os.NewFile(uintptr(fds[1]), "supervisor")
	ours, err = ConnOf(os.NewFile(uintptr(fds[0]), "worker"))
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// ConnOf makes a connection of a socket's file, which it closes.
func ConnOf(f *os.File) (*net.UnixConn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("connect supervisor and worker: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("connect supervisor and worker: not a Unix socket")
	}
	return u, nil
}

// FilesOf are the descriptors that came beside a message.
func FilesOf(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	cs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("receive descriptors: %w", err)
	}
	var fs []*os.File
	for i := range cs {
		fds, err := unix.ParseUnixRights(&cs[i])
		if err != nil {
			CloseFiles(fs)
			return nil, fmt.Errorf("receive descriptors: %w", err)
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			fs = append(fs, os.NewFile(uintptr(fd), "received"))
		}
	}
	return fs, nil
}

// CloseFiles closes all; files that were received are not written to.
func CloseFiles(fs []*os.File) {
	for _, f := range fs {
		f.Close()
	}
}
