package platform

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/coverage"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/store"
	"livemend.dev/livemend/store/platformdb"
	"livemend.dev/livemend/wire"
)

// knowledge keeps the parsed catalogue, which changes rarely and is needed for
// every server.
type knowledge struct {
	mu      sync.Mutex
	version int64
	at      time.Time
	patches []coverage.Patch // Refused says withdrawn only
}

// cataloguePatches returns the live patches of the catalogue as q sees it. The
// caller must not change them.
func (s *Service) cataloguePatches(ctx context.Context, q store.Querier) ([]coverage.Patch, error) {
	state, err := platformdb.Catalogue(ctx, q)
	if err != nil {
		return nil, err
	}
	s.known.mu.Lock()
	defer s.known.mu.Unlock()
	if s.known.patches != nil && s.known.version == state.Version && s.known.at.Equal(state.RefreshedAt) {
		return s.known.patches, nil
	}
	targets, err := platformdb.Targets(ctx, q)
	if err != nil {
		return nil, err
	}
	patches := []coverage.Patch{}
	for _, t := range targets {
		custom, err := cjson.Parse([]byte(t.Custom))
		if err != nil {
			return nil, fmt.Errorf("reading the stored target %s: %w", t.Path, err)
		}
		m, err := patch.ParseCustom(custom)
		if err != nil {
			continue // no live patch, or one from a newer author tool: not offered
		}
		p := coverage.Patch{Path: t.Path, Metadata: m}
		if !t.WithdrawnAt.IsZero() {
			p.Refused = "withdrawn by the portal"
		}
		patches = append(patches, p)
	}
	s.known.version, s.known.at, s.known.patches = state.Version, state.RefreshedAt, patches
	return patches, nil
}

// organisationPatches is cataloguePatches with the organisation's blocks.
func (s *Service) organisationPatches(ctx context.Context, q store.Querier, org string) ([]coverage.Patch, error) {
	all, err := s.cataloguePatches(ctx, q)
	if err != nil {
		return nil, err
	}
	blocks, err := platformdb.Blocks(ctx, q, org)
	if err != nil || len(blocks) == 0 {
		return all, err
	}
	out := append([]coverage.Patch(nil), all...)
	for i := range out {
		if reason := blocks[out[i].Path]; reason != "" && out[i].Refused == "" {
			out[i].Refused = "blocked here: " + reason
		}
	}
	return out, nil
}

// recompute stores anew what is true of one server.
func (s *Service) recompute(ctx context.Context, tx *store.Tx, server fleet.Server) error {
	in := coverage.Input{Facts: server.Facts()}
	var barred []wire.Quarantined
	snapshot, err := platformdb.Inventory(ctx, tx, server.ID)
	switch {
	case err == nil:
		inventory, err := wire.DecodeSnapshot(snapshot)
		if err != nil {
			return fmt.Errorf("reading the stored inventory of %s: %w", server.ID, err)
		}
		in.Known, in.Libraries, in.Packages = true, inventory.Libraries, inventory.Packages
		barred = inventory.Quarantined
	case !errors.Is(err, store.ErrNotFound):
		return err
	}
	applied, err := platformdb.Applied(ctx, tx, server.ID)
	if err != nil {
		return err
	}
	for _, a := range applied {
		if slices.ContainsFunc(barred, func(q wire.Quarantined) bool { return q.SHA256 == a.SHA256 }) {
			continue // it is on its way off
		}
		in.Applied = append(in.Applied, wire.Applied{Path: a.Path, SHA256: a.SHA256, Level: a.Level, Processes: a.Processes, CVEs: a.CVEs})
	}
	findings, err := platformdb.Findings(ctx, tx, server.ID)
	if err != nil {
		return err
	}
	named := map[string]bool{}
	for _, f := range findings {
		in.Findings = append(in.Findings, coverage.Finding{CVE: f.CVE, Component: f.Component, Installed: f.Installed, Fixed: f.Fixed,
			Severity: f.Severity, Title: f.Title, Scanner: f.Scanner, Open: f.Open})
		named[f.CVE] = true
	}
	for _, a := range in.Applied {
		for _, cve := range a.CVEs {
			named[cve] = true
		}
	}
	if in.Patches, err = s.organisationPatches(ctx, tx, server.Organisation); err != nil {
		return err
	}
	in.Patches = withoutBarred(in.Patches, barred)
	for cve := range named {
		updates, err := platformdb.UpdatesFor(ctx, tx, server.Organisation, cve)
		if err != nil {
			return err
		}
		for _, u := range updates {
			in.Updates = append(in.Updates, coverage.Update{CVE: u.CVE, Component: u.Component, Distribution: u.Distribution, FixedVersion: u.FixedVersion, Advisory: u.Advisory})
		}
	}
	return platformdb.ReplaceCoverage(ctx, tx, server.Organisation, server.ID, coverage.Compute(in), s.now())
}

// withoutBarred marks as not offered what is in quarantine on one server.
func withoutBarred(patches []coverage.Patch, barred []wire.Quarantined) []coverage.Patch {
	if len(barred) == 0 {
		return patches
	}
	out := append([]coverage.Patch(nil), patches...)
	for i := range out {
		for _, q := range barred {
			if q.Path == out[i].Path && out[i].Refused == "" {
				out[i].Refused = "in quarantine on this server: " + q.Reason
			}
		}
	}
	return out
}

// catchUp computes all coverage anew when some of it may be older than what it
// is computed from: something changed, or a computation did not end. After a
// start nobody knows, so it counts as behind.
func (s *Service) catchUp(ctx context.Context) {
	if !s.behind.Swap(false) {
		return
	}
	orgs, err := platformdb.Organisations(ctx, s.db)
	if err != nil {
		s.fellBehind(ctx, "reading the organisations", err)
		return
	}
	for _, org := range orgs {
		s.recomputeOrganisation(ctx, org.ID)
	}
}

