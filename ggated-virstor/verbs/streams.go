package verbs

import (
	"context"
	"sync/atomic"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/control"
	"github.com/gvirstor/gvirstor/ondisk"
)

// Read reads a snapshot.
func (e Engine) Read(ctx context.Context, name string, r control.ReadRequest) (control.Data, error) {
	h, err := e.head(name)
	if err != nil {
		return control.Data{}, err
	}
	defer h.Release()
	d, info, letGo, err := snapshotOf(h, r.Snapshot)
	if err != nil {
		return control.Data{}, Classify(err)
	}
	defer letGo()
	if info.ID != r.ID {
		return control.Data{}, control.Errorf(control.NotFound, "%s@%s is another snapshot by now", h.Name(), ondisk.Printable(r.Snapshot))
	}
	b := make([]byte, r.Length)
	err = e.do(ctx, d, virstor.Request{Op: virstor.OpRead, Offset: r.Offset, Length: int64(len(b)), Data: b})
	return control.Data{Data: b}, Classify(err)
}

// Write writes what is received.
func (e Engine) Write(ctx context.Context, name string, r control.WriteRequest) error {
	h, err := e.head(name)
	if err != nil {
		return err
	}
	defer h.Release()
	if r.Last {
		defer h.Unclaim(r.Claim)
	}
	if r.Length == 0 {
		return nil
	}
	q := virstor.Request{Op: virstor.OpWriteZeroes, Offset: r.Offset, Length: r.Length, Claim: r.Claim}
	if r.Data != nil {
		q.Op, q.Data = virstor.OpWrite, r.Data
	}
	return Classify(e.do(ctx, h, q))
}

// call is one request that is waited for.
type call struct {
	ctx  context.Context
	done chan struct{}
	held atomic.Bool
}

func (c *call) Complete(*virstor.Request) { close(c.done) }

// Held implements virstor.HeldNotifier: it waits for space as long as somebody waits for it.
func (c *call) Held(*virstor.Request) bool {
	c.held.Store(true)
	return c.ctx.Err() == nil
}

// do submits a request and waits for it. One that waits for space ends with ctx.
func (e Engine) do(ctx context.Context, d disk, r virstor.Request) error {
	c := &call{ctx: ctx, done: make(chan struct{})}
	r.Flags, r.Done = virstor.MayBlock, c
	d.Submit(&r)
	select {
	case <-c.done:
		return r.Err
	case <-ctx.Done():
	}
	if c.held.Load() {
		d.EndHeld(&r)
	}
	<-c.done
	return r.Err
}

// Receive begins to receive a stream: it claims the volume, and refuses what does not fit
// it.
func (e Engine) Receive(ctx context.Context, name string, r control.ReceiveRequest) (res control.ReceiveResult, err error) {
	h, err := e.head(name)
	if err != nil {
		return res, err
	}
	defer h.Release()
	if !r.DryRun {
		if err := e.Host.Drain(ctx); err != nil {
			return res, Classify(err)
		}
		if res.Claim, err = h.Claim(); err != nil {
			return res, Classify(err)
		}
		defer func() {
			if err != nil {
				h.Unclaim(res.Claim)
			}
		}()
	}
	res.Size = h.Size()
	if err := fits(h, r); err != nil {
		return res, err
	}
	if r.Base != 0 || r.Mark != "" {
		return res, unchangedSince(h, r)
	}
	if res.Lost = allocated(h); res.Lost == 0 && h.Snapshots() == nil {
		return res, nil
	}
	if !r.Force {
		return res, control.Errorf(control.Invalid, "%s is not empty: %d bytes of chunks that it holds now would be lost (its %d snapshots stay); with -f it is received all the same",
			h.Name(), res.Lost, len(h.Snapshots()))
	}
	if r.DryRun {
		return res, nil
	}
	return res, Classify(e.do(ctx, h, virstor.Request{Op: virstor.OpWriteZeroes, Length: res.Size, Claim: res.Claim}))
}

// fits refuses a stream that the volume has no place for, or that it has already.
func fits(h *virstor.Head, r control.ReceiveRequest) error {
	if err := ondisk.CheckMapName(r.Snapshot); err != nil {
		return Classify(err)
	}
	if size := h.Size(); r.Size > size {
		return control.Errorf(control.Invalid, "the stream is of a volume of %d bytes, %s has %d", r.Size, h.Name(), size)
	}
	if r.GUID == 0 {
		return control.Errorf(control.Invalid, "a stream of a snapshot without a GUID")
	}
	for _, s := range h.Snapshots() {
		switch {
		case s.GUID == r.GUID:
			return control.Errorf(control.Invalid, "%s@%s is what the stream would bring", h.Name(), s.Name)
		case s.Name == r.Snapshot:
			return control.Errorf(control.Invalid, "there is another snapshot %s@%s", h.Name(), s.Name)
		}
	}
	return nil
}

// unchangedSince refuses a volume that is not what the stream goes on from: the newest
// snapshot must be that on which the stream builds, or, when it was cut off before, the mark
// that was left then, behind that; and nothing may have been written since.
func unchangedSince(h *virstor.Head, r control.ReceiveRequest) error {
	all := h.Snapshots()
	before := all
	if r.Mark != "" {
		if len(all) == 0 || all[len(all)-1].Name != r.Mark {
			return control.Errorf(control.Invalid, "%s has no newest snapshot called %s, from which the stream goes on", h.Name(), ondisk.Printable(r.Mark))
		}
		before = all[:len(all)-1]
	}
	if r.Base != 0 && (len(before) == 0 || before[len(before)-1].GUID != r.Base) {
		return control.Errorf(control.Invalid, "the newest snapshot of %s is not the one on which the stream builds, of GUID %v", h.Name(), r.Base)
	}
	newest := all[len(all)-1].Name
	changes, err := h.ChangesSince(newest)
	if err != nil {
		return Classify(err)
	}
	defer changes.Close()
	changed := int64(0)
	changes.Ranges(0, h.Size(), func(length int64, is bool) bool {
		if is {
			changed += length
		}
		return true
	})
	if changed > 0 {
		return control.Errorf(control.Invalid, "%s was written to since %s@%s, %d bytes", h.Name(), h.Name(), newest, changed)
	}
	return nil
}

// allocated is how much of the volume has chunks, bytes.
func allocated(h *virstor.Head) (bytes int64) {
	h.Extents(0, h.Size(), func(length int64, allocated bool) bool {
		if allocated {
			bytes += length
		}
		return true
	})
	return bytes
}
