package platformdb_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/rollout"
	"livemend.dev/livemend/store"
	"livemend.dev/livemend/store/platformdb"
)

func job(id int64, sizes ...int) (fleet.Job, []rollout.Effect) {
	machine, effects := rollout.Begin(sizes, rollout.Policy{Silence: 10 * time.Minute, Tolerate: 1})
	return fleet.Job{ID: id, Kind: fleet.LivePatchJob, Title: "t", Job: machine, CreatedBy: "olga", CreatedAt: now}, effects
}

func task(id, org string, job int64, position int, server string, state rollout.TaskState) platformdb.Task {
	return platformdb.Task{Organisation: org, Position: position, Task: fleet.Task{ID: id, Job: job, Server: server, Hostname: "h " + server, Action: "apply",
		Path: "p", SHA256: "s", Length: 4, Level: 1, BuildID: "b", Task: rollout.Task{Stage: position, State: state}, ChangedAt: now}}
}

func insert(t *testing.T, db *store.DB, org string, j fleet.Job, tasks ...platformdb.Task) {
	t.Helper()
	do(t, db, func(ctx context.Context, tx *store.Tx) error {
		if err := platformdb.InsertJob(ctx, tx, org, j); err != nil {
			return err
		}
		for _, task := range tasks {
			if err := platformdb.InsertTask(ctx, tx, task); err != nil {
				return err
			}
		}
		return nil
	})
}

func ids(tasks []platformdb.Task) []string {
	var out []string
	for _, t := range tasks {
		out = append(out, t.ID)
	}
	return out
}

func TestJobs(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		for want := range int64(2) {
			do(t, db, func(ctx context.Context, tx *store.Tx) error {
				n, err := platformdb.NextJob(ctx, tx, "one")
				same(t, "number", want+1, n)
				return err
			})
		}
		first, _ := job(1, 1, 1)
		insert(t, db, "one", first, task("T1", "one", 1, 0, "S1", rollout.Waiting), task("T2", "one", 1, 1, "S2", rollout.Waiting))
		other, _ := job(1)
		insert(t, db, "two", other)
		same(t, "job", first, got[fleet.Job](t)(platformdb.Job(ctx, db, "one", 1)))
		if _, err := platformdb.Job(ctx, db, "one", 2); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("no job: %v", err)
		}
		first.State, first.Stage, first.Halted, first.Reason, first.FinishedAt = rollout.JobStopped, 1, true, "why", now
		do(t, db, func(ctx context.Context, tx *store.Tx) error {
			return errors.Join(platformdb.SaveJob(ctx, tx, "one", first), platformdb.OpenStage(ctx, tx, "one", 1, 0, now), platformdb.SkipWaiting(ctx, tx, "one", 1, "why", now))
		})
		same(t, "saved job", first, got[fleet.Job](t)(platformdb.Job(ctx, db, "one", 1)))
		tasks := got[[]platformdb.Task](t)(platformdb.JobTasks(ctx, db, "one", 1))
		if tasks[0].State != rollout.Checking || tasks[1].State != rollout.Skipped || tasks[1].Reason != "why" || !tasks[1].FinishedAt.Equal(now) {
			t.Errorf("tasks %+v", tasks)
		}
		same(t, "tasks of the other organisation", []string(nil), ids(got[[]platformdb.Task](t)(platformdb.JobTasks(ctx, db, "two", 1))))
		for _, tt := range []struct {
			kind  fleet.JobKind
			state rollout.JobState
			want  int64
		}{{"", "", 1}, {fleet.LivePatchJob, rollout.JobStopped, 1}, {fleet.ScanJob, "", 0}, {"", rollout.JobRunning, 0}} {
			list, total, err := platformdb.Jobs(ctx, db, "one", tt.kind, tt.state, 100, 10)
			if err != nil || total != tt.want || int64(len(list)) != tt.want {
				t.Errorf("%+v: %d of %d, %v", tt, len(list), total, err)
			}
		}
	})
}

func TestTasks(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		j, _ := job(1, 9)
		signed, sent := task("T3", "one", 1, 3, "S3", rollout.Signed), task("T4", "one", 1, 4, "S3", rollout.Sent)
		signed.Counter, signed.Manifest, signed.Deadline, signed.Issues = 1, []byte("manifest"), now.Add(time.Minute), 1
		sent.Counter, sent.Deadline = 2, now
		lost := task("T6", "one", 1, 6, "S4", rollout.Checking)
		lost.Issues, lost.ChangedAt = 1, now.Add(time.Hour)
		insert(t, db, "one", j, task("T1", "one", 1, 1, "S1", rollout.Checking), task("T2", "one", 1, 2, "S3", rollout.Checking), signed, sent, lost,
			task("T5", "one", 1, 5, "S5", rollout.Done))

		same(t, "task", signed, got[platformdb.Task](t)(platformdb.TaskByID(ctx, db, "T3")))
		same(t, "to check: a lost order first, no second order for a busy server", []string{"T6", "T1"}, ids(got[[]platformdb.Task](t)(platformdb.TasksToCheck(ctx, db, 10))))
		same(t, "order: an unanswered one first", "T4", got[platformdb.Task](t)(platformdb.OrderFor(ctx, db, "S3")).ID)
		if _, err := platformdb.OrderFor(ctx, db, "S1"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("no order: %v", err)
		}
		same(t, "overdue", []string{"T4"}, ids(got[[]platformdb.Task](t)(platformdb.OverdueTasks(ctx, db, now, 10))))
		same(t, "next deadline", now, got[time.Time](t)(platformdb.NextDeadline(ctx, db)))
		sent.State, sent.Reason, sent.Deadline, sent.FinishedAt, sent.ChangedAt = rollout.Failed, "why", time.Time{}, now, now
		do(t, db, func(ctx context.Context, tx *store.Tx) error { return platformdb.SaveTask(ctx, tx, sent) })
		same(t, "saved", sent, got[platformdb.Task](t)(platformdb.TaskByID(ctx, db, "T4")))
		same(t, "order after", "T3", got[platformdb.Task](t)(platformdb.OrderFor(ctx, db, "S3")).ID)
		same(t, "of a server", []string{"T4", "T3"}, ids(got[[]platformdb.Task](t)(platformdb.ServerTasks(ctx, db, "one", "S3", 2))))

		checks := []fleet.Check{{Task: "T3", Name: "a", Outcome: fleet.CheckPassed, Detail: "d", At: now}, {Task: "T3", Name: "b", Outcome: fleet.CheckFailed, At: now}}
		result := fleet.Result{Task: "T3", Outcome: "done", Manifest: "m", Processes: []fleet.Process{{PID: 1, StopNS: 5}}, ReceivedAt: now, Report: []byte("report")}
		do(t, db, func(ctx context.Context, tx *store.Tx) error {
			if err := errors.Join(platformdb.ReplaceChecks(ctx, tx, "T3", checks[:1]), platformdb.ReplaceChecks(ctx, tx, "T3", checks)); err != nil {
				return err
			}
			for _, want := range []bool{true, false} {
				if first, err := platformdb.InsertResult(ctx, tx, result); err != nil || first != want {
					return fmt.Errorf("result: %v, %w", first, err)
				}
			}
			return nil
		})
		same(t, "checks", checks, got[[]fleet.Check](t)(platformdb.JobChecks(ctx, db, "one", 1)))
		result.Report = nil
		same(t, "results", []fleet.Result{result}, got[[]fleet.Result](t)(platformdb.JobResults(ctx, db, "one", 1)))
		same(t, "results of the other organisation", 0, len(got[[]fleet.Result](t)(platformdb.JobResults(ctx, db, "two", 1))))
	})
}
