package platformdb_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/audit"
	"livemend.dev/livemend/coverage"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/store"
	"livemend.dev/livemend/store/platformdb"
	"livemend.dev/livemend/store/storetest"
)

var now = time.Date(2026, 11, 23, 10, 0, 0, 123_000, time.UTC) // databases keep microseconds

// each runs a test on both engines, with two organisations.
func each(t *testing.T, f func(t *testing.T, db *store.DB)) {
	t.Helper()
	storetest.Each(t, platformdb.Migrations(), func(t *testing.T, db *store.DB) {
		do(t, db, func(ctx context.Context, tx *store.Tx) error {
			for _, id := range []string{"one", "two"} {
				if err := platformdb.InsertOrganisation(ctx, tx, fleet.Organisation{ID: id, Name: "Org " + id, CustomerID: "C-" + id, CreatedAt: now}); err != nil {
					return err
				}
			}
			return nil
		})
		f(t, db)
	})
}

func do(t *testing.T, db *store.DB, f func(ctx context.Context, tx *store.Tx) error) {
	t.Helper()
	if err := db.InTx(t.Context(), func(tx *store.Tx) error { return f(t.Context(), tx) }); err != nil {
		t.Fatal(err)
	}
}

func got[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func same(t *testing.T, what string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func server(id, org, hostname string) fleet.Server {
	return fleet.Server{ID: id, Organisation: org, Hostname: hostname, MachineID: "m", OS: "debian", OSVersion: "12", Kernel: "6.1", KernelID: "cc", Arch: "amd64",
		IdentityKey: []byte("identity " + id), ChannelKey: []byte("channel " + id), Via: "key K", Flags: []string{"clone"}, EnrolledAt: now, SeenAt: now}
}

func TestOrganisations(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		all := got[[]fleet.Organisation](t)(platformdb.Organisations(t.Context(), db))
		if len(all) != 2 || !all[0].CreatedAt.Equal(now) {
			t.Errorf("organisations %+v", all)
		}
		same(t, "by customer", "two", got[fleet.Organisation](t)(platformdb.OrganisationByCustomer(t.Context(), db, "C-two")).ID)
		if _, err := platformdb.Organisation(t.Context(), db, "three"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("an unknown organisation: %v", err)
		}
	})
}

