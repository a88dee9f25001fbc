package web

import (
	"fmt"
	"net/url"
	"time"

	"github.com/a-h/templ"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/audit"
	"livemend.dev/livemend/coverage"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/platform"
	"livemend.dev/livemend/rollout"
)

// samples are the pages with data that strains them: many states, long names,
// failures, and nothing at all.

var sampleNow = time.Date(2026, 11, 23, 10, 2, 11, 0, time.UTC)

func before(d time.Duration) time.Time { return sampleNow.Add(-d) }

const (
	sampleBuildID = "3f2a91c07bd4e85566aa10b2c9d8e7f60123abcd"
	sampleSHA     = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
	longName      = "db-primary-17.eu-central-1b.production.customers.internal.example.com"
)

func samplePatch() fleet.Patch {
	return fleet.Patch{
		Path: "user/" + sampleBuildID + "/level-2.lmp", ID: "U20261123-3f2a91c0-2", Kind: "user",
		BuildID: sampleBuildID, Arch: "amd64", Library: "/usr/lib/x86_64-linux-gnu/libechobeat.so.1.0.3", Level: 2,
		Fixes: []fleet.Fix{
			{CVE: "LIVEMEND-2026-0001", Severity: "high", Component: "libechobeat1", Distribution: "debian-12", FixedVersion: "1.0-2"},
			{CVE: "LIVEMEND-2026-0002", Severity: "medium", Component: "libechobeat1", Distribution: "debian-12"},
		},
		Functions: []string{"echobeat_reply", "echobeat_copy", "echobeat_log"}, Length: 18_412, SHA256: sampleSHA,
		Description: "Checks the length of a heartbeat against the bytes that arrived before it is echoed.",
		Builder:     "livemend author 0.1", FirstSeen: before(3 * time.Hour),
	}
}

func sampleJob(id int64, kind fleet.JobKind, title string, state rollout.JobState, stages ...rollout.Tally) fleet.Job {
	j := fleet.Job{ID: id, Kind: kind, Title: title, Job: rollout.Job{State: state, Stages: stages}, CreatedBy: "admin", CreatedAt: before(4 * time.Minute)}
	if state != rollout.JobRunning {
		j.FinishedAt = before(2 * time.Minute)
	}
	return j
}

func sampleJobs() []fleet.Job {
	return []fleet.Job{
		sampleJob(18, fleet.LivePatchJob, "LivePatch found vulnerabilities", rollout.JobRunning, rollout.Tally{Done: 1}, rollout.Tally{Waiting: 180, Active: 24, Done: 211, Failed: 2}),
		sampleJob(17, fleet.ScanJob, "Scan for vulnerabilities", rollout.JobDone, rollout.Tally{Done: 418}),
		sampleJob(16, fleet.RevertJob, "Revert level 2 for build-id 3f2a91c07bd4 on db-primary-17.eu-central-1b.production", rollout.JobFailed, rollout.Tally{Failed: 1}),
		sampleJob(15, fleet.LivePatchJob, "LivePatch found vulnerabilities", rollout.JobStopped, rollout.Tally{Refused: 1}, rollout.Tally{Skipped: 417}),
	}
}

func sampleEvents() []fleet.Event {
	return []fleet.Event{
		{ID: 44, Kind: "task", Job: 18, Text: "web-04: applied to 3 processes, longest stop 412 µs", At: before(3 * time.Second)},
		{ID: 43, Kind: "check", Job: 18, Text: "web-04: all security checks passed; manifest 9 signed for this system", At: before(8 * time.Second)},
		{ID: 42, Kind: "job", Job: 18, Text: "Stage 2 opened: 417 servers, after every task of stage 1 was done", At: before(12 * time.Second)},
		{ID: 41, Kind: "server", Text: longName + " is connected again", At: before(61 * time.Second)},
	}
}

func sampleStates() map[coverage.State]int64 {
	return map[coverage.State]int64{
		coverage.Vulnerable: 128, coverage.Available: 417, coverage.LivePatched: 1904,
		coverage.FixedOnDisk: 36, coverage.NotAffected: 210, coverage.NotRunning: 4, coverage.Unknown: 9,
	}
}

