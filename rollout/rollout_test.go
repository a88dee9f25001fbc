package rollout_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"livemend.dev/livemend/rollout"
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// world carries out effects the way the platform does, on tasks in memory.
type world struct {
	job      rollout.Job
	tasks    []rollout.Task
	opened   []int // stages in the order they opened
	finished int
}

func newWorld(p rollout.Policy, sizes ...int) *world {
	w := &world{}
	for stage, n := range sizes {
		for range n {
			w.tasks = append(w.tasks, rollout.Task{Stage: stage, State: rollout.Waiting})
		}
	}
	var effects []rollout.Effect
	w.job, effects = rollout.Begin(sizes, p)
	w.carryOut(effects)
	return w
}

func (w *world) carryOut(effects []rollout.Effect) {
	for _, e := range effects {
		switch e.Kind {
		case rollout.OpenStage:
			w.opened = append(w.opened, e.Stage)
			for i := range w.tasks {
				if w.tasks[i].Stage == e.Stage && w.tasks[i].State == rollout.Waiting {
					w.tasks[i].State = rollout.Checking
				}
			}
		case rollout.SkipWaiting:
			for i := range w.tasks {
				if w.tasks[i].State == rollout.Waiting {
					w.tasks[i].State, w.tasks[i].Reason = rollout.Skipped, e.Reason
				}
			}
		case rollout.Finish:
			w.finished++
		}
	}
}

func (w *world) step(task int, kind rollout.EventKind, at time.Time) {
	var effects []rollout.Effect
	w.job, w.tasks[task], effects = rollout.Step(w.job, w.tasks[task], rollout.Event{Kind: kind, Reason: "because"}, at)
	w.carryOut(effects)
}

// count tallies the tasks as they really are.
func (w *world) count() []rollout.Tally {
	out := make([]rollout.Tally, len(w.job.Stages))
	for _, t := range w.tasks {
		s := &out[t.Stage]
		switch {
		case t.State == rollout.Waiting:
			s.Waiting++
		case t.State.Active():
			s.Active++
		case t.State == rollout.Done:
			s.Done++
		case t.State == rollout.Failed:
			s.Failed++
		case t.State == rollout.Refused:
			s.Refused++
		case t.State == rollout.Skipped:
			s.Skipped++
		}
	}
	return out
}

