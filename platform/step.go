package platform

import (
	"context"
	"errors"
	"fmt"

	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/rollout"
	"livemend.dev/livemend/store"
	"livemend.dev/livemend/store/platformdb"
)

// followUp is what to do once a transaction is durable: whom to wake. A
// transaction may run again, so it starts from an empty one each time.
type followUp struct {
	runner bool
	agents []string // servers with an order
	orgs   []string // with new events
}

func (s *Service) follow(f followUp) {
	if f.runner {
		nudge(s.wake)
	}
	for _, server := range f.agents {
		s.hub.call(server)
	}
	for _, org := range f.orgs {
		s.hub.publish(org)
	}
}

// jobEvent appends an event about a job as a whole.
func (s *Service) jobEvent(ctx context.Context, tx *store.Tx, org string, job int64, text string, after *followUp) error {
	after.orgs = append(after.orgs, org)
	return platformdb.AddEvent(ctx, tx, org, fleet.Event{Kind: "job", Job: job, Text: text, At: s.now()})
}

// taskEvent appends an event about one task.
func (s *Service) taskEvent(ctx context.Context, tx *store.Tx, t platformdb.Task, kind, text string, after *followUp) error {
	after.orgs = append(after.orgs, t.Organisation)
	return platformdb.AddEvent(ctx, tx, t.Organisation, fleet.Event{Kind: kind, Job: t.Job, Task: t.ID, Server: t.Server, Text: t.Hostname + ": " + text, At: s.now()})
}

// step puts an event of one task through the state machine and stores what
// follows. It reports whether anything changed. t must have been read in tx.
func (s *Service) step(ctx context.Context, tx *store.Tx, t *platformdb.Task, e rollout.Event, after *followUp) (bool, error) {
	job, err := platformdb.Job(ctx, tx, t.Organisation, t.Job)
	if err != nil {
		return false, err
	}
	machine, next, effects := rollout.Step(job.Job, t.Task.Task, e, s.now())
	if next == t.Task.Task {
		return false, nil
	}
	was := t.State
	t.Task.Task, t.ChangedAt = next, s.now()
	if next.State.Final() {
		t.FinishedAt = s.now()
	}
	if err := platformdb.SaveTask(ctx, tx, *t); err != nil {
		return false, err
	}
	if next.State != was {
		text := string(next.State)
		if next.Reason != "" {
			text += ": " + next.Reason
		}
		if err := s.taskEvent(ctx, tx, *t, "task", text, after); err != nil {
			return false, err
		}
	}
	for _, effect := range effects {
		switch effect.Kind {
		case rollout.Deliver:
			after.agents = append(after.agents, t.Server)
		case rollout.CheckTask:
			after.runner = true
		}
	}
	if next.State.Final() {
		after.runner = true // the server may have a task that waited for this one
	}
	job.Job = machine
	return true, s.carryOut(ctx, tx, t.Organisation, &job, effects, after)
}

// carryOut stores a job and does what its state machine asks for.
func (s *Service) carryOut(ctx context.Context, tx *store.Tx, org string, job *fleet.Job, effects []rollout.Effect, after *followUp) error {
	for _, e := range effects {
		var err error
		switch e.Kind {
		case rollout.OpenStage:
			after.runner = true
			err = errors.Join(platformdb.OpenStage(ctx, tx, org, job.ID, e.Stage, s.now()),
				s.jobEvent(ctx, tx, org, job.ID, fmt.Sprintf("job %d: stage %d of %d opened", job.ID, e.Stage+1, len(job.Stages)), after))
		case rollout.SkipWaiting:
			err = platformdb.SkipWaiting(ctx, tx, org, job.ID, e.Reason, s.now())
		case rollout.Finish:
			job.FinishedAt = s.now()
			err = s.jobEvent(ctx, tx, org, job.ID, fmt.Sprintf("job %d ended: %s", job.ID, job.State), after)
		}
		if err != nil {
			return err
		}
	}
	return platformdb.SaveJob(ctx, tx, org, *job)
}