func sampleServers() []platform.ServerSummary {
	server := func(i int, name string, online bool, states map[coverage.State]int64) platform.ServerSummary {
		return platform.ServerSummary{
			Server: fleet.Server{
				ID: fmt.Sprintf("S-7Q4M2K9X-%04d", i), Hostname: name, MachineID: "b9b1c2d3e4f5061728394a5b6c7d8e9f",
				OS: "debian", OSVersion: "12", Kernel: "6.1.0-47-cloud-amd64", KernelID: sampleBuildID, Arch: "amd64",
				Agent: "0.1.0", Via: "key K-2M9F", EnrolledAt: before(30 * 24 * time.Hour), SeenAt: before(time.Duration(i*i*40) * time.Second),
				InventoryAt: before(3 * time.Minute), Online: online,
			},
			States: states,
		}
	}
	out := []platform.ServerSummary{
		server(0, "web-01", true, map[coverage.State]int64{coverage.Available: 2, coverage.LivePatched: 3}),
		server(1, longName, true, map[coverage.State]int64{coverage.Vulnerable: 1, coverage.Available: 12, coverage.FixedOnDisk: 4, coverage.Unknown: 1}),
		server(9, "build-3", false, nil),
		server(30, "web-04", true, map[coverage.State]int64{coverage.LivePatched: 5, coverage.NotAffected: 2}),
	}
	out[3].Flags = []string{"reinstall"}
	return out
}

func sampleCoverage() []fleet.Coverage {
	row := coverage.Row{
		CVE: "LIVEMEND-2026-0001", Component: "libechobeat1", Scope: "library " + sampleBuildID, State: coverage.Available, Severity: "high",
		Title: "Out-of-bounds read in the heartbeat reply of libechobeat", Reason: "3 processes map build-id 3f2a91c07bd4; level 2 of the live patch fits it and is not applied",
		Installed: "1.0-1", PatchPath: samplePatch().Path, PatchID: samplePatch().ID, PatchLevel: 2,
		Library: "/usr/lib/x86_64-linux-gnu/libechobeat.so.1.0.3", Processes: 3, Update: "1.0-2", Advisory: "ADV-2026-14",
	}
	rows := []fleet.Coverage{{Server: "S-7Q4M2K9X-0000", Hostname: "web-01", Row: row, ChangedAt: before(time.Hour)}}
	row.State, row.Patched = coverage.LivePatched, 3
	row.Reason = "All 3 processes that map build-id 3f2a91c07bd4 run level 2, by the agent's signed word of 2026-11-23 10:01 UTC"
	rows = append(rows, fleet.Coverage{Server: "S-7Q4M2K9X-0001", Hostname: longName, Row: row, ChangedAt: before(time.Hour)})
	row = coverage.Row{CVE: "CVE-2026-31001", Component: "linux-image-6.1.0-47-cloud-amd64", Scope: "running kernel", State: coverage.Vulnerable,
		Severity: "critical", Title: "Use after free in the handling of a very long sentence that a scanner wrote about the kernel", Reason: "The running kernel's build-id has no live patch in the catalogue", Installed: "6.1.129-1"}
	rows = append(rows, fleet.Coverage{Server: "S-7Q4M2K9X-0001", Hostname: longName, Row: row, ChangedAt: before(time.Hour)})
	row = coverage.Row{CVE: "CVE-2026-20007", Component: "openssl", Scope: "package on disk", State: coverage.Unknown, Severity: "",
		Title: "", Reason: "No inventory has come from this server yet"}
	return append(rows, fleet.Coverage{Server: "S-7Q4M2K9X-0009", Hostname: "build-3", Row: row, ChangedAt: before(time.Hour)})
}

func sampleUpdates() []fleet.Update {
	return []fleet.Update{
		{CVE: "LIVEMEND-2026-0001", Component: "libechobeat1", Distribution: "debian-12", FixedVersion: "1.0-2", Advisory: "ADV-2026-14"},
		{CVE: "LIVEMEND-2026-0001", Component: "libechobeat1", Distribution: "debian-13", FixedVersion: "1.2-0+deb13u1~bpo12+1"},
	}
}

