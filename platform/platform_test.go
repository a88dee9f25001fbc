package platform_test

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/coverage"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/platform"
	"livemend.dev/livemend/platform/platformtest"
	"livemend.dev/livemend/rollout"
	"livemend.dev/livemend/store/storetest"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/wire"
)

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// enrolled makes a machine, enrols it with a new key and connects it.
func enrolled(t *testing.T, p *platformtest.Platform, who access.Subject, hostname string) *platformtest.Machine {
	t.Helper()
	key := must[platform.CreatedKey](t)(p.Service.CreateKey(t.Context(), who, platform.NewKey{Note: "for " + hostname}))
	m := p.Machine(hostname)
	if err := m.Enrol(key.Text); err != nil {
		t.Fatal(err)
	}
	m.Start()
	return m
}

func report(t *testing.T, name string) []byte {
	t.Helper()
	return must[[]byte](t)(os.ReadFile("../scan/testdata/" + name))
}

// TestFindingToProof is the product's path, from a key to a live patch that is
// reverted again, with a real portal and a machine that speaks as an agent does.
func TestFindingToProof(t *testing.T) {
	storetest.EachDSN(t, func(t *testing.T, dsn string) {
		p := platformtest.Start(t, dsn, nil)
		svc, admin, ctx := p.Service, p.Admin, t.Context()
		m := enrolled(t, p, admin, "web-01")

		p.PublishContent("oval.xml", []byte("<oval_definitions/>"))
		job := must[fleet.Job](t)(svc.ScanServers(ctx, admin, platform.ScanRequest{}))
		order, envelope := m.Work()
		if order.Action != trust.Scan || order.Scanner != "openscap" || order.Path != "content/oval.xml" {
			t.Fatalf("got order %+v", order)
		}
		err := m.Report(order, envelope, func(r *wire.Report) { r.Scan = platformtest.Pack(t, report(t, "oscap_before.xml")) })
		if err != nil {
			t.Fatal(err)
		}
		if done := p.WaitJob(admin, job.ID); done.State != rollout.JobDone {
			t.Fatalf("the scan ended %s: %+v", done.State, done.Tasks)
		}
		if got := states(t, p, admin); got[coverage.Vulnerable] != 1 || len(got) != 1 {
			t.Fatalf("after the scan, before the catalogue: %v", got)
		}

		path := p.PublishPatch(1)
		change := must[platform.CatalogueChange](t)(svc.RefreshCatalogue(ctx, admin))
		if len(change.New) != 1 || change.New[0].Path != path || len(change.Contents) != 1 {
			t.Fatalf("new in the catalogue: %+v", change)
		}
		if again := must[platform.CatalogueChange](t)(svc.RefreshCatalogue(ctx, admin)); len(again.New) != 0 {
			t.Errorf("new when looked at again: %+v", again.New)
		}
		must[int64](t)(svc.ImportUpdates(ctx, admin, []fleet.Update{{CVE: platformtest.CVE, Component: "libc6", Distribution: "debian-12", FixedVersion: "2.36-9+deb12u99", Advisory: "ADV-1"}}))
		rows := must[fleet.Page[fleet.Coverage]](t)(svc.Coverage(ctx, admin, platform.CoverageFilter{})).Items
		if len(rows) != 1 || rows[0].State != coverage.Available || rows[0].PatchPath != path || rows[0].Update != "2.36-9+deb12u99" {
			t.Fatalf("mapped: %+v", rows)
		}

		plan := must[platform.Plan](t)(svc.PlanLivePatches(ctx, admin, platform.PatchRequest{}))
		if plan.Servers != 1 || plan.Tasks != 1 || len(plan.CVEs) != 1 || !strings.Contains(plan.Text, "undo") {
			t.Errorf("plan: %+v", plan)
		}
		job = must[fleet.Job](t)(svc.LivePatchFound(ctx, admin, platform.PatchRequest{}))
		order, envelope = m.Work()
		if order.Action != trust.Apply || order.Path != path || order.Level != 1 || order.BuildID != platformtest.Library {
			t.Fatalf("got order %+v", order)
		}
		checkFiles(t, m, order)
		m.Apply(order, envelope)
		done := p.WaitJob(admin, job.ID)
		task := platformtest.Task(t, done, m.SystemID)
		if done.State != rollout.JobDone || task.Result == nil || len(task.Result.Processes) != 3 || task.Result.Processes[0].StopNS != 412_000 {
			t.Fatalf("the job ended %s: %+v", done.State, task)
		}
		want := map[string]fleet.CheckOutcome{"repository chain": "passed", "not withdrawn": "passed", "not blocklisted": "passed", "hashes and length": "passed",
			"artifact structure": "passed", "target is in the inventory": "passed", "external scanner": "skipped", "director chain": "passed", "same file in both": "passed"}
		if diff := cmp.Diff(want, platformtest.Outcomes(task)); diff != "" {
			t.Errorf("security checks (-want +got):\n%s", diff)
		}
		if got := states(t, p, admin); got[coverage.LivePatched] != 1 || len(got) != 1 {
			t.Fatalf("after the job: %v", got)
		}

		job = must[fleet.Job](t)(svc.ScanServers(ctx, admin, platform.ScanRequest{}))
		order, envelope = m.Work()
		if err := m.Report(order, envelope, func(r *wire.Report) { r.Scan = platformtest.Pack(t, report(t, "oscap_after.xml")) }); err != nil {
			t.Fatal(err)
		}
		p.WaitJob(admin, job.ID)
		detail := must[platform.ServerDetail](t)(svc.Server(ctx, admin, m.SystemID))
		if len(detail.Findings) != 1 || detail.Findings[0].Open || detail.Coverage[0].State != coverage.LivePatched {
			t.Errorf("after the second scan: findings %+v, coverage %+v", detail.Findings, detail.Coverage)
		}

		job = must[fleet.Job](t)(svc.CreateRevertJob(ctx, admin, platform.RevertRequest{Path: path}))
		order, envelope = m.Work()
		if order.Action != trust.Revert {
			t.Fatalf("got order %+v", order)
		}
		m.Applied = nil
		if err := m.Report(order, envelope, nil); err != nil {
			t.Fatal(err)
		}
		p.WaitJob(admin, job.ID)
		if got := states(t, p, admin); got[coverage.Available] != 1 || len(got) != 1 {
			t.Fatalf("after the revert: %v", got)
		}
	})
}