// TestNumbers shows that numbers have no gaps and no doubles, also when many
// ask at a time.
func TestNumbers(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		const writers, times = 4, 5
		var wait sync.WaitGroup
		for range writers {
			wait.Go(func() {
				for range times {
					err := db.InTx(t.Context(), func(tx *store.Tx) error {
						return platformdb.AddEvent(t.Context(), tx, "one", fleet.Event{Kind: "job", Job: 3, Server: "S", Text: "x", At: now})
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wait.Wait()
		do(t, db, func(ctx context.Context, tx *store.Tx) error {
			return platformdb.AddEvent(ctx, tx, "two", fleet.Event{Kind: "job", Text: "y", At: now})
		})
		events := got[[]fleet.Event](t)(platformdb.EventsAfter(t.Context(), db, "one", 0, 0, "", 100))
		if len(events) != writers*times {
			t.Fatalf("%d events", len(events))
		}
		for i, e := range events {
			if e.ID != int64(i+1) {
				t.Fatalf("event %d has number %d", i, e.ID)
			}
		}
		same(t, "after", 3, len(got[[]fleet.Event](t)(platformdb.EventsAfter(t.Context(), db, "one", writers*times-3, 3, "S", 100))))
		last := got[[]fleet.Event](t)(platformdb.LastEvents(t.Context(), db, "one", 0, "", 2))
		if len(last) != 2 || last[0].ID != writers*times || last[1].ID != writers*times-1 {
			t.Errorf("last events %+v", last)
		}
		same(t, "of another job", 0, len(got[[]fleet.Event](t)(platformdb.LastEvents(t.Context(), db, "one", 4, "", 2))))
		same(t, "other organisation", int64(1), got[[]fleet.Event](t)(platformdb.LastEvents(t.Context(), db, "two", 0, "", 9))[0].ID)
	})
}

func TestAudit(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		for i := range 3 {
			do(t, db, func(ctx context.Context, tx *store.Tx) error {
				return platformdb.AddAudit(ctx, tx, "one", audit.Entry{At: now, Actor: "a", Action: "b", Object: "c", Detail: fmt.Sprint(i)})
			})
		}
		entries, total, err := platformdb.Audit(t.Context(), db, "one", 3, 1)
		if err != nil || total != 3 {
			t.Fatalf("%d, %v", total, err)
		}
		same(t, "page", []audit.Entry{{ID: 2, At: now, Actor: "a", Action: "b", Object: "c", Detail: "1"}}, entries)
	})
}

func TestPeople(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		user := platformdb.User{ID: "U1", Organisation: "one", Name: "olga", Role: access.Operator, PasswordHash: "h", MustChange: true, CreatedAt: now}
		do(t, db, func(ctx context.Context, tx *store.Tx) error {
			if ok, err := platformdb.InsertUser(ctx, tx, user); !ok || err != nil {
				return fmt.Errorf("a free name: %v, %w", ok, err)
			}
			twin := user
			twin.ID, twin.Organisation = "U2", "two"
			if ok, err := platformdb.InsertUser(ctx, tx, twin); ok || err != nil {
				return fmt.Errorf("a taken name: %v, %w", ok, err)
			}
			return platformdb.InsertSession(ctx, tx, "hash", "U1", now, now.Add(time.Hour))
		})
		same(t, "user", user, got[platformdb.User](t)(platformdb.UserByName(ctx, db, "olga")))
		same(t, "session", user, got[platformdb.User](t)(platformdb.SessionUser(ctx, db, "hash", now)))
		if _, err := platformdb.SessionUser(ctx, db, "hash", now.Add(time.Hour)); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a session that ended: %v", err)
		}
		do(t, db, func(ctx context.Context, tx *store.Tx) error {
			if found, err := platformdb.SetUserDisabled(ctx, tx, "two", "U1", true); found || err != nil {
				return fmt.Errorf("another organisation's user: %v, %w", found, err)
			}
			_, err := platformdb.SetUserDisabled(ctx, tx, "one", "U1", true)
			return err
		})
		if _, err := platformdb.SessionUser(ctx, db, "hash", now); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a closed account's session: %v", err)
		}
		bucket := access.Bucket{Level: 3, Updated: now}
		do(t, db, func(ctx context.Context, tx *store.Tx) error {
			return platformdb.SetLockout(ctx, tx, "name olga", bucket, now.Add(-time.Hour))
		})
		same(t, "bucket", bucket, got[access.Bucket](t)(platformdb.Lockout(ctx, db, "name olga")))
		same(t, "no bucket", access.Bucket{}, got[access.Bucket](t)(platformdb.Lockout(ctx, db, "name eve")))
		token := platformdb.APIToken{ID: "A1", Organisation: "one", Name: "ci", Role: access.Viewer, Hash: "th", CreatedBy: "olga", CreatedAt: now, ExpiresAt: now.Add(time.Hour)}
		do(t, db, func(ctx context.Context, tx *store.Tx) error { return platformdb.InsertAPIToken(ctx, tx, token) })
		same(t, "token", token, got[platformdb.APIToken](t)(platformdb.APITokenByHash(ctx, db, "th", now)))
		if _, err := platformdb.APITokenByHash(ctx, db, "th", now.Add(time.Hour)); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a token that ended: %v", err)
		}
		do(t, db, func(ctx context.Context, tx *store.Tx) error {
			if found, err := platformdb.DeleteAPIToken(ctx, tx, "two", "A1"); found || err != nil {
				return fmt.Errorf("another organisation's token: %v, %w", found, err)
			}
			return nil
		})
	})
}

func TestTokensAreForOneMachine(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		token := platformdb.Token{Organisation: "one", Public: []byte("public"), Token: fleet.Token{ID: "T1", CreatedBy: "a", CreatedAt: now, ExpiresAt: now}}
		do(t, db, func(ctx context.Context, tx *store.Tx) error { return platformdb.InsertToken(ctx, tx, token) })
		same(t, "token", token, got[platformdb.Token](t)(platformdb.TokenByID(t.Context(), db, "T1")))
		claim := func(machine string, want bool) {
			t.Helper()
			do(t, db, func(ctx context.Context, tx *store.Tx) error {
				ok, err := platformdb.ClaimToken(ctx, tx, "T1", []byte(machine))
				if ok != want {
					t.Errorf("%s gets the token: %v", machine, ok)
				}
				return err
			})
		}
		claim("a", true)
		claim("a", true)
		claim("b", false)
		do(t, db, func(ctx context.Context, tx *store.Tx) error { return platformdb.FreeToken(ctx, tx, "T1") })
		claim("b", true)
		do(t, db, func(ctx context.Context, tx *store.Tx) error { return platformdb.UseToken(ctx, tx, "T1", "S-1") })
		do(t, db, func(ctx context.Context, tx *store.Tx) error { return platformdb.FreeToken(ctx, tx, "T1") })
		claim("a", false)
	})
}

