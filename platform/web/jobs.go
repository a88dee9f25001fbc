package web

import (
	"errors"
	"slices"
	"strconv"
	"time"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/platform"
	"livemend.dev/livemend/rollout"
	"livemend.dev/livemend/wire"
)

// jobsView is the list of jobs.
type jobsView struct {
	list    listing
	pager   pager
	items   []fleet.Job
	now     time.Time
	operate bool
}

var (
	jobKinds  = []fleet.JobKind{fleet.ScanJob, fleet.LivePatchJob, fleet.RevertJob}
	jobStates = []rollout.JobState{rollout.JobRunning, rollout.JobDone, rollout.JobFailed, rollout.JobStopped}
)

func (s *site) jobs(v *visit) error {
	l := listed(v, "kind", "state")
	found, err := s.svc.Jobs(v.context(), v.who, platform.JobFilter{
		List: piece(v), Kind: fleet.JobKind(l.get("kind")), State: rollout.JobState(l.get("state")),
	})
	if err != nil {
		return err
	}
	return s.show(v, "Jobs", "/jobs", jobsPage(jobsView{
		list: l, items: found.Items, now: s.now(), operate: v.can(access.Operator),
		pager: pager{list: l, shown: len(found.Items), total: found.Total, next: found.Next,
			further: v.r.FormValue("after") != "", one: "job", many: "jobs"},
	}))
}

// jobView is one job.
type jobView struct {
	platform.JobDetail
	now     time.Time
	operate bool
}

// maxTasks bounds the tasks on a job's page: the ones that need a person first.
const maxTasks = 100

// maxLastEvents bounds the events on a job's page.
const maxLastEvents = 12

// tasks are those to show: bad ones, then those at work, then the rest in order.
func (j jobView) tasks() []platform.TaskDetail {
	rank := func(t platform.TaskDetail) int {
		switch {
		case t.State == rollout.Failed || t.State == rollout.Refused:
			return 0
		case t.State.Active():
			return 1
		}
		return 2
	}
	out := slices.Clone(j.Tasks)
	slices.SortStableFunc(out, func(a, b platform.TaskDetail) int { return rank(a) - rank(b) })
	return out[:min(len(out), maxTasks)]
}

// lastEvents are the newest events, newest first.
func (j jobView) lastEvents() []fleet.Event {
	out := slices.Clone(j.Events[max(0, len(j.Events)-maxLastEvents):])
	slices.Reverse(out)
	return out
}

// lastEvent is the id of the newest event that the page shows.
func (j jobView) lastEvent() int64 {
	if len(j.Events) == 0 {
		return 0
	}
	return j.Events[len(j.Events)-1].ID
}

// took is how long the job has run.
func (j jobView) took() string {
	end := j.FinishedAt
	if end.IsZero() {
		end = j.now
	}
	d := end.Sub(j.CreatedAt)
	if d < time.Second {
		return "under a second"
	}
	return span(d)
}

// gate is what the job waits for, and what is true when it waits for nothing.
func (j jobView) gate() string {
	switch {
	case j.Gate != "":
		return j.Gate
	case j.Reason != "":
		return j.Reason
	}
	return ""
}

// tally sums the stages.
func (j jobView) tally() rollout.Tally { return sum(j.Stages) }

func sum(stages []rollout.Tally) rollout.Tally {
	var all rollout.Tally
	for _, t := range stages {
		all.Waiting += t.Waiting
		all.Active += t.Active
		all.Done += t.Done
		all.Failed += t.Failed
		all.Refused += t.Refused
		all.Skipped += t.Skipped
	}
	return all
}

// checksInWords sums up the security checks of a task.
func checksInWords(checks []fleet.Check) string {
	counts := map[fleet.CheckOutcome]int{}
	for _, c := range checks {
		counts[c.Outcome]++
	}
	words := strconv.Itoa(counts[fleet.CheckPassed]) + " passed"
	if n := counts[fleet.CheckFailed]; n > 0 {
		words = strconv.Itoa(n) + " failed, " + words
	}
	if n := counts[fleet.CheckSkipped]; n > 0 {
		words += ", " + strconv.Itoa(n) + " skipped"
	}
	return words
}

// failedCheck reports whether a security check said no.
func failedCheck(checks []fleet.Check) bool {
	return slices.ContainsFunc(checks, func(c fleet.Check) bool { return c.Outcome == fleet.CheckFailed })
}

// processesInWords sums up what a task did to processes.
func processesInWords(processes []fleet.Process) string {
	if len(processes) == 1 && processes[0].PID == 0 {
		return "The running kernel"
	}
	var done, longest int64
	for _, p := range processes {
		if p.Outcome == string(wire.Done) {
			done++
		}
		longest = max(longest, p.StopNS)
	}
	words := "Processes: " + thousands(done) + " of " + counted(int64(len(processes)), "process", "processes") + " done"
	if longest > 0 {
		words += ", longest stop " + stopTime(longest)
	}
	return words
}

func (s *site) job(v *visit) error {
	j, err := s.jobDetail(v)
	if err != nil {
		return err
	}
	return s.show(v, "Job "+strconv.FormatInt(j.ID, 10), "/jobs", jobPage(j))
}

func (s *site) jobDetail(v *visit) (jobView, error) {
	id, err := strconv.ParseInt(v.r.PathValue("id"), 10, 64)
	if err != nil {
		return jobView{}, platform.ErrNotFound
	}
	detail, err := s.svc.Job(v.context(), v.who, id)
	if err != nil {
		return jobView{}, err
	}
	return jobView{JobDetail: detail, now: s.now(), operate: v.can(access.Operator)}, nil
}

func (s *site) stopJob(v *visit) error {
	id, err := strconv.ParseInt(v.r.PathValue("id"), 10, 64)
	if err != nil {
		return platform.ErrNotFound
	}
	if err := s.svc.StopJob(v.context(), v.who, id); err != nil {
		return err
	}
	s.say(v.w, "good", "The job is being stopped: no further server is started. What runs ends by itself.")
	s.sendTo(v, jobAddress(id))
	return nil
}

// taskTarget is what a task is about, in few words.
func taskTarget(t fleet.Task) string {
	switch {
	case t.Action == "scan":
		return orText(t.Scanner, "scanner")
	case t.Level > 0:
		return "level " + strconv.FormatInt(t.Level, 10) + " for build-id " + shorten(t.BuildID, 12)
	}
	return base(t.Path)
}

// stopEveryJob is the emergency stop. A job that ended meanwhile is no error.
func (s *site) stopEveryJob(v *visit) error {
	stopped := 0
	list := platform.List{Limit: platform.MaxPage}
	for {
		running, err := s.svc.Jobs(v.context(), v.who, platform.JobFilter{List: list, State: rollout.JobRunning})
		if err != nil {
			return err
		}
		for _, j := range running.Items {
			switch err := s.svc.StopJob(v.context(), v.who, j.ID); {
			case err == nil:
				stopped++
			case !errors.Is(err, platform.ErrConflict):
				return err
			}
		}
		if list.After = running.Next; list.After == "" {
			break
		}
	}
	s.say(v.w, "good", counted(stopped, "job is", "jobs are")+" being stopped: no further server is started. What runs ends by itself.")
	s.sendTo(v, "/jobs")
	return nil
}
