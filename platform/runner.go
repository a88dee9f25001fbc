package platform

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/rollout"
	"livemend.dev/livemend/signer"
	"livemend.dev/livemend/store"
	"livemend.dev/livemend/store/platformdb"
	"livemend.dev/livemend/trust"
)

// Pace of the runner.
const (
	batch      = 100
	retryAfter = 2 * time.Second // after trouble of the platform's own
)

// Run moves jobs forward until ctx ends, and keeps the repository's copy fresh.
// All state is in the database, so it goes on where an earlier Run stopped.
func (s *Service) Run(ctx context.Context) error {
	var background sync.WaitGroup
	defer background.Wait()
	background.Go(func() { s.catchUp(ctx) })
	renew := time.NewTicker(renewEvery)
	defer renew.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		next, err := s.advance(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			s.log.ErrorContext(ctx, "moving jobs forward; trying again", "error", err)
			next = s.now().Add(retryAfter)
		}
		if next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(max(next.Sub(s.now()), time.Millisecond))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.wake:
		case <-timer.C:
		case <-renew.C:
			s.renew(ctx)
		}
	}
}

// renew refreshes the repository in the background, once somebody has looked at
// it for the first time. refresh logs what goes wrong.
func (s *Service) renew(ctx context.Context) {
	state, err := platformdb.Catalogue(ctx, s.db)
	if err != nil {
		s.log.ErrorContext(ctx, "reading the catalogue's state", "error", err)
		return
	}
	if !state.RefreshedAt.IsZero() {
		_, _ = s.refresh(ctx, freshFor) // the reason is logged and stored by refresh
	}
}

// advance does everything that can be done now and returns when to look again
// at the latest; zero = when woken. A task that cannot be moved, because of its
// own rows, is logged and set aside until later: it must not keep the tasks of
// everybody else from their turn.
func (s *Service) advance(ctx context.Context) (time.Time, error) {
	aside := map[string]bool{}
	for {
		if err := s.fallSilent(ctx, aside); err != nil {
			return time.Time{}, err
		}
		tasks, err := platformdb.TasksToCheck(ctx, s.db, batch+len(aside))
		if err != nil {
			return time.Time{}, err
		}
		tasks = slices.DeleteFunc(tasks, func(t platformdb.Task) bool { return aside[t.ID] })
		if len(tasks) == 0 {
			break
		}
		busy := map[string]bool{}
		for _, t := range tasks {
			if busy[t.Server] {
				continue // one order at a time for each server
			}
			busy[t.Server] = true
			if err := s.setAside(ctx, t, s.checkTask(ctx, t), aside); err != nil {
				return time.Time{}, err
			}
		}
	}
	next, err := platformdb.NextDeadline(ctx, s.db)
	if again := s.now().Add(retryAfter); err == nil && len(aside) > 0 && (next.IsZero() || next.Before(again)) {
		next = again
	}
	return next, err
}

// setAside logs why one task could not be moved and remembers it. Trouble that
// is not the task's own, such as a signer that is gone, is returned: it would
// only repeat with every other task.
func (s *Service) setAside(ctx context.Context, t platformdb.Task, err error, aside map[string]bool) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, signer.ErrGone):
		return fmt.Errorf("task %s: %w", t.ID, err)
	}
	aside[t.ID] = true
	s.log.ErrorContext(ctx, "moving a task forward; the others go on, this one is tried again", "task", t.ID, "job", t.Job, "server", t.Server, "error", err)
	return nil
}

// fallSilent ends tasks whose servers said nothing for too long.
func (s *Service) fallSilent(ctx context.Context, aside map[string]bool) error {
	overdue, err := platformdb.OverdueTasks(ctx, s.db, s.now(), batch+len(aside))
	if err != nil {
		return err
	}
	for _, t := range overdue {
		if aside[t.ID] {
			continue
		}
		if err := s.setAside(ctx, t, s.happen(ctx, t.ID, rollout.Event{Kind: rollout.Ticked}, nil), aside); err != nil {
			return err
		}
	}
	return nil
}

// happen puts an event of a task through the state machine in a transaction of
// its own. before, unless nil, runs in it first.
func (s *Service) happen(ctx context.Context, task string, e rollout.Event, before func(*store.Tx, *platformdb.Task, *followUp) error) error {
	var after followUp
	err := s.db.InTx(ctx, func(tx *store.Tx) error {
		after = followUp{}
		t, err := platformdb.TaskByID(ctx, tx, task)
		if err != nil {
			return err
		}
		if before != nil {
			if err := before(tx, &t, &after); err != nil {
				return err
			}
		}
		_, err = s.step(ctx, tx, &t, e, &after)
		return err
	})
	if err == nil {
		s.follow(after)
	}
	return err
}

