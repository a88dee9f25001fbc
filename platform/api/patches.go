package api

import (
	"context"
	"net/http"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/coverage"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/platform"
)

type coverageFilter struct {
	Piece
	State    string `query:"state" maxLength:"100"`
	Server   string `query:"server" maxLength:"200" doc:"System ID"`
	CVE      string `query:"cve" maxLength:"200"`
	Severity string `query:"severity" maxLength:"20"`
	Query    string `query:"query" maxLength:"200" doc:"part of vulnerability, component, title or hostname"`
}

func (f *coverageFilter) filter() platform.CoverageFilter {
	return platform.CoverageFilter{List: f.piece(), State: coverage.State(f.State), Server: f.Server, CVE: f.CVE, Severity: f.Severity, Query: f.Query}
}

type byPath struct {
	Path string `query:"path" required:"true" maxLength:"500" doc:"target path"`
}

type block struct {
	Path   string `json:"path" maxLength:"500"`
	Reason string `json:"reason" maxLength:"500" doc:"empty: allow it again"`
}

type importUpdates struct {
	Updates []fleet.Update `json:"updates" maxItems:"50000"`
}

type imported struct {
	Total int64 `json:"total" doc:"package updates that are known now"`
}

func (s *server) registerPatches() {
	add(s, operation{method: http.MethodGet, path: "/coverage", id: "coverage", summary: "What is true of each vulnerability on each server, worst first"},
		func(ctx context.Context, who access.Subject, in *coverageFilter) (fleet.Page[fleet.Coverage], error) {
			page, err := s.service.Coverage(ctx, who, in.filter())
			page.Items, err = items(page.Items, err)
			return page, err
		})
	add(s, operation{method: http.MethodGet, path: "/vulnerabilities", id: "vulnerabilities", summary: "Vulnerabilities across all servers, worst first"},
		func(ctx context.Context, who access.Subject, in *coverageFilter) (fleet.Page[platform.Vulnerability], error) {
			page, err := s.service.Vulnerabilities(ctx, who, in.filter())
			page.Items, err = items(page.Items, err)
			return page, err
		})
	add(s, operation{method: http.MethodGet, path: "/catalogue", id: "catalogue", summary: "What the portal offers, as last verified"},
		func(ctx context.Context, who access.Subject, _ *nothing) (platform.Catalogue, error) {
			return s.service.Catalogue(ctx, who)
		})
	add(s, operation{method: http.MethodPost, path: "/catalogue/refresh", id: "refresh-catalogue", summary: "Check for available Live Patches"},
		func(ctx context.Context, who access.Subject, _ *nothing) (platform.CatalogueChange, error) {
			return s.service.RefreshCatalogue(ctx, who)
		})
	add(s, operation{method: http.MethodGet, path: "/patch", id: "patch", summary: "One live patch"},
		func(ctx context.Context, who access.Subject, in *byPath) (fleet.Patch, error) {
			return s.service.Patch(ctx, who, in.Path)
		})
	act(s, operation{method: http.MethodPut, path: "/patch/block", id: "block-patch", summary: "Refuse a live patch for this organisation, or allow it again"},
		func(ctx context.Context, who access.Subject, in *body[block]) error {
			return s.service.BlockPatch(ctx, who, in.Body.Path, in.Body.Reason)
		})
	add(s, operation{method: http.MethodGet, path: "/updates", id: "updates", summary: "Package updates of the partner's own metadata"},
		func(ctx context.Context, who access.Subject, in *Piece) (fleet.Page[fleet.Update], error) {
			page, err := s.service.Updates(ctx, who, in.piece())
			page.Items, err = items(page.Items, err)
			return page, err
		})
	add(s, operation{method: http.MethodPost, path: "/updates", id: "import-updates", summary: "Add or replace package updates", max: maxUpdates},
		func(ctx context.Context, who access.Subject, in *body[importUpdates]) (imported, error) {
			total, err := s.service.ImportUpdates(ctx, who, in.Body.Updates)
			return imported{total}, err
		})
}
