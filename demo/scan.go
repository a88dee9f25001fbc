package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"livemend.dev/livemend/coverage"
	"livemend.dev/livemend/demo/sample"
	"livemend.dev/livemend/demo/stage"
	"livemend.dev/livemend/fleet"
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

// performScan waits until the agents have run the scanner.
func (t *tour) performScan(ctx context.Context) (string, error) {
	job, err := t.console.Finish(ctx, t.scan.ID)
	if err != nil {
		return "", err
	}
	return t.tasks(job, func(task platform.TaskDetail) (string, error) {
		if task.Scanner == "" || task.Result == nil || task.Result.Outcome != "done" {
			return "", errors.New("the scanner did not run")
		}
		return fmt.Sprintf("%s ran there without privileges over the signed content %s", task.Scanner, task.Path), nil
	})
}

// tasks checks something of a job's task on each server.
func (t *tour) tasks(job platform.JobDetail, check func(platform.TaskDetail) (string, error)) (string, error) {
	return t.each(func(h *stage.Host) (string, error) {
		i := slices.IndexFunc(job.Tasks, func(d platform.TaskDetail) bool { return d.Server == t.systems[h.Name] })
		if i < 0 {
			return "", fmt.Errorf("job %d has no task for it", job.ID)
		}
		return check(job.Tasks[i])
	})
}

// finding returns what the platform holds of the planted bug on a server.
func (t *tour) finding(ctx context.Context, h *stage.Host) (fleet.Finding, error) {
	detail, err := t.console.Server(ctx, t.systems[h.Name])
	if err != nil {
		return fleet.Finding{}, err
	}
	i := slices.IndexFunc(detail.Findings, func(f fleet.Finding) bool { return f.CVE == sample.Vulnerability })
	if i < 0 {
		return fleet.Finding{}, fmt.Errorf("the platform has no finding of %s", sample.Vulnerability)
	}
	return detail.Findings[i], nil
}

// scanResults looks at the findings.
func (t *tour) scanResults(ctx context.Context) (string, error) {
	return t.each(func(h *stage.Host) (string, error) {
		f, err := t.finding(ctx, h)
		if err != nil {
			return "", err
		}
		if !f.Open || f.Component != sample.LibraryPackage || f.Installed != sample.Version {
			return "", fmt.Errorf("the finding is not what is there: %+v", f)
		}
		return fmt.Sprintf("%s in %s %s, severity %s, by %s (%s)", f.CVE, f.Component, f.Installed, f.Severity, f.Scanner, f.Definition), nil
	})
}

// showScanResults looks at the pages.
func (t *tour) showScanResults(ctx context.Context) (string, error) {
	return t.console.Shows(ctx, "/vulnerabilities", sample.Vulnerability)
}

// scanned sums the paper's step up.
func (t *tour) scanned(ctx context.Context) (string, error) {
	rows, err := t.rows(ctx, coverage.Vulnerable, coverage.Available)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d servers scanned, %d have the vulnerability", len(t.hosts()), len(rows)), nil
}

// rows returns what is true of the planted bug in memory of each server, and
// wants one of the states.
func (t *tour) rows(ctx context.Context, states ...coverage.State) ([]fleet.Coverage, error) {
	rows, err := t.console.Coverage(ctx, sample.Vulnerability)
	if err != nil {
		return nil, err
	}
	rows = slices.DeleteFunc(rows, func(r fleet.Coverage) bool { return !strings.Contains(r.Scope, t.stage.Sample.BuildID) })
	if len(rows) != len(t.hosts()) {
		return nil, fmt.Errorf("%d servers have %s in memory instead of %d", len(rows), sample.Vulnerability, len(t.hosts()))
	}
	for _, r := range rows {
		if !slices.Contains(states, r.State) {
			return nil, fmt.Errorf("%s is %q: %s", r.Hostname, r.State, r.Reason)
		}
	}
	return rows, nil
}

// patchMetadata refreshes the catalogue.
func (t *tour) patchMetadata(ctx context.Context) (string, error) {
	change, err := t.console.Refresh(ctx)
	if err != nil {
		return "", err
	}
	items, err := t.console.Catalogue(ctx)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(items.Items, func(p fleet.Patch) bool { return p.BuildID == t.stage.Sample.BuildID && !p.Withdrawn })
	if i < 0 {
		return "", errors.New("the catalogue lacks the patch that was published")
	}
	t.patch = items.Items[i]
	return fmt.Sprintf("%s, level %d for build-id %s, fixes %s\nfunctions %s", t.patch.Path, t.patch.Level, t.patch.BuildID,
		t.patch.Fixes[0].CVE, strings.Join(t.patch.Functions, ", ")) + fmt.Sprintf("\nsigned targets metadata version %d", change.Version), nil
}

// catalogue compares with what the portal serves to anybody.
func (t *tour) catalogue(ctx context.Context) (string, error) {
	signed, err := t.portal.SignedFiles(ctx)
	if err != nil {
		return "", err
	}
	for name, content := range signed {
		if strings.HasSuffix(name, "targets.json") && strings.Contains(string(content), t.patch.SHA256) {
			return fmt.Sprintf("the platform's entry has the length (%d) and SHA-256 (%s) of %s, which the vendor's offline keys signed",
				t.patch.Length, t.patch.SHA256, name), nil
		}
	}
	return "", errors.New("the portal's signed metadata does not name the catalogue's file")
}

// mapMetadata gives the platform the partner's own metadata and looks at both
// answers side by side.
func (t *tour) mapMetadata(ctx context.Context) (string, error) {
	if err := t.console.ImportUpdates(ctx, update()); err != nil {
		return "", err
	}
	rows, err := t.rows(ctx, coverage.Available)
	if err != nil {
		return "", err
	}
	var lines []string
	for _, r := range rows {
		if r.PatchPath != t.patch.Path || r.Update != sample.FixedVersion {
			return "", fmt.Errorf("%s: live patch %q, package update %q", r.Hostname, r.PatchPath, r.Update)
		}
		lines = append(lines, fmt.Sprintf("%s: %s: live patch %s, or ordinary update to %s %s", r.Hostname, r.CVE, r.PatchID, r.Component, r.Update))
	}
	return strings.Join(lines, "\n"), nil
}

// eligible asks what a job would do.
func (t *tour) eligible(ctx context.Context) (string, error) {
	rows, err := t.rows(ctx, coverage.Available)
	if err != nil {
		return "", err
	}
	plan, err := t.console.Plan(ctx, platform.PatchRequest{CVEs: []string{sample.Vulnerability}})
	if err != nil {
		return "", err
	}
	if plan.Servers != int64(len(rows)) {
		return "", fmt.Errorf("the plan is for %d servers instead of %d", plan.Servers, len(rows))
	}
	return plan.Text, nil
}
