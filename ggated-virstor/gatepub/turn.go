package gatepub

import "time"

// turn is the right to take requests from the kernel. One receiver has it at a
// time, or it is in Publication.turns. What is in it is its holder's.
type turn struct {
	pace     pace
	canceled time.Time // the last ECANCELED
}

// waitTurn waits until the turn is the caller's.
func (p *Publication) waitTurn(r *receiver) *turn {
	t := <-p.turns
	r.Enter()
	return t
}

// passTurn lets the next receiver take requests.
func (p *Publication) passTurn(r *receiver, t *turn) {
	r.Leave()
	p.turns <- t
}

// relieve passes the turn on in place of a receiver that is stuck.
func (p *Publication) relieve(t *turn) {
	t.pace.stuck()
	p.turns <- t
}
