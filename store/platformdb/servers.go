package platformdb

import (
	"context"
	"time"

	"livemend.dev/livemend/coverage"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/store"
)

const serverColumns = `s.id, s.organisation_id, s.hostname, s.machine_id, s.os, s.os_version, s.kernel, s.kernel_id, s.arch, s.agent, s.boot_id,
	s.identity_key, s.channel_key, s.via, s.flags, s.enrolled_at, s.seen_at, s.inventory_at`

func scanServer(r store.Row) (s fleet.Server, err error) {
	var flags string
	var enrolled, seen, inventory int64
	if err = r.Scan(&s.ID, &s.Organisation, &s.Hostname, &s.MachineID, &s.OS, &s.OSVersion, &s.Kernel, &s.KernelID, &s.Arch, &s.Agent, &s.BootID,
		&s.IdentityKey, &s.ChannelKey, &s.Via, &flags, &enrolled, &seen, &inventory); err != nil {
		return s, err
	}
	times{{&enrolled, &s.EnrolledAt}, {&seen, &s.SeenAt}, {&inventory, &s.InventoryAt}}.set()
	return s, decode("flags", flags, &s.Flags)
}

// PutServer stores an enrolled server. One that is there already keeps its
// organisation, identity key, way of enrolment and counter.
func PutServer(ctx context.Context, tx *store.Tx, s fleet.Server) error {
	flags, err := encode(s.Flags)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO platform_server (id, organisation_id, hostname, machine_id, os, os_version, kernel, kernel_id, arch, agent, boot_id,
		identity_key, channel_key, via, flags, enrolled_at, seen_at, inventory_at, counter)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, 0)
		ON CONFLICT (id) DO UPDATE SET hostname = excluded.hostname, machine_id = excluded.machine_id, os = excluded.os, os_version = excluded.os_version,
		kernel = excluded.kernel, kernel_id = excluded.kernel_id, arch = excluded.arch, channel_key = excluded.channel_key, flags = excluded.flags, seen_at = excluded.seen_at`,
		s.ID, s.Organisation, s.Hostname, s.MachineID, s.OS, s.OSVersion, s.Kernel, s.KernelID, s.Arch, s.Agent, s.BootID,
		s.IdentityKey, s.ChannelKey, s.Via, flags, store.Micros(s.EnrolledAt), store.Micros(s.SeenAt), store.Micros(s.InventoryAt))
	return err
}

// Server returns one server, or store.ErrNotFound.
func Server(ctx context.Context, q store.Querier, org, id string) (fleet.Server, error) {
	return store.One(ctx, q, scanServer, `SELECT `+serverColumns+` FROM platform_server s WHERE s.organisation_id = $1 AND s.id = $2`, org, id)
}

// ServerByChannelKey returns the server whose agent holds a channel key, or
// store.ErrNotFound.
func ServerByChannelKey(ctx context.Context, q store.Querier, key []byte) (fleet.Server, error) {
	return store.One(ctx, q, scanServer, `SELECT `+serverColumns+` FROM platform_server s WHERE s.channel_key = $1`, key)
}

// ServerFilter narrows a list of servers. Lists are in order of hostname and id;
// AfterHost and AfterID say where the page before ended.
type ServerFilter struct {
	Query     string
	State     coverage.State
	AfterHost string
	AfterID   string
	Limit     int
}

const serverWhere = ` FROM platform_server s WHERE s.organisation_id = $1
	AND ($2 = '' OR lower(s.hostname) LIKE $3 ESCAPE '!' OR lower(s.id) LIKE $3 ESCAPE '!' OR lower(s.kernel) LIKE $3 ESCAPE '!')
	AND ($4 = '' OR EXISTS (SELECT 1 FROM platform_coverage c WHERE c.server_id = s.id AND c.state = $4))`

// Servers returns a page of servers and how many the filter leaves in all.
func Servers(ctx context.Context, q store.Querier, org string, f ServerFilter) ([]fleet.Server, int64, error) {
	total, err := store.One(ctx, q, store.Scalar[int64], `SELECT count(*)`+serverWhere, org, f.Query, contains(f.Query), string(f.State))
	if err != nil {
		return nil, 0, err
	}
	servers, err := store.All(ctx, q, scanServer, `SELECT `+serverColumns+serverWhere+
		` AND (s.hostname > $5 OR s.hostname = $5 AND s.id > $6) ORDER BY s.hostname, s.id LIMIT $7`,
		org, f.Query, contains(f.Query), string(f.State), f.AfterHost, f.AfterID, f.Limit)
	return servers, total, err
}

// ServerIDs returns the ids of all the organisation's servers by hostname.
func ServerIDs(ctx context.Context, q store.Querier, org string) ([]string, error) {
	return store.All(ctx, q, store.Scalar[string], `SELECT id FROM platform_server WHERE organisation_id = $1 ORDER BY hostname, id LIMIT $2`, org, maxList)
}

// Greeted notes what an agent said of itself when it connected.
func Greeted(ctx context.Context, tx *store.Tx, id, agent, bootID string, at time.Time) error {
	_, err := tx.Exec(ctx, `UPDATE platform_server SET agent = $2, boot_id = $3, seen_at = $4 WHERE id = $1`, id, agent, bootID, store.Micros(at))
	return err
}

// Seen notes that an agent was there.
func Seen(ctx context.Context, tx *store.Tx, id string, at time.Time) error {
	_, err := tx.Exec(ctx, `UPDATE platform_server SET seen_at = $2 WHERE id = $1`, id, store.Micros(at))
	return err
}

// NextCounter raises a server's manifest counter and returns it.
func NextCounter(ctx context.Context, tx *store.Tx, id string) (int64, error) {
	return store.One(ctx, tx, store.Scalar[int64], `UPDATE platform_server SET counter = counter + 1 WHERE id = $1 RETURNING counter`, id)
}

// DeleteServer removes a server and what is known of it, except the record of
// its tasks, and reports whether it was there. The approval of its enrolment
// goes with it: the machine has to be approved anew.
func DeleteServer(ctx context.Context, tx *store.Tx, org, id string) (bool, error) {
	if _, err := tx.Exec(ctx, `DELETE FROM platform_enrolment WHERE organisation_id = $1 AND system_id = $2`, org, id); err != nil {
		return false, err
	}
	n, err := tx.Exec(ctx, `DELETE FROM platform_server WHERE organisation_id = $1 AND id = $2`, org, id)
	return n == 1, err
}

// PutInventory stores a snapshot as it came and the facts it holds.
func PutInventory(ctx context.Context, tx *store.Tx, s fleet.Server, snapshot []byte) error {
	if _, err := tx.Exec(ctx, `UPDATE platform_server SET hostname = $2, machine_id = $3, os = $4, os_version = $5, kernel = $6, kernel_id = $7, arch = $8,
		boot_id = $9, inventory_at = $10, seen_at = $10 WHERE id = $1`, s.ID, s.Hostname, s.MachineID, s.OS, s.OSVersion, s.Kernel, s.KernelID, s.Arch,
		s.BootID, store.Micros(s.InventoryAt)); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `INSERT INTO platform_inventory (server_id, snapshot) VALUES ($1, $2) ON CONFLICT (server_id) DO UPDATE SET snapshot = excluded.snapshot`, s.ID, snapshot)
	return err
}

// Inventory returns the last snapshot as it came, or store.ErrNotFound.
func Inventory(ctx context.Context, q store.Querier, server string) ([]byte, error) {
	return store.One(ctx, q, store.Scalar[[]byte], `SELECT snapshot FROM platform_inventory WHERE server_id = $1`, server)
}

// ReplaceApplied stores which live patches are in force on a server. What was
// known before keeps its time.
func ReplaceApplied(ctx context.Context, tx *store.Tx, server string, applied []fleet.Applied) error {
	old, err := Applied(ctx, tx, server)
	if err != nil {
		return err
	}
	since := map[string]time.Time{}
	for _, a := range old {
		since[a.Path+" "+a.SHA256] = a.At
	}
	if _, err := tx.Exec(ctx, `DELETE FROM platform_applied WHERE server_id = $1`, server); err != nil {
		return err
	}
	for _, a := range applied {
		if at, ok := since[a.Path+" "+a.SHA256]; ok {
			a.At = at
		}
		cves, err := encode(a.CVEs)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO platform_applied (server_id, path, sha256, level, processes, cves, at) VALUES ($1, $2, $3, $4, $5, $6, $7)
			ON CONFLICT (server_id, path) DO NOTHING`, server, a.Path, a.SHA256, a.Level, a.Processes, cves, store.Micros(a.At)); err != nil {
			return err
		}
	}
	return nil
}

