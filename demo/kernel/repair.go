package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"livemend.dev/livemend/coverage"
	"livemend.dev/livemend/demo/evidence"
	"livemend.dev/livemend/demo/stage"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/internal/guest"
	"livemend.dev/livemend/platform"
)

// startScan asks for the scan.
func (t *tour) startScan(ctx context.Context) (string, error) {
	// The scanner's content and the catalogue come from the portal's repository.
	if _, err := t.console.Refresh(ctx); err != nil {
		return "", err
	}
	var err error
	if t.scan, err = t.console.Scan(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("job %d: %s", t.scan.ID, t.scan.Title), nil
}

// performScan waits until the agent has run the scanner.
func (t *tour) performScan(ctx context.Context) (string, error) {
	task, err := t.task(ctx, t.scan.ID)
	if err != nil {
		return "", err
	}
	if task.Scanner == "" || task.Result == nil || task.Result.Outcome != "done" {
		return "", errors.New("the scanner did not run")
	}
	return fmt.Sprintf("%s ran on the server without privileges over the signed content %s", task.Scanner, task.Path), nil
}

// task waits for the end of a job and returns its one task.
func (t *tour) task(ctx context.Context, job int64) (task platform.TaskDetail, err error) {
	done, err := t.console.Finish(ctx, job)
	if err != nil {
		return task, err
	}
	if len(done.Tasks) != 1 || done.Tasks[0].Server != t.system {
		return task, fmt.Errorf("job %d has %d tasks", job, len(done.Tasks))
	}
	return done.Tasks[0], nil
}

// finding returns what the platform holds of the flaw.
func (t *tour) finding(ctx context.Context) (f fleet.Finding, err error) {
	detail, err := t.console.Server(ctx, t.system)
	if err != nil {
		return f, err
	}
	i := slices.IndexFunc(detail.Findings, func(f fleet.Finding) bool { return f.CVE == vulnerability })
	if i < 0 {
		return f, fmt.Errorf("the platform has no finding of %s", vulnerability)
	}
	return detail.Findings[i], nil
}

// scanResults looks at the finding.
func (t *tour) scanResults(ctx context.Context) (string, error) {
	f, err := t.finding(ctx)
	if err != nil {
		return "", err
	}
	if !f.Open || f.Component != guest.Debian61.Image.Name || f.Installed != guest.Debian61.Image.Version {
		return "", fmt.Errorf("the finding is not what is there: %+v", f)
	}
	return fmt.Sprintf("%s in %s %s, severity %s, by %s (%s)", f.CVE, f.Component, f.Installed, f.Severity, f.Scanner, f.Definition), nil
}

// showScanResults looks at the page.
func (t *tour) showScanResults(ctx context.Context) (string, error) {
	return t.console.Shows(ctx, "/vulnerabilities", vulnerability)
}

// row returns what is true of the flaw, and wants it to be as given.
func (t *tour) row(ctx context.Context, state coverage.State) (fleet.Coverage, error) {
	rows, err := t.console.Coverage(ctx, vulnerability)
	if err != nil {
		return fleet.Coverage{}, err
	}
	if len(rows) != 1 || rows[0].State != state || rows[0].Server != t.system {
		return fleet.Coverage{}, fmt.Errorf("it is not %q: %+v", state, rows)
	}
	return rows[0], nil
}

// patchMetadata refreshes the catalogue.
func (t *tour) patchMetadata(ctx context.Context) (string, error) {
	items, err := t.console.Catalogue(ctx)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(items.Items, func(p fleet.Patch) bool { return p.BuildID == t.kernel.buildID && !p.Withdrawn })
	if i < 0 {
		return "", errors.New("the catalogue lacks the patch that was published")
	}
	t.patch = items.Items[i]
	return fmt.Sprintf("%s, level %d for kernel %s, fixes %s\nfunctions %s", t.patch.Path, t.patch.Level, t.patch.Release,
		t.patch.Fixes[0].CVE, strings.Join(t.patch.Functions, ", ")), nil
}

// mapMetadata gives the platform the partner's own metadata and looks at both
// answers side by side.
func (t *tour) mapMetadata(ctx context.Context) (string, error) {
	err := t.console.ImportUpdates(ctx, fleet.Update{CVE: vulnerability, Component: guest.Debian61.Image.Name, Distribution: distribution,
		FixedVersion: fixedVersion, Advisory: "demonstration"})
	if err != nil {
		return "", err
	}
	r, err := t.row(ctx, coverage.Available)
	if err != nil {
		return "", err
	}
	if r.PatchPath != t.patch.Path || r.Update != fixedVersion {
		return "", fmt.Errorf("live patch %q, package update %q", r.PatchPath, r.Update)
	}
	return fmt.Sprintf("%s: live patch %s without a restart, or ordinary update to %s with one\n%s", r.CVE, r.PatchID, r.Update, r.Reason), nil
}

// createJob is "LivePatch found vulnerabilities".
func (t *tour) createJob(ctx context.Context) (string, error) {
	job, err := t.console.LivePatchFound(ctx, platform.PatchRequest{CVEs: []string{vulnerability}})
	if err != nil {
		return "", err
	}
	t.job.Job = job
	return fmt.Sprintf("job %d: %s", job.ID, job.Title), nil
}

// manifest waits for the end of the job and looks at its order.
func (t *tour) manifest(ctx context.Context) (string, error) {
	task, err := t.task(ctx, t.job.ID)
	if err != nil {
		return "", err
	}
	if t.job, err = t.console.Job(ctx, t.job.ID); err != nil {
		return "", err
	}
	if task.Counter < 1 || task.Result == nil || len(task.Result.Manifest) != 64 {
		return "", errors.New("there is no signed manifest")
	}
	return fmt.Sprintf("manifest %.16s... number %d for %s only, signed by the director", task.Result.Manifest, task.Counter, task.Server), nil
}

// ordered looks at what was ordered.
func (t *tour) ordered(context.Context) (string, error) {
	task := t.job.Tasks[0]
	if task.Action != "apply" || task.Path != t.patch.Path || task.SHA256 != t.patch.SHA256 || task.Level != t.patch.Level {
		return "", fmt.Errorf("the order is for something else: %+v", task.Task)
	}
	var checks []string
	for _, c := range task.Checks {
		if c.Outcome == fleet.CheckFailed {
			return "", fmt.Errorf("check %q: %s", c.Name, c.Detail)
		}
		checks = append(checks, string(c.Outcome)+": "+c.Name+" ("+c.Detail+")")
	}
	return fmt.Sprintf("ordered to apply level %d for kernel build-id %s\nsecurity checks before the order:\n%s", task.Level, task.BuildID, strings.Join(checks, "\n")), nil
}

// downloaded looks for the artifact in the agent's state.
func (t *tour) downloaded(context.Context) (string, error) {
	b, err := t.server.Get(filepath.Join(stage.AgentState, "objects", t.patch.SHA256))
	if err != nil {
		return "", err
	}
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != t.patch.SHA256 || int64(len(b)) != t.patch.Length {
		return "", errors.New("the agent holds something else")
	}
	return fmt.Sprintf("the agent holds the module of %d bytes, SHA-256 %s", t.patch.Length, t.patch.SHA256), nil
}

// signatures compares the agent's metadata with the portal's.
func (t *tour) signatures(ctx context.Context) (string, error) {
	signed, err := t.portal.SignedFiles(ctx)
	if err != nil {
		return "", err
	}
	var held []string
	for name, content := range signed {
		role := name[strings.LastIndexByte(strings.TrimSuffix(name, ".json"), '.')+1:]
		b, err := t.server.Get(filepath.Join(stage.AgentState, "repository", role))
		if err != nil {
			return "", err
		}
		if string(b) != string(content) {
			return "", fmt.Errorf("the agent's %s is not the portal's %s", role, name)
		}
		held = append(held, name)
	}
	slices.Sort(held)
	return "the agent holds, byte for byte, the portal's " + strings.Join(held, ", "), nil
}

// checked verifies the agent's files again, as they are and with a bit changed.
func (t *tour) checked(context.Context) (string, error) {
	return evidence.Agent(t.server.Get, stage.AgentState, t.install.TrustDigest, t.patch)
}

// applied reads the truth from the kernel itself.
func (t *tour) applied(context.Context) (string, error) {
	return t.sh(`set -e; cd /sys/kernel/livepatch; for m in *; do
test "$(cat $m/enabled) $(cat $m/transition)" = "1 0"
echo "module $m: enabled $(cat $m/enabled), in transition $(cat $m/transition), taint $(cat /proc/sys/kernel/tainted)"
for f in $m/*/*,*; do echo "  $f"; done; done`)
}

// resultMade looks at the signed report.
func (t *tour) resultMade(context.Context) (string, error) {
	result := t.job.Tasks[0].Result
	if len(result.Processes) != 1 || result.Processes[0].Outcome != "done" {
		return "", fmt.Errorf("the report says %+v", result.Processes)
	}
	return "the agent's signed report: " + result.Processes[0].Command + ": " + result.Processes[0].Reason, nil
}

// resultSent looks at what the platform received.
func (t *tour) resultSent(context.Context) (string, error) {
	result := t.job.Tasks[0].Result
	if result.ReceivedAt.IsZero() {
		return "", errors.New("the platform has no report")
	}
	return "report received and verified with the system's identity key: " + result.Outcome + ": " + result.Text, nil
}

// resultProcessed looks at what follows from it.
func (t *tour) resultProcessed(ctx context.Context) (string, error) {
	r, err := t.row(ctx, coverage.LivePatched)
	if err != nil {
		return "", err
	}
	page, err := t.console.Shows(ctx, fmt.Sprintf("/jobs/%d", t.job.ID), t.job.Title, hostname)
	return fmt.Sprintf("job %d is %s\n%s is %s: %s\n%s", t.job.ID, t.job.State, r.CVE, r.State, r.Reason, page), err
}

// is wants an answer of the oracle.
func is(answer, want string) error {
	if answer != want {
		return fmt.Errorf("the oracle says %q, not %s", answer, want)
	}
	return nil
}

// answers asks the server and wants one answer, from the same boot as before.
func (t *tour) answers(want string) (string, error) {
	answer, err := ask(t.server)
	if err != nil {
		return "", err
	}
	if err := is(answer, want); err != nil {
		return "", err
	}
	boot, err := t.sh("cat /proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	if boot != t.before {
		return "", errors.New("the server was restarted")
	}
	return answer, nil
}

// fixed asks again.
func (t *tour) fixed(context.Context) (string, error) {
	answer, err := t.answers("FIXED")
	if err != nil {
		return "", err
	}
	covered, err := t.sh("cat " + stage.CVEList + "; livemend-agent is-covered " + vulnerability)
	return answer + "\nthe same boot as before, " + t.before + stage.CVEList + ": " + strings.TrimSpace(covered), err
}

// resolved scans again.
func (t *tour) resolved(ctx context.Context) (string, error) {
	job, err := t.console.Scan(ctx)
	if err != nil {
		return "", err
	}
	if _, err := t.task(ctx, job.ID); err != nil {
		return "", err
	}
	f, err := t.finding(ctx)
	if err != nil {
		return "", err
	}
	if f.Open || f.Job != job.ID {
		return "", fmt.Errorf("the finding of job %d is open: %t", f.Job, f.Open)
	}
	return fmt.Sprintf("scan %d finds %s no more, with %s %s still installed and running", job.ID, f.CVE, guest.Debian61.Image.Name, guest.Debian61.Image.Version), nil
}

// revert takes the patch off and sees the flaw come back.
func (t *tour) revert(ctx context.Context) (string, error) {
	job, err := t.console.Revert(ctx, platform.RevertRequest{Path: t.patch.Path})
	if err != nil {
		return "", err
	}
	if _, err := t.task(ctx, job.ID); err != nil {
		return "", err
	}
	answer, err := t.answers("VULNERABLE")
	return fmt.Sprintf("job %d: %s\n%s", job.ID, job.Title, answer), err
}

// again applies the patch once more.
func (t *tour) again(ctx context.Context) (string, error) {
	// The platform learns from a scan that the flaw is back.
	scan, err := t.console.Scan(ctx)
	if err != nil {
		return "", err
	}
	if _, err := t.task(ctx, scan.ID); err != nil {
		return "", err
	}
	job, err := t.console.LivePatchFound(ctx, platform.PatchRequest{CVEs: []string{vulnerability}})
	if err != nil {
		return "", err
	}
	if _, err := t.task(ctx, job.ID); err != nil {
		return "", err
	}
	answer, err := t.answers("FIXED")
	return fmt.Sprintf("job %d: %s\n%s", job.ID, job.Title, answer), err
}

// compare boots the distribution's fixed kernel beside the patched one.
func (t *tour) compare(ctx context.Context) (string, error) {
	ours, err := t.answers("FIXED")
	if err != nil {
		return "", err
	}
	fixed, theirs, err := t.boot(ctx, guest.Config{Kernel: guest.Debian61Fixed}, "fixed-server")
	if err != nil {
		return "", err
	}
	defer fixed.Kill()
	if theirs != ours {
		return "", fmt.Errorf("the patched kernel says %q, the fixed one %q", ours, theirs)
	}
	id, err := identify(fixed)
	return fmt.Sprintf("%s patched: %s\n%s of the distribution: %s", t.kernel.release, ours, id.release, theirs), err
}
