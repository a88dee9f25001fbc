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
	Stage    int       `json:"stage"`
	State    TaskState `json:"state"`
	Reason   string    `json:"reason"`   // why it ended badly or was skipped
	Issues   int       `json:"issues"`   // how often an order was signed for it
	Deadline time.Time `json:"deadline"` // silence past it is failure; zero = none
}

// Policy is how careful a job is.
type Policy struct {
	Silence  time.Duration `json:"silence_ns"` // how long a server may say nothing about an order
	Tolerate int           `json:"tolerate"`   // bad ends after which the job still goes on; negative = any number
}

// Job is what the state machine knows of a job. Its tasks are counted, not
// held, so that a step costs the same for ten servers and for twenty thousand.
type Job struct {
	State  JobState `json:"state"`
	Stage  int      `json:"stage"`  // the open stage, from 0
	Halted bool     `json:"halted"` // no further task starts
	Reason string   `json:"reason"` // why it halted
	Stages []Tally  `json:"stages"`
	Policy Policy   `json:"policy"`
}

// MaxIssues bounds how often one task's order is signed again for an agent that
// comes back without an answer.
const MaxIssues = 5

// EventKind says what happened.
type EventKind int

// What can happen to a task. OrderSigned: every check passed and the order is
// signed. AskedAgain: the agent asks for work although it got this order, so
// the order or its answer was lost. Ticked: time passed. Held: the caller found
// the job halted before it checked the task.
const (
	OrderSigned EventKind = iota + 1
	CheckFailed
	Fetched
	Progressed
	AskedAgain
	Succeeded
	WentWrong
	TurnedDown
	Ticked
	Held
)

// Event is what happened to a task. Reason goes with bad news.
type Event struct {
	Kind   EventKind
	Reason string
}

// EffectKind says what the caller has to do.
type EffectKind int

// The effects. OpenStage moves every waiting task of Stage to checking.
// SkipWaiting moves every waiting task of every stage to skipped, with Reason.
// CheckTask runs the task's checks again. Deliver tells the agent that an order
// waits. Finish ends the job.
const (
	OpenStage EffectKind = iota + 1
	SkipWaiting
	CheckTask
	Deliver
	Finish
)

// Effect is one thing to do, in the same transaction as the new state.
type Effect struct {
	Kind   EffectKind
	Stage  int
	Reason string
}
