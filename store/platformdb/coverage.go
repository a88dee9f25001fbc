package platformdb

import (
	"context"
	"slices"
	"time"

	"livemend.dev/livemend/coverage"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/store"
)

// severities sorts worst first; what is not rated comes after medium.
var severities = []string{"critical", "high", "medium", "", "low"}

func severityRank(s string) int {
	if i := slices.Index(severities, s); i >= 0 {
		return i
	}
	return len(severities)
}

const coverageColumns = `c.server_id, c.cve, c.component, c.scope, c.state, c.severity, c.title, c.reason, c.installed,
	c.patch_path, c.patch_id, c.patch_level, c.library, c.processes, c.patched, c.update_version, c.advisory, c.changed_at, s.hostname`

func scanCoverage(r store.Row) (c fleet.Coverage, err error) {
	var changed int64
	err = r.Scan(&c.Server, &c.CVE, &c.Component, &c.Scope, &c.State, &c.Severity, &c.Title, &c.Reason, &c.Installed,
		&c.PatchPath, &c.PatchID, &c.PatchLevel, &c.Library, &c.Processes, &c.Patched, &c.Update, &c.Advisory, &changed, &c.Hostname)
	c.ChangedAt = store.Time(changed)
	return c, err
}

// ReplaceCoverage stores what is true of a server at now. A row whose state did
// not change keeps its time.
func ReplaceCoverage(ctx context.Context, tx *store.Tx, org, server string, rows []coverage.Row, now time.Time) error {
	type key struct{ cve, component, scope string }
	type since struct {
		state coverage.State
		at    int64
	}
	old := map[key]since{}
	if _, err := store.All(ctx, tx, func(r store.Row) (struct{}, error) {
		var k key
		var s since
		err := r.Scan(&k.cve, &k.component, &k.scope, &s.state, &s.at)
		old[k] = s
		return struct{}{}, err
	}, `SELECT cve, component, scope, state, changed_at FROM platform_coverage WHERE server_id = $1`, server); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `DELETE FROM platform_coverage WHERE server_id = $1`, server); err != nil {
		return err
	}
	for _, r := range rows {
		changed := store.Micros(now)
		if before, ok := old[key{r.CVE, r.Component, r.Scope}]; ok && before.state == r.State {
			changed = before.at
		}
		if _, err := tx.Exec(ctx, `INSERT INTO platform_coverage (server_id, organisation_id, cve, component, scope, state, rank, severity, severity_rank, title, reason,
			installed, patch_path, patch_id, patch_level, library, processes, patched, update_version, advisory, changed_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)`,
			server, org, r.CVE, r.Component, r.Scope, string(r.State), slices.Index(coverage.States, r.State), r.Severity, severityRank(r.Severity), r.Title, r.Reason,
			r.Installed, r.PatchPath, r.PatchID, r.PatchLevel, r.Library, r.Processes, r.Patched, r.Update, r.Advisory, changed); err != nil {
			return err
		}
	}
	return nil
}

// CoverageFilter narrows coverage rows. Lists are worst first; Offset says where
// the page starts.
type CoverageFilter struct {
	State    coverage.State
	Server   string
	CVE      string
	Severity string
	Query    string
	Offset   int
	Limit    int
}

const coverageWhere = ` FROM platform_coverage c JOIN platform_server s ON s.id = c.server_id WHERE c.organisation_id = $1
	AND ($2 = '' OR c.state = $2) AND ($3 = '' OR c.server_id = $3) AND ($4 = '' OR c.cve = $4) AND ($5 = '' OR c.severity = $5)
	AND ($6 = '' OR lower(c.cve) LIKE $7 ESCAPE '!' OR lower(c.component) LIKE $7 ESCAPE '!' OR lower(c.title) LIKE $7 ESCAPE '!' OR lower(s.hostname) LIKE $7 ESCAPE '!')`

func (f CoverageFilter) args(org string) []any {
	return []any{org, string(f.State), f.Server, f.CVE, f.Severity, f.Query, contains(f.Query)}
}

