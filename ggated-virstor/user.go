package main

import (
	"errors"
	"fmt"
	"github.com/gvirstor/gvirstor/ggated-virstor/options"
	"log/slog"
	"os"
	"os/user"
	"strconv"
)

// fallbackUser is who the worker becomes where options.DefaultUser is not there.
const fallbackUser = "nobody"

// identity is a user to become.
type identity struct {
	name     string
	uid, gid int
}

// workerIdentity is who the worker becomes, nil if it stays who it is.
func workerIdentity(o *options.Options) (*identity, error) {
	if os.Geteuid() != 0 || o.User == "" || o.User == "root" {
		return nil, nil
	}
	u, err := user.Lookup(o.User)
	var unknown user.UnknownUserError
	if errors.As(err, &unknown) && o.User == options.DefaultUser {
		u, err = user.Lookup(fallbackUser)
	}
	if err != nil {
		return nil, fmt.Errorf("--user: %w", err)
	}
	uid, err := strconv.Atoi(u.Uid)
	gid, e := strconv.Atoi(u.Gid)
	if err = errors.Join(err, e); err != nil {
		return nil, fmt.Errorf("--user %s: %w", u.Username, err)
	}
	return &identity{u.Username, uid, gid}, nil
}

// checkUser finds at the start what every worker would, and warns of users that a
// worker should not share with others.
func checkUser(o *options.Options, log *slog.Logger) error {
	id, err := workerIdentity(o)
	switch {
	case err != nil:
		return err
	case id == nil && os.Geteuid() == 0:
		log.Warn("the worker stays root: what a client may do to it, it may do to the machine", "remedy", "--user "+options.DefaultUser)
	case id != nil && id.name == fallbackUser:
		log.Warn("the worker runs as a user that others may run as, too, and reach it by", "user", id.name, "remedy", "make a user "+options.DefaultUser)
	}
	return nil
}
