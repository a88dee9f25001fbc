package web

import (
	"errors"
	"strings"
	"time"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/coverage"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/platform"
)

// vulnerabilitiesView is the list of vulnerabilities across the organisation.
type vulnerabilitiesView struct {
	list    listing
	pager   pager
	items   []platform.Vulnerability
	states  map[coverage.State]int64
	plan    *platform.Plan // nil = no live patch would be applied now
	servers int64
	now     time.Time
	operate bool
}

func (s *site) vulnerabilities(v *visit) error {
	list := listed(v, "q", "state", "severity")
	found, err := s.svc.Vulnerabilities(v.context(), v.who, platform.CoverageFilter{
		List: piece(v), State: coverage.State(list.get("state")), Severity: list.get("severity"), Query: list.get("q"),
	})
	if err != nil {
		return err
	}
	numbers, err := s.svc.Overview(v.context(), v.who)
	if err != nil {
		return err
	}
	view := vulnerabilitiesView{
		list: list, items: found.Items, states: numbers.States, servers: numbers.Servers,
		now: s.now(), operate: v.can(access.Operator),
		pager: pager{list: list, shown: len(found.Items), total: found.Total, next: found.Next,
			further: v.r.FormValue("after") != "", one: "vulnerability", many: "vulnerabilities"},
	}
	if view.operate && numbers.States[coverage.Available] > 0 {
		if view.plan, err = s.planned(v, platform.PatchRequest{}); err != nil {
			return err
		}
	}
	return s.show(v, "Vulnerabilities", "/vulnerabilities", vulnerabilitiesPage(view))
}

// planned is what live-patching would do now, or nil when it would do nothing.
func (s *site) planned(v *visit, in platform.PatchRequest) (*platform.Plan, error) {
	plan, err := s.svc.PlanLivePatches(v.context(), v.who, in)
	if errors.Is(err, platform.ErrConflict) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if plan.Tasks == 0 {
		return nil, nil
	}
	return &plan, nil
}

// vulnerabilityView is one vulnerability and where it is.
type vulnerabilityView struct {
	platform.Vulnerability
	rows    []fleet.Coverage
	pager   pager
	now     time.Time
	operate bool
}

func (s *site) vulnerability(v *visit) error {
	id := v.r.PathValue("cve")
	list := listing{path: cveAddress(id)}
	rows, err := s.svc.Coverage(v.context(), v.who, platform.CoverageFilter{List: piece(v), CVE: id})
	if err != nil {
		return err
	}
	about, err := s.svc.Vulnerabilities(v.context(), v.who, platform.CoverageFilter{CVE: id})
	if err != nil {
		return err
	}
	if len(about.Items) == 0 {
		return platform.ErrNotFound
	}
	return s.show(v, id, "/vulnerabilities", vulnerabilityPage(vulnerabilityView{
		Vulnerability: about.Items[0], rows: rows.Items, now: s.now(), operate: v.can(access.Operator),
		pager: pager{list: list, shown: len(rows.Items), total: rows.Total, next: rows.Next,
			further: v.r.FormValue("after") != "", one: "place", many: "places"},
	}))
}

// planView is what a job of live patches would do.
type planView struct {
	platform.Plan
	request platform.PatchRequest
	operate bool
}

// patchRequest reads which vulnerabilities and servers were picked.
func patchRequest(v *visit) (platform.PatchRequest, error) {
	cves, err := picked(v, "pick")
	if err != nil {
		return platform.PatchRequest{}, err
	}
	servers, err := picked(v, "server")
	return platform.PatchRequest{CVEs: cves, Servers: servers}, err
}

func (s *site) plan(v *visit) error {
	request, err := patchRequest(v)
	if err != nil {
		return err
	}
	plan, err := s.svc.PlanLivePatches(v.context(), v.who, request)
	if err != nil && !errors.Is(err, platform.ErrConflict) {
		return err
	}
	return s.show(v, "LivePatch found vulnerabilities", "/vulnerabilities", planPage(planView{Plan: plan, request: request, operate: v.can(access.Operator)}))
}

func (s *site) livePatchFound(v *visit) error {
	request, err := patchRequest(v)
	if err != nil {
		return err
	}
	job, err := s.svc.LivePatchFound(v.context(), v.who, request)
	if err != nil {
		return err
	}
	s.sendTo(v, jobAddress(job.ID))
	return nil
}

// libraries are the names of what the live patches of a vulnerability are for.
func libraries(patches []fleet.Patch) string {
	var names []string
	for _, p := range patches {
		name := base(p.Library)
		if p.Kind == "kernel" {
			name = "kernel " + p.Release
		}
		if !strings.Contains(strings.Join(names, "\n"), name) {
			names = append(names, name)
		}
	}
	return list(names)
}

// place is where in a server a row of the coverage table is.
func place(c fleet.Coverage) string {
	if c.Library != "" {
		return base(c.Library)
	}
	return c.Scope
}
