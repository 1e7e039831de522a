package supervisor

import (
	"context"
	"errors"

	"github.com/gvirstor/gvirstor/ggated-virstor/supervisor/internal/fdrpc"
)

// Configuration is what a worker, which opens no files, is told of the one that the
// supervisor has read.
type Configuration struct {
	Found bool              `json:"found"` // there is a file
	Text  []byte            `json:"text"`  // of it
	Names map[string]string `json:"names"` // of providers, as written, and in full
	Own   Defaults          `json:"own"`
}

// Defaults are the options that are others for root, who started the supervisor, than for
// the user that the worker has become.
type Defaults struct {
	Root      bool   `json:"root"`
	Control   string `json:"control"`
	RunDir    string `json:"run_dir"`
	BackupDir string `json:"backup_dir"`
	StateDir  string `json:"state_dir"`
}

// methodConfiguration → Configuration, as it was read last; the worker names no
// file.
const methodConfiguration = "configuration"

// configuration answers methodConfiguration.
func (s *Supervisor) configuration() (fdrpc.Reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reloadErr != nil {
		return fdrpc.Reply{}, s.reloadErr
	}
	if s.config == nil {
		return fdrpc.Reply{}, errors.New("the supervisor has read no configuration")
	}
	return fdrpc.Reply{Body: s.config}, nil
}

// Configuration is what the supervisor has read of it last.
func (c *Client) Configuration(ctx context.Context) (conf Configuration, err error) {
	_, err = c.peer.Call(ctx, methodConfiguration, struct{}{}, &conf)
	return conf, err
}
