package platform

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/rollout"
	"livemend.dev/livemend/store"
	"livemend.dev/livemend/store/platformdb"
	"livemend.dev/livemend/trust"
)

// DefaultScanner is the scanner of a scan that names none.
const DefaultScanner = "openscap"

// LivePatchFound is "LivePatch found vulnerabilities": a job that applies the
// newest live patch wherever coverage says that one is available. With nothing
// to do it returns ErrConflict and makes no job.
func (s *Service) LivePatchFound(ctx context.Context, who access.Subject, in PatchRequest) (fleet.Job, error) {
	return s.createJob(ctx, who, func(tx *store.Tx) (*intent, error) {
		intent, _, err := s.intendPatches(ctx, tx, who.Organisation, in)
		return intent, err
	})
}

// CreateRevertJob makes a job that takes one live patch off.
func (s *Service) CreateRevertJob(ctx context.Context, who access.Subject, in RevertRequest) (fleet.Job, error) {
	return s.createJob(ctx, who, func(tx *store.Tx) (*intent, error) {
		task, err := s.patchTask(ctx, tx, in.Path, trust.Revert)
		if err != nil {
			return nil, err
		}
		have, err := platformdb.ServersWithApplied(ctx, tx, who.Organisation, in.Path)
		if err != nil {
			return nil, err
		}
		servers, skipped, err := s.chosen(ctx, tx, who.Organisation, in.Servers)
		if err != nil {
			return nil, err
		}
		out := &intent{kind: fleet.RevertJob, title: "Revert " + in.Path, skipped: skipped}
		for _, server := range servers {
			if slices.Contains(have, server.ID) {
				out.work = append(out.work, work{server: server, tasks: []fleet.Task{task}})
			}
		}
		return out, nil
	})
}

// ScanServers is "Scan for vulnerabilities": a job of kind scan.
func (s *Service) ScanServers(ctx context.Context, who access.Subject, in ScanRequest) (fleet.Job, error) {
	if err := who.Require(access.Operator); err != nil {
		return fleet.Job{}, err
	}
	state, err := platformdb.Catalogue(ctx, s.db)
	if err != nil {
		return fleet.Job{}, err
	}
	if state.RefreshedAt.IsZero() {
		// The scanner's content comes from the repository too.
		if _, err := s.refresh(ctx, freshFor); err != nil {
			return fleet.Job{}, portalProblem(err, "give the scanner's content")
		}
	}
	content, err := s.contentFor(ctx, who, in)
	if err != nil {
		return fleet.Job{}, err
	}
	return s.createJob(ctx, who, func(tx *store.Tx) (*intent, error) {
		servers, skipped, err := s.chosen(ctx, tx, who.Organisation, in.Servers)
		if err != nil {
			return nil, err
		}
		out := &intent{kind: fleet.ScanJob, title: "Scan for vulnerabilities with " + content.Scanner + ": " + content.Title, skipped: skipped, together: true}
		for _, server := range servers {
			out.work = append(out.work, work{server: server, tasks: []fleet.Task{{Action: string(trust.Scan), Path: content.Path,
				SHA256: content.SHA256, Length: content.Length, Scanner: content.Scanner}}})
		}
		return out, nil
	})
}

// contentFor chooses the scanner's content: the one that is named, else the
// newest for the scanner.
func (s *Service) contentFor(ctx context.Context, who access.Subject, in ScanRequest) (fleet.Content, error) {
	scanner := in.Scanner
	if scanner == "" {
		scanner = DefaultScanner
	}
	catalogue, err := s.Catalogue(ctx, who)
	if err != nil {
		return fleet.Content{}, err
	}
	var best fleet.Content
	for _, c := range catalogue.Contents {
		if c.Withdrawn || c.Scanner != scanner || in.Content != "" && c.Path != in.Content {
			continue
		}
		if best.Path == "" || c.FirstSeen.After(best.FirstSeen) || c.FirstSeen.Equal(best.FirstSeen) && c.Path > best.Path {
			best = c
		}
	}
	if best.Path == "" {
		return best, problem(ErrConflict, "The catalogue has no such content for the scanner %s. Nothing was changed; use Check for available Live Patches, or name other content.", scanner)
	}
	return best, nil
}

// createJob stores the job that intend describes, with its tasks, and starts it.
func (s *Service) createJob(ctx context.Context, who access.Subject, intend func(*store.Tx) (*intent, error)) (fleet.Job, error) {
	if err := who.Require(access.Operator); err != nil {
		return fleet.Job{}, err
	}
	var job fleet.Job
	var after followUp
	err := s.db.InTx(ctx, func(tx *store.Tx) error {
		after = followUp{}
		in, err := intend(tx)
		if err != nil {
			return err
		}
		if len(in.work) == 0 {
			return nothingToDo(in)
		}
		job, err = s.storeJob(ctx, tx, who, in, &after)
		return err
	})
	if err != nil {
		return fleet.Job{}, err
	}
	s.follow(after)
	return job, nil
}

func nothingToDo(in *intent) error {
	if n := len(in.skipped); n > 0 {
		return problem(ErrConflict, "There is nothing to do now: %s would need it, but cannot be reached (%s: %s). No job was made; try again when the agents are connected.",
			plural(n, "server", "servers"), in.skipped[0].Hostname, in.skipped[0].Reason)
	}
	return problem(ErrConflict, "There is nothing to do. No job was made.")
}

