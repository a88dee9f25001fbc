package platform_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"livemend.dev/livemend/coverage"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/platform"
	"livemend.dev/livemend/platform/platformtest"
	"livemend.dev/livemend/rollout"
	"livemend.dev/livemend/store/storetest"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/wire"
)

// TestWhatEndsAJobBadly runs one job for two servers per way to fail, and looks
// at what happens to both.
func TestWhatEndsAJobBadly(t *testing.T) {
	p := platformtest.Start(t, storetest.SQLite(t), nil)
	svc, ctx := p.Service, t.Context()
	a, b := enrolled(t, p, p.Admin, "a"), enrolled(t, p, p.Admin, "b")
	importReport(t, p, p.Admin, a, b)
	path := p.PublishPatch(1)
	must[platform.CatalogueChange](t)(svc.RefreshCatalogue(ctx, p.Admin))
	answer := func(m *platformtest.Machine, change func(*wire.Report)) {
		order, envelope := m.Work()
		if err := m.Report(order, envelope, change); err != nil {
			t.Error(err)
		}
	}
	tests := []struct {
		name          string
		play          func(job int64)
		state         rollout.JobState
		first, second rollout.TaskState
		check         string // of the second server that failed
		after         func()
	}{
		{"the agent refuses", func(int64) {
			answer(a, func(r *wire.Report) { r.Outcome, r.Reason, r.Text = wire.Refused, "threshold", "too few keys" })
		}, rollout.JobStopped, rollout.Refused, rollout.Skipped, "", nil},
		{"it fails on the server", func(int64) { answer(a, func(r *wire.Report) { r.Outcome = wire.Failed }) },
			rollout.JobStopped, rollout.Failed, rollout.Skipped, "", nil},
		{"it is blocked between the stages", func(int64) {
			order, envelope := a.Work()
			if err := svc.BlockPatch(ctx, p.Admin, path, "breaks our database"); err != nil {
				t.Error(err)
			}
			a.Apply(order, envelope)
		}, rollout.JobFailed, rollout.Done, rollout.Refused, "not blocklisted", func() {
			if got := states(t, p, p.Admin); got[coverage.Vulnerable] != 1 || got[coverage.LivePatched] != 1 {
				t.Errorf("coverage while it is blocked: %v", got)
			}
			if err := svc.BlockPatch(ctx, p.Admin, path, ""); err != nil {
				t.Error(err)
			}
		}},
		{"a person stops it", func(job int64) {
			order, envelope := a.Work()
			if err := svc.StopJob(ctx, p.Admin, job); err != nil {
				t.Error(err)
			}
			a.Apply(order, envelope)
		}, rollout.JobStopped, rollout.Done, rollout.Skipped, "", nil},
		{"it is withdrawn between the stages", func(int64) {
			order, envelope := a.Work()
			p.Withdraw(path)
			p.Advance(time.Minute) // the last refresh is not fresh any more
			a.Apply(order, envelope)
		}, rollout.JobFailed, rollout.Done, rollout.Refused, "not withdrawn", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, m := range []*platformtest.Machine{a, b} {
				m.Applied = nil
				m.Tell()
			}
			job := must[fleet.Job](t)(svc.LivePatchFound(ctx, p.Admin, platform.PatchRequest{}))
			tt.play(job.ID)
			done := p.WaitJob(p.Admin, job.ID)
			first, second := platformtest.Task(t, done, a.SystemID), platformtest.Task(t, done, b.SystemID)
			if done.State != tt.state || first.State != tt.first || second.State != tt.second {
				t.Errorf("job %s, tasks %s and %s (%s); want %s, %s and %s", done.State, first.State, second.State, second.Reason, tt.state, tt.first, tt.second)
			}
			if tt.check != "" && platformtest.Outcomes(second)[tt.check] != fleet.CheckFailed {
				t.Errorf("checks of the second server: %+v", second.Checks)
			}
			if tt.after != nil {
				tt.after()
			}
		})
	}
	if _, err := svc.LivePatchFound(ctx, p.Admin, platform.PatchRequest{}); !errors.Is(err, platform.ErrConflict) {
		t.Errorf("a job of a withdrawn patch: %v", err)
	}
	b.HangUp()
	p.Advance(time.Hour)
	if _, err := svc.ScanServers(ctx, p.Admin, platform.ScanRequest{Servers: []string{b.SystemID}}); !errors.Is(err, platform.ErrConflict) {
		t.Errorf("a job for a server that is not connected: %v", err)
	}
}

