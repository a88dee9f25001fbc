package rollout

import (
	"fmt"
	"time"
)

// Begin makes a job of the given numbers of tasks per stage and opens its first
// stage that has any.
func Begin(sizes []int, p Policy) (Job, []Effect) {
	j := Job{State: JobRunning, Stage: -1, Policy: p, Stages: make([]Tally, len(sizes))}
	for i, n := range sizes {
		j.Stages[i].Waiting = n
	}
	return j.advance(nil)
}

// Halt starts no further task of j. What is with an agent ends by itself.
func Halt(j Job, reason string) (Job, []Effect) {
	if j.State.Final() || j.Halted {
		return j, nil
	}
	j = j.clone()
	j, effects := j.halt(reason, nil)
	return j.advance(effects)
}

// Step says what follows from an event of one task of j. An event that does not
// fit the task's state changes nothing: it was late or came twice. The caller
// stores both results and carries out the effects in one transaction.
func Step(j Job, t Task, e Event, now time.Time) (Job, Task, []Effect) {
	if t.State.Final() || j.State.Final() || t.Stage < 0 || t.Stage >= len(j.Stages) {
		return j, t, nil
	}
	next, effects, ok := t.step(j, e, now)
	if !ok {
		return j, t, nil
	}
	if !next.State.Final() {
		return j, next, effects
	}
	next.Deadline = time.Time{}
	j = j.clone()
	j.Stages[t.Stage].move(t.State, next.State)
	if bad := j.bad(); j.Policy.Tolerate >= 0 && bad > j.Policy.Tolerate && !j.Halted {
		var more []Effect
		j, more = j.halt("a task ended badly: "+next.Reason, nil)
		effects = append(effects, more...)
	}
	j, effects = j.advance(effects)
	return j, next, effects
}

// step is the part that concerns the task alone. ok is false when the event
// does not fit.
func (t Task) step(j Job, e Event, now time.Time) (next Task, effects []Effect, ok bool) {
	withAgent := t.State == Signed || t.State == Sent || t.State == Running
	end := func(s TaskState, reason string) (Task, []Effect, bool) {
		t.State, t.Reason = s, reason
		return t, nil, true
	}
	switch {
	case (e.Kind == OrderSigned || e.Kind == Held) && t.State == Checking && t.Issues == 0 && j.Halted:
		return end(Skipped, j.Reason)
	case e.Kind == OrderSigned && t.State == Checking:
		t.State, t.Deadline = Signed, now.Add(j.Policy.Silence)
		t.Issues++
		return t, []Effect{{Kind: Deliver}}, true
	case e.Kind == CheckFailed && t.State == Checking:
		return end(Refused, e.Reason)
	case e.Kind == Fetched && t.State == Signed:
		t.State = Sent
		return t, nil, true
	case e.Kind == Progressed && (t.State == Sent || t.State == Running):
		t.State, t.Deadline = Running, now.Add(j.Policy.Silence)
		return t, nil, true
	case e.Kind == AskedAgain && (t.State == Sent || t.State == Running):
		if t.Issues >= MaxIssues {
			return end(Failed, fmt.Sprintf("the agent came back %d times without an answer", t.Issues))
		}
		t.State = Checking
		return t, []Effect{{Kind: CheckTask}}, true
	case e.Kind == Succeeded && t.hadOrder():
		return end(Done, e.Reason)
	case e.Kind == WentWrong && t.hadOrder():
		return end(Failed, e.Reason)
	case e.Kind == TurnedDown && t.hadOrder():
		return end(Refused, e.Reason)
	case e.Kind == Ticked && withAgent && !t.Deadline.IsZero() && !now.Before(t.Deadline):
		return end(Failed, "no answer from the server within "+j.Policy.Silence.String())
	}
	return t, nil, false
}

// hadOrder reports whether an agent can know of the task: an answer may also
// come while the order is being signed again.
func (t Task) hadOrder() bool { return t.State.Active() && t.Issues > 0 }

func (j Job) clone() Job {
	j.Stages = append([]Tally(nil), j.Stages...)
	return j
}

func (j Job) bad() int {
	n := 0
	for _, s := range j.Stages {
		n += s.Bad()
	}
	return n
}

// move counts a task that left the active state from for the final state to.
func (t *Tally) move(from, to TaskState) {
	if from == Waiting {
		t.Waiting--
	} else {
		t.Active--
	}
	switch to {
	case Done:
		t.Done++
	case Failed:
		t.Failed++
	case Refused:
		t.Refused++
	case Skipped:
		t.Skipped++
	}
}

// halt skips every waiting task of a job that the caller owns.
func (j Job) halt(reason string, effects []Effect) (Job, []Effect) {
	j.Halted, j.Reason = true, reason
	for i := range j.Stages {
		s := &j.Stages[i]
		s.Skipped, s.Waiting = s.Skipped+s.Waiting, 0
	}
	return j, append(effects, Effect{Kind: SkipWaiting, Reason: reason})
}

// advance opens the next stage when the open one has ended, or finishes. The
// caller owns j.Stages.
func (j Job) advance(effects []Effect) (Job, []Effect) {
	for j.Stage < 0 || j.Stages[j.Stage].Waiting == 0 && j.Stages[j.Stage].Active == 0 {
		if j.Halted || j.Stage+1 == len(j.Stages) {
			return j.finish(effects)
		}
		j.Stage++
		if s := &j.Stages[j.Stage]; s.Waiting > 0 {
			s.Active, s.Waiting = s.Active+s.Waiting, 0
			effects = append(effects, Effect{Kind: OpenStage, Stage: j.Stage})
		}
	}
	return j, effects
}

func (j Job) finish(effects []Effect) (Job, []Effect) {
	j.Stage = max(j.Stage, 0)
	skipped := 0
	for _, s := range j.Stages {
		skipped += s.Skipped
	}
	switch {
	case skipped > 0:
		j.State = JobStopped
	case j.bad() > 0:
		j.State = JobFailed
	default:
		j.State = JobDone
	}
	return j, append(effects, Effect{Kind: Finish})
}

// Gate says in words what j waits for.
func Gate(j Job) string {
	if j.State.Final() {
		return ""
	}
	active := j.Stages[j.Stage].Active
	tasks := "tasks"
	if active == 1 {
		tasks = "task"
	}
	switch {
	case j.Halted:
		return fmt.Sprintf("stopping: %s; waits for %d %s that had started", j.Reason, active, tasks)
	case j.Stage+1 < len(j.Stages) && j.Policy.Tolerate == 0:
		return fmt.Sprintf("stage %d of %d: waits for %d %s; the next stage opens when all succeed", j.Stage+1, len(j.Stages), active, tasks)
	default:
		return fmt.Sprintf("stage %d of %d: waits for %d %s", j.Stage+1, len(j.Stages), active, tasks)
	}
}

// Stages cuts n servers into stages: first of them, then the rest. first below
// 1 means 1.
func Stages(n, first int) []int {
	first = max(first, 1)
	switch {
	case n <= 0:
		return nil
	case n <= first:
		return []int{n}
	}
	return []int{first, n - first}
}
