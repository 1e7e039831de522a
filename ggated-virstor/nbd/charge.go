package nbd

// charge gets r.op.Length bytes of memory for r.op.Data, waiting until the
// connection and the server have them.
func (c *conn) charge(r *request, p *purse) error {
	n := bufferSize(int(r.op.Length))
	switch {
	case p.takeReserve(n):
		r.reserve = true
	default:
		if err := c.chargeShared(p, n); err != nil {
			c.outstanding.Add(-1)
			return err
		}
		r.reserve = false
	}
	r.size = n
	r.buf = c.srv.pool.get(int(r.op.Length))
	r.op.Data = r.buf.mem[:r.op.Length]
	return nil
}

func (c *conn) chargeShared(p *purse, n int64) error {
	err := c.awaitWhile(func() (<-chan struct{}, bool) { return nil, p.short(n) })
	if err != nil {
		return err
	}
	p.left.Add(-n)
	if p.shared.take(n) {
		return nil
	}
	p.shared.enqueue(&c.place, n)
	for {
		granted, err := c.await(c.place.ready)
		switch {
		case err != nil:
			p.shared.cancel(&c.place)
			p.left.Add(n)
			return err
		case granted:
			return nil
		}
	}
}