// Coverage returns a page of rows, worst first, and how many there are in all.
func Coverage(ctx context.Context, q store.Querier, org string, f CoverageFilter) ([]fleet.Coverage, int64, error) {
	total, err := store.One(ctx, q, store.Scalar[int64], `SELECT count(*)`+coverageWhere, f.args(org)...)
	if err != nil {
		return nil, 0, err
	}
	rows, err := store.All(ctx, q, scanCoverage, `SELECT `+coverageColumns+coverageWhere+
		` ORDER BY c.rank, c.severity_rank, c.cve, s.hostname, c.server_id, c.component, c.scope LIMIT $8 OFFSET $9`, append(f.args(org), f.Limit, f.Offset)...)
	return rows, total, err
}

// AvailableRows returns every row of the organisation for which a live patch is
// available, or whose memory is older than its disk and a live patch is.
func AvailableRows(ctx context.Context, q store.Querier, org string) ([]fleet.Coverage, error) {
	return store.All(ctx, q, scanCoverage, `SELECT `+coverageColumns+` FROM platform_coverage c JOIN platform_server s ON s.id = c.server_id
		WHERE c.organisation_id = $1 AND c.patch_path <> '' AND (c.state = $2 OR c.state = $3)
		ORDER BY s.hostname, c.server_id, c.patch_path, c.cve LIMIT $4`, org, string(coverage.Available), string(coverage.FixedOnDisk), maxList*10)
}

// StateCounts counts the organisation's rows by state.
func StateCounts(ctx context.Context, q store.Querier, org string) (map[coverage.State]int64, error) {
	return countStates(ctx, q, `SELECT state, count(*) FROM platform_coverage WHERE organisation_id = $1 GROUP BY state`, org)
}

// ServerStateCounts counts one server's rows by state.
func ServerStateCounts(ctx context.Context, q store.Querier, server string) (map[coverage.State]int64, error) {
	return countStates(ctx, q, `SELECT state, count(*) FROM platform_coverage WHERE server_id = $1 GROUP BY state`, server)
}

// VulnerabilityStateCounts counts the organisation's rows of one vulnerability by state.
func VulnerabilityStateCounts(ctx context.Context, q store.Querier, org, cve string) (map[coverage.State]int64, error) {
	return countStates(ctx, q, `SELECT state, count(*) FROM platform_coverage WHERE organisation_id = $1 AND cve = $2 GROUP BY state`, org, cve)
}

func countStates(ctx context.Context, q store.Querier, text string, args ...any) (map[coverage.State]int64, error) {
	out := map[coverage.State]int64{}
	_, err := store.All(ctx, q, func(r store.Row) (struct{}, error) {
		var state coverage.State
		var n int64
		err := r.Scan(&state, &n)
		out[state] = n
		return struct{}{}, err
	}, text, args...)
	return out, err
}

// OpenSeverities counts rows that are vulnerable or have a live patch available,
// by severity.
func OpenSeverities(ctx context.Context, q store.Querier, org string) (map[string]int64, error) {
	out := map[string]int64{}
	_, err := store.All(ctx, q, func(r store.Row) (struct{}, error) {
		var severity string
		var n int64
		err := r.Scan(&severity, &n)
		out[severity] = n
		return struct{}{}, err
	}, `SELECT severity, count(*) FROM platform_coverage WHERE organisation_id = $1 AND (state = $2 OR state = $3) GROUP BY severity`,
		org, string(coverage.Vulnerable), string(coverage.Available))
	return out, err
}

// Vulnerability is one vulnerability across an organisation's servers.
type Vulnerability struct {
	CVE      string
	Title    string
	Severity string
	Servers  int64
}

// Vulnerabilities returns a page of vulnerabilities, worst first, and how many
// there are in all.
func Vulnerabilities(ctx context.Context, q store.Querier, org string, f CoverageFilter) ([]Vulnerability, int64, error) {
	total, err := store.One(ctx, q, store.Scalar[int64], `SELECT count(DISTINCT c.cve)`+coverageWhere, f.args(org)...)
	if err != nil {
		return nil, 0, err
	}
	out, err := store.All(ctx, q, func(r store.Row) (v Vulnerability, err error) {
		var severity int
		err = r.Scan(&v.CVE, &v.Title, &severity, &v.Servers)
		if severity < len(severities) {
			v.Severity = severities[severity]
		}
		return v, err
	}, `SELECT c.cve, max(c.title), min(c.severity_rank), count(DISTINCT c.server_id)`+coverageWhere+
		` GROUP BY c.cve ORDER BY min(c.rank), min(c.severity_rank), c.cve LIMIT $8 OFFSET $9`, append(f.args(org), f.Limit, f.Offset)...)
	return out, total, err
}
