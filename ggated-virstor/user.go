package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"strconv"
)

// defaultUser is who the worker becomes unless --user names another. It owns
// nothing and is nobody else's. fallbackUser is, where defaultUser is not there.
const (
	defaultUser  = "gvirstor"
	fallbackUser = "nobody"
)

// identity is a user to become.
type identity struct {
	name     string
	uid, gid int
}

// workerIdentity is who the worker becomes, nil if it stays who it is.
func (o *options) workerIdentity() (*identity, error) {
	if os.Geteuid() != 0 || o.user == "" || o.user == "root" {
		return nil, nil
	}
	u, err := user.Lookup(o.user)
	var unknown user.UnknownUserError
	if errors.As(err, &unknown) && o.user == defaultUser {
		u, err = user.Lookup(fallbackUser)
	}
	if err != nil {
		return nil, fmt.Errorf("--user: %w", err)
	}
	uid, err := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err = errors.Join(err, err2); err != nil {
		return nil, fmt.Errorf("--user %s: %w", u.Username, err)
	}
	return &identity{u.Username, uid, gid}, nil
}

// checkUser finds at the start what every worker would, and warns of users that a
// worker should not share with others.
func (o *options) checkUser(log *slog.Logger) error {
	id, err := o.workerIdentity()
	switch {
	case err != nil:
		return err
	case id == nil && os.Geteuid() == 0:
		log.Warn("the worker stays root: what a client may do to it, it may do to the machine", "remedy", "--user "+defaultUser)
	case id != nil && id.name == fallbackUser:
		log.Warn("the worker runs as a user that others may run as, too, and reach it by", "user", id.name, "remedy", "make a user "+defaultUser)
	}
	return nil
}