func TestSilence(t *testing.T) {
	p := platformtest.Start(t, storetest.SQLite(t), func(c *platform.Config) { c.Silence = time.Second })
	m := enrolled(t, p, p.Admin, "a")
	importReport(t, p, p.Admin, m)
	p.PublishPatch(1)
	must[platform.CatalogueChange](t)(p.Service.RefreshCatalogue(t.Context(), p.Admin))
	job := must[fleet.Job](t)(p.Service.LivePatchFound(t.Context(), p.Admin, platform.PatchRequest{}))
	order, envelope := m.Work()
	done := p.WaitJob(p.Admin, job.ID)
	if done.State != rollout.JobFailed || !strings.Contains(done.Tasks[0].Reason, "no answer") {
		t.Fatalf("job %s: %s", done.State, done.Tasks[0].Reason)
	}
	m.Apply(order, envelope)
	if got := states(t, p, p.Admin); got[coverage.LivePatched] != 1 {
		t.Errorf("a late answer is not believed: %v", got)
	}
}

func TestExternalScanner(t *testing.T) {
	for command, want := range map[string]fleet.CheckOutcome{"/bin/true": fleet.CheckPassed, "/bin/false": fleet.CheckFailed, "/nonexistent": fleet.CheckFailed} {
		p := platformtest.Start(t, storetest.SQLite(t), func(c *platform.Config) { c.CheckCommand = []string{command} })
		m := enrolled(t, p, p.Admin, "a")
		importReport(t, p, p.Admin, m)
		p.PublishPatch(1)
		must[platform.CatalogueChange](t)(p.Service.RefreshCatalogue(t.Context(), p.Admin))
		job := must[fleet.Job](t)(p.Service.LivePatchFound(t.Context(), p.Admin, platform.PatchRequest{}))
		got := p.WaitFor(p.Admin, job.ID, func(j platform.JobDetail) bool { return len(j.Tasks[0].Checks) > 0 }).Tasks[0]
		if platformtest.Outcomes(got)["external scanner"] != want {
			t.Errorf("%s: %+v", command, got.Checks)
		}
		if want == fleet.CheckFailed && (got.State != rollout.Refused || got.Counter != 0) {
			t.Errorf("%s: the task is %s with counter %d", command, got.State, got.Counter)
		}
	}
}

func TestReportsThatAreNotBelieved(t *testing.T) {
	p := platformtest.Start(t, storetest.SQLite(t), nil)
	a, b := enrolled(t, p, p.Admin, "a"), enrolled(t, p, p.Admin, "b")
	importReport(t, p, p.Admin, a, b)
	p.PublishPatch(1)
	must[platform.CatalogueChange](t)(p.Service.RefreshCatalogue(t.Context(), p.Admin))
	job := must[fleet.Job](t)(p.Service.LivePatchFound(t.Context(), p.Admin, platform.PatchRequest{}))
	order, envelope := a.Work()
	waiting := p.WaitFor(p.Admin, job.ID, func(j platform.JobDetail) bool { return true })
	forger := *a
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	forger.Identity = key
	otherTask := *order
	otherTask.Task = platformtest.Task(t, waiting, b.SystemID).ID
	noTask := *order
	noTask.Task = "T-NONE"
	for name, try := range map[string]struct {
		err  error
		want wire.Code
	}{
		"another key":        {forger.Report(order, envelope, nil), wire.CodeMalformed},
		"another system":     {a.Report(order, envelope, func(r *wire.Report) { r.SystemID = b.SystemID }), wire.CodeRefused},
		"another's task":     {a.Report(&otherTask, envelope, nil), wire.CodeNotFound},
		"its task, no order": {b.Report(&otherTask, envelope, nil), wire.CodeRefused},
		"no task":            {a.Report(&noTask, envelope, nil), wire.CodeNotFound},
		"another manifest":   {a.Report(order, []byte("x"), nil), wire.CodeRefused},
	} {
		if code(try.err) != try.want {
			t.Errorf("%s: %v", name, try.err)
		}
	}
	if got := states(t, p, p.Admin); got[coverage.Available] != 2 {
		t.Errorf("coverage %v", got)
	}
	if _, err := a.Call(wire.Progress, wire.Step{Task: order.Task, Name: "download", Text: "225 bytes"}.Encode()); err != nil {
		t.Error(err)
	}
	if _, err := b.Call(wire.Progress, wire.Step{Task: order.Task, Name: "download", Text: "forged"}.Encode()); code(err) != wire.CodeNotFound {
		t.Errorf("progress of another's task: %v", err)
	}
	if _, err := a.Call(wire.Alarm, wire.Attack{Kind: "rollback", Text: "older than what was seen before"}.Encode()); err != nil {
		t.Error(err)
	}
	events := must[[]fleet.Event](t)(p.Service.Events(t.Context(), p.Admin, -1, platform.EventFilter{Server: a.SystemID, Limit: 3}))
	var texts []string
	for _, e := range events {
		texts = append(texts, e.Text)
	}
	if got := strings.Join(texts, "\n"); !strings.Contains(got, "download: 225 bytes") || !strings.Contains(got, "rollback") || strings.Contains(got, "forged") {
		t.Errorf("events:\n%s", got)
	}
	a.Apply(order, envelope)
	b.Apply(b.Work())
	if done := p.WaitJob(p.Admin, job.ID); done.State != rollout.JobDone {
		t.Errorf("job %s", done.State)
	}
}