func sampleVulnerabilities() []platform.Vulnerability {
	return []platform.Vulnerability{
		{CVE: "LIVEMEND-2026-0001", Title: "Out-of-bounds read in the heartbeat reply of libechobeat", Severity: "high", Servers: 417,
			States: map[coverage.State]int64{coverage.Available: 415, coverage.LivePatched: 2}, Patches: []fleet.Patch{samplePatch()}, Updates: sampleUpdates()},
		{CVE: "CVE-2026-31001", Title: "Use after free in the handling of a very long sentence that a scanner wrote about the kernel", Severity: "critical", Servers: 12,
			States: map[coverage.State]int64{coverage.Vulnerable: 12, coverage.NotRunning: 4}},
		{CVE: "CVE-2026-20007", Severity: "", Servers: 1, States: map[coverage.State]int64{coverage.Unknown: 1}},
	}
}

func sampleTask(id, host string, stage int, state rollout.TaskState) platform.TaskDetail {
	return platform.TaskDetail{Task: fleet.Task{ID: id, Job: 18, Server: "S-" + id, Hostname: host, Action: "apply",
		Path: samplePatch().Path, SHA256: sampleSHA, Level: 2, BuildID: sampleBuildID, Task: rollout.Task{Stage: stage, State: state}, ChangedAt: before(3 * time.Second)}}
}

func sampleChecks(outcomes ...fleet.CheckOutcome) []fleet.Check {
	names := []string{"repository chain", "director chain", "same file in both", "hashes and length", "artifact structure", "target in the inventory", "not withdrawn", "not blocked", "external command"}
	var out []fleet.Check
	for i, name := range names {
		c := fleet.Check{Name: name, Outcome: fleet.CheckPassed, Detail: "version 4 of the targets metadata, signed by 2 of 2 keys"}
		if i == len(names)-1 {
			c.Outcome, c.Detail = fleet.CheckSkipped, "none configured"
		}
		if i < len(outcomes) {
			c.Outcome = outcomes[i]
		}
		out = append(out, c)
	}
	return out
}

func sampleJobDetail() platform.JobDetail {
	done := sampleTask("t1", "web-01", 0, rollout.Done)
	done.Checks = sampleChecks()
	done.Result = &fleet.Result{Outcome: "done", Text: "Applied to 3 processes.", Manifest: sampleSHA, ReceivedAt: before(20 * time.Second), Processes: []fleet.Process{
		{PID: 4711, Command: "/usr/sbin/echobeatd", Outcome: "done", Threads: 1, StopNS: 182_000},
		{PID: 4712, Command: "/usr/sbin/echobeatd --worker 1", Outcome: "done", Threads: 8, StopNS: 412_700},
		{PID: 4713, Command: "/usr/sbin/echobeatd --worker 2", Outcome: "partial", Reason: "a thread is inside a function that the patch replaces; tried again in 5 s", Threads: 8},
	}}
	failed := sampleTask("t2", longName, 1, rollout.Refused)
	failed.Checks = sampleChecks(fleet.CheckPassed, fleet.CheckPassed, fleet.CheckFailed)
	failed.Reason = "The file in the director's manifest and in the portal's repository differ. Nothing was sent to the server."
	running := sampleTask("t3", "web-04", 1, rollout.Running)
	running.Checks = sampleChecks()
	waiting := sampleTask("t4", "web-05", 1, rollout.Waiting)
	events := sampleEvents()
	events[0], events[3], events[1], events[2] = events[3], events[0], events[2], events[1]
	return platform.JobDetail{
		Job:  sampleJobs()[0],
		Gate: "Stage 2 runs while no more than 2 tasks have failed; 2 have. It stops at the next failure.", Tasks: []platform.TaskDetail{done, waiting, running, failed},
		Events: events,
	}
}

func sampleKeys() []fleet.Key {
	return []fleet.Key{
		{ID: "K-2M9FQ7XK4D", Note: "web farm, Frankfurt", ServerLimit: 500, Servers: 417, Enabled: true, CreatedBy: "admin", CreatedAt: before(40 * 24 * time.Hour)},
		{ID: "K-9P0AAZ71LM", Enabled: false, CreatedBy: "somebody-with-a-long-name@customers.example.com", CreatedAt: before(90 * 24 * time.Hour), ExpiresAt: before(24 * time.Hour)},
	}
}