func TestEnrolments(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		request := fleet.EnrolmentRequest{ID: "E1", Facts: fleet.Facts{Hostname: "web"}, Address: "::1", State: fleet.EnrolmentPending,
			CreatedAt: now, SeenAt: now, IdentityKey: []byte("i"), ChannelKey: []byte("c")}
		put := func(r fleet.EnrolmentRequest) (out fleet.EnrolmentRequest) {
			t.Helper()
			do(t, db, func(ctx context.Context, tx *store.Tx) (err error) {
				out, err = platformdb.PutEnrolment(ctx, tx, "one", r)
				return err
			})
			return out
		}
		same(t, "first", request, put(request))
		again := request
		again.ID, again.Facts.Hostname, again.SeenAt, again.CreatedAt = "E2", "web2", now.Add(time.Hour), now.Add(time.Hour)
		want := request
		want.Facts.Hostname, want.SeenAt = "web2", now.Add(time.Hour)
		same(t, "the same machine again", want, put(again))
		do(t, db, func(ctx context.Context, tx *store.Tx) error {
			for _, try := range []struct {
				org  string
				want bool
			}{{"two", false}, {"one", true}, {"one", false}} {
				ok, err := platformdb.DecideEnrolment(ctx, tx, try.org, "E1", fleet.EnrolmentApproved, "olga", now)
				if err != nil || ok != try.want {
					return fmt.Errorf("deciding for %s: %v, %w", try.org, ok, err)
				}
			}
			return platformdb.SetEnrolled(ctx, tx, "one", "E1", "S-1")
		})
		list := got[[]fleet.EnrolmentRequest](t)(platformdb.Enrolments(ctx, db, "one", fleet.EnrolmentApproved))
		if len(list) != 1 || list[0].DecidedBy != "olga" || list[0].SystemID != "S-1" {
			t.Errorf("approved: %+v", list)
		}
		same(t, "pending", int64(0), got[int64](t)(platformdb.CountEnrolments(ctx, db, "one", fleet.EnrolmentPending)))
	})
}

func TestServers(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		do(t, db, func(ctx context.Context, tx *store.Tx) error {
			for _, s := range []fleet.Server{server("S3", "one", "c_1"), server("S1", "one", "a"), server("S2", "one", "a"), server("S9", "two", "a")} {
				if err := platformdb.PutServer(ctx, tx, s); err != nil {
					return err
				}
			}
			return nil
		})
		same(t, "server", server("S1", "one", "a"), got[fleet.Server](t)(platformdb.ServerByChannelKey(ctx, db, []byte("channel S1"))))
		if _, err := platformdb.Server(ctx, db, "two", "S1"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("another organisation's server: %v", err)
		}
		page := func(f platformdb.ServerFilter) (ids []string, total int64) {
			t.Helper()
			servers, total, err := platformdb.Servers(ctx, db, "one", f)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range servers {
				ids = append(ids, s.ID)
			}
			return ids, total
		}
		ids, total := page(platformdb.ServerFilter{Limit: 2})
		same(t, "first page", []string{"S1", "S2"}, ids)
		same(t, "total", int64(3), total)
		ids, _ = page(platformdb.ServerFilter{Limit: 2, AfterHost: "a", AfterID: "S2"})
		same(t, "second page", []string{"S3"}, ids)
		ids, _ = page(platformdb.ServerFilter{Limit: 9, Query: "C_1"})
		same(t, "query", []string{"S3"}, ids)
		ids, _ = page(platformdb.ServerFilter{Limit: 9, Query: "%"})
		same(t, "a query is no pattern", []string(nil), ids)
		for want := range int64(3) {
			do(t, db, func(ctx context.Context, tx *store.Tx) error {
				n, err := platformdb.NextCounter(ctx, tx, "S1")
				same(t, "counter", want+1, n)
				return err
			})
		}
		do(t, db, func(ctx context.Context, tx *store.Tx) error {
			return platformdb.PutServer(ctx, tx, server("S1", "one", "new name"))
		})
		do(t, db, func(ctx context.Context, tx *store.Tx) error {
			n, err := platformdb.NextCounter(ctx, tx, "S1")
			same(t, "counter after enrolling again", int64(4), n)
			return err
		})
		same(t, "via", map[string]int64{"key K": 3}, got[map[string]int64](t)(platformdb.CountVia(ctx, db, "one")))
	})
}