// TestReportFromBeforeAReboot shows that a report which waited does not bring
// back what the inventory says is gone.
func TestReportFromBeforeAReboot(t *testing.T) {
	p := platformtest.Start(t, storetest.SQLite(t), nil)
	m := enrolled(t, p, p.Admin, "a")
	importReport(t, p, p.Admin, m)
	p.PublishPatch(1)
	must[platform.CatalogueChange](t)(p.Service.RefreshCatalogue(t.Context(), p.Admin))
	job := must[fleet.Job](t)(p.Service.LivePatchFound(t.Context(), p.Admin, platform.PatchRequest{}))
	order, envelope := m.Work()
	m.Start() // rebooted: nothing is in force, and the report was not sent yet
	m.Apply(order, envelope)
	if done := p.WaitJob(p.Admin, job.ID); done.State != rollout.JobDone {
		t.Errorf("job %s", done.State)
	}
	if got := states(t, p, p.Admin); got[coverage.Available] != 1 {
		t.Errorf("coverage %v", got)
	}
	m.Tell() // the agent brought the patch back
	if got := states(t, p, p.Admin); got[coverage.LivePatched] != 1 {
		t.Errorf("coverage after the next inventory %v", got)
	}
}

// TestOrdersComeOneByOne shows that an agent that comes back twice gets each
// order with a counter of its own, and that two patches for a server follow
// each other.
func TestOrdersComeOneByOne(t *testing.T) {
	p := platformtest.Start(t, storetest.SQLite(t), nil)
	m := enrolled(t, p, p.Admin, "a")
	p.PublishContent("one.xml", []byte("<a/>"))
	must[platform.CatalogueChange](t)(p.Service.RefreshCatalogue(t.Context(), p.Admin))
	first := must[fleet.Job](t)(p.Service.ScanServers(t.Context(), p.Admin, platform.ScanRequest{}))
	second := must[fleet.Job](t)(p.Service.ScanServers(t.Context(), p.Admin, platform.ScanRequest{}))
	var jobs []string
	seen := map[string]bool{}
	answer := func() {
		order, _ := m.Work()
		m.Start() // lost on the way
		again, envelope := m.Work()
		if again.Task != order.Task || again.Counter <= order.Counter {
			t.Fatalf("%+v after %+v", again, order)
		}
		if err := m.Report(again, envelope, func(r *wire.Report) { r.Scan = platformtest.Pack(t, report(t, "oscap_before.xml")) }); err != nil {
			t.Fatal(err)
		}
		jobs = append(jobs, again.Job)
		seen[again.Task] = true
	}
	answer()
	answer()
	p.WaitJob(p.Admin, first.ID)
	p.WaitJob(p.Admin, second.ID)
	if len(seen) != 2 || jobs[0] != "1" || jobs[1] != "2" {
		t.Errorf("orders of jobs %v", jobs)
	}
	bad := must[fleet.Job](t)(p.Service.ScanServers(t.Context(), p.Admin, platform.ScanRequest{}))
	order, envelope := m.Work()
	if order.Action != trust.Scan {
		t.Fatal(order.Action)
	}
	if err := m.Report(order, envelope, func(r *wire.Report) { r.Scan = []byte("no gzip") }); err != nil {
		t.Fatal(err)
	}
	if done := p.WaitJob(p.Admin, bad.ID); done.State != rollout.JobFailed {
		t.Errorf("a scan whose report cannot be read ended %s", done.State)
	}
}