const appliedColumns = `path, sha256, level, processes, cves, at`

func scanApplied(r store.Row) (a fleet.Applied, err error) {
	var cves string
	var at int64
	if err = r.Scan(&a.Path, &a.SHA256, &a.Level, &a.Processes, &cves, &at); err != nil {
		return a, err
	}
	a.At = store.Time(at)
	return a, decode("cves", cves, &a.CVEs)
}

// Applied returns which live patches are in force on a server.
func Applied(ctx context.Context, q store.Querier, server string) ([]fleet.Applied, error) {
	return store.All(ctx, q, scanApplied, `SELECT `+appliedColumns+` FROM platform_applied WHERE server_id = $1 ORDER BY path LIMIT $2`, server, maxList)
}

// ServersWithApplied returns the organisation's servers on which a patch is in
// force, by hostname.
func ServersWithApplied(ctx context.Context, q store.Querier, org, path string) ([]string, error) {
	return store.All(ctx, q, store.Scalar[string], `SELECT s.id FROM platform_applied a JOIN platform_server s ON s.id = a.server_id
		WHERE s.organisation_id = $1 AND a.path = $2 ORDER BY s.hostname, s.id LIMIT $3`, org, path, maxList)
}

const findingColumns = `scanner, definition, cve, component, installed, fixed, severity, title, open, job_id, seen_at`