func TestWhatIsOnAServer(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		s := server("S1", "one", "a")
		s.InventoryAt, s.Kernel = now, "6.2"
		later := now.Add(time.Hour)
		do(t, db, func(ctx context.Context, tx *store.Tx) error {
			return errors.Join(platformdb.PutServer(ctx, tx, s), platformdb.PutInventory(ctx, tx, s, []byte("snapshot")),
				platformdb.ReplaceApplied(ctx, tx, "S1", []fleet.Applied{{Path: "p", SHA256: "s", Level: 1, Processes: 2, CVEs: []string{"CVE-1"}, At: now}}),
				platformdb.PutFindings(ctx, tx, "S1", "openscap", []fleet.Finding{{Scanner: "openscap", Definition: "d", CVE: "CVE-1", Component: "c", Open: true, SeenAt: now},
					{Scanner: "openscap", Definition: "d", CVE: "CVE-2", Component: "c", Open: true, SeenAt: now}}))
		})
		same(t, "inventory", []byte("snapshot"), got[[]byte](t)(platformdb.Inventory(ctx, db, "S1")))
		do(t, db, func(ctx context.Context, tx *store.Tx) error {
			return errors.Join(platformdb.ReplaceApplied(ctx, tx, "S1", []fleet.Applied{{Path: "p", SHA256: "s", Level: 1, Processes: 3, CVEs: []string{}, At: later}, {Path: "q", CVEs: []string{}, At: later}}),
				platformdb.PutFindings(ctx, tx, "S1", "openscap", []fleet.Finding{{Scanner: "openscap", Definition: "d", CVE: "CVE-2", Component: "c", Open: true, SeenAt: later}}))
		})
		applied := got[[]fleet.Applied](t)(platformdb.Applied(ctx, db, "S1"))
		same(t, "applied", []fleet.Applied{{Path: "p", SHA256: "s", Level: 1, Processes: 3, CVEs: []string{}, At: now}, {Path: "q", CVEs: []string{}, At: later}}, applied)
		same(t, "servers with it", []string{"S1"}, got[[]string](t)(platformdb.ServersWithApplied(ctx, db, "one", "q")))
		same(t, "of another organisation", []string(nil), got[[]string](t)(platformdb.ServersWithApplied(ctx, db, "two", "q")))
		findings := got[[]fleet.Finding](t)(platformdb.Findings(ctx, db, "S1"))
		if len(findings) != 2 || findings[0].CVE != "CVE-2" || !findings[0].Open || findings[1].Open {
			t.Errorf("findings %+v", findings)
		}

		row := coverage.Row{CVE: "CVE-2", Component: "c", Scope: "package on disk", State: coverage.Available, Severity: "high", Title: "T", PatchPath: "p", Processes: 3}
		worse := coverage.Row{CVE: "CVE-1", Component: "c", Scope: "package on disk", State: coverage.Vulnerable}
		do(t, db, func(ctx context.Context, tx *store.Tx) error {
			return platformdb.ReplaceCoverage(ctx, tx, "one", "S1", []coverage.Row{row, worse}, now)
		})
		row.Patched = 1
		worse.State = coverage.NotAffected
		do(t, db, func(ctx context.Context, tx *store.Tx) error {
			return platformdb.ReplaceCoverage(ctx, tx, "one", "S1", []coverage.Row{row, worse}, later)
		})
		rows, total, err := platformdb.Coverage(ctx, db, "one", platformdb.CoverageFilter{Limit: 9})
		if err != nil || total != 2 {
			t.Fatalf("%d rows, %v", total, err)
		}
		same(t, "coverage", []fleet.Coverage{{Server: "S1", Hostname: "a", Row: row, ChangedAt: now}, {Server: "S1", Hostname: "a", Row: worse, ChangedAt: later}}, rows)
		for _, f := range []platformdb.CoverageFilter{{State: coverage.Available}, {CVE: "CVE-2"}, {Severity: "high"}, {Query: "cve-2"}, {Server: "S1", Query: "t"}} {
			f.Limit = 9
			if rows, _, err := platformdb.Coverage(ctx, db, "one", f); err != nil || len(rows) != 1 || rows[0].CVE != "CVE-2" {
				t.Errorf("%+v: %+v, %v", f, rows, err)
			}
		}
		same(t, "available", 1, len(got[[]fleet.Coverage](t)(platformdb.AvailableRows(ctx, db, "one"))))
		same(t, "states", map[coverage.State]int64{coverage.Available: 1, coverage.NotAffected: 1}, got[map[coverage.State]int64](t)(platformdb.StateCounts(ctx, db, "one")))
		same(t, "severities", map[string]int64{"high": 1}, got[map[string]int64](t)(platformdb.OpenSeverities(ctx, db, "one")))
		vulnerabilities, total, err := platformdb.Vulnerabilities(ctx, db, "one", platformdb.CoverageFilter{Limit: 1})
		if err != nil || total != 2 {
			t.Fatalf("%d vulnerabilities, %v", total, err)
		}
		same(t, "vulnerabilities", []platformdb.Vulnerability{{CVE: "CVE-2", Title: "T", Severity: "high", Servers: 1}}, vulnerabilities)

		do(t, db, func(ctx context.Context, tx *store.Tx) error {
			if found, err := platformdb.DeleteServer(ctx, tx, "two", "S1"); found || err != nil {
				return fmt.Errorf("removing another organisation's server: %v, %w", found, err)
			}
			_, err := platformdb.DeleteServer(ctx, tx, "one", "S1")
			return err
		})
		same(t, "coverage of a removed server", map[coverage.State]int64{}, got[map[coverage.State]int64](t)(platformdb.StateCounts(ctx, db, "one")))
	})
}

