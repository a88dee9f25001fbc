// Package rollout decides which task of a job may start, and what follows from
// what happened to one: a state machine over (job, task, event, time).
//
// It is pure: no I/O, no clock, no randomness. It knows nothing of patches,
// people or how an order travels; the platform carries out its effects.
package rollout

import "time"

// TaskState is where one task stands.
type TaskState string

// The states of a task. Waiting tasks belong to a stage that is not open yet.
// Signed means that the order is signed and waits for the agent to fetch it.
const (
	Waiting  TaskState = "waiting"
	Checking TaskState = "checking"
	Signed   TaskState = "signed"
	Sent     TaskState = "sent"
	Running  TaskState = "running"
	Done     TaskState = "done"
	Failed   TaskState = "failed"
	Refused  TaskState = "refused"
	Skipped  TaskState = "skipped"
)

// Final reports whether nothing follows s any more.
func (s TaskState) Final() bool { return s == Done || s == Failed || s == Refused || s == Skipped }

// Active reports whether a task in s has started and not ended.
func (s TaskState) Active() bool { return s == Checking || s == Signed || s == Sent || s == Running }

// JobState is where a job stands.
type JobState string

// The states of a job. Stopped: a failure or a person ended it before every
// task had started. Failed: every task ended, at least one of them badly.
const (
	JobRunning JobState = "running"
	JobDone    JobState = "done"
	JobFailed  JobState = "failed"
	JobStopped JobState = "stopped"
)

// Final reports whether nothing follows s any more.
func (s JobState) Final() bool { return s != JobRunning }

// Tally counts the tasks of one stage by state.
type Tally struct {
	Waiting int `json:"waiting"`
	Active  int `json:"active"` // checking, signed, sent or running
	Done    int `json:"done"`
	Failed  int `json:"failed"`
	Refused int `json:"refused"`
	Skipped int `json:"skipped"`
}

// Total is the number of tasks.
func (t Tally) Total() int { return t.Waiting + t.Active + t.Done + t.Failed + t.Refused + t.Skipped }

// Bad is the number of tasks that ended badly.
func (t Tally) Bad() int { return t.Failed + t.Refused }

// Task is what the state machine knows of one task.
type Task struct {
	Stage    int
	State    TaskState
	Reason   string    // why it ended badly or was skipped
	Issues   int       // how often an order was signed for it
	Deadline time.Time // silence past it is failure; zero = none
}
