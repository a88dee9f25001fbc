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
	"livemend.dev/livemend/platform"
)

// noLeak probes again and looks at what must not have changed.
func (t *tour) noLeak(ctx context.Context) (string, error) {
	probes, err := t.leaks(func(h *stage.Host) (sample.Finding, error) { return h.Probe(ctx) }, false)
	if err != nil {
		return "", err
	}
	same, err := t.undisturbed(ctx)
	return probes + "\n" + same, err
}

// undisturbed compares the services' processes with those before anything was
// applied, and looks at what their clients saw.
func (t *tour) undisturbed(context.Context) (string, error) {
	return t.each(func(h *stage.Host) (string, error) {
		now, err := h.Service()
		if err != nil {
			return "", err
		}
		if !slices.Equal(now, t.before[h.Name]) {
			return "", fmt.Errorf("%s before, now %s", describe(t.before[h.Name]), describe(now))
		}
		seen := h.Load.Stats()
		if seen.Failures != 0 || seen.Reconnects != 0 || seen.Requests == 0 {
			return "", errors.New(seen.String())
		}
		return "the same " + describe(now) + "\n  " + seen.String(), nil
	})
}

// resolved scans again.
func (t *tour) resolved(ctx context.Context) (string, error) {
	listed, err := t.each(func(h *stage.Host) (string, error) { return cveList(ctx, h, true) })
	if err != nil {
		return "", err
	}
	job, err := t.console.Scan(ctx)
	if err != nil {
		return "", err
	}
	if _, err := t.console.Finish(ctx, job.ID); err != nil {
		return "", err
	}
	closed, err := t.each(func(h *stage.Host) (string, error) {
		f, err := t.finding(ctx, h)
		if err != nil {
			return "", err
		}
		if f.Open || f.Job != job.ID {
			return "", fmt.Errorf("the finding of job %d is open: %t", f.Job, f.Open)
		}
		return fmt.Sprintf("scan %d finds %s no more, with %s %s still installed", job.ID, f.CVE, sample.LibraryPackage, sample.Version), nil
	})
	if err != nil {
		return "", err
	}
	rows, err := t.rows(ctx, coverage.LivePatched)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s\n%s\non the platform: %s on %d servers", listed, closed, rows[0].State, len(rows)), nil
}

// cveList reads what the agent tells other programs on its server.
func cveList(ctx context.Context, h *stage.Host, want bool) (string, error) {
	text, err := h.Run(ctx, nil, "cat", stage.CVEList)
	if err != nil {
		return "", err
	}
	if listed := slices.Contains(strings.Fields(text), sample.Vulnerability); listed != want {
		return "", fmt.Errorf("%s lists the vulnerability: %t", stage.CVEList, listed)
	}
	return stage.CVEList + " lists: " + strings.Join(strings.Fields(text), " "), nil
}

// revert takes the patch off everywhere and sees the leak come back.
func (t *tour) revert(ctx context.Context) (string, error) {
	order, err := t.console.Revert(ctx, platform.RevertRequest{Path: t.patch.Path})
	if err != nil {
		return "", err
	}
	job, err := t.console.Finish(ctx, order.ID)
	if err != nil {
		return "", err
	}
	t.stops(job)
	probes, err := t.leaks(func(h *stage.Host) (sample.Finding, error) { return h.Probe(ctx) }, true)
	if err != nil {
		return "", err
	}
	listed, err := t.each(func(h *stage.Host) (string, error) { return cveList(ctx, h, false) })
	return fmt.Sprintf("job %d: %s\n%s\n%s", job.ID, job.Title, probes, listed), err
}

// again applies the patch once more.
func (t *tour) again(ctx context.Context) (string, error) {
	var job platform.JobDetail
	// The platform learns from a scan that the bug is back.
	scan, err := t.console.Scan(ctx)
	if err != nil {
		return "", err
	}
	if _, err := t.console.Finish(ctx, scan.ID); err != nil {
		return "", err
	}
	if job.Job, err = t.console.LivePatchFound(ctx, platform.PatchRequest{CVEs: []string{sample.Vulnerability}}); err != nil {
		return "", err
	}
	if job, err = t.console.Finish(ctx, job.ID); err != nil {
		return "", err
	}
	t.stops(job)
	probes, err := t.leaks(func(h *stage.Host) (sample.Finding, error) { return h.Probe(ctx) }, false)
	return fmt.Sprintf("job %d: %s\n%s", job.ID, job.Title, probes), err
}

// switched reads from a process itself that both vulnerable functions jump into
// code that is not the library's and not writable.
func switched(h *stage.Host, pid int, built *sample.Built) (string, error) {
	m, err := openMemory(h.Path(fmt.Sprintf("/proc/%d", pid)))
	if err != nil {
		return "", err
	}
	defer m.Close()
	base, err := m.base(sample.LibraryPath)
	if err != nil {
		return "", err
	}
	var lines []string
	for _, name := range []string{"answer_beat", "answer_digest"} {
		at, err := symbol(built.Twin, name)
		if err != nil {
			return "", err
		}
		entry := base + at
		target, err := m.jump(entry)
		if err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		to, ok := m.find(target)
		if !ok || to.path != "" || !strings.HasPrefix(to.prot, "r-x") {
			return "", fmt.Errorf("%s jumps to %#x, which is no patch: %+v", name, target, to)
		}
		lines = append(lines, fmt.Sprintf("%s at %#x jumps to %#x (%s)", name, entry, target, to.prot))
	}
	return fmt.Sprintf("process %d: %s", pid, strings.Join(lines, ", ")), nil
}
