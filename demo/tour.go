package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"livemend.dev/livemend/demo/sample"
	"livemend.dev/livemend/demo/show"
	"livemend.dev/livemend/demo/stage"
	"livemend.dev/livemend/demo/world"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/platform"
)

// clients is how many clients each sample service serves all the time.
const clients = 6

// tour is what the steps know, each from those before it.
type tour struct {
	stage    *stage.Stage
	password string // set in place of the one-time password
	portal   *stage.Portal
	platform *stage.Platform
	console  *stage.Console

	alpha, beta *stage.Host                // scenario 1 and 2
	gamma       *world.Server              // knows only the Customer ID
	before      map[string][]world.Process // processes of the services before anything was applied, by server

	key      platform.CreatedKey
	byKey    platform.Install
	byToken  platform.Install
	systems  map[string]string // System IDs by server name
	artifact patchFiles

	scan  fleet.Job
	patch fleet.Patch
	job   platform.JobDetail

	stopped map[process][]time.Duration // processes with eight threads, by every job
}

// patchFiles is what the author tool made.
type patchFiles struct {
	artifact, metadata string
}

// hosts are the servers with the sample service.
func (t *tour) hosts() []*stage.Host { return []*stage.Host{t.alpha, t.beta} }

// steps is the whole demonstration in order. 29 of them are the whitepaper's: 8
// of part 1, 5 of part 2 and the 16 arrows of its second diagram.
func (t *tour) steps() []show.Step {
	return []show.Step{
		{Title: "Portal and platform", Do: t.startServices},
		{Title: "Sample service on two demo servers, and its leak", Do: t.startHosts},
		{Title: "A live patch from two builds, signed and published", Do: t.publish},

		{Paper: "part 1, key", Title: "Create a Key for LivePatching", Do: t.createKey},
		{Paper: "part 1, 1.1", Title: "Activate LivePatching: the key is retrieved", Do: t.activate},
		{Paper: "part 1, install", Title: "The agent is installed by one command", Do: t.installByKey},
		{Paper: "part 1, 1.2", Title: "Add new server: system information and key go to the portal", Do: t.registeredByKey},
		{Paper: "part 1, 1.3", Title: "The portal returns the System ID to the platform", Do: t.systemIDReturned},
		{Paper: "part 1, 2.1", Title: "Add new server with the Customer ID", Do: t.installByToken},
		{Paper: "part 1, 2.2", Title: "The portal returns the System ID to the platform", Do: t.tokenSystemID},
		{Paper: "part 1, 2.3", Title: "The agent keeps the System ID", Do: t.agentsKeepSystemID},
		{Title: "A machine that knows only the Customer ID is refused", Do: t.refuseGamma},

		{Paper: "arrow 1", Title: "Start Scanning", Do: t.startScan},
		{Paper: "arrow 2", Title: "Perform Scan", Do: t.performScan},
		{Paper: "arrow 3", Title: "Scan Results", Do: t.scanResults},
		{Paper: "arrow 4", Title: "Show Scan Results", Do: t.showScanResults},
		{Paper: "part 2, 1", Title: "Scan for vulnerabilities", Do: t.scanned},
		{Paper: "arrow 5", Title: "kc-patch metadata for kernel (here for a shared library)", Do: t.patchMetadata},
		{Paper: "part 2, 2", Title: "Check for available Live Patches", Do: t.catalogue},
		{Paper: "arrow 6", Title: "Map kc-patch metadata with Partner Patch metadata", Do: t.mapMetadata},
		{Paper: "part 2, 3", Title: "List of vulnerabilities eligible for LivePatching", Do: t.eligible},
		{Paper: "arrow 7", Title: "Create deploy job to apply latest kc-patch", Do: t.createJob},
		{Paper: "arrow 8", Title: "Generate and send job manifest", Do: t.manifest},
		{Paper: "arrow 9", Title: "Apply latest kc-patch", Do: t.ordered},
		{Paper: "arrow 10", Title: "Download kc-patch", Do: t.downloaded},
		{Paper: "arrow 11", Title: "kpatch.bin + signatures", Do: t.signatures},
		{Paper: "arrow 12", Title: "Verify signatures", Do: t.verified},
		{Paper: "arrow 13", Title: "Apply patch", Do: t.applied},
		{Paper: "arrow 14", Title: "Generate job result", Do: t.resultMade},
		{Paper: "arrow 15", Title: "Job result", Do: t.resultSent},
		{Paper: "arrow 16", Title: "Process job result", Do: t.resultProcessed},
		{Paper: "part 2, 4", Title: "LivePatch found vulnerabilities: downloaded, checked, pushed, applied", Do: t.checksPassed},
		{Paper: "part 2, 5", Title: "The outcome is shown", Do: t.outcomeShown},

		{Title: "The same probe gets nothing; no process, connection or request was lost", Do: t.noLeak},
		{Title: "A second scan shows the finding as resolved by the live patch", Do: t.resolved},
		{Title: "Revert brings the leak back", Do: t.revert},
		{Title: "Apply again removes it", Do: t.again},
		{Title: "Stop time per process", Do: t.stopTimes},
		{Title: "Nobody noticed: pids, connections and requests over the whole time", Do: t.undisturbed},
	}
}

// all joins what was checked on every server; nothing counts when one failed.
func all(lines []string, errs []error) (string, error) {
	return strings.Join(lines, "\n"), errors.Join(errs...)
}

// each checks something on both servers.
func (t *tour) each(check func(h *stage.Host) (string, error)) (string, error) {
	var lines []string
	var errs []error
	for _, h := range t.hosts() {
		line, err := check(h)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", h.Name, err))
			continue
		}
		lines = append(lines, h.Name+": "+line)
	}
	return all(lines, errs)
}

// leaks probes both servers and wants the answer to be as given.
func (t *tour) leaks(probe func(h *stage.Host) (sample.Finding, error), want bool) (string, error) {
	return t.each(func(h *stage.Host) (string, error) {
		found, err := probe(h)
		if err != nil {
			return "", err
		}
		if found.Leaked != want {
			return "", fmt.Errorf("leaking is %t instead of %t: %s", found.Leaked, want, found.Text)
		}
		return "probe: " + found.Text, nil
	})
}
