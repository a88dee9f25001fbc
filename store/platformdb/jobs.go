package platformdb

import (
	"context"
	"time"

	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/rollout"
	"livemend.dev/livemend/store"
	"livemend.dev/livemend/trust"
)

const jobColumns = `id, kind, title, state, stage, halted, reason, stages, silence, tolerate, created_by, created_at, finished_at`

func scanJob(r store.Row) (j fleet.Job, err error) {
	var stages string
	var silence, created, finished int64
	if err = r.Scan(&j.ID, &j.Kind, &j.Title, &j.State, &j.Stage, &j.Halted, &j.Reason, &stages, &silence, &j.Policy.Tolerate,
		&j.CreatedBy, &created, &finished); err != nil {
		return j, err
	}
	j.Policy.Silence = time.Duration(silence) * time.Microsecond
	times{{&created, &j.CreatedAt}, {&finished, &j.FinishedAt}}.set()
	return j, decode("stages", stages, &j.Stages)
}

// InsertJob stores a new job.
func InsertJob(ctx context.Context, tx *store.Tx, org string, j fleet.Job) error {
	stages, err := encode(j.Stages)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO platform_job (organisation_id, `+jobColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)`,
		org, j.ID, string(j.Kind), j.Title, string(j.State), j.Stage, j.Halted, j.Reason, stages, j.Policy.Silence.Microseconds(), j.Policy.Tolerate,
		j.CreatedBy, store.Micros(j.CreatedAt), store.Micros(j.FinishedAt))
	return err
}

// SaveJob stores where a job stands.
func SaveJob(ctx context.Context, tx *store.Tx, org string, j fleet.Job) error {
	stages, err := encode(j.Stages)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `UPDATE platform_job SET state = $3, stage = $4, halted = $5, reason = $6, stages = $7, finished_at = $8 WHERE organisation_id = $1 AND id = $2`,
		org, j.ID, string(j.State), j.Stage, j.Halted, j.Reason, stages, store.Micros(j.FinishedAt))
	return err
}

// Job returns one job, or store.ErrNotFound.
func Job(ctx context.Context, q store.Querier, org string, id int64) (fleet.Job, error) {
	return store.One(ctx, q, scanJob, `SELECT `+jobColumns+` FROM platform_job WHERE organisation_id = $1 AND id = $2`, org, id)
}

// Jobs returns a page of jobs with ids below before, newest first, and how many
// the filter leaves in all. An empty kind or state does not narrow.
func Jobs(ctx context.Context, q store.Querier, org string, kind fleet.JobKind, state rollout.JobState, before int64, limit int) ([]fleet.Job, int64, error) {
	const where = ` FROM platform_job WHERE organisation_id = $1 AND ($2 = '' OR kind = $2) AND ($3 = '' OR state = $3)`
	total, err := store.One(ctx, q, store.Scalar[int64], `SELECT count(*)`+where, org, string(kind), string(state))
	if err != nil {
		return nil, 0, err
	}
	jobs, err := store.All(ctx, q, scanJob, `SELECT `+jobColumns+where+` AND id < $4 ORDER BY id DESC LIMIT $5`, org, string(kind), string(state), before, limit)
	return jobs, total, err
}

// JobsApplying returns the organisation's jobs that still start tasks and have
// one that applies the artifact of a patch.
func JobsApplying(ctx context.Context, q store.Querier, org, path, sha256 string) ([]int64, error) {
	return store.All(ctx, q, store.Scalar[int64], `SELECT j.id FROM platform_job j WHERE j.organisation_id = $1 AND j.state = $2 AND NOT j.halted
		AND EXISTS (SELECT 1 FROM platform_task t WHERE t.organisation_id = j.organisation_id AND t.job_id = j.id
			AND t.action = $3 AND t.path = $4 AND t.sha256 = $5) ORDER BY j.id LIMIT $6`,
		org, string(rollout.JobRunning), string(trust.Apply), path, sha256, maxList)
}

// Task is a task and whose it is.
type Task struct {
	fleet.Task
	Organisation string
	Position     int
}

const taskColumns = `organisation_id, position, id, job_id, server_id, hostname, action, path, sha256, length, level, build_id, scanner,
	stage, state, reason, issues, deadline, counter, manifest, changed_at, finished_at`

func scanTask(r store.Row) (t Task, err error) {
	var deadline, changed, finished int64
	err = r.Scan(&t.Organisation, &t.Position, &t.ID, &t.Job, &t.Server, &t.Hostname, &t.Action, &t.Path, &t.SHA256, &t.Length, &t.Level, &t.BuildID, &t.Scanner,
		&t.Stage, &t.State, &t.Reason, &t.Issues, &deadline, &t.Counter, &t.Manifest, &changed, &finished)
	times{{&deadline, &t.Deadline}, {&changed, &t.ChangedAt}, {&finished, &t.FinishedAt}}.set()
	return t, err
}

