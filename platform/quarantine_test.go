package platform_test

import (
	"errors"
	"strings"
	"testing"

	"livemend.dev/livemend/coverage"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/platform"
	"livemend.dev/livemend/platform/platformtest"
	"livemend.dev/livemend/rollout"
	"livemend.dev/livemend/store/storetest"
	"livemend.dev/livemend/wire"
)

// A server where processes died of a patch keeps it from the servers that a
// running job has not reached, and everybody sees why.
func TestQuarantineStopsTheJob(t *testing.T) {
	storetest.EachDSN(t, testQuarantine)
}

func testQuarantine(t *testing.T, dsn string) {
	p := platformtest.Start(t, dsn, nil)
	svc, ctx := p.Service, t.Context()
	a, b := enrolled(t, p, p.Admin, "a"), enrolled(t, p, p.Admin, "b")
	importReport(t, p, p.Admin, a, b)
	path := p.PublishPatch(1)
	must[platform.CatalogueChange](t)(svc.RefreshCatalogue(ctx, p.Admin))
	job := must[fleet.Job](t)(svc.LivePatchFound(ctx, p.Admin, platform.PatchRequest{}))
	order, envelope := a.Work()
	const reason = "process 7 died in the patch's code (SIGSEGV)"
	a.Quarantined = []wire.Quarantined{{BuildID: order.BuildID, Path: path, SHA256: order.SHA256, Level: order.Level, Reason: reason, Time: 1_800_000_000}}
	a.Applied = []wire.Applied{{Path: path, SHA256: order.SHA256, Level: order.Level, Processes: 3}} // on its way off
	a.Tell()
	a.Tell()
	running := must[platform.JobDetail](t)(svc.Job(ctx, p.Admin, job.ID))
	if !running.Halted || !strings.Contains(running.Reason, reason) {
		t.Errorf("the job goes on: %+v", running.Job)
	}
	if err := a.Report(order, envelope, func(r *wire.Report) { r.Outcome = wire.Done; r.Applied = a.Applied }); err != nil {
		t.Fatal(err)
	}
	done := p.WaitJob(p.Admin, job.ID)
	second := platformtest.Task(t, done, b.SystemID)
	if done.State != rollout.JobStopped || second.State != rollout.Skipped || !strings.Contains(second.Reason, reason) {
		t.Errorf("job %s, second task %s: %s", done.State, second.State, second.Reason)
	}
	server := must[platform.ServerDetail](t)(svc.Server(ctx, p.Admin, a.SystemID))
	if len(server.Quarantined) != 1 || server.Quarantined[0].Reason != reason || server.Quarantined[0].Path != path {
		t.Errorf("the server's page: %+v", server.Quarantined)
	}
	alarms := 0
	for _, e := range server.Events {
		if e.Kind == "alarm" && strings.Contains(e.Text, reason) {
			alarms++
		}
	}
	if alarms != 1 {
		t.Errorf("%d events on the server, want 1", alarms)
	}
	for _, row := range server.Coverage {
		if row.State == coverage.LivePatched || row.State == coverage.Available {
			t.Errorf("%s counts as %s: %s", row.CVE, row.State, row.Reason)
		}
	}
	if _, err := svc.LivePatchFound(ctx, p.Admin, platform.PatchRequest{Servers: []string{a.SystemID}}); !errors.Is(err, platform.ErrConflict) {
		t.Errorf("it is offered again: %v", err)
	}
}
