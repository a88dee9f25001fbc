package agent_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"livemend.dev/livemend/agent/enrolment"
	"livemend.dev/livemend/agent/inventory"
	"livemend.dev/livemend/agent/state"
	"livemend.dev/livemend/coverage"
	"livemend.dev/livemend/enrol"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/platform"
	"livemend.dev/livemend/platform/platformtest"
	"livemend.dev/livemend/rollout"
	"livemend.dev/livemend/scan/oval"
	"livemend.dev/livemend/store/storetest"
	"livemend.dev/livemend/trust"
)

// TestAgainstTheRealPlatform is the product's path with nothing in anybody's
// place: portal, platform, agent, scanner, library and process are real.
func TestAgainstTheRealPlatform(t *testing.T) {
	if _, err := os.Stat("/usr/bin/oscap"); err != nil {
		t.Skip("OpenSCAP is not installed: install openscap-scanner to run this")
	}
	s := newSample(t)
	a := newAgent(t, nil)
	p := platformtest.Start(t, storetest.SQLite(t), nil)
	svc, admin, ctx := p.Service, p.Admin, t.Context()

	key := must[platform.CreatedKey](t)(svc.CreateKey(ctx, admin, platform.NewKey{Note: "test"}))
	enrolled := must[state.Enrolment](t)(enrolment.Run(ctx, a.store, inventory.New(), enrolment.Request{
		Server: p.URL, Trust: p.Bundle.Digest(), Credential: must[enrol.Credential](t)(enrol.Parse(key.Text)), Version: "test", Log: a.log,
	}))
	proc := s.start()
	a.start()

	definitions := must[[]byte](t)((&oval.Document{Time: time.Now(), List: filepath.Join(a.run, "cvelist"), Vulnerabilities: []oval.Vulnerability{
		{ID: cve, Title: "The library leaks", Severity: "high", Package: "dpkg", FixedVersion: "999"},
	}}).Write())
	p.PublishContent("oval.xml", definitions)
	md := *s.levels[0].Metadata
	md.Fixes = []patch.Fix{{CVE: cve, Severity: "high", Component: "dpkg", Distribution: "debian-12", FixedVersion: "999"}}
	p.Publish(trust.Target{Path: md.Path(), Custom: md.Custom()}, s.levels[0].Artifact)
	must[platform.CatalogueChange](t)(svc.RefreshCatalogue(ctx, admin))

	finish := func(job fleet.Job, err error) platform.TaskDetail {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		done := p.WaitJob(admin, job.ID)
		task := platformtest.Task(t, done, enrolled.SystemID)
		if done.State != rollout.JobDone || task.Result == nil {
			t.Fatalf("the job ended %s: %+v", done.State, task)
		}
		return task
	}
	isState := func(want coverage.State) {
		t.Helper()
		rows := must[fleet.Page[fleet.Coverage]](t)(svc.Coverage(ctx, admin, platform.CoverageFilter{})).Items
		if !slices.ContainsFunc(rows, func(r fleet.Coverage) bool { return r.CVE == cve && r.State == want }) {
			t.Errorf("coverage is not %q: %+v", want, rows)
		}
	}
	finish(svc.ScanServers(ctx, admin, platform.ScanRequest{}))
	isState(coverage.Available)
	proc.expect("leaks")
	task := finish(svc.LivePatchFound(ctx, admin, platform.PatchRequest{}))
	if len(task.Result.Processes) != 1 || task.Result.Processes[0].PID != int64(proc.pid) || task.Result.Processes[0].StopNS <= 0 {
		t.Errorf("evidence: %+v", task.Result.Processes)
	}
	proc.expect("fixed at level 1")
	isState(coverage.LivePatched)

	finish(svc.ScanServers(ctx, admin, platform.ScanRequest{})) // the scanner reads the agent's list
	open := func() bool {
		server := must[platform.ServerDetail](t)(svc.Server(ctx, admin, enrolled.SystemID))
		return slices.ContainsFunc(server.Findings, func(f fleet.Finding) bool { return f.CVE == cve && f.Open })
	}
	if open() {
		t.Error("the scanner still finds the vulnerability")
	}
	p.Restart() // the agent comes back by itself
	finish(p.Service.CreateRevertJob(ctx, admin, platform.RevertRequest{Path: md.Path()}))
	proc.expect("leaks")
	svc = p.Service
	finish(svc.ScanServers(context.WithoutCancel(ctx), admin, platform.ScanRequest{}))
	if !open() {
		t.Error("the scanner does not find the vulnerability again after the patch was taken off")
	}
}