// InsertTask stores a new task.
func InsertTask(ctx context.Context, tx *store.Tx, t Task) error {
	_, err := tx.Exec(ctx, `INSERT INTO platform_task (`+taskColumns+`)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)`,
		t.Organisation, t.Position, t.ID, t.Job, t.Server, t.Hostname, t.Action, t.Path, t.SHA256, t.Length, t.Level, t.BuildID, t.Scanner,
		t.Stage, string(t.State), t.Reason, t.Issues, store.Micros(t.Deadline), t.Counter, t.Manifest, store.Micros(t.ChangedAt), store.Micros(t.FinishedAt))
	return err
}

// SaveTask stores where a task stands.
func SaveTask(ctx context.Context, tx *store.Tx, t Task) error {
	_, err := tx.Exec(ctx, `UPDATE platform_task SET state = $2, reason = $3, issues = $4, deadline = $5, counter = $6, manifest = $7, changed_at = $8, finished_at = $9 WHERE id = $1`,
		t.ID, string(t.State), t.Reason, t.Issues, store.Micros(t.Deadline), t.Counter, t.Manifest, store.Micros(t.ChangedAt), store.Micros(t.FinishedAt))
	return err
}

// TaskByID returns a task of whatever organisation, or store.ErrNotFound; the
// caller compares its server with the agent that names it.
func TaskByID(ctx context.Context, q store.Querier, id string) (Task, error) {
	return store.One(ctx, q, scanTask, `SELECT `+taskColumns+` FROM platform_task WHERE id = $1`, id)
}

// JobTasks returns a job's tasks in their order.
func JobTasks(ctx context.Context, q store.Querier, org string, job int64) ([]Task, error) {
	return store.All(ctx, q, scanTask, `SELECT `+taskColumns+` FROM platform_task WHERE organisation_id = $1 AND job_id = $2 ORDER BY position LIMIT $3`, org, job, maxList)
}

// ServerTasks returns a server's newest tasks.
func ServerTasks(ctx context.Context, q store.Querier, org, server string, limit int) ([]Task, error) {
	return store.All(ctx, q, scanTask, `SELECT `+taskColumns+` FROM platform_task WHERE organisation_id = $1 AND server_id = $2
		ORDER BY job_id DESC, position DESC LIMIT $3`, org, server, limit)
}

// OrderFor returns the order that a server should get now: one that it got
// before and did not answer, else the oldest signed one, else store.ErrNotFound.
func OrderFor(ctx context.Context, q store.Querier, server string) (Task, error) {
	return store.One(ctx, q, scanTask, `SELECT `+taskColumns+` FROM platform_task WHERE server_id = $1 AND state IN ($2, $3, $4)
		ORDER BY CASE state WHEN $4 THEN 1 ELSE 0 END, counter LIMIT 1`, server, string(rollout.Sent), string(rollout.Running), string(rollout.Signed))
}

// TasksToCheck returns tasks of all organisations that wait for their checks:
// first those of a halted job, which only have to be let go, then those whose
// order was lost, then by how long they wait. A server gets one order at a time:
// a task that needs one is left out while an earlier one of its server is with
// the agent.
func TasksToCheck(ctx context.Context, q store.Querier, limit int) ([]Task, error) {
	const held = `t.issues = 0 AND EXISTS (SELECT 1 FROM platform_job j WHERE j.organisation_id = t.organisation_id AND j.id = t.job_id AND j.halted)`
	return store.All(ctx, q, scanTask, `SELECT `+taskColumns+` FROM platform_task t WHERE t.state = $1 AND (`+held+` OR NOT EXISTS
		(SELECT 1 FROM platform_task o WHERE o.server_id = t.server_id AND o.state IN ($2, $3, $4)))
		ORDER BY CASE WHEN `+held+` THEN 0 WHEN t.issues > 0 THEN 1 ELSE 2 END, t.changed_at, t.job_id, t.position LIMIT $5`,
		string(rollout.Checking), string(rollout.Signed), string(rollout.Sent), string(rollout.Running), limit)
}

// OverdueTasks returns tasks with an agent whose deadline is not after now.
func OverdueTasks(ctx context.Context, q store.Querier, now time.Time, limit int) ([]Task, error) {
	return store.All(ctx, q, scanTask, `SELECT `+taskColumns+` FROM platform_task WHERE state IN ($1, $2, $3) AND deadline > 0 AND deadline <= $4 ORDER BY deadline LIMIT $5`,
		string(rollout.Signed), string(rollout.Sent), string(rollout.Running), store.Micros(now), limit)
}

