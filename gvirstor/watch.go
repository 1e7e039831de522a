package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

// watchStatus shows the status again and again until ctx ends, which is success.
// A daemon that goes away is waited for.
func (c *call) watchStatus(ctx context.Context, o *statusOptions, interval time.Duration) error {
	client, err := c.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err := c.readStatus(ctx, client, o); err != nil {
		return err // a wrong name, say: tell at once
	}
	events := watchEvents(ctx, client, interval)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for first := true; ctx.Err() == nil; first = false {
		if err := c.showStatus(ctx, client, o, first); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		case <-events:
		}
	}
	return nil
}

// watchEvents tells, until ctx ends, that something happened. It asks
// again every interval when the daemon went away.
func watchEvents(ctx context.Context, client *control.Client, interval time.Duration) <-chan struct{} {
	happened := make(chan struct{}, 1)
	go func() {
		for ctx.Err() == nil {
			forwardEvents(ctx, client, happened)
			select {
			case <-ctx.Done():
			case <-time.After(interval):
			}
		}
	}()
	return happened
}

// forwardEvents reads one stream to its end. Its errors show in the status.
func forwardEvents(ctx context.Context, client *control.Client, happened chan<- struct{}) {
	stream, err := client.Events(ctx)
	if err != nil {
		return
	}
	defer stream.Close()
	for {
		if _, err := stream.Next(); err != nil {
			return
		}
		select {
		case happened <- struct{}{}:
		default: // the last one is not shown yet
		}
	}
}

// showStatus shows one picture.
func (c *call) showStatus(ctx context.Context, client *control.Client, o *statusOptions, first bool) error {
	var picture bytes.Buffer
	st, err := c.readStatus(ctx, client, o)
	switch {
	case err == nil:
		printStatus(&picture, st, o)
		if !o.script && !o.exact {
			printActions(&picture, st.Volumes)
			for _, p := range st.Problems {
				fmt.Fprintf(&picture, "%s: %s\n", program, problemText(p))
			}
		}
	case errors.Is(err, context.Canceled) || ctx.Err() != nil:
		return nil
	default:
		fmt.Fprintf(&picture, "%s: %v\n", program, err)
	}
	return c.showPicture(&picture, first)
}

// showPicture shows a picture in place on a terminal, else below the last one with an
// empty line between.
func (c *call) showPicture(picture *bytes.Buffer, first bool) (err error) {
	if width, height, ok := c.terminal(); ok {
		_, err = c.screen().Write(inPlace([]byte(ondisk.PrintableText(picture.String())), width, height, first))
	} else {
		if !first {
			fmt.Fprintln(c.stdout)
		}
		_, err = c.stdout.Write(picture.Bytes())
	}
	if err != nil {
		return failf("Can't show the status: %w", err)
	}
	return nil
}

// Control sequences (ECMA-48) that every terminal of today takes.
const (
	clearScreen = "\x1b[2J"
	cursorHome  = "\x1b[H"
	clearLine   = "\x1b[K" // from the cursor to the end of the line
	clearBelow  = "\x1b[J"
)

// inPlace is text drawn over what is on a screen of that size, without flicker.
// What does not fit is cut.
func inPlace(text []byte, width, height int, first bool) []byte {
	var out bytes.Buffer
	if first {
		out.WriteString(clearScreen)
	}
	out.WriteString(cursorHome)
	lines := bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
	if height > 1 && len(lines) > height-1 {
		lines = lines[:height-1] // the cursor wants a line
	}
	for _, line := range lines {
		if r := bytes.Runes(line); width > 0 && len(r) > width {
			line = []byte(string(r[:width]))
		}
		out.Write(line)
		out.WriteString(clearLine + "\r\n")
	}
	out.WriteString(clearBelow)
	return out.Bytes()
}