func TestCatalogue(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		same(t, "before", platformdb.CatalogueState{}, got[platformdb.CatalogueState](t)(platformdb.Catalogue(ctx, db)))
		target := platformdb.Target{Path: "user/x", SHA256: "a", Length: 3, Custom: "{}", FirstSeen: now}
		later := now.Add(time.Hour)
		do(t, db, func(ctx context.Context, tx *store.Tx) error {
			again := target
			again.FirstSeen = later
			return errors.Join(platformdb.PutTarget(ctx, tx, target), platformdb.PutTarget(ctx, tx, again),
				platformdb.SetCatalogue(ctx, tx, platformdb.CatalogueState{RefreshedAt: now, Version: 3}),
				platformdb.SetCatalogue(ctx, tx, platformdb.CatalogueState{RefreshedAt: later, Version: 4, Error: "e"}))
		})
		same(t, "target", target, got[platformdb.Target](t)(platformdb.TargetByPath(ctx, db, "user/x")))
		same(t, "state", platformdb.CatalogueState{RefreshedAt: later, Version: 4, Error: "e"}, got[platformdb.CatalogueState](t)(platformdb.Catalogue(ctx, db)))
		do(t, db, func(ctx context.Context, tx *store.Tx) error {
			return platformdb.WithdrawTarget(ctx, tx, "user/x", later)
		})
		same(t, "withdrawn", later, got[[]platformdb.Target](t)(platformdb.Targets(ctx, db))[0].WithdrawnAt)
		do(t, db, func(ctx context.Context, tx *store.Tx) error {
			other := target
			other.SHA256, other.FirstSeen = "b", later
			return platformdb.PutTarget(ctx, tx, other)
		})
		same(t, "another file of that name is new", later, got[platformdb.Target](t)(platformdb.TargetByPath(ctx, db, "user/x")).FirstSeen)
		for _, want := range []time.Time{{}, now} {
			do(t, db, func(ctx context.Context, tx *store.Tx) error {
				before, err := platformdb.Looked(ctx, tx, "one", now)
				same(t, "looked", want, before)
				return err
			})
		}
		do(t, db, func(ctx context.Context, tx *store.Tx) error {
			return errors.Join(platformdb.SetBlock(ctx, tx, "one", "user/x", "why"), platformdb.SetBlock(ctx, tx, "one", "user/y", "why"), platformdb.SetBlock(ctx, tx, "one", "user/y", ""),
				platformdb.PutUpdate(ctx, tx, "one", fleet.Update{CVE: "CVE-1", Component: "c", Distribution: "d", FixedVersion: "1"}),
				platformdb.PutUpdate(ctx, tx, "one", fleet.Update{CVE: "CVE-1", Component: "c", Distribution: "d", FixedVersion: "2", Advisory: "a"}))
		})
		same(t, "blocks", map[string]string{"user/x": "why"}, got[map[string]string](t)(platformdb.Blocks(ctx, db, "one")))
		same(t, "blocks of the other", map[string]string{}, got[map[string]string](t)(platformdb.Blocks(ctx, db, "two")))
		updates, total, err := platformdb.Updates(ctx, db, "one", 0, 10)
		if err != nil || total != 1 || updates[0].FixedVersion != "2" {
			t.Errorf("updates %+v, %v", updates, err)
		}
		same(t, "updates for", 1, len(got[[]fleet.Update](t)(platformdb.UpdatesFor(ctx, db, "one", "CVE-1"))))
	})
}