func TestPaths(t *testing.T) {
	type move struct {
		task  int
		event rollout.EventKind
		after time.Duration
	}
	happy := func(task int) []move {
		return []move{{task, rollout.OrderSigned, 0}, {task, rollout.Fetched, 0}, {task, rollout.Progressed, 0}, {task, rollout.Succeeded, 0}}
	}
	join := func(lists ...[]move) (out []move) {
		for _, l := range lists {
			out = append(out, l...)
		}
		return out
	}
	tests := []struct {
		name   string
		sizes  []int
		moves  []move
		job    rollout.JobState
		stage  int
		states []rollout.TaskState
	}{
		{"first server, then the rest", []int{1, 2}, happy(0), rollout.JobRunning, 1,
			[]rollout.TaskState{rollout.Done, rollout.Checking, rollout.Checking}},
		{"the rest waits for the first", []int{1, 1}, happy(0)[:3], rollout.JobRunning, 0,
			[]rollout.TaskState{rollout.Running, rollout.Waiting}},
		{"all done", []int{1, 2}, join(happy(0), happy(1), happy(2)), rollout.JobDone, 1,
			[]rollout.TaskState{rollout.Done, rollout.Done, rollout.Done}},
		{"a failure on the first stops the rest", []int{1, 2}, []move{{0, rollout.OrderSigned, 0}, {0, rollout.Fetched, 0}, {0, rollout.WentWrong, 0}},
			rollout.JobStopped, 0, []rollout.TaskState{rollout.Failed, rollout.Skipped, rollout.Skipped}},
		{"a failed check stops the rest", []int{1, 1}, []move{{0, rollout.CheckFailed, 0}},
			rollout.JobStopped, 0, []rollout.TaskState{rollout.Refused, rollout.Skipped}},
		{"a refusal stops the rest", []int{1, 1}, []move{{0, rollout.OrderSigned, 0}, {0, rollout.TurnedDown, 0}},
			rollout.JobStopped, 0, []rollout.TaskState{rollout.Refused, rollout.Skipped}},
		{"silence is failure", []int{1, 1}, []move{{0, rollout.OrderSigned, 0}, {0, rollout.Fetched, 0}, {0, rollout.Ticked, 10 * time.Minute}},
			rollout.JobStopped, 0, []rollout.TaskState{rollout.Failed, rollout.Skipped}},
		{"not silent yet", []int{1, 1}, []move{{0, rollout.OrderSigned, 0}, {0, rollout.Ticked, 10*time.Minute - 1}},
			rollout.JobRunning, 0, []rollout.TaskState{rollout.Signed, rollout.Waiting}},
		{"progress puts the deadline off", []int{1}, []move{{0, rollout.OrderSigned, 0}, {0, rollout.Fetched, 0}, {0, rollout.Progressed, 9 * time.Minute}, {0, rollout.Ticked, 10 * time.Minute}},
			rollout.JobRunning, 0, []rollout.TaskState{rollout.Running}},
		{"an agent that comes back gets a new order", []int{1}, []move{{0, rollout.OrderSigned, 0}, {0, rollout.Fetched, 0}, {0, rollout.AskedAgain, 0}},
			rollout.JobRunning, 0, []rollout.TaskState{rollout.Checking}},
		{"its late answer counts while the new order is made", []int{1}, []move{{0, rollout.OrderSigned, 0}, {0, rollout.Fetched, 0}, {0, rollout.AskedAgain, 0}, {0, rollout.Succeeded, 0}, {0, rollout.OrderSigned, 0}},
			rollout.JobDone, 0, []rollout.TaskState{rollout.Done}},
		{"an answer without an order counts for nothing", []int{1}, []move{{0, rollout.Succeeded, 0}},
			rollout.JobRunning, 0, []rollout.TaskState{rollout.Checking}},
		{"in the last stage the others finish", []int{1, 2}, join(happy(0), []move{{1, rollout.OrderSigned, 0}, {2, rollout.OrderSigned, 0}, {1, rollout.WentWrong, 0}, {2, rollout.Succeeded, 0}}),
			rollout.JobFailed, 1, []rollout.TaskState{rollout.Done, rollout.Failed, rollout.Done}},
		{"a task that is still being checked does not start after a failure", []int{2}, []move{{0, rollout.OrderSigned, 0}, {0, rollout.WentWrong, 0}, {1, rollout.OrderSigned, 0}},
			rollout.JobStopped, 0, []rollout.TaskState{rollout.Failed, rollout.Skipped}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(rollout.Policy{Silence: 10 * time.Minute}, tt.sizes...)
			for _, m := range tt.moves {
				w.step(m.task, m.event, start.Add(m.after))
			}
			var states []rollout.TaskState
			for _, task := range w.tasks {
				states = append(states, task.State)
			}
			if w.job.State != tt.job || w.job.Stage != tt.stage {
				t.Errorf("job is %s in stage %d, want %s in %d", w.job.State, w.job.Stage, tt.job, tt.stage)
			}
			if diff := cmp.Diff(tt.states, states); diff != "" {
				t.Errorf("tasks (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAgentThatNeverAnswers(t *testing.T) {
	w := newWorld(rollout.Policy{Silence: time.Hour}, 1)
	for range rollout.MaxIssues {
		w.step(0, rollout.OrderSigned, start)
		w.step(0, rollout.Fetched, start)
		w.step(0, rollout.AskedAgain, start)
	}
	if w.tasks[0].State != rollout.Failed || w.job.State != rollout.JobFailed {
		t.Errorf("after %d orders the task is %s and the job %s", rollout.MaxIssues, w.tasks[0].State, w.job.State)
	}
}

func TestHalt(t *testing.T) {
	w := newWorld(rollout.Policy{Silence: time.Hour}, 1, 3)
	w.step(0, rollout.OrderSigned, start)
	var effects []rollout.Effect
	w.job, effects = rollout.Halt(w.job, "by admin")
	w.carryOut(effects)
	if w.job.State != rollout.JobRunning || w.count()[1].Skipped != 3 {
		t.Fatalf("job %s, tallies %+v: want a running job whose second stage is skipped", w.job.State, w.count())
	}
	w.step(0, rollout.Succeeded, start)
	if w.job.State != rollout.JobStopped || w.job.Reason != "by admin" || w.finished != 1 {
		t.Errorf("job %s because %q, finished %d times", w.job.State, w.job.Reason, w.finished)
	}
}

func TestNoTasks(t *testing.T) {
	for _, sizes := range [][]int{nil, {0}, {0, 0}} {
		if w := newWorld(rollout.Policy{}, sizes...); w.job.State != rollout.JobDone || w.finished != 1 {
			t.Errorf("%v: job %s, finished %d times", sizes, w.job.State, w.finished)
		}
	}
}

func TestStages(t *testing.T) {
	tests := []struct {
		n, first int
		want     []int
	}{{0, 1, nil}, {1, 0, []int{1}}, {2, 0, []int{1, 1}}, {20, 5, []int{5, 15}}, {3, 9, []int{3}}}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, rollout.Stages(tt.n, tt.first)); diff != "" {
			t.Errorf("Stages(%d, %d): %s", tt.n, tt.first, diff)
		}
	}
}

// TestAnyHistory throws random events at random jobs.
func TestAnyHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.IntRange(0, 4), 1, 4).Draw(t, "sizes")
		policy := rapid.SampledFrom([]rollout.Policy{{Silence: time.Minute}, {Silence: time.Minute, Tolerate: 1}, {Silence: time.Minute, Tolerate: -1}}).Draw(t, "policy")
		w := newWorld(policy, sizes...)
		now := start
		for range rapid.IntRange(0, 120).Draw(t, "steps") {
			if len(w.tasks) == 0 {
				break
			}
			now = now.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "seconds")) * time.Second)
			before := w.job
			i := rapid.IntRange(0, len(w.tasks)-1).Draw(t, "task")
			was := w.tasks[i]
			w.step(i, rollout.EventKind(rapid.IntRange(1, 9).Draw(t, "event")), now)
			if was.State.Final() && w.tasks[i] != was {
				t.Fatalf("a task that had ended changed: %+v -> %+v", was, w.tasks[i])
			}
			if before.State.Final() && w.job.State != before.State {
				t.Fatalf("a job that had ended changed: %s -> %s", before.State, w.job.State)
			}
			if before.Halted && was.State == rollout.Checking && was.Issues == 0 && w.tasks[i].State == rollout.Signed {
				t.Fatal("an order was signed for the first time after the job halted")
			}
			if diff := cmp.Diff(w.count(), w.job.Stages); diff != "" {
				t.Fatalf("the tally differs from the tasks:\n%s", diff)
			}
			for _, task := range w.tasks {
				if task.State != rollout.Waiting && task.State != rollout.Skipped && task.Stage > w.job.Stage {
					t.Fatalf("a task of stage %d started while stage %d is open", task.Stage, w.job.Stage)
				}
			}
			if w.job.Stage > 0 && policy.Tolerate == 0 {
				for s := range w.job.Stage {
					if w.job.Stages[s].Bad() > 0 {
						t.Fatal("a stage opened after a task ended badly")
					}
				}
			}
		}
		// Time ends every job: what is with agents falls silent, what is being
		// checked fails its checks.
		for range 3 {
			now = now.Add(time.Hour)
			for round := 0; round < len(sizes)+1; round++ {
				for i := range w.tasks {
					w.step(i, rollout.CheckFailed, now)
					w.step(i, rollout.Ticked, now)
				}
			}
		}
		if !w.job.State.Final() || w.finished != 1 {
			t.Fatalf("the job never ended: %s, finished %d times, %+v", w.job.State, w.finished, w.job.Stages)
		}
		for _, task := range w.tasks {
			if !task.State.Final() {
				t.Fatalf("the job ended before its task: %+v", task)
			}
		}
	})
}