// NextDeadline returns the earliest deadline of a task with an agent; zero when
// there is none.
func NextDeadline(ctx context.Context, q store.Querier) (time.Time, error) {
	micros, err := store.One(ctx, q, store.Scalar[int64], `SELECT COALESCE(min(deadline), 0) FROM platform_task WHERE state IN ($1, $2, $3) AND deadline > 0`,
		string(rollout.Signed), string(rollout.Sent), string(rollout.Running))
	return store.Time(micros), err
}

// OpenStage moves a stage's waiting tasks to checking.
func OpenStage(ctx context.Context, tx *store.Tx, org string, job int64, stage int, at time.Time) error {
	_, err := tx.Exec(ctx, `UPDATE platform_task SET state = $4, changed_at = $5 WHERE organisation_id = $1 AND job_id = $2 AND stage = $3 AND state = $6`,
		org, job, stage, string(rollout.Checking), store.Micros(at), string(rollout.Waiting))
	return err
}

// SkipWaiting moves all of a job's waiting tasks to skipped.
func SkipWaiting(ctx context.Context, tx *store.Tx, org string, job int64, reason string, at time.Time) error {
	_, err := tx.Exec(ctx, `UPDATE platform_task SET state = $3, reason = $4, changed_at = $5, finished_at = $5 WHERE organisation_id = $1 AND job_id = $2 AND state = $6`,
		org, job, string(rollout.Skipped), reason, store.Micros(at), string(rollout.Waiting))
	return err
}

// ReplaceChecks stores the security checks of a task, instead of those of an
// earlier try.
func ReplaceChecks(ctx context.Context, tx *store.Tx, task string, checks []fleet.Check) error {
	if _, err := tx.Exec(ctx, `DELETE FROM platform_check WHERE task_id = $1`, task); err != nil {
		return err
	}
	for i, c := range checks {
		if _, err := tx.Exec(ctx, `INSERT INTO platform_check (task_id, position, name, outcome, detail, at) VALUES ($1, $2, $3, $4, $5, $6)`,
			task, i, c.Name, string(c.Outcome), c.Detail, store.Micros(c.At)); err != nil {
			return err
		}
	}
	return nil
}

// JobChecks returns the security checks of all tasks of a job.
func JobChecks(ctx context.Context, q store.Querier, org string, job int64) ([]fleet.Check, error) {
	return store.All(ctx, q, func(r store.Row) (c fleet.Check, err error) {
		var at int64
		err = r.Scan(&c.Task, &c.Name, &c.Outcome, &c.Detail, &at)
		c.At = store.Time(at)
		return c, err
	}, `SELECT c.task_id, c.name, c.outcome, c.detail, c.at FROM platform_check c JOIN platform_task t ON t.id = c.task_id
		WHERE t.organisation_id = $1 AND t.job_id = $2 ORDER BY t.position, c.position LIMIT $3`, org, job, 20*maxList)
}

// InsertResult stores a task's result and reports whether it is the first.
func InsertResult(ctx context.Context, tx *store.Tx, r fleet.Result) (bool, error) {
	processes, err := encode(r.Processes)
	if err != nil {
		return false, err
	}
	n, err := tx.Exec(ctx, `INSERT INTO platform_result (task_id, outcome, reason, text, manifest, processes, received_at, report) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (task_id) DO NOTHING`, r.Task, r.Outcome, r.Reason, r.Text, r.Manifest, processes, store.Micros(r.ReceivedAt), r.Report)
	return n == 1, err
}

// JobResults returns the results of all tasks of a job, without the reports'
// bytes.
func JobResults(ctx context.Context, q store.Querier, org string, job int64) ([]fleet.Result, error) {
	return store.All(ctx, q, func(row store.Row) (r fleet.Result, err error) {
		var processes string
		var at int64
		if err = row.Scan(&r.Task, &r.Outcome, &r.Reason, &r.Text, &r.Manifest, &processes, &at); err != nil {
			return r, err
		}
		r.ReceivedAt = store.Time(at)
		return r, decode("processes", processes, &r.Processes)
	}, `SELECT r.task_id, r.outcome, r.reason, r.text, r.manifest, r.processes, r.received_at FROM platform_result r JOIN platform_task t ON t.id = r.task_id
		WHERE t.organisation_id = $1 AND t.job_id = $2 LIMIT $3`, org, job, maxList)
}