// fellBehind notes that some coverage could not be computed; the next refresh
// of the catalogue tries again.
func (s *Service) fellBehind(ctx context.Context, what string, err error) {
	s.behind.Store(true)
	if ctx.Err() == nil {
		s.log.ErrorContext(ctx, what+" to compute coverage; trying again with the next refresh", "error", err)
	}
}

// recomputeOrganisation computes what is true of every server anew, each in a
// transaction of its own: a long one would keep the agents waiting. One that
// cannot be computed does not hold up the others.
func (s *Service) recomputeOrganisation(ctx context.Context, org string) {
	ids, err := platformdb.ServerIDs(ctx, s.db, org)
	if err != nil {
		s.fellBehind(ctx, "reading the servers of "+org, err)
		return
	}
	for _, id := range ids {
		err := s.db.InTx(ctx, func(tx *store.Tx) error {
			server, err := platformdb.Server(ctx, tx, org, id)
			if errors.Is(err, store.ErrNotFound) {
				return nil // removed meanwhile
			}
			if err != nil {
				return err
			}
			return s.recompute(ctx, tx, server)
		})
		if err != nil {
			s.fellBehind(ctx, "reading server "+id, err)
		}
		if ctx.Err() != nil {
			return
		}
	}
	s.hub.publish(org)
}

func (f CoverageFilter) row(offset int64) platformdb.CoverageFilter {
	return platformdb.CoverageFilter{State: f.State, Server: f.Server, CVE: f.CVE, Severity: f.Severity, Query: f.Query, Offset: int(offset), Limit: pageLimit(f.Limit)}
}

// Coverage lists what is true of each vulnerability on each server, worst first.
func (s *Service) Coverage(ctx context.Context, who access.Subject, f CoverageFilter) (fleet.Page[fleet.Coverage], error) {
	var page fleet.Page[fleet.Coverage]
	if err := who.Require(access.Viewer); err != nil {
		return page, err
	}
	offset, err := numberAfter(f.After, 0)
	if err != nil {
		return page, err
	}
	page.Items, page.Total, err = platformdb.Coverage(ctx, s.db, who.Organisation, f.row(offset))
	page.Next = nextOffset(offset, len(page.Items), page.Total)
	return page, err
}

// Vulnerabilities lists vulnerabilities across the organisation, worst first.
func (s *Service) Vulnerabilities(ctx context.Context, who access.Subject, f CoverageFilter) (fleet.Page[Vulnerability], error) {
	var page fleet.Page[Vulnerability]
	if err := who.Require(access.Viewer); err != nil {
		return page, err
	}
	offset, err := numberAfter(f.After, 0)
	if err != nil {
		return page, err
	}
	rows, total, err := platformdb.Vulnerabilities(ctx, s.db, who.Organisation, f.row(offset))
	if err != nil {
		return page, err
	}
	catalogue, err := s.Catalogue(ctx, who)
	if err != nil {
		return page, err
	}
	fixes := map[string][]fleet.Patch{}
	for _, p := range catalogue.Items {
		for _, f := range p.Fixes {
			if !p.Withdrawn && p.Blocked == "" {
				fixes[f.CVE] = append(fixes[f.CVE], p)
			}
		}
	}
	for _, r := range rows {
		v := Vulnerability{CVE: r.CVE, Title: r.Title, Severity: r.Severity, Servers: r.Servers, Patches: listed(fixes[r.CVE])}
		if v.States, err = platformdb.VulnerabilityStateCounts(ctx, s.db, who.Organisation, r.CVE); err != nil {
			return page, err
		}
		if v.Updates, err = platformdb.UpdatesFor(ctx, s.db, who.Organisation, r.CVE); err != nil {
			return page, err
		}
		v.Updates = listed(v.Updates)
		page.Items = append(page.Items, v)
	}
	page.Total, page.Next = total, nextOffset(offset, len(page.Items), total)
	return page, nil
}

// listed makes an empty list of no list, for those who read JSON.
func listed[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// Overview returns the numbers of the first page.
func (s *Service) Overview(ctx context.Context, who access.Subject) (Overview, error) {
	if err := who.Require(access.Viewer); err != nil {
		return Overview{}, err
	}
	var out Overview
	ids, err := platformdb.ServerIDs(ctx, s.db, who.Organisation)
	if err != nil {
		return out, err
	}
	out.Servers = int64(len(ids))
	for _, id := range ids {
		if s.hub.online(id) {
			out.Online++
		}
	}
	out.Silent = out.Servers - out.Online
	if out.Pending, err = platformdb.CountEnrolments(ctx, s.db, who.Organisation, fleet.EnrolmentPending); err != nil {
		return out, err
	}
	if out.States, err = platformdb.StateCounts(ctx, s.db, who.Organisation); err != nil {
		return out, err
	}
	if out.Severities, err = platformdb.OpenSeverities(ctx, s.db, who.Organisation); err != nil {
		return out, err
	}
	if out.RecentJobs, _, err = platformdb.Jobs(ctx, s.db, who.Organisation, "", "", lastJob, recentJobs); err != nil {
		return out, err
	}
	if _, out.RunningJobs, err = platformdb.Jobs(ctx, s.db, who.Organisation, "", "running", lastJob, 1); err != nil {
		return out, err
	}
	if out.Events, err = platformdb.LastEvents(ctx, s.db, who.Organisation, 0, "", recentEvents); err != nil {
		return out, err
	}
	out.RecentJobs, out.Events = listed(out.RecentJobs), listed(out.Events)
	catalogue, err := s.Catalogue(ctx, who)
	out.Catalogue = catalogue.CatalogueState
	return out, err
}
