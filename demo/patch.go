package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"livemend.dev/livemend/coverage"
	"livemend.dev/livemend/demo/evidence"
	"livemend.dev/livemend/demo/sample"
	"livemend.dev/livemend/demo/stage"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/platform"
)

// maxStop is how long a process with eight threads may be stopped.
const maxStop = time.Millisecond

// createJob is "LivePatch found vulnerabilities".
func (t *tour) createJob(ctx context.Context) (string, error) {
	job, err := t.console.LivePatchFound(ctx, platform.PatchRequest{CVEs: []string{sample.Vulnerability}})
	if err != nil {
		return "", err
	}
	t.job.Job = job
	return fmt.Sprintf("job %d: %s", job.ID, job.Title), nil
}

// manifest waits for the end of the job and looks at its orders.
func (t *tour) manifest(ctx context.Context) (string, error) {
	var err error
	if t.job, err = t.console.Finish(ctx, t.job.ID); err != nil {
		return "", err
	}
	t.stops(t.job)
	return t.tasks(t.job, func(task platform.TaskDetail) (string, error) {
		if task.Counter < 1 || task.Result == nil || len(task.Result.Manifest) != 64 {
			return "", errors.New("there is no signed manifest")
		}
		return fmt.Sprintf("manifest %.16s... number %d for %s only, signed by the director", task.Result.Manifest, task.Counter, task.Server), nil
	})
}

// ordered looks at what was ordered.
func (t *tour) ordered(context.Context) (string, error) {
	return t.tasks(t.job, func(task platform.TaskDetail) (string, error) {
		if task.Action != "apply" || task.Path != t.patch.Path || task.SHA256 != t.patch.SHA256 || task.Level != t.patch.Level {
			return "", fmt.Errorf("the order is for something else: %+v", task.Task)
		}
		return fmt.Sprintf("ordered to apply level %d, the newest for build-id %s", task.Level, task.BuildID), nil
	})
}

// downloaded looks for the artifact in the agents' state.
func (t *tour) downloaded(context.Context) (string, error) {
	return t.each(func(h *stage.Host) (string, error) {
		files, err := hashes(h.Path(stage.AgentState))
		if err != nil {
			return "", err
		}
		if files[t.patch.SHA256] == "" {
			return "", errors.New("the agent does not hold the patch")
		}
		return fmt.Sprintf("the agent holds the patch of %d bytes, SHA-256 %s", t.patch.Length, t.patch.SHA256), nil
	})
}

// signatures compares the agents' metadata with the portal's.
func (t *tour) signatures(ctx context.Context) (string, error) {
	signed, err := t.portal.SignedFiles(ctx)
	if err != nil {
		return "", err
	}
	return t.each(func(h *stage.Host) (string, error) {
		files, err := hashes(h.Path(stage.AgentState))
		if err != nil {
			return "", err
		}
		for name, content := range signed {
			if files[hash(content)] == "" {
				return "", fmt.Errorf("the agent does not hold %s", name)
			}
		}
		return "the agent holds, byte for byte, the portal's " + names(signed), nil
	})
}

// verified checks the agents' metadata again, with the product's verifier and
// the roots that the trust digest pins, and that one changed bit is refused.
func (t *tour) verified(context.Context) (string, error) {
	return t.each(func(h *stage.Host) (string, error) {
		read := func(path string) ([]byte, error) { return os.ReadFile(h.Path(path)) }
		return evidence.Agent(read, stage.AgentState, t.byKey.TrustDigest, t.patch)
	})
}

// applied reads the truth from the processes themselves.
func (t *tour) applied(context.Context) (string, error) {
	return t.each(func(h *stage.Host) (string, error) {
		processes, err := h.Service()
		if err != nil {
			return "", err
		}
		var lines []string
		for _, p := range processes {
			line, err := switched(h, p.PID, t.stage.Sample)
			if err != nil {
				return "", fmt.Errorf("process %d: %w", p.PID, err)
			}
			lines = append(lines, line)
		}
		return strings.Join(lines, "\n  "), nil
	})
}

// resultMade looks at the signed reports and the stop times in them.
func (t *tour) resultMade(context.Context) (string, error) {
	return t.tasks(t.job, func(task platform.TaskDetail) (string, error) {
		var lines []string
		for _, p := range task.Result.Processes {
			stop := time.Duration(p.StopNS)
			if p.Outcome != "done" {
				return "", fmt.Errorf("process %d: %s %s", p.PID, p.Outcome, p.Reason)
			}
			lines = append(lines, fmt.Sprintf("process %d (%s), %d threads: stopped for %s", p.PID, p.Command, p.Threads, milliseconds(stop)))
		}
		if len(lines) != 1+sample.Workers {
			return "", fmt.Errorf("the report names %d processes instead of %d", len(lines), 1+sample.Workers)
		}
		return "the agent's signed report:\n  " + strings.Join(lines, "\n  "), nil
	})
}