func sampleInstall() platform.Install {
	return platform.Install{
		Scenario: platform.ByCustomerID, Command: "curl -fsS https://platform.example.com/install | LIVEMEND_CUSTOMER=C-4QX9 LIVEMEND_TOKEN=lmt1-7q4m2k9x-0h5j8n2p6r3t9v1x4z7b-aa31 LIVEMEND_TRUST=" + sampleSHA + " sh",
		TokenID: "T-7Q4M", Token: "lmt1-7q4m2k9x-0h5j8n2p6r3t9v1x4z7b-aa31", CustomerID: "C-4QX9", TrustDigest: sampleSHA,
		ScriptURL: "https://platform.example.com/install", ScriptSHA256: sampleSHA, ExpiresAt: sampleNow.Add(24 * time.Hour),
		Packages: []platform.Artifact{{Name: "livemend-agent_0.1.0_amd64.deb", Arch: "amd64", Length: 912_344, SHA256: sampleSHA}},
	}
}

type sample struct {
	name, title, section string
	body                 templ.Component
}

func samples() []sample {
	now := sampleNow
	list := listing{path: "/servers", values: url.Values{}}
	more := pager{list: list, shown: 4, total: 20_417, next: "abc", one: "server", many: "servers"}
	full := platform.Overview{Servers: 20_417, Online: 20_398, Silent: 19, Pending: 1, States: sampleStates(),
		Severities: map[string]int64{"critical": 12, "high": 417, "medium": 90, "low": 20, "": 6}, RunningJobs: 1, RecentJobs: sampleJobs(), Events: sampleEvents(),
		Catalogue: platform.CatalogueState{RefreshedAt: before(10 * time.Minute), Version: 14, Patches: 231}}
	request := fleet.EnrolmentRequest{ID: "E-1", Facts: fleet.Facts{Hostname: "unknown-box", MachineID: "0011223344556677", OS: "debian", OSVersion: "12", Arch: "amd64"},
		Fingerprint: "9f86d081884c7d65", Address: "192.0.2.17", State: fleet.EnrolmentPending, CreatedAt: before(90 * time.Second)}
	plan := platform.Plan{Servers: 417, Tasks: 417, CVEs: []string{"LIVEMEND-2026-0001", "LIVEMEND-2026-0002"}, Patches: []fleet.Patch{samplePatch()}, Stages: []int{1, 416},
		Skipped: []platform.PlanSkip{{Server: "S-9", Hostname: "build-3", Reason: "silent for 2 days; it gets the patch with the next job after it is back"}},
		Text:    "Applies 1 live patch to 417 servers without a restart, the first server alone, then the others; it stops at the first failure. To undo it, revert the job."}
	detail := platform.ServerDetail{Server: sampleServers()[1].Server, Coverage: sampleCoverage(), Events: sampleEvents(),
		Libraries:   []fleet.Library{{BuildID: sampleBuildID, Path: "/usr/lib/x86_64-linux-gnu/libechobeat.so.1.0.3", Processes: 3}, {BuildID: sampleSHA[:40], Path: "/usr/lib/x86_64-linux-gnu/libcrypto.so.3", Processes: 117, Deleted: true}},
		Packages:    []fleet.Package{{Name: "libechobeat1", Version: "1.0-1", Source: "echobeat"}},
		Applied:     []fleet.Applied{{Path: samplePatch().Path, SHA256: sampleSHA, Level: 2, Processes: 3, CVEs: []string{"LIVEMEND-2026-0001", "LIVEMEND-2026-0002"}, At: before(time.Minute)}},
		Quarantined: []fleet.Quarantined{{Path: samplePatch().Path, SHA256: sampleSHA, Level: 1, Reason: "process 4711 died in the patch's code (SIGSEGV)", At: before(time.Hour)}},
		Findings: []fleet.Finding{{Scanner: "openscap", Definition: "oval:1", CVE: "LIVEMEND-2026-0001", Component: "libechobeat1", Installed: "1.0-1", Severity: "high", Title: "Out-of-bounds read in libechobeat", Open: true, Job: 17},
			{Scanner: "openscap", Definition: "oval:2", CVE: "LIVEMEND-2026-0002", Component: "libechobeat1", Installed: "1.0-1", Severity: "medium", Title: "Another", Open: false}},
		Tasks: []fleet.Task{sampleTask("t1", "web-01", 0, rollout.Done).Task, sampleTask("t2", "web-01", 0, rollout.Failed).Task}}
	server := func(tab string) templ.Component {
		return serverPage(serverView{ServerDetail: detail, tab: tab, now: now, operate: true, admin: true})
	}
	created := platform.CreatedKey{Key: sampleKeys()[0], Text: "lmk1-2m9fq7xk4d-8h3j5k7m9p2r4t6v8x1z3b5d7f9h2k4m-77c1"}
	install := sampleInstall()
	catalogue := platform.Catalogue{CatalogueState: full.Catalogue, Items: []fleet.Patch{samplePatch(), withdrawn(samplePatch())},
		Contents: []fleet.Content{{Path: "content/echobeat-oval.xml", Scanner: "openscap", Format: "oval", Title: "Definitions of the sample library", Length: 8123, SHA256: sampleSHA, FirstSeen: before(time.Hour)}}}
	job := jobView{JobDetail: sampleJobDetail(), now: now, operate: true}
	small := job
	small.State, small.Gate, small.FinishedAt = rollout.JobDone, "", before(2*time.Minute)
	small.Stages = []rollout.Tally{{Done: 1}}
	small.Tasks = small.Tasks[:1]
	return []sample{
		{"overview", "Overview", "/", overviewPage(overviewView{Overview: full, now: now, operate: true, admin: true})},
		{"overview-empty", "Overview", "/", overviewPage(overviewView{now: now, operate: true, admin: true})},
		{"vulnerabilities", "Vulnerabilities", "/vulnerabilities", vulnerabilitiesPage(vulnerabilitiesView{list: listing{path: "/vulnerabilities"}, pager: pager{list: list, shown: 3, total: 3, one: "vulnerability", many: "vulnerabilities"}, items: sampleVulnerabilities(), states: sampleStates(), plan: &plan, servers: 417, now: now, operate: true})},
		{"vulnerabilities-empty", "Vulnerabilities", "/vulnerabilities", vulnerabilitiesPage(vulnerabilitiesView{list: listing{path: "/vulnerabilities"}, servers: 2, now: now, operate: true})},
		{"vulnerability", "LIVEMEND-2026-0001", "/vulnerabilities", vulnerabilityPage(vulnerabilityView{Vulnerability: sampleVulnerabilities()[0], rows: sampleCoverage(), pager: pager{shown: 4, total: 4, one: "place", many: "places"}, now: now, operate: true})},
		{"plan", "LivePatch found vulnerabilities", "/vulnerabilities", planPage(planView{Plan: plan, operate: true})},
		{"servers", "Servers", "/servers", serversPage(serversView{list: list, pager: more, items: sampleServers(), waiting: []fleet.EnrolmentRequest{request}, now: now, operate: true})},
		{"servers-empty", "Servers", "/servers", serversPage(serversView{list: list, now: now, operate: true})},
		{"server", longName, "/servers", server("")},
		{"server-applied", longName, "/servers", server("applied")},
		{"server-libraries", longName, "/servers", server("libraries")},
		{"server-findings", longName, "/servers", server("findings")},
		{"server-tasks", longName, "/servers", server("tasks")},
		{"add-server", "Add new server", "/servers", addServerPage(addView{keys: sampleKeys(), tokens: []fleet.Token{{ID: "T-7Q4M", Note: "the new build host", CreatedBy: "admin", CreatedAt: before(time.Hour), ExpiresAt: now.Add(time.Hour)}, {ID: "T-1A2B", CreatedBy: "admin", CreatedAt: before(time.Hour), ExpiresAt: now.Add(time.Hour), UsedBy: "S-7Q4M2K9X-0001"}}, now: now, admin: true})},
		{"install", "Add new server", "/servers", installPage(install, now)},
		{"patches", "Patches", "/patches", patchesPage(patchesView{Catalogue: catalogue, updates: fleet.Page[fleet.Update]{Items: sampleUpdates(), Total: 2}, now: now, operate: true})},
		{"patches-updates", "Patches", "/patches", patchesPage(patchesView{tab: "updates", Catalogue: catalogue, updates: fleet.Page[fleet.Update]{Items: sampleUpdates(), Total: 2}, now: now, operate: true})},
		{"patches-empty", "Patches", "/patches", patchesPage(patchesView{Catalogue: platform.Catalogue{CatalogueState: platform.CatalogueState{Error: "the portal did not answer within 30 s"}}, now: now, operate: true})},
		{"patch", "libechobeat", "/patches", patchPage(patchView{Patch: samplePatch(), operate: true, now: now})},
		{"jobs", "Jobs", "/jobs", jobsPage(jobsView{list: listing{path: "/jobs"}, pager: pager{shown: 4, total: 4, one: "job", many: "jobs"}, items: sampleJobs(), now: now, operate: true})},
		{"job", "Job 18", "/jobs", jobPage(job)},
		{"job-done", "Job 18", "/jobs", jobPage(small)},
		{"scans", "Scans", "/scans", scansPage(scansView{jobs: fleet.Page[fleet.Job]{Items: sampleJobs()[1:2], Total: 1}, pager: pager{shown: 1, total: 1, one: "scan", many: "scans"}, contents: catalogue.Contents, servers: sampleServers(), total: 4, now: now, operate: true})},
		{"keys", "Keys", "/keys", keysPage(keysView{keys: sampleKeys(), now: now, operate: true, admin: true})},
		{"keys-created", "Keys", "/keys", keysPage(keysView{keys: sampleKeys(), created: &created, now: now, operate: true, admin: true})},
		{"keys-empty", "Keys", "/keys", keysPage(keysView{now: now, operate: true, admin: true})},
		{"audit", "Audit", "/audit", auditPage(auditView{entries: []audit.Entry{{ID: 1, At: before(time.Minute), Actor: "admin", Action: "create.key", Object: "K-2M9FQ7XK4D", Detail: "Key for web farm, Frankfurt"}}, now: now, pager: pager{shown: 1, total: 1, one: "entry", many: "entries"}})},
		{"settings", "Settings", "/settings", settingsPage(settingsView{Settings: platform.Settings{Organisation: fleet.Organisation{Name: "Example Customer", CustomerID: "C-4QX9"}, PortalURL: "https://portal.example.com", PublicURL: "https://platform.example.com", TrustDigest: sampleSHA, Engine: "sqlite", Silence: 15 * time.Minute},
			users: []platform.User{{ID: "u1", Name: "admin", Role: "admin", SignedInAt: before(time.Hour)}, {ID: "u2", Name: "nadia", Role: "operator", MustChange: true}}, tokens: []platform.APIToken{{ID: "a1", Name: "ci", Role: "operator", CreatedBy: "admin", CreatedAt: before(time.Hour)}}, me: access.Subject{UserID: "u1"}, now: now, admin: true})},
		{"search", "Search", "/search", searchPage(searchView{query: "echobeat", servers: fleet.Page[platform.ServerSummary]{Items: sampleServers()[:2], Total: 417}, vulnerabilities: fleet.Page[platform.Vulnerability]{Items: sampleVulnerabilities()[:1], Total: 1}, patches: []fleet.Patch{samplePatch()}, patchCount: 1})},
		{"wrong", "Something went wrong here", "", wrongBody(wrong{Title: "Something went wrong here", Safe: "Servers and their live patches are not affected. Jobs go on by themselves.", Next: "Try again.", ID: "a1b2c3d4e5f6"})},
	}
}

func withdrawn(p fleet.Patch) fleet.Patch {
	p.Withdrawn, p.Level, p.Kind, p.Release = true, 1, "kernel", "6.1.0-47-cloud-amd64"
	p.Blocked = "waits for our own tests"
	return p
}