// checkTask runs the security checks of a task, has its order signed and checks
// that too.
func (s *Service) checkTask(ctx context.Context, task platformdb.Task) error {
	job, err := platformdb.Job(ctx, s.db, task.Organisation, task.Job)
	if err != nil {
		return err
	}
	if job.Halted && task.Issues == 0 {
		// No order goes out for a stopped job, so none is checked or signed either.
		return s.happen(ctx, task.ID, rollout.Event{Kind: rollout.Held}, nil)
	}
	server, err := platformdb.Server(ctx, s.db, task.Organisation, task.Server)
	if errors.Is(err, store.ErrNotFound) {
		return s.happen(ctx, task.ID, rollout.Event{Kind: rollout.CheckFailed, Reason: "the server was removed"}, nil)
	}
	if err != nil {
		return err
	}
	c, err := s.inspect(ctx, task, server)
	if err != nil {
		return err
	}
	var counter int64
	var envelope []byte
	if c.failure == "" {
		if counter, envelope, err = s.order(ctx, c); err != nil {
			return err
		}
	} else {
		c.run(checkDirector, "", nil)
		c.run(checkAgree, "", nil)
	}
	event := rollout.Event{Kind: rollout.OrderSigned}
	if c.failure != "" {
		event = rollout.Event{Kind: rollout.CheckFailed, Reason: c.failure}
	}
	return s.happen(ctx, task.ID, event, func(tx *store.Tx, t *platformdb.Task, after *followUp) error {
		if t.State != rollout.Checking {
			return nil // it ended meanwhile: by its late answer, or by a person
		}
		if event.Kind == rollout.OrderSigned {
			t.Counter, t.Manifest = counter, envelope
		}
		if err := platformdb.ReplaceChecks(ctx, tx, t.ID, c.checks); err != nil {
			return err
		}
		return s.taskEvent(ctx, tx, *t, "check", checksText(c.checks), after)
	})
}

func checksText(checks []fleet.Check) string {
	n := map[fleet.CheckOutcome]int{}
	for _, c := range checks {
		n[c.Outcome]++
	}
	return fmt.Sprintf("security checks: %d passed, %d failed, %d skipped", n[fleet.CheckPassed], n[fleet.CheckFailed], n[fleet.CheckSkipped])
}

// order allocates the next counter, durably, and has the manifest signed; then
// it verifies what came back as the agent will.
func (s *Service) order(ctx context.Context, c *inspection) (counter int64, envelope []byte, err error) {
	if err := s.pace.Wait(ctx); err != nil {
		return 0, nil, err
	}
	err = s.db.InTx(ctx, func(tx *store.Tx) (err error) {
		counter, err = platformdb.NextCounter(ctx, tx, c.server.ID)
		return err
	})
	if err != nil {
		return 0, nil, err
	}
	t, now := c.task, s.now()
	manifest := &trust.Manifest{SystemID: t.Server, KeyHash: trust.HashKey(c.server.IdentityKey), Counter: counter,
		Job: strconv.FormatInt(t.Job, 10), Task: t.ID, Action: trust.Action(t.Action), Path: t.Path, Length: t.Length, SHA256: t.SHA256,
		Level: t.Level, BuildID: t.BuildID, Scanner: t.Scanner, Issued: now.Unix(), NotAfter: now.Add(s.cfg.Silence).Unix()}
	if envelope, err = s.cfg.Sign(ctx, manifest); err != nil {
		if errors.Is(err, signer.ErrGone) || ctx.Err() != nil {
			return 0, nil, err // it is started again; so is this
		}
		c.run(checkDirector, "", func() (string, error) { return "", fmt.Errorf("the director's signer refused: %w", err) })
		c.run(checkAgree, "", nil)
		return counter, nil, nil
	}
	c.verifyOrder(envelope, counter, now)
	return counter, envelope, nil
}

// verifyOrder makes the checks that need the signed order.
func (c *inspection) verifyOrder(envelope []byte, counter int64, now time.Time) {
	var signed *trust.Manifest
	c.run(checkDirector, "", func() (string, error) {
		who := trust.Identity{SystemID: c.server.ID, KeyHash: trust.HashKey(c.server.IdentityKey)}
		m, err := trust.VerifyManifest(envelope, c.s.cfg.Bundle.Director, who, counter-1, now)
		signed = m
		return fmt.Sprintf("signed for %s with counter %d, good for %s", c.server.ID, counter, c.s.cfg.Silence), err
	})
	revert := ""
	if c.task.Action == string(trust.Revert) {
		revert = "a revert needs the director alone"
	}
	c.run(checkAgree, revert, func() (string, error) {
		var md *patch.Metadata
		if c.task.Action != string(trust.Scan) {
			md = c.md
		}
		return "director and repository name the same path, length, hash, level and build-id", trust.Agree(signed, c.target, md)
	})
}
