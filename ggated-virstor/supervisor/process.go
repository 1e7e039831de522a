package supervisor

import (
	"context"
	"time"

	"github.com/gvirstor/gvirstor/ggated-virstor/supervisor/internal/fdrpc"
	"github.com/gvirstor/gvirstor/ggated-virstor/web"
)

// methodProcess tells a worker what the system says of it. → []web.Figure
const methodProcess = "process"

// processPatience is how long a scrape waits for it.
const processPatience = 5 * time.Second

// Process are the figures of this process, which it cannot read itself.
func (c *Client) Process() (figures []web.Figure, err error) {
	ctx, cancel := context.WithTimeout(c.peer.Context(), processPatience)
	defer cancel()
	_, err = c.peer.Call(ctx, methodProcess, struct{}{}, &figures)
	return figures, err
}

func (s *Supervisor) process(w *worker) (fdrpc.Reply, error) {
	if w.cmd == nil {
		return fdrpc.Reply{}, nil
	}
	figures, err := web.ProcessFigures(w.cmd.Process.Pid)
	return fdrpc.Reply{Body: figures}, err
}
