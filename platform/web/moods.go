package web

import (
	"livemend.dev/livemend/coverage"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/rollout"
	"livemend.dev/livemend/wire"
)

// coverageMoods is how each state of the coverage table looks, everywhere.
var coverageMoods = map[coverage.State]mood{
	coverage.Vulnerable:  {"red", "shield", "vulnerable", "Open, and no live patch fits"},
	coverage.Available:   {"amber", "bolt", "live patch available", "Open, and a live patch fits this exact binary"},
	coverage.LivePatched: {"green", "bolt", "live-patched", "Fixed in memory; the agent signed the proof"},
	coverage.FixedOnDisk: {"blue", "disk", "fixed on disk, old in memory", "The package is updated, but processes still run the old code"},
	coverage.NotRunning:  {"grey", "dash", "not the running kernel", "Installed, but another kernel runs"},
	coverage.NotAffected: {"grey", "check", "not affected", "Nothing here runs or holds the vulnerable code"},
	coverage.Unknown:     {"hatched", "question", "unknown", "Not enough evidence to say"},
}

func coverageMood(s coverage.State) mood {
	if m, ok := coverageMoods[s]; ok {
		return m
	}
	return mood{"hatched", "question", string(s), ""}
}

// coverageHue is the colour of a state's part in a bar.
func coverageHue(s coverage.State) string {
	if hue := coverageMood(s).hue; hue != "hatched" {
		return hue
	}
	return "grey"
}

func jobMood(j rollout.Job) mood {
	s := j.State
	if s == rollout.JobRunning && j.Halted {
		return mood{"purple", "stop", "stopping", "No further task starts; those that had started end by themselves"}
	}
	switch s {
	case rollout.JobRunning:
		return mood{"accent", "running", "running", "Tasks wait or run"}
	case rollout.JobDone:
		return mood{"green", "check", "done", "Every task ended well"}
	case rollout.JobFailed:
		return mood{"red", "alert", "failed", "Every task ended, at least one of them badly"}
	case rollout.JobStopped:
		return mood{"purple", "stop", "stopped", "A failure or a person ended it before every task had started"}
	}
	return mood{"hatched", "question", string(s), ""}
}

func taskMood(s rollout.TaskState) mood {
	switch s {
	case rollout.Waiting:
		return mood{"grey", "clock", "waiting", "Its stage is not open yet"}
	case rollout.Checking:
		return mood{"accent", "running", "checking", "The platform runs its security checks"}
	case rollout.Signed:
		return mood{"accent", "running", "signed", "The manifest is signed and waits for the agent to fetch it"}
	case rollout.Sent:
		return mood{"accent", "running", "sent", "The agent has the manifest"}
	case rollout.Running:
		return mood{"accent", "running", "running", "The agent works"}
	case rollout.Done:
		return mood{"green", "check", "done", "The agent signed the result"}
	case rollout.Failed:
		return mood{"red", "alert", "failed", "Tried; see the reason"}
	case rollout.Refused:
		return mood{"red", "stop", "refused", "A check, the agent or its policy said no"}
	case rollout.Skipped:
		return mood{"grey", "dash", "skipped", "Not tried"}
	}
	return mood{"hatched", "question", string(s), ""}
}

// outcomeMood is how the end of one process of a task looks.
func outcomeMood(outcome string) mood {
	switch wire.Outcome(outcome) {
	case wire.Done:
		return mood{"green", "check", "done", ""}
	case wire.Nothing:
		return mood{"grey", "dash", "nothing to do", ""}
	case wire.Failed:
		return mood{"red", "alert", "failed", ""}
	case wire.Refused:
		return mood{"red", "stop", "refused", ""}
	case wire.Partial:
		return mood{"amber", "clock", "partly done", ""}
	}
	return mood{"hatched", "question", outcome, ""}
}

func onlineMood(online bool) mood {
	if online {
		return mood{"green", "check", "online", "Its agent is connected"}
	}
	return mood{"outline", "signal", "silent", "Its agent is not connected"}
}

// checkIcon is the drawing beside a security check.
func checkIcon(o fleet.CheckOutcome) string {
	switch o {
	case fleet.CheckPassed:
		return "check"
	case fleet.CheckFailed:
		return "alert"
	}
	return "dash"
}

// jobWord says what a kind of job does.
func jobWord(k fleet.JobKind) string {
	switch k {
	case fleet.ScanJob:
		return "scan"
	case fleet.LivePatchJob:
		return "live patch"
	case fleet.RevertJob:
		return "revert"
	}
	return string(k)
}

// coverageParts are the counts of the states as parts of a bar, worst first.
func coverageParts(states map[coverage.State]int64) []part {
	var parts []part
	for _, s := range coverage.States {
		parts = append(parts, part{int(states[s]), coverageHue(s), coverageMood(s).word})
	}
	return parts
}

// tallyParts are the counts of a stage as parts of a bar.
func tallyParts(t rollout.Tally) []part {
	return []part{
		{t.Done, "green", "done"},
		{t.Active, "accent", "running"},
		{t.Failed, "red", "failed"},
		{t.Refused, "red", "refused"},
		{t.Skipped, "purple", "skipped"},
		{t.Waiting, "grey", "waiting"},
	}
}
