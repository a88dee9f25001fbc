package platform

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/rollout"
	"livemend.dev/livemend/store"
	"livemend.dev/livemend/store/platformdb"
	"livemend.dev/livemend/trust"
)

// reachableFor is how long after its last word a server that is not connected
// still counts as there: agents come back by themselves after a restart.
const reachableFor = 2 * time.Minute

// work is what a job would do on one server, before it is one.
type work struct {
	server fleet.Server
	tasks  []fleet.Task
}

// intent is a job that nobody has said yes to.
type intent struct {
	kind     fleet.JobKind
	title    string
	work     []work
	skipped  []PlanSkip
	first    int  // servers of the first stage; 0 = one
	together bool // all servers in one stage, and failures stop nothing
}

// stages cuts the servers into stages, those that are connected first.
func (s *Service) stages(in *intent) [][]work {
	slices.SortStableFunc(in.work, func(a, b work) int {
		rank := func(w work) int {
			if s.hub.online(w.server.ID) {
				return 0
			}
			return 1
		}
		return cmp.Compare(rank(a), rank(b))
	})
	sizes := rollout.Stages(len(in.work), in.first)
	if in.together {
		sizes = []int{len(in.work)}
	}
	var out [][]work
	rest := in.work
	for _, n := range sizes {
		out = append(out, rest[:n])
		rest = rest[n:]
	}
	return out
}

// chosen returns the organisation's servers that are named (all when none is)
// and can be reached, and why others are left out.
func (s *Service) chosen(ctx context.Context, q store.Querier, org string, named []string) ([]fleet.Server, []PlanSkip, error) {
	if len(named) > MaxSelected {
		return nil, nil, problem(ErrInput, "One job is for at most %d servers. Nothing was changed; make several.", MaxSelected)
	}
	ids := slices.Compact(slices.Sorted(slices.Values(named)))
	if len(ids) == 0 {
		var err error
		if ids, err = platformdb.ServerIDs(ctx, q, org); err != nil {
			return nil, nil, err
		}
	}
	var servers []fleet.Server
	skipped := []PlanSkip{}
	for _, id := range ids {
		server, err := platformdb.Server(ctx, q, org, id)
		if err != nil {
			return nil, nil, missing(err, "server")
		}
		if !s.hub.online(id) && s.now().Sub(server.SeenAt) > reachableFor {
			skipped = append(skipped, PlanSkip{Server: id, Hostname: server.Hostname, Reason: "not connected since " + server.SeenAt.Format(time.RFC3339)})
			continue
		}
		servers = append(servers, server)
	}
	slices.SortStableFunc(servers, func(a, b fleet.Server) int { return strings.Compare(a.Hostname, b.Hostname) })
	return servers, skipped, nil
}

// intendPatches finds the newest live patch for every place where coverage says
// that one is available.
func (s *Service) intendPatches(ctx context.Context, q store.Querier, org string, in PatchRequest) (*intent, []string, error) {
	if len(in.CVEs) > MaxSelected || in.FirstStage < 0 {
		return nil, nil, problem(ErrInput, "One job is for at most %d vulnerabilities, and its first stage has at least one server. Nothing was changed.", MaxSelected)
	}
	servers, skipped, err := s.chosen(ctx, q, org, in.Servers)
	if err != nil {
		return nil, nil, err
	}
	rows, err := platformdb.AvailableRows(ctx, q, org)
	if err != nil {
		return nil, nil, err
	}
	wanted := map[string]bool{}
	for _, cve := range in.CVEs {
		wanted[cve] = true
	}
	cves := map[string]bool{}
	paths := map[string][]string{} // by server
	for _, r := range rows {
		if len(wanted) > 0 && !wanted[r.CVE] {
			continue
		}
		if !slices.Contains(paths[r.Server], r.PatchPath) {
			paths[r.Server] = append(paths[r.Server], r.PatchPath)
		}
		cves[r.CVE] = true
	}
	out := &intent{kind: fleet.LivePatchJob, skipped: slices.DeleteFunc(skipped, func(p PlanSkip) bool { return len(paths[p.Server]) == 0 }), first: in.FirstStage}
	for _, server := range servers {
		w := work{server: server}
		for _, path := range paths[server.ID] {
			task, err := s.patchTask(ctx, q, path, trust.Apply)
			if err != nil {
				return nil, nil, err
			}
			w.tasks = append(w.tasks, task)
		}
		if len(w.tasks) > 0 {
			out.work = append(out.work, w)
		}
	}
	out.title = "LivePatch found vulnerabilities"
	return out, slices.Sorted(maps.Keys(cves)), nil
}

// patchTask makes the task of a live patch of the catalogue.
func (s *Service) patchTask(ctx context.Context, q store.Querier, path string, action trust.Action) (fleet.Task, error) {
	target, err := platformdb.TargetByPath(ctx, q, path)
	if err != nil {
		return fleet.Task{}, missing(err, "live patch")
	}
	all, err := s.cataloguePatches(ctx, q)
	if err != nil {
		return fleet.Task{}, err
	}
	for _, p := range all {
		if p.Path == path {
			return fleet.Task{Action: string(action), Path: path, SHA256: target.SHA256, Length: target.Length,
				Level: p.Metadata.Level, BuildID: string(p.Metadata.Target.BuildID)}, nil
		}
	}
	return fleet.Task{}, missing(store.ErrNotFound, "live patch")
}

// PlanLivePatches says what LivePatchFound would do.
func (s *Service) PlanLivePatches(ctx context.Context, who access.Subject, in PatchRequest) (Plan, error) {
	if err := who.Require(access.Viewer); err != nil {
		return Plan{}, err
	}
	intent, cves, err := s.intendPatches(ctx, s.db, who.Organisation, in)
	if err != nil {
		return Plan{}, err
	}
	plan := Plan{Servers: int64(len(intent.work)), CVEs: listed(cves), Patches: []fleet.Patch{}, Stages: []int{}, Skipped: intent.skipped}
	catalogue, err := s.Catalogue(ctx, who)
	if err != nil {
		return Plan{}, err
	}
	used := map[string]bool{}
	for _, w := range intent.work {
		plan.Tasks += int64(len(w.tasks))
		for _, t := range w.tasks {
			used[t.Path] = true
		}
	}
	for _, p := range catalogue.Items {
		if used[p.Path] {
			plan.Patches = append(plan.Patches, p)
		}
	}
	for _, stage := range s.stages(intent) {
		plan.Stages = append(plan.Stages, len(stage))
	}
	plan.Text = planText(plan)
	return plan, nil
}

func planText(p Plan) string {
	if p.Servers == 0 {
		return "There is nothing to do: no server that can be reached has a vulnerability with a live patch available."
	}
	text := fmt.Sprintf("Applies %s to %s", plural(len(p.Patches), "live patch", "live patches"), plural(int(p.Servers), "server", "servers"))
	if len(p.Stages) > 1 {
		text += fmt.Sprintf(": first to %d, then to the other %d when that went well", p.Stages[0], p.Stages[1])
	}
	return text + ". Nothing is restarted. To undo it, make a revert job: it takes the live patch off again, also without a restart."
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