// process names a process of a demo server.
type process struct {
	server string
	pid    int64
}

// stops collects how long processes with eight threads were stopped for a job.
func (t *tour) stops(job platform.JobDetail) {
	if t.stopped == nil {
		t.stopped = map[process][]time.Duration{}
	}
	for _, task := range job.Tasks {
		if task.Result == nil {
			continue
		}
		for _, p := range task.Result.Processes {
			if p.Threads == sample.ThreadsPerWorker && p.Outcome == "done" {
				name := process{task.Hostname, p.PID}
				t.stopped[name] = append(t.stopped[name], time.Duration(p.StopNS))
			}
		}
	}
}

// stopTimes looks at all of them. What counts is each process's shortest stop:
// on a busy machine the others measure how long the engine waited for a
// processor. So it stops them a few times more before it says that they take
// too long.
func (t *tour) stopTimes(ctx context.Context) (string, error) {
	const rounds = 5
	for range rounds {
		if t.longestShortest() < maxStop {
			break
		}
		if _, err := t.revert(ctx); err != nil {
			return "", err
		}
		if _, err := t.again(ctx); err != nil {
			return "", err
		}
	}
	if want := len(t.hosts()) * sample.Workers; len(t.stopped) != want {
		return "", fmt.Errorf("stops of %d processes were reported instead of %d", len(t.stopped), want)
	}
	var lines []string
	for name, stops := range t.stopped {
		var words []string
		for _, d := range stops {
			words = append(words, milliseconds(d))
		}
		lines = append(lines, fmt.Sprintf("%s: process %d, %d threads, stopped for %s", name.server, name.pid, sample.ThreadsPerWorker, strings.Join(words, ", ")))
	}
	slices.Sort(lines)
	if d := t.longestShortest(); d >= maxStop {
		return "", fmt.Errorf("a process was never stopped for less than %s\n%s", milliseconds(d), strings.Join(lines, "\n"))
	}
	return strings.Join(lines, "\n") + "\nthe shortest of each is under " + milliseconds(maxStop), nil
}

// longestShortest returns the longest of the processes' shortest stops.
func (t *tour) longestShortest() (longest time.Duration) {
	for _, stops := range t.stopped {
		longest = max(longest, slices.Min(stops))
	}
	return longest
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.3f ms", float64(d.Nanoseconds())/1e6)
}

// resultSent looks at what the platform received.
func (t *tour) resultSent(context.Context) (string, error) {
	return t.tasks(t.job, func(task platform.TaskDetail) (string, error) {
		if task.Result.ReceivedAt.IsZero() || task.Result.Task != task.ID {
			return "", errors.New("the platform has no report")
		}
		return "report received and verified with the system's identity key: " + task.Result.Outcome + " " + task.Result.Text, nil
	})
}

// resultProcessed looks at what follows from it.
func (t *tour) resultProcessed(ctx context.Context) (string, error) {
	rows, err := t.rows(ctx, coverage.LivePatched)
	if err != nil {
		return "", err
	}
	var lines []string
	for _, r := range rows {
		lines = append(lines, fmt.Sprintf("%s: %s is %s: %s", r.Hostname, r.CVE, r.State, r.Reason))
	}
	return fmt.Sprintf("job %d is %s\n%s", t.job.ID, t.job.State, strings.Join(lines, "\n")), nil
}

// checksPassed lists the platform's security checks.
func (t *tour) checksPassed(context.Context) (string, error) {
	const fewest = 6
	outcomes := map[string]fleet.CheckOutcome{}
	for _, task := range t.job.Tasks {
		for _, c := range task.Checks {
			if c.Outcome == fleet.CheckFailed {
				return "", fmt.Errorf("check %q: %s", c.Name, c.Detail)
			}
			outcomes[c.Name] = c.Outcome
		}
	}
	if len(outcomes) < fewest {
		return "", fmt.Errorf("only %d security checks", len(outcomes))
	}
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(outcomes)) {
		lines = append(lines, string(outcomes[name])+": "+name)
	}
	return "security checks before the order:\n" + strings.Join(lines, "\n"), nil
}

// outcomeShown looks at the job's page.
func (t *tour) outcomeShown(ctx context.Context) (string, error) {
	return t.console.Shows(ctx, fmt.Sprintf("/jobs/%d", t.job.ID), t.job.Title, t.alpha.Name, t.beta.Name)
}
