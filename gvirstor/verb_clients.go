package main

import (
	"context"
	"fmt"
	"io"
	"os/user"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
)

func clientsCommand() *command {
	var json bool
	disconnect := int64(-1)
	return &command{
		name:     "clients",
		brief:    "Shows who is connected, and disconnects",
		also:     "connections",
		operands: "[-v] [--json] [--disconnect id] [name]",
		verbose:  true,
		options: func(f *options) {
			f.number(&disconnect, "", "disconnect")
			f.flag(&json, "", "json")
		},
		run: func(ctx context.Context, c *call) error { return c.clients(ctx, json, disconnect) },
		about: `Shows who is connected through NBD to a volume, or to any, with those that have
not chosen one yet: address, or process and user of a unix socket, the name in
the certificate, requests that are not answered, bytes read and written, since
when, and for how long nothing was asked for.

--disconnect id   end that connection; what it wrote and was not answered may
                  be done. It may connect again.
--json            everything, sizes in bytes`,
		example: "gvirstor clients mydata",
	}
}

func (c *call) clients(ctx context.Context, json bool, disconnect int64) error {
	if len(c.operands) > 1 {
		return c.wrongNumber()
	}
	if json && disconnect >= 0 {
		return c.asResult(ctx, func(c *call) error { return c.clients(ctx, false, disconnect) })
	}
	client, volume, err := c.clientsOf(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	if disconnect >= 0 {
		if err := client.Disconnect(ctx, control.DisconnectRequest{ID: uint64(disconnect), Volume: volume}); err != nil {
			return failf("Can't disconnect client %d: %w", disconnect, err)
		}
		return nil
	}
	all, err := client.Clients(ctx)
	if err != nil {
		return failf("Can't ask the daemon for its clients: %w", err)
	}
	shown := []control.ClientStatus{}
	for _, s := range all.Clients {
		if volume == "" || s.Volume == volume {
			shown = append(shown, s)
		}
	}
	if json {
		return printJSON(c.stdout, control.Clients{Clients: shown})
	}
	return printClients(c.stdout, shown, time.Now())
}

// clientsOf reaches the daemon, and finds the volume if one is named.
func (c *call) clientsOf(ctx context.Context) (*control.Client, string, error) {
	if len(c.operands) == 0 {
		client, err := c.connect()
		return client, "", err
	}
	client, v, err := c.volumeOf(ctx, c.operands[0])
	return client, v.Name, err
}

// printClients prints a table; nothing without clients.
func printClients(w io.Writer, all []control.ClientStatus, now time.Time) error {
	if len(all) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tClient\tTLS\tVolume\tAccess\tIn flight\tRead\tWritten\tConnected\tIdle")
	for _, s := range all {
		volume, access := s.Volume, "rw"
		if s.ReadOnly {
			access = "ro"
		}
		if volume == "" {
			volume, access = "(choosing)", "-"
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.ID, whoText(s), tlsText(s), volume, access, flightText(s),
			humanize(int64(s.BytesRead)), humanize(int64(s.BytesWritten)), ageText(now.Sub(s.Since)), ageText(time.Duration(s.IdleSeconds)*time.Second))
	}
	return t.Flush()
}

// whoText is the address, or the process and its user.
func whoText(s control.ClientStatus) string {
	if s.Address != "" {
		return s.Address
	}
	if s.UID == nil {
		return "unix"
	}
	name := strconv.FormatUint(uint64(*s.UID), 10)
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	if s.PID == 0 {
		return "user " + name
	}
	return fmt.Sprintf("pid %d, user %s", s.PID, name)
}

func tlsText(s control.ClientStatus) string {
	switch {
	case s.TLS == "":
		return "-"
	case s.Name == "":
		return s.TLS
	}
	return shownName(s.Name)
}

// shownName is a name that somebody else chose, as a terminal may show it.
func shownName(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r == unicode.ReplacementChar || r == '"' || !strconv.IsPrint(r) }) < 0 {
		return s
	}
	return strconv.QuoteToASCII(s)
}

func flightText(s control.ClientStatus) string {
	if s.Held > 0 {
		return fmt.Sprintf("%d (%d held)", s.InFlight, s.Held)
	}
	return strconv.FormatInt(s.InFlight, 10)
}

// ageText is a time in one or two units: 12s, 3m, 5h, 12d.
func ageText(d time.Duration) string {
	d = max(0, d)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}