func (s *Service) storeJob(ctx context.Context, tx *store.Tx, who access.Subject, in *intent, after *followUp) (fleet.Job, error) {
	id, err := platformdb.NextJob(ctx, tx, who.Organisation)
	if err != nil {
		return fleet.Job{}, err
	}
	policy := rollout.Policy{Silence: s.cfg.Silence}
	if in.together {
		policy.Tolerate = -1
	}
	stages := s.stages(in)
	sizes := make([]int, len(stages))
	for i, stage := range stages {
		for _, w := range stage {
			sizes[i] += len(w.tasks)
		}
	}
	machine, effects := rollout.Begin(sizes, policy)
	job := fleet.Job{ID: id, Kind: in.kind, Title: in.title, Job: machine, CreatedBy: who.Name, CreatedAt: s.now()}
	if err := platformdb.InsertJob(ctx, tx, who.Organisation, job); err != nil {
		return job, err
	}
	position := 0
	for i, stage := range stages {
		for _, w := range stage {
			for _, t := range w.tasks {
				t.ID, t.Job, t.Server, t.Hostname, t.ChangedAt = newID("T"), id, w.server.ID, w.server.Hostname, s.now()
				t.Task = rollout.Task{Stage: i, State: rollout.Waiting}
				if err := platformdb.InsertTask(ctx, tx, platformdb.Task{Task: t, Organisation: who.Organisation, Position: position}); err != nil {
					return job, err
				}
				position++
			}
		}
	}
	text := fmt.Sprintf("job %d started by %s: %s, %s", id, who.Name, in.title, plural(position, "task", "tasks"))
	if n := len(in.skipped); n > 0 {
		text += fmt.Sprintf("; left out: %s that cannot be reached", plural(n, "server", "servers"))
	}
	if err := s.jobEvent(ctx, tx, who.Organisation, id, text, after); err != nil {
		return job, err
	}
	if err := s.audited(ctx, tx, who, "create.job", strconv.FormatInt(id, 10), in.title); err != nil {
		return job, err
	}
	return job, s.carryOut(ctx, tx, who.Organisation, &job, effects, after)
}

// StopJob starts no further task of a job. What runs ends by itself.
func (s *Service) StopJob(ctx context.Context, who access.Subject, id int64) error {
	if err := who.Require(access.Operator); err != nil {
		return err
	}
	var after followUp
	err := s.db.InTx(ctx, func(tx *store.Tx) error {
		after = followUp{runner: true} // it lets go of what waits for its checks
		job, err := platformdb.Job(ctx, tx, who.Organisation, id)
		if err != nil {
			return missing(err, "job")
		}
		if job.State.Final() || job.Halted {
			return problem(ErrConflict, "The job has ended or is being stopped already. Nothing was changed.")
		}
		machine, effects := rollout.Halt(job.Job, "stopped by "+who.Name)
		job.Job = machine
		if err := s.audited(ctx, tx, who, "stop.job", strconv.FormatInt(id, 10), ""); err != nil {
			return err
		}
		if err := s.jobEvent(ctx, tx, who.Organisation, id, fmt.Sprintf("job %d is being stopped by %s", id, who.Name), &after); err != nil {
			return err
		}
		return s.carryOut(ctx, tx, who.Organisation, &job, effects, &after)
	})
	if err == nil {
		s.follow(after)
	}
	return err
}

// Jobs lists jobs, newest first.
func (s *Service) Jobs(ctx context.Context, who access.Subject, f JobFilter) (fleet.Page[fleet.Job], error) {
	var page fleet.Page[fleet.Job]
	if err := who.Require(access.Viewer); err != nil {
		return page, err
	}
	before, err := numberAfter(f.After, lastJob)
	if err != nil {
		return page, err
	}
	limit := pageLimit(f.Limit)
	page.Items, page.Total, err = platformdb.Jobs(ctx, s.db, who.Organisation, f.Kind, f.State, before, limit+1)
	if len(page.Items) > limit { // the one too many says only that there is a next page
		page.Items = page.Items[:limit]
		page.Next = strconv.FormatInt(page.Items[limit-1].ID, 10)
	}
	return page, err
}

// Job returns everything about one job.
func (s *Service) Job(ctx context.Context, who access.Subject, id int64) (JobDetail, error) {
	var out JobDetail
	if err := who.Require(access.Viewer); err != nil {
		return out, err
	}
	job, err := platformdb.Job(ctx, s.db, who.Organisation, id)
	if err != nil {
		return out, missing(err, "job")
	}
	out = JobDetail{Job: job, Gate: rollout.Gate(job.Job), Tasks: []TaskDetail{}}
	tasks, err := platformdb.JobTasks(ctx, s.db, who.Organisation, id)
	if err != nil {
		return out, err
	}
	at := map[string]int{}
	for i, t := range tasks {
		out.Tasks = append(out.Tasks, TaskDetail{Task: t.Task, Checks: []fleet.Check{}})
		at[t.ID] = i
	}
	checks, err := platformdb.JobChecks(ctx, s.db, who.Organisation, id)
	if err != nil {
		return out, err
	}
	for _, c := range checks {
		if i, ok := at[c.Task]; ok {
			out.Tasks[i].Checks = append(out.Tasks[i].Checks, c)
		}
	}
	results, err := platformdb.JobResults(ctx, s.db, who.Organisation, id)
	if err != nil {
		return out, err
	}
	for _, r := range results {
		if i, ok := at[r.Task]; ok {
			out.Tasks[i].Result = &r
		}
	}
	if out.Events, err = platformdb.LastEvents(ctx, s.db, who.Organisation, id, "", jobEvents); err != nil {
		return out, err
	}
	out.Events = listed(out.Events)
	slices.Reverse(out.Events)
	return out, nil
}
