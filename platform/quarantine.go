package platform

import (
	"context"
	"errors"
	"fmt"

	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/rollout"
	"livemend.dev/livemend/store"
	"livemend.dev/livemend/store/platformdb"
	"livemend.dev/livemend/wire"
)

// newlyBarred returns what of list the server's last inventory did not say yet.
// It reads that inventory, so it comes before the new one is stored.
func newlyBarred(ctx context.Context, tx *store.Tx, server string, list []wire.Quarantined) ([]wire.Quarantined, error) {
	if len(list) == 0 {
		return nil, nil
	}
	known := map[string]bool{}
	old, err := platformdb.Inventory(ctx, tx, server)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	if err == nil {
		before, err := wire.DecodeSnapshot(old)
		if err != nil {
			return nil, fmt.Errorf("reading the stored inventory of %s: %w", server, err)
		}
		for _, q := range before.Quarantined {
			known[q.SHA256] = true
		}
	}
	var out []wire.Quarantined
	for _, q := range list {
		if !known[q.SHA256] {
			known[q.SHA256] = true
			out = append(out, q)
		}
	}
	return out, nil
}

// barred notes that a server put a patch into quarantine, and starts no further
// task of a job that would bring the same patch to other servers.
func (s *Service) barred(ctx context.Context, tx *store.Tx, server fleet.Server, q wire.Quarantined, after *followUp) error {
	after.orgs = append(after.orgs, server.Organisation)
	text := fmt.Sprintf("%s put %s into quarantine: %s", server.Hostname, q.Path, q.Reason)
	if err := platformdb.AddEvent(ctx, tx, server.Organisation, fleet.Event{Kind: "alarm", Server: server.ID, Text: text, At: s.now()}); err != nil {
		return err
	}
	jobs, err := platformdb.JobsApplying(ctx, tx, server.Organisation, q.Path, q.SHA256)
	if err != nil {
		return err
	}
	for _, id := range jobs {
		job, err := platformdb.Job(ctx, tx, server.Organisation, id)
		if err != nil {
			return err
		}
		machine, effects := rollout.Halt(job.Job, text)
		job.Job = machine
		after.runner = true // it lets go of what waits for its checks
		if err := s.jobEvent(ctx, tx, server.Organisation, id, fmt.Sprintf("job %d is being stopped: %s", id, text), after); err != nil {
			return err
		}
		if err := s.carryOut(ctx, tx, server.Organisation, &job, effects, after); err != nil {
			return err
		}
	}
	return nil
}