func scanFinding(r store.Row) (f fleet.Finding, err error) {
	var seen int64
	err = r.Scan(&f.Scanner, &f.Definition, &f.CVE, &f.Component, &f.Installed, &f.Fixed, &f.Severity, &f.Title, &f.Open, &f.Job, &seen)
	f.SeenAt = store.Time(seen)
	return f, err
}

// PutFindings stores what one scan said. An older finding of the same scanner
// that this scan is silent about is closed: the scanner does not report it any
// more.
func PutFindings(ctx context.Context, tx *store.Tx, server, scanner string, findings []fleet.Finding) error {
	if _, err := tx.Exec(ctx, `UPDATE platform_finding SET open = FALSE WHERE server_id = $1 AND scanner = $2`, server, scanner); err != nil {
		return err
	}
	for _, f := range findings {
		if _, err := tx.Exec(ctx, `INSERT INTO platform_finding (server_id, `+findingColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
			ON CONFLICT (server_id, scanner, definition, cve, component) DO UPDATE SET installed = excluded.installed, fixed = excluded.fixed,
			severity = excluded.severity, title = excluded.title, open = excluded.open, job_id = excluded.job_id, seen_at = excluded.seen_at`,
			server, scanner, f.Definition, f.CVE, f.Component, f.Installed, f.Fixed, f.Severity, f.Title, f.Open, f.Job, store.Micros(f.SeenAt)); err != nil {
			return err
		}
	}
	return nil
}

// Findings returns what scanners said of a server, open ones first.
func Findings(ctx context.Context, q store.Querier, server string) ([]fleet.Finding, error) {
	return store.All(ctx, q, scanFinding, `SELECT `+findingColumns+` FROM platform_finding WHERE server_id = $1 ORDER BY open DESC, cve, component, definition, scanner LIMIT $2`, server, maxList)
}

// CountVia counts the organisation's servers by how they enrolled.
func CountVia(ctx context.Context, q store.Querier, org string) (map[string]int64, error) {
	out := map[string]int64{}
	_, err := store.All(ctx, q, func(r store.Row) (struct{}, error) {
		var via string
		var n int64
		err := r.Scan(&via, &n)
		out[via] = n
		return struct{}{}, err
	}, `SELECT via, count(*) FROM platform_server WHERE organisation_id = $1 GROUP BY via`, org)
	return out, err
}