func states(t *testing.T, p *platformtest.Platform, who access.Subject) map[coverage.State]int64 {
	t.Helper()
	return must[platform.Overview](t)(p.Service.Overview(t.Context(), who)).States
}

// checkFiles gets metadata and target over the connection and verifies them.
func checkFiles(t *testing.T, m *platformtest.Machine, order *trust.Manifest) {
	t.Helper()
	whole := func(name string) []byte {
		return wire.Range{Path: name, Len: wire.MaxChunk}.Encode()
	}
	if _, err := m.Call(wire.Metadata, whole("timestamp.json")); err != nil {
		t.Errorf("timestamp: %v", err)
	}
	if all, err := m.Call(wire.Metadata, whole("1.root.json")); err != nil {
		t.Errorf("root: %v", err)
	} else {
		const step = 100
		var pieces []byte
		for len(pieces)%step == 0 {
			piece, err := m.Call(wire.Metadata, wire.Range{Path: "1.root.json", Off: int64(len(pieces)), Len: step}.Encode())
			if err != nil {
				t.Fatal(err)
			}
			if len(piece) == 0 {
				break
			}
			pieces = append(pieces, piece...)
		}
		if !bytes.Equal(pieces, all) {
			t.Errorf("root by pieces: %d bytes, at once %d", len(pieces), len(all))
		}
	}
	if b, err := m.Call(wire.Metadata, whole("1.root.json")); err != nil {
		t.Errorf("root: %v", err)
	} else if _, err := trust.ParseRoot(b, trust.Ed25519()); err != nil {
		t.Error(err)
	}
	if _, err := m.Call(wire.Metadata, whole("../root.json")); code(err) != wire.CodeNotFound {
		t.Errorf("a name outside the repository: %v", err)
	}
	content := trust.NewContent(trust.Target{Path: order.Path, Length: order.Length, SHA256: order.SHA256})
	for off := int64(0); off < order.Length; off += 1000 {
		piece, err := m.Call(wire.Target, wire.Range{Path: order.Path, SHA256: order.SHA256, Off: off, Len: min(1000, order.Length-off)}.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := content.Write(piece); err != nil {
			t.Fatal(err)
		}
	}
	if err := content.Close(); err != nil {
		t.Error(err)
	}
}

func code(err error) wire.Code {
	var e *wire.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}

func TestEnrolment(t *testing.T) {
	storetest.EachDSN(t, func(t *testing.T, dsn string) {
		p := platformtest.Start(t, dsn, nil)
		svc, admin, ctx := p.Service, p.Admin, t.Context()

		t.Run("a key for many machines, shown once and kept encrypted", func(t *testing.T) {
			key := must[platform.CreatedKey](t)(svc.CreateKey(ctx, admin, platform.NewKey{}))
			install := must[platform.Install](t)(svc.ActivateLivePatching(ctx, admin, ""))
			if install.Key != key.Text || !strings.Contains(install.Command, "curl -fsS "+p.URL+"/install | LIVEMEND_KEY="+key.Text+" LIVEMEND_TRUST="+p.Bundle.Digest()+" sh") {
				t.Errorf("install command %q", install.Command)
			}
			a, b := p.Machine("key-a"), p.Machine("key-b")
			for _, m := range []*platformtest.Machine{a, b} {
				if err := m.Enrol(install.Key); err != nil {
					t.Fatal(err)
				}
			}
			if a.SystemID == b.SystemID || a.SystemID == "" {
				t.Errorf("System IDs %q and %q", a.SystemID, b.SystemID)
			}
			first := a.SystemID
			if err := a.Enrol(install.Key); err != nil || a.SystemID != first {
				t.Errorf("the same machine again: %q, %v; want %q", a.SystemID, err, first)
			}
			keys := must[[]fleet.Key](t)(svc.Keys(ctx, admin))
			if len(keys) != 1 || keys[0].Servers != 2 {
				t.Errorf("keys %+v", keys)
			}
			if err := svc.SetKeyEnabled(ctx, admin, key.ID, false); err != nil {
				t.Fatal(err)
			}
			if err := p.Machine("key-c").Enrol(install.Key); code(err) != wire.CodeRefused {
				t.Errorf("with a disabled key: %v", err)
			}
			if _, err := svc.ActivateLivePatching(ctx, admin, key.ID); !errors.Is(err, platform.ErrNotFound) {
				t.Errorf("activating a disabled key: %v", err)
			}
		})
		t.Run("a token for one machine", func(t *testing.T) {
			install := must[platform.Install](t)(svc.AddServer(ctx, admin, platform.NewServer{Scenario: platform.ByCustomerID}))
			m := p.Machine("token-a")
			if err := m.Enrol(install.Token); err != nil {
				t.Fatal(err)
			}
			if err := p.Machine("token-b").Enrol(install.Token); code(err) != wire.CodeRefused {
				t.Errorf("a used token: %v", err)
			}
			first := m.SystemID
			if err := m.Enrol(install.Token); err != nil || m.SystemID != first {
				t.Errorf("the same machine again: %q, %v", m.SystemID, err)
			}
			if tokens := must[[]fleet.Token](t)(svc.Tokens(ctx, admin)); len(tokens) != 1 || tokens[0].UsedBy != first {
				t.Errorf("tokens %+v", tokens)
			}
			late := must[platform.Install](t)(svc.AddServer(ctx, admin, platform.NewServer{Scenario: platform.ByCustomerID}))
			p.Advance(25 * time.Hour)
			if err := p.Machine("token-c").Enrol(late.Token); code(err) != wire.CodeRefused {
				t.Errorf("an expired token: %v", err)
			}
			p.Advance(-25 * time.Hour)
		})
		t.Run("a Customer ID waits for a person", func(t *testing.T) {
			approved, refused := p.Machine("bare-a"), p.Machine("bare-b")
			for _, m := range []*platformtest.Machine{approved, refused, approved} {
				if err := m.Enrol(p.First.Organisation.CustomerID); code(err) != wire.CodePending {
					t.Fatalf("before anybody decided: %v", err)
				}
			}
			requests := must[[]fleet.EnrolmentRequest](t)(svc.Enrolments(ctx, admin, fleet.EnrolmentPending))
			if len(requests) != 2 {
				t.Fatalf("requests %+v", requests)
			}
			for _, r := range requests {
				got := must[fleet.EnrolmentRequest](t)(svc.DecideEnrolment(ctx, admin, r.ID, r.Facts.Hostname == "bare-a"))
				if got.DecidedBy != "admin" || len(got.Fingerprint) != 16 {
					t.Errorf("decided: %+v", got)
				}
				if _, err := svc.DecideEnrolment(ctx, admin, r.ID, true); !errors.Is(err, platform.ErrConflict) {
					t.Errorf("deciding twice: %v", err)
				}
			}
			if err := approved.Enrol(p.First.Organisation.CustomerID); err != nil {
				t.Error(err)
			}
			if err := refused.Enrol(p.First.Organisation.CustomerID); code(err) != wire.CodeRefused {
				t.Errorf("refused: %v", err)
			}
			refused.Connect()
			if _, err := refused.Call(wire.Work, nil); code(err) != wire.CodeUnknown {
				t.Errorf("work for a machine that is not enrolled: %v", err)
			}
		})
		t.Run("nonsense", func(t *testing.T) {
			for _, text := range []string{"C-NOBODY", "0123456789", ""} {
				if err := p.Machine("x").Enrol(text); code(err) != wire.CodeRefused {
					t.Errorf("%q: %v", text, err)
				}
			}
		})
	})
}

// TestRestart ends the platform at every point of a job and loses nothing.
func TestRestart(t *testing.T) {
	storetest.EachDSN(t, func(t *testing.T, dsn string) {
		p := platformtest.Start(t, dsn, nil)
		m := enrolled(t, p, p.Admin, "web-01")
		importReport(t, p, p.Admin, m)
		p.PublishPatch(1)
		must[platform.CatalogueChange](t)(p.Service.RefreshCatalogue(t.Context(), p.Admin))
		job := must[fleet.Job](t)(p.Service.LivePatchFound(t.Context(), p.Admin, platform.PatchRequest{}))
		p.Restart() // with a task that is being checked, or just signed
		m.Start()
		lost, _ := m.Work()
		p.Restart() // with an order that the agent has
		m.Start()
		order, envelope := m.Work()
		if order.Task != lost.Task || order.Counter <= lost.Counter {
			t.Fatalf("the order came back as %+v after %+v", order, lost)
		}
		m.Apply(order, envelope)
		p.Restart() // with a result that nobody has seen
		done := p.WaitJob(p.Admin, job.ID)
		if done.State != rollout.JobDone || done.Tasks[0].Result == nil {
			t.Fatalf("the job ended %s: %+v", done.State, done.Tasks)
		}
		m.Start()
		if err := m.Report(order, envelope, nil); err != nil {
			t.Errorf("the same result again: %v", err)
		}
		if got := states(t, p, p.Admin); got[coverage.LivePatched] != 1 {
			t.Errorf("coverage %v", got)
		}
	})
}

func importReport(t *testing.T, p *platformtest.Platform, who access.Subject, machines ...*platformtest.Machine) {
	t.Helper()
	for _, m := range machines {
		if n := must[int](t)(p.Service.ImportScan(t.Context(), who, m.SystemID, report(t, "oscap_before.xml"))); n != 1 {
			t.Fatalf("%d open findings", n)
		}
	}
}

func TestFirstServerThenTheRest(t *testing.T) {
	p := platformtest.Start(t, storetest.SQLite(t), nil)
	a, b, c := enrolled(t, p, p.Admin, "a"), enrolled(t, p, p.Admin, "b"), enrolled(t, p, p.Admin, "c")
	importReport(t, p, p.Admin, a, b, c)
	p.PublishPatch(1)
	must[platform.CatalogueChange](t)(p.Service.RefreshCatalogue(t.Context(), p.Admin))
	job := must[fleet.Job](t)(p.Service.LivePatchFound(t.Context(), p.Admin, platform.PatchRequest{}))
	a.Apply(a.Work())
	for _, m := range []*platformtest.Machine{b, c} {
		m.Apply(m.Work())
	}
	if done := p.WaitJob(p.Admin, job.ID); done.State != rollout.JobDone || len(done.Stages) != 2 || done.Stages[0].Done != 1 || done.Stages[1].Done != 2 {
		t.Fatalf("the job ended %s with %+v", done.State, done.Stages)
	}
}
